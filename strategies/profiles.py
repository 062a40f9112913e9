"""Pressure profiles: how much the requests of one script need, relative to the KV pool and the request rows.

A scheduler that is always full never shows what happens when it is not, and vice versa: an abort with a full queue only
ever meets a waiting request. So each script draws a profile, which plays the opening of the script and says how much
work may be left before a new piece waits for some of it to be done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder
from sr_fuzz.strategies.requests import FAMILIES, sizes_of, unique_tail

from sr_fuzz.script import AbortAll, Continue, Prompt, Step, StepUntil

# When a request did not fit, SGLang admits no further one until another leaves, and within one batch it counts whole
# outputs. So the pool overflows, and requests are retracted, when requests arrive one by one or a chunk admits one at a
# time; many requests in one step wait in the queue instead. Both are wanted.
_ARRIVALS = (None, None, 1, 1, 2)

# A burst of four times the pool, with retractions, takes this many steps; once all requests have ended, the wait costs
# none.
_SETTLED = 120


@dataclass(frozen=True)
class Profile:
    """A named amount of pressure."""

    name: str
    why: str
    open: Callable[[ScriptBuilder], None]
    much_work: int
    """In steps, as `ScriptBuilder.work` estimates them: with more than this left, the next piece waits for some of
    it."""
    busy: int
    """With no more than this left, a motif that needs other requests starts some."""


def burst(builder: ScriptBuilder) -> None:
    """Three to eight requests, in one step or one after another, that need 1.5 to 4 times the pool: requests are
    retracted, and admission promises the same pages twice."""
    sizes = sizes_of(builder.config)
    wanted, more, shape, arrival, families, family, steps = builder.digits(6, 6, 8, len(_ARRIVALS), 3, FAMILIES, 8)
    ratio, apart = (1.5, 1.75, 2.0, 2.5, 3.0, 4.0)[wanted], _ARRIVALS[arrival]
    # A request that needs half the pool is admitted alone.
    count = min(8, max(3 + more, math.ceil(2.5 * ratio)))
    share = math.ceil(ratio * sizes.pool / count)
    for index in range(count):
        jitter, tail = builder.digits(8, 8)
        # Short prompts are admitted together, and run out of memory together later.
        length = share * (3, 3, 4, 4, 8, 12, 16)[shape % (4 if apart else 7)] // 24 + (jitter - 3) * share // 24
        if shape == 7 and not apart:
            length = sizes.chunk
        length = min(max(1, length), max(1, share * 3 // 4))
        own = unique_tail(length, tail)
        prompt = Prompt(family=(family + index % (families + 1)) % FAMILIES, length=length, unique_tail=own)
        # A shared prefix takes no memory the second time: the output is longer by what it saves.
        spent = length if builder.config.disable_radix_cache else own
        builder.start(prompt=prompt, max_new_tokens=max(1, share - spent))
        if apart and index % apart == 0:
            builder.add(Step(1))
    builder.add(Step(STEPS[steps]))


def overflow(builder: ScriptBuilder) -> list[str]:
    """Start requests with short prompts and long outputs, one per step: each fits beside the others when it arrives,
    but together they do not fit once they have grown. The last one, with the longest prompt, is retracted first."""
    sizes = sizes_of(builder.config)
    fewer, extra, new, family, shared = builder.digits(2, 4, 4, FAMILIES, 2)
    count = max(2, min(builder.config.max_running_requests, 7) - fewer)
    length = max(1, sizes.pool // 24) + extra
    output = min(math.ceil((1.75 + new / 4) * sizes.pool / count), sizes.pool * 2 // 3)
    names = []
    for index in range(count):
        # SGLang retracts the request with the shortest output, and of several such the one with the longest prompt.
        own = length + index
        prompt = Prompt(family=(family + index * (1 - shared)) % FAMILIES, length=own, unique_tail=own // 2)
        # With `ignore_eos` the whole output would be reserved at admission, from 0.5.22 on.
        names.append(builder.start(prompt=prompt, max_new_tokens=output, ignore_eos=False))
        builder.add(Step(1))
    return names


def settle(builder: ScriptBuilder) -> None:
    """Let the started requests end: wait for the youngest and for those with the longest output. Or abort all of
    them."""
    if builder.paused:
        builder.add(Continue())
    if not builder.names or builder.work <= 2:
        return
    (at_once,) = builder.digits(3)
    if at_once == 0 and builder.has("abort_all"):
        builder.add(AbortAll())
    elif builder.has("step_until"):
        longest = sorted(builder.names[-8:], key=lambda name: builder.request(name).max_new_tokens)[-2:]
        for name in dict.fromkeys((builder.names[-1], *longest)):
            builder.add(StepUntil(name, "finished", max_steps=_SETTLED))
    else:
        builder.add(Step(min(_SETTLED, builder.work + 5)))
    # An idle step, in which SGLang forgets that memory has run out, and admits as much as at first.
    builder.add(Step(2))
    builder.work = 0


def _idle(builder: ScriptBuilder) -> None:
    """No load but what the pieces of the script bring: caches that survive, flushes that are accepted, pauses of an
    empty engine, chunks without other requests."""


def _steady(builder: ScriptBuilder) -> None:
    """Requests one after another that together need less than the pool: batches grow and shrink, there is no
    retraction, and prefixes stay."""
    sizes = sizes_of(builder.config)
    count, apart, family = builder.digits(3, 3, FAMILIES)
    for index in range(2 + count):
        share = sizes.pool * 3 // (4 * (2 + count))
        length = max(1, share // 2)
        builder.start(
            prompt=Prompt((family + index % 2) % FAMILIES, length, unique_tail(length, index)),
            max_new_tokens=max(1, share - length),
        )
        builder.add(Step(1 + apart))


def _saturated(builder: ScriptBuilder) -> None:
    """More requests than rows, although the pool would hold them: rows are taken in the step in which they become free,
    the queue never empties, and a request of low priority waits forever."""
    sizes, rows = sizes_of(builder.config), min(builder.config.max_running_requests, 12)
    over, apart, family, steps = builder.digits(4, 3, FAMILIES, 8)
    share = max(2, sizes.pool * 7 // (8 * rows))
    for index in range(rows + 1 + over):
        jitter, tail = builder.digits(4, 8)
        length = max(1, share // 4 + jitter)
        builder.start(
            prompt=Prompt((family + index % 3) % FAMILIES, length, unique_tail(length, tail)),
            max_new_tokens=max(1, share - length),
        )
        if apart == 1 or (apart == 2 and index == rows // 2):
            builder.add(Step(1))
    builder.add(Step(STEPS[steps]))


def _oversubscribed(builder: ScriptBuilder) -> None:
    """As many requests as there are rows, admitted one by one, that together outgrow the pool: repeated retraction."""
    overflow(builder)
    (again,) = builder.digits(2)
    if again:
        overflow(builder)


def _profile(name: str, play: Callable[[ScriptBuilder], object], much_work: int, busy: int) -> tuple[str, Profile]:
    return name, Profile(name, " ".join((play.__doc__ or "").split()), play, much_work, busy)  # type: ignore[arg-type]


PROFILES: dict[str, Profile] = dict(
    (
        _profile("idle", _idle, 6, 0),
        _profile("steady", _steady, 12, 2),
        # About half of what a burst takes.
        _profile("burst", burst, 25, 2),
        _profile("saturated", _saturated, 25, 6),
        _profile("oversubscribed", _oversubscribed, 30, 6),
    )
)
"""All profiles by name; ``why`` says what each is there for."""
