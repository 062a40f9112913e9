"""Cells: coarse states of the engine, by which a campaign sees what a script has reached that none has before.

There are two families, with a few hundred cells together. A *state* is that of a step: the batch, whether a prompt is
in chunks, a pause, how full the pool is, who waits, and whether a request went back from running to waiting. A *pair*
is the last two kinds of action before a step that ran a batch, as a step seldom depends on more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sr_fuzz.outcome import Outcome, StepRecord
from sr_fuzz.outcome.trace import NOT_TOLD

_LOW = 4
"""Fewer free pages than this are few: a request of the usual size does not fit."""

_EPILOGUE = "epilogue"
"""Begins the text of what ends each script."""


def cells_of(outcome: Outcome) -> frozenset[str]:
    """Return the cells that a run has been in, from the steps in its trace."""
    return frozenset(_cells(outcome.trace))


def _cells(trace: Iterable[StepRecord]) -> Iterator[str]:
    running: frozenset[str] = frozenset()
    last: tuple[str, ...] = ()
    for record in trace:
        yield f"state:{_state(record, running)}"
        last = (*last, *_kinds(record))[-2:]
        if record.mode is not None and len(last) == 2:
            yield f"pair:{' '.join(last)}"
        running = frozenset(record.running) | frozenset(record.batch)


def _state(record: StepRecord, running: frozenset[str]) -> str:
    parts = [record.mode or "idle", _pressure(record.free_pages)]
    parts += ["chunked"] if record.chunked is not None else []
    parts += ["paused"] if record.paused else []
    parts += ["waiting"] if record.waiting else []
    parts += ["back"] if running.intersection(record.waiting) else []
    return " ".join(parts)


def _pressure(free: int) -> str:
    if free == NOT_TOLD:
        return "?"
    return "full" if free == 0 else "low" if free < _LOW else "free"


def _kinds(record: StepRecord) -> list[str]:
    """The kinds of the actions before a step, in order: ``r0 = start_req(…)`` is a ``start_req``."""
    own = (action for action in record.actions if not action.startswith(_EPILOGUE))
    return [action.partition("(")[0].rpartition(" ")[2] for action in own]
