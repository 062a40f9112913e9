"""Motifs that hold memory, rows or locks, so that the engine has to work without them."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder, strike
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.requests import sizes_of

from sr_fuzz.script import AbortAll, Action, Continue, ExhaustKv, ExhaustLockRefs, ExhaustRows, Pause, Release, Step


def _with_nothing_promised(builder: ScriptBuilder, hold: Action) -> None:
    """Hold memory while no chunk is in progress and no flush is queued. If the script took memory that admission has
    promised to a chunk, it would be missing later, and the script itself would have caused the crash."""
    if not builder.actions:
        builder.add(hold)
    elif builder.digits(2)[0]:
        builder.add(Pause("retract"), Step(2), hold, Continue())
    else:
        builder.add(Continue(), AbortAll(), Step(6), hold)
    builder.add(Step(1))


@motif("exhausters")
def hold_kv(builder: ScriptBuilder) -> None:
    """Requests arrive while free pages are held: the engine should wait, park or retract, not fail."""
    leave, count, steps, struck = builder.digits(8, 4, 8, 2)
    pages = max(1, sizes_of(builder.config).chunk // builder.config.page_size)
    _with_nothing_promised(builder, ExhaustKv((0, 1, 2, 4, pages - 1, pages, pages + 1, 3 * pages)[leave]))
    names = [builder.start() for _ in range(1 + count)]
    builder.add(Step(STEPS[steps]))
    if struck:
        strike(builder, names[0])
    builder.add(Release())
    builder.step()


@motif("exhausters")
def hold_rows(builder: ScriptBuilder) -> None:
    """Requests arrive while ballast holds the rows: a request waits forever, or takes a row twice."""
    leave, count, steps, struck = builder.digits(3, 3, 8, 2)
    builder.add(ExhaustRows(leave), Step(2))
    names = [builder.start() for _ in range(1 + count)]
    builder.add(Step(STEPS[steps]))
    if struck:
        strike(builder, names[-1])
    builder.add(Release())
    builder.step()


@motif("exhausters", "radix")
def hold_locks(builder: ScriptBuilder) -> None:
    """Cached prefixes that count as free are locked: admission relies on an eviction that cannot happen."""
    leave, count, steps = builder.digits(4, 3, 8)
    builder.start(max_new_tokens=2)
    builder.start(max_new_tokens=2)
    builder.add(Step(10))
    _with_nothing_promised(builder, ExhaustLockRefs((0, 0, 1, 2)[leave]))
    for _ in range(1 + count):
        builder.start()
    builder.add(Step(STEPS[steps]), Release())
    builder.step()
