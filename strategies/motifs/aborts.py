"""Motifs about aborts: twice, too early, of strangers, of everything."""

from __future__ import annotations

from sr_fuzz.strategies.actions import Draft
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import keep_busy

from sr_fuzz.script import Abort, AbortAll, Step


@motif("abort")
def abort_twice(draft: Draft) -> None:
    """The second abort meets a request that is already marked, or already gone: double free, two finishes."""
    keep_busy(draft)
    gap, victim = draft.digits(4)[0], draft.victim()
    draft.add(Abort(victim))
    if gap:
        draft.add(Step(gap))
    draft.add(Abort(victim), Step(1 + gap))


@motif("abort")
def abort_on_arrival(draft: Draft) -> None:
    """The abort comes in the step of the start, before or after it, awaited or not: an abort lost, or too late."""
    order, awaited, first = draft.digits(3, 2, 3)
    name = draft.next_name()
    if order == 1:
        draft.add(Abort(name, await_arrival=bool(awaited)))
    draft.start()
    if order == 2:
        draft.start()
    if order != 1:
        draft.add(Abort(name, await_arrival=bool(awaited)))
    draft.add(Step(1 + first))


@motif("abort")
def unknown_name(draft: Draft) -> None:
    """Aborts of a request that does not exist yet, or no longer: state of a stranger touched, or a newcomer of that
    name killed."""
    later, gone, steps = draft.digits(3, 2, 4)
    draft.add(Abort(f"r{len(draft.names) + later}"))
    if gone and draft.names:
        draft.add(Abort(draft.names[0], await_arrival=False))
    if steps:
        draft.add(Step(steps))
    draft.start()
    draft.step()


@motif("abort_all")
def abort_all_and_start(draft: Draft) -> None:
    """Everything is aborted in the step in which new requests arrive, before or after: the wrong ones survive."""
    keep_busy(draft)
    awaited, before, after = draft.digits(2, 2, 3)
    if before:
        draft.start()
    draft.add(AbortAll(await_arrival=bool(awaited)))
    for _ in range(after):
        draft.start()
    draft.step()
