"""Requests: described prompts and generate requests, sized around the limits of one engine configuration.

The ``draw_*`` functions take Hypothesis's ``draw`` and are what longer strategies are built from; `prompts` and
`start_reqs` are the same as strategies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sr_fuzz.script import EngineConfig, Prompt, StartReq
from sr_fuzz.script.adapters import ADAPTERS

Draw = Callable[[SearchStrategy[Any]], Any]

_CONTEXT_LEN = 4096

# SGLang refuses a prompt that leaves this many tokens, or fewer, of the pool or of the context.
_REFUSED_TAIL = 6

# Of the 64 tokens the oracle model emits only these, so a stop token from this range is really hit.
_FIRST_OUTPUT_TOKEN, _OUTPUT_TOKENS = 32, 32

FAMILIES = 4
"""Prompt families in use: few, so that prefixes are shared often."""


# Bytes and not integers, because Hypothesis prefers small values where a range of integers is wide. 48 of 64 bits leave
# the digits uniform enough.
_BITS = 64
_NOISE = st.binary(min_size=_BITS // 8, max_size=_BITS // 8)
_MOST_BITS = 48


def draw_digits(draw: Draw, *radices: int) -> tuple[int, ...]:
    """Independent uniform choices from one draw: digit ``i`` lies in ``range(radices[i])``; the simplest value is 0.

    A draw costs far more than arithmetic, and a script consists of hundreds of small choices. Raises `ValueError` when
    the radices multiply to more than 48 bits.
    """
    if math.prod(radices) > 1 << _MOST_BITS:
        raise ValueError(f"radices {radices} multiply to more than {_MOST_BITS} bits; split them over two draws")
    value = int.from_bytes(draw(_NOISE), "big")
    digits = []
    for radix in radices:
        value *= radix
        digits.append(value >> _BITS)
        value &= (1 << _BITS) - 1
    return tuple(digits)


# -- sizes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Limits of a configuration, in tokens, and the prompt lengths near them."""

    pool: int
    """The KV pool, as far as one request can use it: at most the context length."""
    chunk: int
    """The chunk, or without chunking a length that stands for one; at most ``longest``."""
    longest: int
    """The longest prompt that SGLang accepts."""
    small: tuple[int, ...]
    boundary: tuple[int, ...]
    middle: tuple[int, ...]
    capacity: tuple[int, ...]

    def new_tokens_limit(self, length: int) -> int:
        """What SGLang clips ``max_new_tokens`` to for a prompt of ``length`` tokens; 0 for a refused one."""
        return max(0, self.pool - 2 - length)


# For the oracle models: how many positions before its own a sliding window sees, and how often a state can be kept.
_WINDOW = _STATE_CHUNK = 8


def _edges(config: EngineConfig) -> tuple[int, ...]:
    """Prompt lengths around a sliding window, or around where a state is kept for the tree; the most basic first."""
    if config.model == "dense":
        return ()
    size = _STATE_CHUNK if config.model == "mamba" else _WINDOW
    page = config.page_size
    return (size - 1, size, size + 1, size + page, size + page + 1, 2 * size, 2 * size + 1, 3 * size, 4 * size + 1)


@lru_cache(maxsize=None)
def sizes_of(config: EngineConfig) -> Sizes:
    """The sizes that matter for ``config``."""
    pool, page = min(config.max_total_tokens, _CONTEXT_LEN), config.page_size
    longest = max(1, pool - _REFUSED_TAIL - 1)
    chunk = min(longest, config.chunked_prefill_size if config.chunked_prefill_size > 0 else max(page, pool // 8))

    edges = _edges(config)

    def near(*lengths: int) -> tuple[int, ...]:
        return tuple(sorted({min(max(1, length), _CONTEXT_LEN) for length in lengths}))

    return Sizes(
        pool=pool,
        chunk=chunk,
        longest=longest,
        small=near(1, 2, 3, page, page + 1, chunk // 2, chunk - 1, chunk, *edges[:3]),
        boundary=near(
            1, page - 1, page, page + 1, 2 * page, chunk - 1, chunk, chunk + 1,
            2 * chunk - 1, 2 * chunk, 2 * chunk + 1, 3 * chunk, 3 * chunk + 1, *edges,
        ),  # fmt: skip
        middle=near(pool // 6, pool // 4, pool // 4 + 1, pool // 3, pool // 2 - 1, pool // 2, pool * 2 // 3),
        capacity=near(*range(longest - 6, longest + 1), *range(longest + 1, pool + 1), pool - chunk, pool + 1),
    )


# -- prompts ---------------------------------------------------------------------------------------------------

# Mostly at a boundary or short. A long prompt needs most of the pool and, first come first served, blocks all later
# requests; with many long prompts few requests run at the same time.
_LENGTH_CLASSES = ("small",) * 12 + ("boundary",) * 14 + ("middle",) * 3 + ("any",) * 2 + ("capacity",)

_PROMPT_RADICES = (len(_LENGTH_CLASSES), 64, FAMILIES, 8, 64)


def _length(sizes: Sizes, length_class: str, fine: int) -> int:
    if length_class == "any":
        return 1 + fine * (sizes.longest - 1) // 63
    near = getattr(sizes, length_class)
    return near[fine % len(near)]


def unique_tail(length: int, kind: int) -> int:
    """Length of a prompt's own tail: for ``kind`` 0 to 7 nothing (three times), 1, 2, a quarter, a half, all of it."""
    return min(length, (0, 0, 0, 1, 2, length // 4, length // 2, length)[kind])


def _prompt(sizes: Sizes, digits: tuple[int, ...]) -> Prompt:
    length_class, fine, family, tail = digits[:4]
    length = _length(sizes, _LENGTH_CLASSES[length_class], fine)
    return Prompt(family=family, length=length, unique_tail=unique_tail(length, tail))


def draw_prompt(draw: Draw, config: EngineConfig) -> Prompt:
    """A prompt with a length near a chunk, a page, the pool or 1, from one of a few families."""
    return _prompt(sizes_of(config), draw_digits(draw, *_PROMPT_RADICES[:4]))


# A request is admitted only where prompt and `max_new_tokens` fit together: small requests run side by side.
_NEW_TOKENS = (8, 0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 6, 8, 8, 10, 12, 12, 16, 16, 20, 24)


def _new_tokens(sizes: Sizes, length: int, kind: int) -> int:
    """For ``kind`` 0 to 63 mostly small to medium; rarely what SGLang clips to, one more, or the whole pool."""
    limit = sizes.new_tokens_limit(length)
    return min((limit, limit + 1, sizes.pool)[63 - kind] if kind > 60 else _NEW_TOKENS[kind % 21], sizes.pool)


# -- generate requests -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traits:
    """What the requests of one script may use: drawn once per script, so that scripts differ from each other."""

    ignore_eos: int = 0
    """How many requests out of eight. With it SGLang reserves the whole length at admission, from 0.5.22 on, and no
    request is ever retracted; so most scripts do not use it."""
    stop_tokens: bool = False
    logprobs: bool = False
    unstreamed: bool = False
    priorities: bool = False
    several: bool = False
    """Some requests ask for several answers."""
    adapters: tuple[str | None, ...] = ()
    """LoRA adapters that requests run with, the base model among them; empty where there is none."""

    @property
    def plain(self) -> bool:
        return self == Traits()


# Few adapters, so that a prefix comes back with the same one; mostly more of them than there are slots.
_ADAPTERS: tuple[tuple[str | None, ...], ...] = (
    ADAPTERS, (None, *ADAPTERS), ADAPTERS[:3], (None, *ADAPTERS[:2]), ADAPTERS[:2], (None, ADAPTERS[3]),
)  # fmt: skip

_PRIORITIES = (None, 0, 0, 1, 1, 2, -1, 5)


def draw_traits(draw: Draw, config: EngineConfig) -> Traits:
    """Traits of one script. Priorities where the configuration schedules by them, and once in 32 scripts elsewhere."""
    ignore_eos, stop, logprobs, unstreamed, stray_priority, several = draw_digits(draw, 8, 3, 3, 4, 32, 8)
    return Traits(
        ignore_eos=(0, 0, 0, 0, 1, 2, 4, 8)[ignore_eos],
        stop_tokens=stop == 2,
        logprobs=logprobs == 2,
        unstreamed=unstreamed == 3,
        priorities=config.enable_priority_scheduling or stray_priority == 31,
        several=several == 7 and not config.is_embedding,
        adapters=_ADAPTERS[draw_digits(draw, len(_ADAPTERS))[0]] if config.enable_lora else (),
    )


def _trait_fields(draw: Draw, traits: Traits, length: int) -> dict[str, Any]:
    eos, stop, token, logprob, start, top, priority, unstreamed = draw_digits(draw, 8, 4, 32, 2, 4, 3, 8, 4)
    fields: dict[str, Any] = {"ignore_eos": eos < traits.ignore_eos}
    if traits.stop_tokens and stop > 1:
        tokens = [_FIRST_OUTPUT_TOKEN + (token + 5 * i) % _OUTPUT_TOKENS for i in range(stop - 1)]
        fields["stop_token_ids"] = tuple(tokens)
    if traits.logprobs and logprob:
        fields["return_logprob"] = True
        fields["logprob_start_len"] = (-1, 0, length // 2, length - 1)[start]
        fields["top_logprobs_num"] = (0, 1, 4)[top]
    if traits.priorities:
        fields["priority"] = _PRIORITIES[priority]
    if traits.unstreamed and unstreamed == 3:
        fields["stream"] = False
    if traits.several:
        fields["n"] = (1, 1, 2, 3)[draw_digits(draw, 4)[0]]
    if traits.adapters:
        fields["lora_path"] = traits.adapters[draw_digits(draw, len(traits.adapters))[0]]
    return fields


def draw_start_req(
    draw: Draw,
    config: EngineConfig,
    name: str,
    traits: Traits = Traits(),
    *,
    prompt: Prompt | None = None,
    max_new_tokens: int | None = None,
    **fixed: Any,
) -> StartReq:
    """A generate request called ``name``; fields that are not given (prompt, ``max_new_tokens``, others) are drawn."""
    if prompt is None or max_new_tokens is None:
        sizes = sizes_of(config)
        digits = draw_digits(draw, *_PROMPT_RADICES)
        prompt = prompt or _prompt(sizes, digits)
        if max_new_tokens is None:
            max_new_tokens = _new_tokens(sizes, prompt.length, digits[4])
    fields = {} if traits.plain else _trait_fields(draw, traits, prompt.length)
    if fixed.get("session") is not None:
        fields.pop("n", None)
    return StartReq(name, prompt, max_new_tokens, **(fields | fixed))


def draw_relative(draw: Draw, config: EngineConfig, earlier: StartReq) -> Prompt:
    """A prompt that shares a prefix with an earlier request: it continues where that request ended, as the next turn of
    a chat does, or diverges before that, at a page or a chunk, one token beside it, or inside a node."""
    page, chunk, longest = config.page_size, sizes_of(config).chunk, sizes_of(config).longest
    beyond, where, fine, beside, more = draw_digits(draw, 2, 5, 64, 5, 7)
    length, new = earlier.prompt.length, earlier.max_new_tokens
    # Without `ignore_eos` an output may be shorter; the last token that was sent has no KV yet.
    whole = length + new if beyond else length
    shared = (whole, whole - 1, (length + whole) // 2, 1 + fine * whole // 64, 1 + fine * whole // 64)[where]
    if where == 4:
        step = page if page > 1 else chunk
        shared = shared // step * step
    shared = min(max(1, shared + (0, 0, 0, 1, -1)[beside]), max(1, longest - 1))
    tail = min((0, 1, 2, page, 3, chunk // 2, chunk)[more], longest - shared)
    return going_on(earlier, shared, tail)


def going_on(earlier: StartReq, shared: int, tail: int) -> Prompt:
    """The first ``shared`` tokens of the prompt and output of ``earlier``, then ``tail`` tokens of its own."""
    prompt = earlier.prompt
    # A prefix that belongs to the family needs no reference to a request.
    after = prompt.after if shared <= prompt.length - prompt.unique_tail else earlier.name
    return Prompt(family=prompt.family, length=shared + tail, unique_tail=tail, after=after)


@st.composite
def prompts(draw: Draw, config: EngineConfig) -> Prompt:
    """Strategy: described prompts that fit ``config``'s boundaries; a few are too long and refused on arrival."""
    return draw_prompt(draw, config)


@st.composite
def start_reqs(draw: Draw, config: EngineConfig, name: str = "r0") -> StartReq:
    """Strategy: generate requests called ``name``, with traits drawn for each."""
    return draw_start_req(draw, config, name, draw_traits(draw, config))
