"""Motifs that strike, or let time pass, in the step in which a request reaches a stage."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STAGES_TO_AIM_AT, STEPS, ScriptBuilder, advance_clock, reprise, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import keep_busy
from sr_fuzz.strategies.profiles import overflow, settle
from sr_fuzz.strategies.requests import FAMILIES, sizes_of

from sr_fuzz.script import Prompt, Step


def _aim(builder: ScriptBuilder, stage: str) -> str:
    """A request that will soon be at ``stage``: usually a new one, started for this purpose; now and then any
    request."""
    sizes = sizes_of(builder.config)
    any_other, size, new, family, room = builder.digits(4, 3, 4, FAMILIES, 2)
    if any_other == 0 and builder.names:
        return builder.victim()
    if stage == "retracted":
        settle(builder)
        return overflow(builder)[-1]
    if stage == "waiting":
        # The request waits behind one that takes most of the pool.
        length = max(1, sizes.longest - sizes.chunk - size)
        builder.start(prompt=Prompt(family, length), max_new_tokens=4 + new)
        return builder.start()
    if room:
        settle(builder)
    length = max(1, sizes.chunk // 2 + size)
    if stage in ("first_chunk", "nth_chunk", "last_chunk"):
        length = min((2 + size) * sizes.chunk + new, sizes.longest)
    return builder.start(prompt=Prompt(family, length, length // 2), max_new_tokens=5 + 3 * new)


@motif("step_until", weight=8)
def strike_at_stage(builder: ScriptBuilder) -> None:
    """Abort, pause or flush in the step in which a request reaches a stage: pages or rows are freed twice or never."""
    keep_busy(builder)
    stage, nth = builder.digits(len(STAGES_TO_AIM_AT), 3)
    victim = _aim(builder, STAGES_TO_AIM_AT[stage])
    until(builder, victim, STAGES_TO_AIM_AT[stage], nth + 1)
    strike(builder, victim)


@motif("timeouts", weight=6)
def time_out(builder: ScriptBuilder) -> None:
    """Time passes while requests wait, run, or are between two chunks; then more requests arrive: the time-out's abort
    frees resources twice or never, or a request that it removes from one queue is still in another."""
    keep_busy(builder)
    stage, passes, steps, struck = builder.digits(len(STAGES_TO_AIM_AT), 3, 8, 3)
    victim = builder.victim()
    until(builder, victim, STAGES_TO_AIM_AT[stage])
    for _ in range(passes):
        advance_clock(builder)
        builder.add(Step(STEPS[steps]))
    advance_clock(builder)
    if struck == 0:
        strike(builder, victim)
    reprise(builder, victim)
    builder.step()
