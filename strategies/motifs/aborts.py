"""Motifs about aborts: repeated aborts, early aborts, aborts of unknown requests, and aborts of all requests."""

from __future__ import annotations

from sr_fuzz.strategies.actions import ScriptBuilder
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import keep_busy

from sr_fuzz.script import Abort, AbortAll, Step


@motif("abort")
def abort_twice(builder: ScriptBuilder) -> None:
    """The second abort meets a request that is already marked as aborted or gone: double free, or two finishes."""
    keep_busy(builder)
    gap, victim = builder.digits(4)[0], builder.victim()
    builder.add(Abort(victim))
    if gap:
        builder.add(Step(gap))
    builder.add(Abort(victim), Step(1 + gap))


@motif("abort")
def abort_on_arrival(builder: ScriptBuilder) -> None:
    """The abort comes in the step of the start, before or after it, awaited or not: the abort is lost, or too late."""
    order, awaited, first = builder.digits(3, 2, 3)
    name = builder.next_name()
    if order == 1:
        builder.add(Abort(name, await_arrival=bool(awaited)))
    builder.start()
    if order == 2:
        builder.start()
    if order != 1:
        builder.add(Abort(name, await_arrival=bool(awaited)))
    builder.add(Step(1 + first))


@motif("abort")
def unknown_name(builder: ScriptBuilder) -> None:
    """Aborts of a request that does not exist yet, or no longer: state of another request is changed, or a later
    request of that name is aborted."""
    later, gone, steps = builder.digits(3, 2, 4)
    builder.add(Abort(f"r{len(builder.names) + later}"))
    if gone and builder.names:
        builder.add(Abort(builder.names[0], await_arrival=False))
    if steps:
        builder.add(Step(steps))
    builder.start()
    builder.step()


@motif("abort_all")
def abort_all_and_start(builder: ScriptBuilder) -> None:
    """All requests are aborted in the step in which new ones arrive, before or after them: the wrong ones survive."""
    keep_busy(builder)
    awaited, before, after = builder.digits(2, 2, 3)
    if before:
        builder.start()
    builder.add(AbortAll(await_arrival=bool(awaited)))
    for _ in range(after):
        builder.start()
    builder.step()
