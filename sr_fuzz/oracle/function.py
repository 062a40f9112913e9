"""The oracle function: the next token after a given history.

It is pure Python; the model computes the same from the KV cache.

With ``W`` a fixed pseudo-random weight per position, the history ``t_0 … t_{n-1}`` has the digest
``D = sum(W[i] * (t_i + 1)) mod P``, and the next token is EOS when ``D mod 64 == 0``, else
``32 + (D // 64) mod 32``. Every token at every position changes the digest, so a token that was lost, duplicated,
moved or read from another request's page changes the output. It is a sum and not a rolling hash, because a sum is one
dot product in the model; it still depends on the order, since each position has its own weight.

A model that attends to a sliding window only has the same digest over the positions of its window. With an adapter
(`sr_fuzz.script.adapters`) each token counts ``64 * number`` more, so that KV that was computed with one adapter is
wrong for another.

Outputs are in 32..63 or EOS, so that stop tokens drawn from that range are actually hit, and a request without
``ignore_eos`` ends by itself with probability 1/64 per token.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from sr_fuzz.script import EOS_TOKEN_ID, VOCAB_SIZE, Action, Prompt, StartReq
from sr_fuzz.script.adapters import adapter_number

MAX_LEN = 8192
"""Number of positions with a weight: twice the context length, since a prompt that is too long is refused, not
truncated."""

MODULUS = 2_147_483_629
"""Largest prime below 2**31 - 1 but one; products with a token stay far below 2**63 after 8192 additions."""

FIRST_OUTPUT_TOKEN = 32
_OUTPUT_TOKENS = VOCAB_SIZE - FIRST_OUTPUT_TOKEN
_EOS_ONE_IN = 64
_FIRST_PROMPT_TOKEN = 3  # 0, 1 and 2 are padding, BOS and EOS

_generator = random.Random(0x5EED)  # any seed does; a fixed one makes outputs the same in every process
WEIGHTS: tuple[int, ...] = tuple(_generator.randrange(1, MODULUS) for _ in range(MAX_LEN))


def token_of(digest: int) -> int:
    """Return the next token for a digest."""
    if digest % _EOS_ONE_IN == 0:
        return EOS_TOKEN_ID
    return FIRST_OUTPUT_TOKEN + digest // _EOS_ONE_IN % _OUTPUT_TOKENS


def counts_more(adapter: str | None) -> int:
    """Return the amount that this adapter adds to each token in a digest."""
    return VOCAB_SIZE * adapter_number(adapter)


def digest_of(tokens: Sequence[int], window: int | None = None, adapter: str | None = None) -> int:
    """Return the digest of ``tokens`` (at most `MAX_LEN`), or of the last ``window`` of them."""
    first = 0 if window is None else max(0, len(tokens) - window)
    one = 1 + counts_more(adapter)
    return sum(w * (t + one) for w, t in zip(WEIGHTS[first:], tokens[first:])) % MODULUS


def next_token(tokens: Sequence[int], window: int | None = None, adapter: str | None = None) -> int:
    """Return the token that follows ``tokens`` (not empty, at most `MAX_LEN` long)."""
    return token_of(digest_of(tokens, window, adapter))


def continuation(prompt: Sequence[int], window: int | None = None, adapter: str | None = None) -> Iterator[int]:
    """Yield the endless reference output after ``prompt``; the caller decides where it stops.

    ``window``: how many tokens, including the newest, the model attends to; None for all.
    """
    digest, history = digest_of(prompt, window, adapter), list(prompt)
    one = 1 + counts_more(adapter)
    while True:
        token = token_of(digest)
        yield token
        digest += WEIGHTS[len(history)] * (token + one)
        history.append(token)
        if window is not None and len(history) > window:
            gone = len(history) - window - 1
            digest -= WEIGHTS[gone] * (history[gone] + one)
        digest %= MODULUS


def prompt_tokens(
    prompt: Prompt,
    name: str,
    earlier: Mapping[str, Sequence[int]] | None = None,
    adapters: Mapping[str, str | None] | None = None,
    window: int | None = None,
) -> list[int]:
    """Return the tokens of a described prompt: a shared part, then a tail that depends on ``name``.

    ``earlier``: the prompts of requests that were started before, by name; a prompt with ``after`` needs them.
    ``adapters``: the adapters of these requests, and ``window``: that of the model, on which their output depends.
    """
    if prompt.uniform:
        return [uniform_token(prompt.family)] * prompt.length
    shared = prompt.length - prompt.unique_tail
    if prompt.after is not None:
        history = (earlier or {})[prompt.after]
        output = continuation(history, window, (adapters or {}).get(prompt.after))
        tokens = [*history[:shared], *islice(output, max(0, shared - len(history)))]
    else:
        family = random.Random(f"family {prompt.family}")
        tokens = [family.randrange(_FIRST_PROMPT_TOKEN, VOCAB_SIZE) for _ in range(shared)]
    tail = random.Random(f"tail {name}")
    return tokens + [tail.randrange(_FIRST_PROMPT_TOKEN, VOCAB_SIZE) for _ in range(prompt.unique_tail)]


def all_prompt_tokens(actions: Iterable[Action], window: int | None = None) -> dict[str, list[int]]:
    """Return the tokens of each prompt of a script, by the request's name.

    ``window``: `sr_fuzz.oracle.settings.output_window` of the script's model.
    """
    prompts: dict[str, list[int]] = {}
    adapters: dict[str, str | None] = {}
    for action in actions:
        if isinstance(action, StartReq):
            prompts[action.name] = prompt_tokens(action.prompt, action.name, prompts, adapters, window)
            adapters[action.name] = action.lora_path
    return prompts


def uniform_token(family: int) -> int:
    """Return the token of which uniform prompts of ``family`` consist. Families that are 61 apart share it."""
    return _FIRST_PROMPT_TOKEN + family % (VOCAB_SIZE - _FIRST_PROMPT_TOKEN)
