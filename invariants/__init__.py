"""The invariants: predicates over the view, one subject per file.

`ALL` lists the classes in the order in which they are checked. The most basic facts come first, so that a leaked page
is reported as such and not as the wrong token that it leads to.
"""

from __future__ import annotations

from collections.abc import Iterable

from sr_fuzz.invariants.aborts import Aborts
from sr_fuzz.invariants.admission import Admission
from sr_fuzz.invariants.base import Invariant, Problem
from sr_fuzz.invariants.chunks import ChunkAccounting
from sr_fuzz.invariants.control_replies import ControlReplies
from sr_fuzz.invariants.embeddings import Embeddings
from sr_fuzz.invariants.http_answers import HttpAnswers
from sr_fuzz.invariants.kv_content import KvContent
from sr_fuzz.invariants.kv_pages import KvPages
from sr_fuzz.invariants.liveness import Liveness
from sr_fuzz.invariants.load import LoadCounters
from sr_fuzz.invariants.lora import Lora
from sr_fuzz.invariants.mamba_content import MambaContent
from sr_fuzz.invariants.mamba_slots import MambaSlots
from sr_fuzz.invariants.nobody_lost import NobodyLost
from sr_fuzz.invariants.oracle_output import OracleOutput
from sr_fuzz.invariants.paused_frozen import PausedFrozen
from sr_fuzz.invariants.priority import Priority
from sr_fuzz.invariants.request_rows import RequestRows
from sr_fuzz.invariants.retraction import Retraction
from sr_fuzz.invariants.sessions import Sessions
from sr_fuzz.invariants.sglang_busy_check import BusyMemoryCheck
from sr_fuzz.invariants.sglang_tree_check import TreeSanityCheck
from sr_fuzz.invariants.state_locks import StateLocks
from sr_fuzz.invariants.streams import Streams
from sr_fuzz.invariants.tree_locks import TreeLocks
from sr_fuzz.invariants.usage import Usage
from sr_fuzz.invariants.window_locks import WindowLocks

ALL: tuple[type[Invariant], ...] = (
    KvPages,
    RequestRows,
    MambaSlots,
    TreeLocks,
    WindowLocks,
    StateLocks,
    Sessions,
    Lora,
    KvContent,
    MambaContent,
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
    """New objects of the invariants named (by name or family), in the order of `ALL`; None means all.

    Raises ``ValueError``, with a message of one line, for a name that is neither.
    """
    if wanted is None:
        return [cls() for cls in ALL]
    names = set(wanted)
    unknown = names - {cls.name for cls in ALL} - {cls.family for cls in ALL}
    if unknown:
        raise ValueError(f"no such invariant or family: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return [cls() for cls in ALL if cls.name in names or cls.family in names]
