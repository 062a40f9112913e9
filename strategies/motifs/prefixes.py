"""Motifs about the prefix cache: prefixes that are shared, split, evicted or flushed while somebody uses them."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, Draft, reprise, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import keep_busy, make_room
from sr_fuzz.strategies.profiles import settle
from sr_fuzz.strategies.requests import FAMILIES, draw_prompt, draw_relative, going_on, sizes_of

from sr_fuzz.script import EvictRadix, FlushCache, Prompt, Step


@motif("step_until")
def prefix_right_after(draft: Draft) -> None:
    """The same prefix comes back in the step in which its first owner finishes, shorter or longer, perhaps after an
    eviction: pages in the tree freed by their owner, or locks counted wrongly."""
    length_change, new, steps, evict, stage = draft.digits(8, 4, 8, 4, 4)
    prompt = draw_prompt(draft.draw, draft.config)
    owner = draft.start(prompt=prompt, max_new_tokens=new)
    until(draft, owner, ("finished", "finished", "last_decode", "first_decode")[stage])
    if evict == 1 and draft.has("evict_radix"):
        draft.add(EvictRadix(1 + prompt.length // 2))
    elif evict == 2 and draft.has("flush_cache"):
        draft.add(FlushCache())
    length = min(max(1, prompt.length + (0, 1, -1, 8, -8, 16, 0, 2)[length_change]), sizes_of(draft.config).longest)
    draft.start(prompt=Prompt(family=prompt.family, length=length, unique_tail=min(length, new)))
    draft.add(Step(STEPS[steps]))


@motif("step_until", "radix", weight=3)
def next_turn(draft: Draft) -> None:
    """A chat: the next prompt is the last one, its answer and something new. Pages of generated tokens are shared, and
    the last of them is not written yet: shared one too far, or freed with the answer."""
    make_room(draft)
    turns, stage, new, early, struck = draft.digits(3, 6, 4, 4, 4)
    name = draft.start(prompt=draw_prompt(draft.draw, draft.config), max_new_tokens=4 + 3 * new)
    stages = ("finished", "finished", "finished", "finished", "last_decode", "mid_decode")
    for _ in range(1 + turns):
        until(draft, name, stages[stage])
        if early == 1 and draft.has("evict_radix"):
            draft.add(EvictRadix(1 + new))
        prompt = draw_relative(draft.draw, draft.config, draft.request(name))
        name = draft.start(prompt=prompt, max_new_tokens=3 + 2 * new)
    if struck == 0:
        strike(draft, name)
    draft.step()


@motif("step_until", "radix", weight=3)
def diverge(draft: Draft) -> None:
    """One prompt is cached whole; others leave it at a page, a token beside it, or in the middle, all in one step: a
    node is split while it is locked, matched or evicted."""
    sizes, page = sizes_of(draft.config), draft.config.page_size
    make_room(draft)
    family, size, new, between, followers, struck, steps = draft.digits(FAMILIES, 3, 4, 6, 3, 4, 8)
    length = min(max(2, (2 + size) * max(page, sizes.chunk // 2) + new - 1), sizes.longest)
    base = draft.start(prompt=Prompt(family, length), max_new_tokens=1 + new)
    until(draft, base, "finished" if between else "first_decode")
    name = base
    for index in range(2 + followers):
        at, beside, tail = draft.digits(8, 3, 6)
        shared = (length * at // 8) // page * page + (0, 1, -1)[beside]
        own = (1, 2, page, 3, sizes.chunk // 2, 0)[tail]
        prompt = going_on(draft.request(base), min(max(1, shared), length), min(own, sizes.longest - length))
        name = draft.start(prompt=prompt, max_new_tokens=2 + new)
        if index == 0 and between == 1 and draft.has("evict_radix"):
            draft.add(EvictRadix(1 + length // 2))
    if struck == 0:
        draft.add(Step(1))
        strike(draft, name)
    draft.add(Step(STEPS[steps]))


@motif("step_until", "radix", weight=2)
def stolen_prefix(draft: Draft) -> None:
    """A request whose prefix is cached waits behind one that needs the memory of that prefix: it is evicted between
    the match and the admission, and still used, or counted as free twice."""
    sizes = sizes_of(draft.config)
    make_room(draft)
    family, size, less, new, order, steps = draft.digits(FAMILIES - 1, 3, 8, 4, 2, 8)
    cached = min((1 + size) * max(sizes.chunk // 2, draft.config.page_size) + 1, sizes.longest // 2 + 1)
    owner = draft.start(prompt=Prompt(family, cached), max_new_tokens=1 + new)
    until(draft, owner, "finished")
    thief = Prompt(FAMILIES - 1, max(1, sizes.longest - less), unique_tail=max(0, sizes.longest - less) // 2)
    wanting = going_on(draft.request(owner), cached, min(3, sizes.longest - cached))
    for prompt in (thief, wanting) if order else (wanting, thief):
        draft.start(prompt=prompt, max_new_tokens=2 + 2 * new)
    draft.start(prompt=wanting)
    draft.add(Step(STEPS[steps]))


@motif(weight=1)
def twins(draft: Draft) -> None:
    """The same prompt two or three times in one step: each prefills pages that the tree can keep only once."""
    more, same, steps = draft.digits(2, 2, 8)
    prompt = draw_prompt(draft.draw, draft.config)
    for index in range(2 + more):
        grown = min(prompt.length + index, sizes_of(draft.config).pool)
        draft.start(prompt=prompt if same else Prompt(family=prompt.family, length=grown))
    draft.add(Step(STEPS[steps]))


@motif("flush_cache", weight=5)
def flush_and_again(draft: Draft) -> None:
    """A flush while busy must change nothing, one while idle must forget all: stale nodes and pages either way."""
    busy, wait, steps = draft.digits(3, 3, 8)
    if busy == 2:
        keep_busy(draft)
    else:
        settle(draft)
        draft.add(Step(1 + wait))
    draft.add(FlushCache())
    if draft.names:
        reprise(draft, draft.victim())
    draft.add(Step(STEPS[steps]))


@motif("evict_radix")
def evict_while_waiting(draft: Draft) -> None:
    """A waiting request has matched a prefix that it has not locked when the prefix is evicted: use after free."""
    family, amount, steps = draft.digits(FAMILIES, 8, 8)
    shared = sizes_of(draft.config).chunk + 1
    draft.start(prompt=Prompt(family=family, length=shared), max_new_tokens=2)
    draft.add(Step(STEPS[steps]))
    for tail in range(3):
        draft.start(prompt=Prompt(family=family, length=shared + tail, unique_tail=tail))
    draft.add(Step(1), EvictRadix(None if amount == 0 else amount * shared // 4 + 1), Step(1 + steps))
