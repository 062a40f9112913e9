"""Motifs about memory: parked chunks, retracted requests, and prompts that hardly fit."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import make_room
from sr_fuzz.strategies.profiles import overflow, settle
from sr_fuzz.strategies.requests import FAMILIES, sizes_of, unique_tail

from sr_fuzz.script import Abort, Continue, Pause, Prompt, Step


@motif("step_until", weight=4)
def parked_chunk(builder: ScriptBuilder) -> None:
    """A long prompt is parked between chunks beside decoding requests when a strike comes: the chunked request is in no
    queue, and is forgotten, leaked, or scheduled twice."""
    sizes = sizes_of(builder.config)
    make_room(builder)
    decoders, first, extra, chunks, nth, family = builder.digits(4, 4, 8, 4, 4, FAMILIES)
    for index in range(decoders):
        prompt = Prompt(family=(family + index) % FAMILIES, length=max(1, sizes.chunk // 2))
        builder.start(prompt=prompt, max_new_tokens=max(4, sizes.pool // (3 * decoders)))
    if decoders:
        builder.add(Step(1 + first))
    length = min((2 + chunks) * sizes.chunk + extra - 1, sizes.longest)
    long = builder.start(prompt=Prompt(family=family, length=length, unique_tail=length // 2), max_new_tokens=4 + extra)
    until(builder, long, "nth_chunk", nth + 1)
    strike(builder, long)


@motif("step_until", "abort", "pause", "chunks", weight=2)
def aborted_while_parked(builder: ScriptBuilder) -> None:
    """A chunked request is aborted while it is parked for lack of memory, and retracted by a pause before the abort is
    carried out: the abort is lost, or carried out twice."""
    sizes = sizes_of(builder.config)
    make_room(builder)
    decoders, first, chunks, steps, hold, family = builder.digits(3, 4, 4, 12, 3, FAMILIES)
    for index in range(1 + decoders):
        prompt = Prompt(family=(family + 2 * index) % FAMILIES, length=max(1, sizes.chunk - 2))
        builder.start(prompt=prompt, max_new_tokens=max(4, sizes.pool // 4), ignore_eos=True)
    builder.add(Step(1 + first))
    length = min((4 + chunks) * sizes.chunk, sizes.longest)
    long = builder.start(prompt=Prompt(family=(family + 5) % FAMILIES, length=length), max_new_tokens=4)
    builder.add(Step(2 + steps), Abort(long), Pause("retract"), Step(1 + hold), Continue())
    builder.step()


@motif("step_until", weight=4)
def retracted_victim(builder: ScriptBuilder) -> None:
    """A request is retracted for lack of memory and meets an abort or a pause before it runs again: its KV or its
    output so far is lost, or its finish is reported twice."""
    settle(builder)
    last, (other,) = overflow(builder)[-1], builder.digits(6)
    # SGLang retracts the request with the shortest output, which is the last one to arrive.
    victim = last if other else builder.victim()
    until(builder, victim, "retracted")
    strike(builder, victim)


@motif("step_until", "chunks", "mixed", weight=2)
def starved_chunk(builder: ScriptBuilder) -> None:
    """Decoding requests grow into the memory that the next chunk of a long prompt needs: the chunk is parked, or other
    requests are retracted for it, and a strike hits the one or the others."""
    sizes = sizes_of(builder.config)
    make_room(builder)
    decoders, short, nth, family, steps = builder.digits(3, 3, 3, FAMILIES, 4)
    others = []
    for index in range(2 + decoders):
        prompt = Prompt(family=(family + index) % FAMILIES, length=1 + short + index)
        others.append(builder.start(prompt=prompt, max_new_tokens=sizes.pool // 2, ignore_eos=False))
        builder.add(Step(1))
    length = max(sizes.chunk + 1, sizes.longest * 3 // 4)
    long = builder.start(prompt=Prompt((family + 3) % FAMILIES, length, length // 2), max_new_tokens=4)
    until(builder, long, "nth_chunk", nth + 1)
    builder.add(Step(1 + steps))
    strike(builder, long if nth else others[-1])


@motif()
def near_capacity(builder: ScriptBuilder) -> None:
    """A prompt of the pool's size minus a few tokens, alone or behind decoding requests: it is admitted although it
    never fits, never admitted although it does, or blocks all others."""
    sizes = sizes_of(builder.config)
    decoders, below, family, new, first, tail, behind = builder.digits(3, 8, FAMILIES, 4, 4, 4, 2)
    held = 0
    for index in range(decoders):
        length = sizes.chunk + index
        builder.start(prompt=Prompt(family=(family + 1) % FAMILIES, length=length), max_new_tokens=8)
        held += length
    if decoders:
        builder.add(Step(1 + first))
    length = max(1, sizes.longest - held - below + 1)
    prompt = Prompt(family=family, length=length, unique_tail=unique_tail(length, 2 * tail))
    builder.start(prompt=prompt, max_new_tokens=(1, 4, 8, sizes.pool)[new])
    if behind:
        builder.start()
    builder.add(Step(2 + first))


@motif(weight=1)
def ends_in_prefill(builder: ScriptBuilder) -> None:
    """Requests with an output of zero or one token finish in the batch that prefills them, beside others that continue:
    a neighbour's result is filtered out of the batch together with them."""
    others, first, second, steps = builder.digits(2, 2, 2, 8)
    builder.start(max_new_tokens=first)
    if others:
        builder.start()
    builder.start(max_new_tokens=1 - second)
    builder.add(Step(STEPS[steps]))
