"""Motifs about memory: chunks that are parked, requests that are retracted, prompts that hardly fit."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, Draft, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import make_room
from sr_fuzz.strategies.profiles import overflow, settle
from sr_fuzz.strategies.requests import FAMILIES, sizes_of, unique_tail

from sr_fuzz.script import Prompt, Step


@motif("step_until", weight=4)
def parked_chunk(draft: Draft) -> None:
    """A long prompt parked between chunks beside decoding requests, when something strikes: the chunked request is
    in no queue, and is forgotten, leaked, or scheduled twice."""
    sizes = sizes_of(draft.config)
    make_room(draft)
    decoders, first, extra, chunks, nth, family = draft.digits(4, 4, 8, 4, 4, FAMILIES)
    for index in range(decoders):
        prompt = Prompt(family=(family + index) % FAMILIES, length=max(1, sizes.chunk // 2))
        draft.start(prompt=prompt, max_new_tokens=max(4, sizes.pool // (3 * decoders)))
    if decoders:
        draft.add(Step(1 + first))
    length = min((2 + chunks) * sizes.chunk + extra - 1, sizes.longest)
    long = draft.start(prompt=Prompt(family=family, length=length, unique_tail=length // 2), max_new_tokens=4 + extra)
    until(draft, long, "nth_chunk", nth + 1)
    strike(draft, long)


@motif("step_until", weight=4)
def retracted_victim(draft: Draft) -> None:
    """A request is retracted for lack of memory and meets an abort or a pause before it runs again: its KV or its
    output so far is lost, or its finish is reported twice."""
    settle(draft)
    last, (other,) = overflow(draft)[-1], draft.digits(6)
    # SGLang retracts those with the shortest output, so the last comer.
    victim = last if other else draft.victim()
    until(draft, victim, "retracted")
    strike(draft, victim)


@motif("step_until", "chunks", "mixed", weight=2)
def starved_chunk(draft: Draft) -> None:
    """Decoding requests grow into the memory that the next chunk of a long prompt needs: the chunk is parked, or
    others are retracted for it, and something strikes the one or the others."""
    sizes = sizes_of(draft.config)
    make_room(draft)
    decoders, short, nth, family, steps = draft.digits(3, 3, 3, FAMILIES, 4)
    others = []
    for index in range(2 + decoders):
        prompt = Prompt(family=(family + index) % FAMILIES, length=1 + short + index)
        others.append(draft.start(prompt=prompt, max_new_tokens=sizes.pool // 2, ignore_eos=False))
        draft.add(Step(1))
    length = max(sizes.chunk + 1, sizes.longest * 3 // 4)
    long = draft.start(prompt=Prompt((family + 3) % FAMILIES, length, length // 2), max_new_tokens=4)
    until(draft, long, "nth_chunk", nth + 1)
    draft.add(Step(1 + steps))
    strike(draft, long if nth else others[-1])


@motif()
def near_capacity(draft: Draft) -> None:
    """A prompt of the pool minus a few tokens, alone or behind decoding requests: admitted though it never fits,
    never admitted though it does, or blocking all others."""
    sizes = sizes_of(draft.config)
    decoders, below, family, new, first, tail, behind = draft.digits(3, 8, FAMILIES, 4, 4, 4, 2)
    held = 0
    for index in range(decoders):
        length = sizes.chunk + index
        draft.start(prompt=Prompt(family=(family + 1) % FAMILIES, length=length), max_new_tokens=8)
        held += length
    if decoders:
        draft.add(Step(1 + first))
    length = max(1, sizes.longest - held - below + 1)
    prompt = Prompt(family=family, length=length, unique_tail=unique_tail(length, 2 * tail))
    draft.start(prompt=prompt, max_new_tokens=(1, 4, 8, sizes.pool)[new])
    if behind:
        draft.start()
    draft.add(Step(2 + first))


@motif(weight=1)
def ends_in_prefill(draft: Draft) -> None:
    """Requests for no token or one finish in the very batch that prefills them, beside others that go on: filtered
    out of the batch with their neighbour's result."""
    others, first, second, steps = draft.digits(2, 2, 2, 8)
    draft.start(max_new_tokens=first)
    if others:
        draft.start()
    draft.start(max_new_tokens=1 - second)
    draft.add(Step(STEPS[steps]))
