"""Motifs about pauses: what arrives, ends or is aborted while the engine stands still."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, Draft, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import keep_busy, make_room

from sr_fuzz.script import Abort, Continue, EvictRadix, FlushCache, Pause, Step


@motif("pause")
def pause_window(draft: Draft) -> None:
    """Requests start, and others are aborted or flushed, while the engine stands still: admitted under pause, lost
    across it, or never woken up."""
    keep_busy(draft)
    mode, before, inside, after = draft.digits(4, 4, 4, 8)
    if before:
        draft.add(Step(before))
    draft.add(Pause(("retract", "in_place", "retract", "abort")[mode]))
    for _ in range(1 + inside):
        choice, steps = draft.digits(8, 3)
        if choice == 0 and draft.has("abort"):
            draft.add(Abort(draft.victim()))
        elif choice == 1 and draft.has("flush_cache"):
            draft.add(FlushCache())
        elif choice == 2 and draft.has("evict_radix"):
            draft.add(EvictRadix())
        elif choice == 3:
            draft.add(Pause("retract"))
        elif choice < 6:
            draft.start()
        if steps:
            draft.add(Step(steps))
    draft.add(Continue(), Step(STEPS[after]))


@motif("pause", "step_until", weight=3)
def long_pause(draft: Draft) -> None:
    """A pause in place of several steps over requests that decode, with a result in flight at its begin: delivered in
    the pause, lost, or delivered twice after it."""
    make_room(draft)
    count, stage, before, hold, inside, then = draft.digits(3, 3, 3, 6, 6, 8)
    names = [draft.start(max_new_tokens=12 + 4 * index) for index in range(1 + count)]
    until(draft, names[-1], ("first_decode", "first_decode", "first_chunk")[stage])
    if before:
        draft.add(Step(before))
    draft.add(Pause("in_place"), Step(2 + hold))
    if inside == 0:
        draft.start()
    elif inside == 1 and draft.has("abort"):
        draft.add(Abort(names[0]))
    elif inside == 2:
        draft.add(Pause("in_place"))
    elif inside == 3:
        draft.add(Pause("retract"))
    draft.add(Step(1 + hold), Continue(), Step(STEPS[then]))


@motif("pause", "abort")
def abort_under_pause(draft: Draft) -> None:
    """The victim is paused in the running batch or back in the queue when it is aborted, perhaps before the pause
    was even handled: never reported, or its memory held for good."""
    keep_busy(draft)
    mode, gap, late, hold = draft.digits(3, 3, 3, 4)
    victim = draft.victim()
    draft.add(Pause(("in_place", "retract", "in_place")[mode]))
    if gap:
        draft.add(Step(gap))
    draft.add(Abort(victim))
    if late == 2:
        draft.add(Pause("retract"))
    if hold:
        draft.add(Step(hold))
    draft.add(Continue())
    draft.step()


@motif("continue", weight=1)
def stray_continue(draft: Draft) -> None:
    """Continue without a pause, or twice: a state switched that was never left."""
    (times,) = draft.digits(2)
    draft.add(*[Continue()] * (1 + times), Step(1))
