"""The oracle: which token comes after a given history. Pure Python; the model computes the same from the KV cache.

With ``W`` a fixed pseudo-random weight per position, the history ``t_0 … t_{n-1}`` has the digest
``D = sum(W[i] * (t_i + 1)) mod P``, and the next token is EOS when ``D mod 64 == 0``, else
``32 + (D // 64) mod 32``. Every token at every position changes the digest, so a token that was lost, doubled,
moved or read from somebody else's page changes the output. A sum, not a rolling hash: it is one dot product in the
model and still sensitive to order, since each position has its own weight.

Outputs lie in 32..63 and EOS, so that stop tokens drawn from that range are really hit and, one time in 64, a
request that honours EOS ends by itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from sr_fuzz.script import EOS_TOKEN_ID, VOCAB_SIZE, Action, Prompt, StartReq

MAX_LEN = 8192
"""Positions with a weight: twice the context length, since a prompt that is too long is refused, not truncated."""

MODULUS = 2_147_483_629
"""Largest prime below 2**31 - 1 but one; products with a token stay far below 2**63 after 8192 additions."""

FIRST_OUTPUT_TOKEN = 32
_OUTPUT_TOKENS = VOCAB_SIZE - FIRST_OUTPUT_TOKEN
_EOS_ONE_IN = 64
_FIRST_PROMPT_TOKEN = 3  # 0, 1 and 2 are padding, BOS and EOS

_generator = random.Random(0x5EED)  # any seed does; a fixed one makes outputs the same in every process
WEIGHTS: tuple[int, ...] = tuple(_generator.randrange(1, MODULUS) for _ in range(MAX_LEN))


def token_of(digest: int) -> int:
    """The next token for a digest."""
    if digest % _EOS_ONE_IN == 0:
        return EOS_TOKEN_ID
    return FIRST_OUTPUT_TOKEN + digest // _EOS_ONE_IN % _OUTPUT_TOKENS


def digest_of(tokens: Sequence[int]) -> int:
    return sum(w * (t + 1) for w, t in zip(WEIGHTS, tokens)) % MODULUS


def next_token(tokens: Sequence[int]) -> int:
    """The token that follows ``tokens`` (not empty, at most `MAX_LEN` long)."""
    return token_of(digest_of(tokens))


def continuation(prompt: Sequence[int]) -> Iterator[int]:
    """The endless reference output after ``prompt``; stopping is the caller's business."""
    digest, position = digest_of(prompt), len(prompt)
    while True:
        token = token_of(digest)
        yield token
        digest = (digest + WEIGHTS[position] * (token + 1)) % MODULUS
        position += 1


def prompt_tokens(prompt: Prompt, name: str, earlier: Mapping[str, Sequence[int]] | None = None) -> list[int]:
    """The tokens a described prompt stands for: a shared part, then a tail that depends on ``name``.

    ``earlier``: the prompts of requests that were started before, by name; one that comes after another needs them.
    """
    if prompt.uniform:
        return [uniform_token(prompt.family)] * prompt.length
    shared = prompt.length - prompt.unique_tail
    if prompt.after is not None:
        history = (earlier or {})[prompt.after]
        tokens = [*history[:shared], *islice(continuation(history), max(0, shared - len(history)))]
    else:
        family = random.Random(f"family {prompt.family}")
        tokens = [family.randrange(_FIRST_PROMPT_TOKEN, VOCAB_SIZE) for _ in range(shared)]
    tail = random.Random(f"tail {name}")
    return tokens + [tail.randrange(_FIRST_PROMPT_TOKEN, VOCAB_SIZE) for _ in range(prompt.unique_tail)]


def all_prompt_tokens(actions: Iterable[Action]) -> dict[str, list[int]]:
    """The tokens of each prompt of a script, by the request's name."""
    prompts: dict[str, list[int]] = {}
    for action in actions:
        if isinstance(action, StartReq):
            prompts[action.name] = prompt_tokens(action.prompt, action.name, prompts)
    return prompts


def uniform_token(family: int) -> int:
    """The token that uniform prompts of ``family`` consist of. Families that are 61 apart have the same."""
    return _FIRST_PROMPT_TOKEN + family % (VOCAB_SIZE - _FIRST_PROMPT_TOKEN)
