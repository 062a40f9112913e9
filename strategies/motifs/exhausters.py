"""Motifs that hold memory, rows or locks, and see what the engine does without."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, Draft, strike
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.requests import sizes_of

from sr_fuzz.script import AbortAll, Action, Continue, ExhaustKv, ExhaustLockRefs, ExhaustRows, Pause, Release, Step


def _with_nothing_promised(draft: Draft, hold: Action) -> None:
    """Hold memory while no chunk is on its way and no flush is queued: what admission has promised to a chunk and
    the script takes away would be missed later, and that crash would be the script's own doing."""
    if not draft.actions:
        draft.add(hold)
    elif draft.digits(2)[0]:
        draft.add(Pause("retract"), Step(2), hold, Continue())
    else:
        draft.add(Continue(), AbortAll(), Step(6), hold)
    draft.add(Step(1))


@motif("exhausters")
def hold_kv(draft: Draft) -> None:
    """Requests arrive while free pages are held: the engine should wait, park or retract, not fail."""
    leave, count, steps, struck = draft.digits(8, 4, 8, 2)
    pages = max(1, sizes_of(draft.config).chunk // draft.config.page_size)
    _with_nothing_promised(draft, ExhaustKv((0, 1, 2, 4, pages - 1, pages, pages + 1, 3 * pages)[leave]))
    names = [draft.start() for _ in range(1 + count)]
    draft.add(Step(STEPS[steps]))
    if struck:
        strike(draft, names[0])
    draft.add(Release())
    draft.step()


@motif("exhausters")
def hold_rows(draft: Draft) -> None:
    """Requests arrive while ballast holds the rows: a request waits for ever, or takes a row twice."""
    leave, count, steps, struck = draft.digits(3, 3, 8, 2)
    draft.add(ExhaustRows(leave), Step(2))
    names = [draft.start() for _ in range(1 + count)]
    draft.add(Step(STEPS[steps]))
    if struck:
        strike(draft, names[-1])
    draft.add(Release())
    draft.step()


@motif("exhausters", "radix")
def hold_locks(draft: Draft) -> None:
    """Cached prefixes that count as free are locked: admission relies on an eviction that cannot happen."""
    leave, count, steps = draft.digits(4, 3, 8)
    draft.start(max_new_tokens=2)
    draft.start(max_new_tokens=2)
    draft.add(Step(10))
    _with_nothing_promised(draft, ExhaustLockRefs((0, 0, 1, 2)[leave]))
    for _ in range(1 + count):
        draft.start()
    draft.add(Step(STEPS[steps]), Release())
    draft.step()
