"""Motifs about pauses: requests that arrive, end or are aborted while the engine is paused."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import keep_busy, make_room

from sr_fuzz.script import Abort, Continue, EvictRadix, FlushCache, Pause, Step


@motif("pause")
def pause_window(builder: ScriptBuilder) -> None:
    """Requests start, and others are aborted or the cache is flushed, while the engine is paused: requests are admitted
    under the pause, lost across it, or never resumed."""
    keep_busy(builder)
    mode, before, inside, after = builder.digits(4, 4, 4, 8)
    if before:
        builder.add(Step(before))
    builder.add(Pause(("retract", "in_place", "retract", "abort")[mode]))
    for _ in range(1 + inside):
        choice, steps = builder.digits(8, 3)
        if choice == 0 and builder.has("abort"):
            builder.add(Abort(builder.victim()))
        elif choice == 1 and builder.has("flush_cache"):
            builder.add(FlushCache())
        elif choice == 2 and builder.has("evict_radix"):
            builder.add(EvictRadix())
        elif choice == 3:
            builder.add(Pause("retract"))
        elif choice < 6:
            builder.start()
        if steps:
            builder.add(Step(steps))
    builder.add(Continue(), Step(STEPS[after]))


@motif("pause", "step_until", weight=3)
def long_pause(builder: ScriptBuilder) -> None:
    """A pause in place of several steps over decoding requests, with a result in flight at its start: the result is
    delivered during the pause, lost, or delivered twice after it."""
    make_room(builder)
    count, stage, before, hold, inside, then = builder.digits(3, 3, 3, 6, 6, 8)
    names = [builder.start(max_new_tokens=12 + 4 * index) for index in range(1 + count)]
    until(builder, names[-1], ("first_decode", "first_decode", "first_chunk")[stage])
    if before:
        builder.add(Step(before))
    builder.add(Pause("in_place"), Step(2 + hold))
    if inside == 0:
        builder.start()
    elif inside == 1 and builder.has("abort"):
        builder.add(Abort(names[0]))
    elif inside == 2:
        builder.add(Pause("in_place"))
    elif inside == 3:
        builder.add(Pause("retract"))
    builder.add(Step(1 + hold), Continue(), Step(STEPS[then]))


@motif("pause", "abort")
def abort_under_pause(builder: ScriptBuilder) -> None:
    """The victim is paused in the running batch or back in the queue when it is aborted, perhaps before the pause has
    even been handled: the abort is never reported, or the victim's memory is never freed."""
    keep_busy(builder)
    mode, gap, late, hold = builder.digits(3, 3, 3, 4)
    victim = builder.victim()
    builder.add(Pause(("in_place", "retract", "in_place")[mode]))
    if gap:
        builder.add(Step(gap))
    builder.add(Abort(victim))
    if late == 2:
        builder.add(Pause("retract"))
    if hold:
        builder.add(Step(hold))
    builder.add(Continue())
    builder.step()


@motif("continue", weight=1)
def stray_continue(builder: ScriptBuilder) -> None:
    """Continue without a pause, or twice: the engine leaves a state in which it is not."""
    (times,) = builder.digits(2)
    builder.add(*[Continue()] * (1 + times), Step(1))
