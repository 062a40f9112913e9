"""The invariants: predicates over the view, one subject a file.

`ALL` lists the classes in the order in which they are checked: the most basic fact first, so that a page that leaked
is reported as such and not as the wrong token it leads to.
"""

from __future__ import annotations

from collections.abc import Iterable

from invariants.aborts import Aborts
from invariants.admission import Admission
from invariants.base import Invariant, Problem
from invariants.chunks import ChunkAccounting
from invariants.control_replies import ControlReplies
from invariants.embeddings import Embeddings
from invariants.http_answers import HttpAnswers
from invariants.kv_content import KvContent
from invariants.kv_pages import KvPages
from invariants.liveness import Liveness
from invariants.load import LoadCounters
from invariants.lora import Lora
from invariants.output import OracleOutput
from invariants.pause import PausedFrozen
from invariants.placement import NobodyLost
from invariants.priority import Priority
from invariants.request_rows import RequestRows
from invariants.retraction import Retraction
from invariants.sessions import Sessions
from invariants.sglang_checks import BusyMemoryCheck, TreeSanityCheck
from invariants.states import StateContent, StateSlots
from invariants.streams import Streams
from invariants.tree_locks import StateLocks, TreeLocks, WindowLocks
from invariants.usage import Usage

ALL: tuple[type[Invariant], ...] = (
    KvPages,
    RequestRows,
    StateSlots,
    TreeLocks,
    WindowLocks,
    StateLocks,
    Sessions,
    Lora,
    KvContent,
    StateContent,
    PausedFrozen,
    NobodyLost,
    Retraction,
    ChunkAccounting,
    OracleOutput,
    Embeddings,
    Streams,
    Usage,
    HttpAnswers,
    ControlReplies,
    Aborts,
    Priority,
    Liveness,
    Admission,
    LoadCounters,
    BusyMemoryCheck,
    TreeSanityCheck,
)

NAMES: tuple[str, ...] = tuple(cls.name for cls in ALL)

__all__ = ["ALL", "NAMES", "Invariant", "Problem", "select"]


def select(wanted: Iterable[str] | None) -> list[Invariant]:
    """Fresh objects of the invariants named (by name or family), in order; None means all.

    Raises ``ValueError``, one line, for a name that is neither.
    """
    if wanted is None:
        return [cls() for cls in ALL]
    names = set(wanted)
    unknown = names - {cls.name for cls in ALL} - {cls.family for cls in ALL}
    if unknown:
        raise ValueError(f"no such invariant or family: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return [cls() for cls in ALL if cls.name in names or cls.family in names]
