"""Motifs about LoRA adapters: adapters compete for the slots of a pool, and a prefix is valid for one adapter only."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder, advance_clock, reprise, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import make_room
from sr_fuzz.strategies.requests import FAMILIES, draw_relative, sizes_of, unique_tail

from sr_fuzz.script import Abort, Prompt, Step
from sr_fuzz.script.adapters import ADAPTERS


def _fill_slots(builder: ScriptBuilder, first: int, new: int) -> list[str]:
    """Start a decoding request for each slot, each with another adapter, beginning with adapter number ``first``."""
    slots = min(builder.config.max_loras_per_batch or len(ADAPTERS), len(ADAPTERS))
    sizes = sizes_of(builder.config)
    adapters = [ADAPTERS[(first + index) % len(ADAPTERS)] for index in range(slots)]
    length = max(1, sizes.chunk // 2)
    prompts = [Prompt(index, length) for index in range(slots)]
    return [builder.start(prompt=p, max_new_tokens=new, lora_path=name) for p, name in zip(prompts, adapters)]


@motif("step_until", "lora", weight=6)
def one_adapter_too_many(builder: ScriptBuilder) -> None:
    """All slots are taken when a request with another adapter arrives and waits, while more requests come for the
    running adapters: the waiting request is admitted beside them, an adapter loses its slot while its requests run, or
    the waiting request never gets a slot."""
    make_room(builder)
    sizes = sizes_of(builder.config)
    first, new, wait, more, struck, chunks = builder.digits(4, 4, 8, 4, 3, 3)
    running = _fill_slots(builder, first, 4 + 6 * new)
    until(builder, running[-1], "first_decode")
    waiting = builder.start(max_new_tokens=2 + new, lora_path=ADAPTERS[(first + len(running)) % len(ADAPTERS)])
    builder.add(Step(STEPS[wait]))
    for index in range(more):
        name = ADAPTERS[(first + index % len(running)) % len(ADAPTERS)]
        builder.start(prompt=Prompt(index % FAMILIES, min(2 + chunks * sizes.chunk, sizes.longest)), lora_path=name)
        builder.add(Step(1 + new))
    if "timeouts" in builder.abilities:
        advance_clock(builder)
    if struck == 0:
        strike(builder, waiting)
    elif struck == 1:
        builder.add(Abort(running[0]))
    builder.step()


@motif("step_until", "lora", weight=4)
def chunk_keeps_adapter(builder: ScriptBuilder) -> None:
    """A long prompt is parked between two chunks while other requests decode with the adapters of all other slots: the
    chunked request is in no batch, and its adapter is not counted."""
    make_room(builder)
    sizes = sizes_of(builder.config)
    first, chunks, extra, nth, new, others = builder.digits(4, 4, 8, 3, 4, 4)
    running = _fill_slots(builder, first, max(4, sizes.pool // 6))[1:]
    length = min((2 + chunks) * sizes.chunk + extra, sizes.longest)
    long = builder.start(
        prompt=Prompt(extra % FAMILIES, length, length // 2), max_new_tokens=4 + new, lora_path=ADAPTERS[first]
    )
    until(builder, long, "nth_chunk", nth + 1)
    for index in range(others):
        builder.start(max_new_tokens=8, lora_path=ADAPTERS[(first + 2 + index) % len(ADAPTERS)])
    strike(builder, running[-1] if running and nth == 2 else long)


@motif("step_until", "radix", "lora", weight=4)
def prefix_of_another_adapter(builder: ScriptBuilder) -> None:
    """One prompt is computed with one adapter and then requested with others, including the base model, at once or
    after the first request has ended: KV that another adapter has computed is hit, or a node is split between two
    adapters."""
    make_room(builder)
    sizes = sizes_of(builder.config)
    first, size, stage, tail, steps, more, struck = builder.digits(4, 4, 4, 8, 8, 3, 4)
    length = min(max(2, (1 + size) * sizes.chunk // 2 + tail), sizes.longest)
    owner = builder.start(prompt=Prompt(first, length), max_new_tokens=4, lora_path=ADAPTERS[first])
    until(builder, owner, ("finished", "finished", "first_decode", "first_chunk")[stage])
    for index in range(1 + more):
        adapter = (None, *ADAPTERS)[(first + 2 + index) % 5]
        prompt = Prompt(first, length, unique_tail(length, tail))
        if stage == 1:
            prompt = draw_relative(builder.draw, builder.config, builder.request(owner))
        builder.start(prompt=prompt, max_new_tokens=3, lora_path=adapter)
    builder.start(prompt=Prompt(first, length), max_new_tokens=3, lora_path=ADAPTERS[first])
    builder.add(Step(STEPS[steps]))
    if struck == 0:
        strike(builder, builder.victim())


@motif("step_until", "abort", "lora", weight=3)
def last_of_adapter(builder: ScriptBuilder) -> None:
    """The only request of an adapter is aborted while a request of another adapter waits for its slot, and comes again
    in the next step: the waiting request is admitted twice or never, or the slot is given away while a result is in
    flight."""
    make_room(builder)
    first, new, stage, late, again, steps = builder.digits(4, 4, 4, 4, 3, 8)
    running = _fill_slots(builder, first, 6 + 4 * new)
    builder.start(max_new_tokens=2 + new, lora_path=ADAPTERS[(first + len(running)) % len(ADAPTERS)])
    until(builder, running[0], ("first_decode", "mid_decode", "last_decode", "first_chunk")[stage])
    builder.add(Abort(running[0], await_arrival=late != 3))
    if again:
        builder.add(*[Step(1)] * (again - 1))
        reprise(builder, running[0])
    builder.add(Step(STEPS[steps]))
