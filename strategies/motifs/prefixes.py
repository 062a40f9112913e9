"""Motifs about the prefix cache: prefixes that are shared, split, evicted or flushed while they are in use."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder, reprise, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import keep_busy, make_room
from sr_fuzz.strategies.profiles import settle
from sr_fuzz.strategies.requests import FAMILIES, draw_prompt, draw_relative, going_on, sizes_of

from sr_fuzz.script import EvictRadix, FlushCache, Prompt, Step


@motif("step_until")
def prefix_right_after(builder: ScriptBuilder) -> None:
    """The same prefix, shorter or longer, comes back in the step in which its first owner finishes, perhaps after an
    eviction: pages in the tree are freed by their owner, or locks are counted wrongly."""
    length_change, new, steps, evict, stage = builder.digits(8, 4, 8, 4, 4)
    prompt = draw_prompt(builder.draw, builder.config)
    owner = builder.start(prompt=prompt, max_new_tokens=new)
    until(builder, owner, ("finished", "finished", "last_decode", "first_decode")[stage])
    if evict == 1 and builder.has("evict_radix"):
        builder.add(EvictRadix(1 + prompt.length // 2))
    elif evict == 2 and builder.has("flush_cache"):
        builder.add(FlushCache())
    length = min(max(1, prompt.length + (0, 1, -1, 8, -8, 16, 0, 2)[length_change]), sizes_of(builder.config).longest)
    builder.start(prompt=Prompt(family=prompt.family, length=length, unique_tail=min(length, new)))
    builder.add(Step(STEPS[steps]))


@motif("step_until", "radix", weight=3)
def next_turn(builder: ScriptBuilder) -> None:
    """A chat: the next prompt consists of the last prompt, its answer and something new. Pages of generated tokens are
    shared, and the last of these tokens is not written yet: one token too many is shared, or freed with the answer."""
    make_room(builder)
    turns, stage, new, early, struck = builder.digits(3, 6, 4, 4, 4)
    name = builder.start(prompt=draw_prompt(builder.draw, builder.config), max_new_tokens=4 + 3 * new)
    stages = ("finished", "finished", "finished", "finished", "last_decode", "mid_decode")
    for _ in range(1 + turns):
        until(builder, name, stages[stage])
        if early == 1 and builder.has("evict_radix"):
            builder.add(EvictRadix(1 + new))
        prompt = draw_relative(builder.draw, builder.config, builder.request(name))
        name = builder.start(prompt=prompt, max_new_tokens=3 + 2 * new)
    if struck == 0:
        strike(builder, name)
    builder.step()


@motif("step_until", "radix", weight=3)
def diverge(builder: ScriptBuilder) -> None:
    """One prompt is cached whole; others diverge from it at a page boundary, one token beside it, or in the middle, all
    in one step: a node is split while it is locked, matched or evicted."""
    sizes, page = sizes_of(builder.config), builder.config.page_size
    make_room(builder)
    family, size, new, between, followers, struck, steps = builder.digits(FAMILIES, 3, 4, 6, 3, 4, 8)
    length = min(max(2, (2 + size) * max(page, sizes.chunk // 2) + new - 1), sizes.longest)
    base = builder.start(prompt=Prompt(family, length), max_new_tokens=1 + new)
    until(builder, base, "finished" if between else "first_decode")
    name = base
    for index in range(2 + followers):
        at, beside, tail = builder.digits(8, 3, 6)
        shared = (length * at // 8) // page * page + (0, 1, -1)[beside]
        own = (1, 2, page, 3, sizes.chunk // 2, 0)[tail]
        prompt = going_on(builder.request(base), min(max(1, shared), length), min(own, sizes.longest - length))
        name = builder.start(prompt=prompt, max_new_tokens=2 + new)
        if index == 0 and between == 1 and builder.has("evict_radix"):
            builder.add(EvictRadix(1 + length // 2))
    if struck == 0:
        builder.add(Step(1))
        strike(builder, name)
    builder.add(Step(STEPS[steps]))


@motif("step_until", "radix", weight=2)
def stolen_prefix(builder: ScriptBuilder) -> None:
    """A request whose prefix is cached waits behind one that needs the memory of that prefix: the prefix is evicted
    between the match and the admission, and is still used, or counted as free twice."""
    sizes = sizes_of(builder.config)
    make_room(builder)
    family, size, less, new, order, steps = builder.digits(FAMILIES - 1, 3, 8, 4, 2, 8)
    cached = min((1 + size) * max(sizes.chunk // 2, builder.config.page_size) + 1, sizes.longest // 2 + 1)
    owner = builder.start(prompt=Prompt(family, cached), max_new_tokens=1 + new)
    until(builder, owner, "finished")
    thief = Prompt(FAMILIES - 1, max(1, sizes.longest - less), unique_tail=max(0, sizes.longest - less) // 2)
    wanting = going_on(builder.request(owner), cached, min(3, sizes.longest - cached))
    for prompt in (thief, wanting) if order else (wanting, thief):
        builder.start(prompt=prompt, max_new_tokens=2 + 2 * new)
    builder.start(prompt=wanting)
    builder.add(Step(STEPS[steps]))


@motif(weight=1)
def twins(builder: ScriptBuilder) -> None:
    """The same prompt comes two or three times in one step: each request prefills pages that the tree can keep only
    once."""
    more, same, steps = builder.digits(2, 2, 8)
    prompt = draw_prompt(builder.draw, builder.config)
    for index in range(2 + more):
        grown = min(prompt.length + index, sizes_of(builder.config).pool)
        builder.start(prompt=prompt if same else Prompt(family=prompt.family, length=grown))
    builder.add(Step(STEPS[steps]))


@motif("flush_cache", weight=5)
def flush_and_again(builder: ScriptBuilder) -> None:
    """A flush of a busy engine must change nothing, a flush of an idle one must clear all: stale nodes and pages."""
    busy, wait, steps = builder.digits(3, 3, 8)
    if busy == 2:
        keep_busy(builder)
    else:
        settle(builder)
        builder.add(Step(1 + wait))
    builder.add(FlushCache())
    if builder.names:
        reprise(builder, builder.victim())
    builder.add(Step(STEPS[steps]))


@motif("evict_radix")
def evict_while_waiting(builder: ScriptBuilder) -> None:
    """A waiting request has matched a prefix but not locked it when the prefix is evicted: use after free."""
    family, amount, steps = builder.digits(FAMILIES, 8, 8)
    shared = sizes_of(builder.config).chunk + 1
    builder.start(prompt=Prompt(family=family, length=shared), max_new_tokens=2)
    builder.add(Step(STEPS[steps]))
    for tail in range(3):
        builder.start(prompt=Prompt(family=family, length=shared + tail, unique_tail=tail))
    builder.add(Step(1), EvictRadix(None if amount == 0 else amount * shared // 4 + 1), Step(1 + steps))
