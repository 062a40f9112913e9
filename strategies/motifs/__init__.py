"""Motifs: short compositions of actions that aim at a state of the scheduler.

Random schedules seldom reach the states in which bugs occur: a request that is in none of the obvious lists (parked
between chunks, its result in flight, just retracted or preempted) when an abort, a pause or a flush arrives. A motif
brings about such a state on purpose. Each motif stands for a class of bug that schedulers have had; its docstring names
the class. All motifs append plain actions to a `ScriptBuilder`.
"""

from __future__ import annotations

from hypothesis import strategies as st
from sr_fuzz.strategies.actions import ScriptBuilder
from sr_fuzz.strategies.motifs import (
    aborts,
    adapters,
    exhausters,
    logprobs,
    memory,
    pauses,
    prefixes,
    queue,
    sessions,
    stages,
)
from sr_fuzz.strategies.motifs.base import Motif, motif
from sr_fuzz.strategies.profiles import burst
from sr_fuzz.strategies.requests import Draw

from sr_fuzz.script import Action, EngineConfig

# Scripts draw motifs by index: with another order, a seed draws other scripts.
ALL: tuple[Motif, ...] = (
    motif(weight=1)(burst),
    stages.strike_at_stage,
    memory.parked_chunk,
    memory.retracted_victim,
    memory.starved_chunk,
    queue.preempted_victim,
    aborts.abort_twice,
    aborts.abort_on_arrival,
    aborts.unknown_name,
    pauses.pause_window,
    pauses.long_pause,
    pauses.abort_under_pause,
    pauses.stray_continue,
    prefixes.prefix_right_after,
    prefixes.next_turn,
    prefixes.diverge,
    prefixes.stolen_prefix,
    prefixes.twins,
    memory.near_capacity,
    memory.ends_in_prefill,
    prefixes.flush_and_again,
    prefixes.evict_while_waiting,
    queue.preempt,
    queue.queue_full,
    logprobs.logprob_mates,
    logprobs.logprobs_retracted,
    aborts.abort_all_and_start,
    exhausters.hold_kv,
    exhausters.hold_rows,
    exhausters.hold_locks,
    stages.time_out,
    sessions.conversation,
    sessions.turn_struck,
    sessions.first_turn_struck,
    sessions.turns_at_once,
    sessions.closed_while_running,
    sessions.sessions_fill_the_pool,
    sessions.flush_while_kept,
    sessions.idle_session_ends,
    sessions.branches,
    adapters.one_adapter_too_many,
    adapters.chunk_keeps_adapter,
    adapters.prefix_of_another_adapter,
    adapters.last_of_adapter,
    memory.aborted_while_parked,
)

MOTIFS: dict[str, Motif] = {motif.name: motif for motif in ALL}
"""All motifs by name."""


@st.composite
def motif_actions(draw: Draw, config: EngineConfig, name: str) -> tuple[Action, ...]:
    """Strategy: the actions of one motif, as at the start of a script. Raises `KeyError` for an unknown motif."""
    builder = ScriptBuilder(draw, config)
    MOTIFS[name].play(builder)
    return tuple(builder.actions)
