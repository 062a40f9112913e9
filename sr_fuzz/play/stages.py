"""When a request has reached a stage: what `StepUntil` means, wherever a script is played or written out.

The interpreter, the player on SGLang's own scripted runtime and the tests that are written for it know different things
about a request; all of them know its `Progress`.
"""

from __future__ import annotations

from typing import NamedTuple

from sr_fuzz.script import EngineConfig, StartReq, StepUntil
from sr_fuzz.script.actions import CONTEXT_LENGTH


class Condition(NamedTuple):
    """A stage as bounds on a request's progress; it is reached when any bound is met."""

    chunks: int | None = None
    """Number of extends done."""
    tokens: int | None = None
    """Number of output tokens."""
    waiting: bool = False
    retracted: bool = False
    ended: bool = True
    """Whether the end of the request counts: a stage that has passed counts as reached, except ``waiting``."""


class Progress(NamedTuple):
    """How far a request has come."""

    chunks: int
    tokens: int
    waiting: bool
    retracted: bool
    """Whether it was ever retracted."""
    ended: bool
    """Whether its last output was sent."""


def condition(
    action: StepUntil,
    start: StartReq,
    config: EngineConfig,
    *,
    prompt_len: int | None = None,
    max_new_tokens: int | None = None,
) -> Condition:
    """The bounds for the request that ``start`` starts.

    ``prompt_len`` and ``max_new_tokens``: those of SGLang's request, where it is known: the prompt of a session's turn
    begins with the turns before it, and SGLang clips the output. Otherwise they are expected from the script.
    ``last_chunk`` is the chunk before the extend that completes the prompt; for an uncut prompt, its only extend.
    """
    stage, chunk_size = action.stage, config.chunked_prefill_size
    if prompt_len is None:
        prompt_len = start.prompt.length
    if max_new_tokens is None:
        max_new_tokens = min(start.max_new_tokens, _most_new_tokens(prompt_len, config))
    if stage in ("first_chunk", "nth_chunk", "last_chunk"):
        last = max(1, (prompt_len - 1) // chunk_size) if chunk_size > 0 else 1
        # A prompt that was never cut counts no chunk, but has output.
        return Condition(chunks={"first_chunk": 1, "nth_chunk": action.nth}.get(stage, last), tokens=1)
    if stage in ("first_decode", "mid_decode", "last_decode"):
        wanted = {"first_decode": 1, "mid_decode": max_new_tokens // 2}.get(stage, max_new_tokens - 1)
        return Condition(tokens=max(1, wanted))
    if stage == "waiting":
        return Condition(waiting=True, ended=False)
    return Condition(retracted=stage == "retracted")


def _most_new_tokens(prompt_len: int, config: EngineConfig) -> int:
    """The number of tokens to which SGLang clips the output after a prompt, as ``init_req_max_new_tokens`` of its
    scheduler does: what the context holds, and the pool with a page to spare."""
    page = config.page_size
    in_pool = config.max_total_tokens - -(-prompt_len // page) * page - page - 1
    return max(0, min(in_pool, CONTEXT_LENGTH - prompt_len - 2))


def reached(wanted: Condition, now: Progress) -> bool:
    """Whether one of the bounds is met."""
    return (
        (wanted.ended and now.ended)
        or (wanted.chunks is not None and now.chunks >= wanted.chunks)
        or (wanted.tokens is not None and now.tokens >= wanted.tokens)
        or (wanted.waiting and now.waiting)
        or (wanted.retracted and now.retracted)
    )
