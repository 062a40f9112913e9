"""The actions of a script, as immutable data.

A script contains no tokens: a prompt is *described* (`Prompt`), so that prefixes are shared on purpose and a script
takes only a few lines.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

import msgspec
from msgspec import Meta

from sr_fuzz.script.adapters import AdapterName
from sr_fuzz.script.engine_config import EngineConfig

VOCAB_SIZE = 64
"""Vocabulary size of the oracle model: small, so that families sometimes collide and stop tokens are actually hit."""

EOS_TOKEN_ID = 2

STAGES = (
    "first_chunk",
    "nth_chunk",
    "last_chunk",
    "first_decode",
    "mid_decode",
    "last_decode",
    "waiting",
    "retracted",
    "finished",
)

# \Z, because $ also matches before a line break at the end. SGLang drops a request with an id that begins with
# HEALTH_CHECK when it has anything else to do, without an answer.
Name = Annotated[
    str,
    Meta(
        pattern=r"^(?!HEALTH_CHECK)[A-Za-z][A-Za-z0-9_]{0,15}\Z",
        description="a name: a letter, then at most 15 letters, digits or underscores; not HEALTH_CHECK at its start",
    ),
]
Stage = Literal[
    "first_chunk", "nth_chunk", "last_chunk", "first_decode", "mid_decode", "last_decode",
    "waiting", "retracted", "finished",
]  # fmt: skip
TokenId = Annotated[int, Meta(ge=0, lt=VOCAB_SIZE)]

CONTEXT_LENGTH = 4096
"""Context length of the oracle model: SGLang refuses a longer prompt, whatever the pool size is."""

PromptLen = Annotated[int, Meta(ge=1, le=CONTEXT_LENGTH)]
NewTokens = Annotated[int, Meta(ge=0, le=CONTEXT_LENGTH)]


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, array_like=False):
    """A described prompt: ``length - unique_tail`` tokens that its family shares, then a unique tail.

    Two prompts of one family share a prefix as long as the shorter of their shared parts; two prompts of different
    families have a common prefix only by chance. The tail is a function of the request's name.
    """

    family: Annotated[int, Meta(ge=0, le=255)] = 0
    length: PromptLen = 8
    unique_tail: Annotated[int, Meta(ge=0, le=4096)] = 0
    uniform: bool = False
    """All tokens are equal, with one token per family, and there is no tail: the only prompts that SGLang's scripted
    runtime can send."""
    after: Name | None = None
    """The name of an earlier request. The shared part is then a prefix of that request's prompt followed by its
    reference output, as in the next turn of a chat; the family does not matter."""


class SessionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The part of a session that a request continues: SGLang's ``session_params``, with the script's names as ids.

    A streaming session only appends to its last turn, so the other fields are refused there. A plain session is a tree
    of requests: without ``rid`` and ``replace`` a request begins a new branch.
    """

    id: Name
    """The session's name; the session need not be open."""
    rid: Name | None = None
    """The request to continue."""
    offset: Annotated[int, Meta(ge=0, le=4096)] | None = None
    """Number of tokens of the history to keep; SGLang treats 0 as all."""
    replace: bool = False
    drop_previous_output: bool = False


SAMPLING_FIELDS = ("max_new_tokens", "ignore_eos", "stop_token_ids", "n")
"""Fields of `StartReq` that are part of ``sampling_params`` in a ``/generate`` body; the others are at the top
level."""


class _Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="action"):
    """Base of all actions; the tag is the field ``action`` of the JSON form."""

    @staticmethod
    def drawn_on(config: EngineConfig) -> bool:
        """Whether the action has an effect on ``config``, so that strategies draw it there."""
        return True


class StartReq(_Action, frozen=True, tag="start_req"):
    """Send a generate request. SGLang clips ``max_new_tokens`` to the size of the context and of the pool."""

    name: Name
    prompt: Prompt = Prompt()
    max_new_tokens: NewTokens = 8
    ignore_eos: bool = False
    stop_token_ids: Annotated[tuple[TokenId, ...], Meta(max_length=8)] = ()
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | None = None
    return_logprob: bool = False
    logprob_start_len: Annotated[int, Meta(ge=-1, le=4096)] = -1
    top_logprobs_num: Annotated[int, Meta(ge=0, le=8)] = 0
    stream: bool = True
    session: SessionParams | None = None
    n: Annotated[int, Meta(ge=1, le=8)] = 1
    """Number of samples: SGLang's tokenizer manager prefills the prompt once, then sends ``n`` separate requests."""
    lora_path: AdapterName | None = None
    """The name of the adapter, as in a ``/generate`` body; None is the base model."""


class Step(_Action, frozen=True, tag="step"):
    """Let the event loop make ``n`` steps."""

    n: Annotated[int, Meta(ge=1, le=1000)] = 1


class StepUntil(_Action, frozen=True, tag="step_until"):
    """Step until request ``name`` reaches ``stage``, at most ``max_steps`` steps. It is no error if it does not.

    ``nth`` is the number of the chunk for ``nth_chunk``. A stage that has passed counts as reached, except ``waiting``.
    """

    name: Name
    stage: Stage
    nth: Annotated[int, Meta(ge=1, le=1000)] = 1
    max_steps: Annotated[int, Meta(ge=1, le=1000)] = 40


class Pause(_Action, frozen=True, tag="pause"):
    """Call ``/pause_generation``. Mode ``abort`` aborts all requests first, as the tokenizer manager does."""

    mode: Literal["retract", "in_place", "abort"] = "retract"


class Continue(_Action, frozen=True, tag="continue"):
    """Call ``/continue_generation``."""


class Abort(_Action, frozen=True, tag="abort"):
    """Call ``/abort_request`` for one request. Without ``await_arrival`` the message arrives one step later."""

    name: Name
    await_arrival: bool = True


class AbortAll(_Action, frozen=True, tag="abort_all"):
    """Call ``/abort_request`` with ``abort_all``."""

    await_arrival: bool = True


class FlushCache(_Action, frozen=True, tag="flush_cache"):
    """Call ``/flush_cache``; SGLang refuses it while any request runs, which is no violation."""


class EvictRadix(_Action, frozen=True, tag="evict_radix"):
    """Call the prefix cache's own ``evict`` for ``num_tokens`` tokens, or for all evictable tokens (None)."""

    num_tokens: Annotated[int, Meta(ge=1, le=65536)] | None = None

    @staticmethod
    def drawn_on(config: EngineConfig) -> bool:
        return not config.disable_radix_cache


class ExhaustKv(_Action, frozen=True, tag="exhaust_kv"):
    """Allocate free KV pages through the allocator's ``alloc`` until ``leave_pages`` are left."""

    leave_pages: Annotated[int, Meta(ge=0, le=65536)] = 0


class ExhaustLockRefs(_Action, frozen=True, tag="exhaust_lock_refs"):
    """Lock evictable tree nodes through ``inc_lock_ref`` until ``leave_refs`` of them are left."""

    leave_refs: Annotated[int, Meta(ge=0, le=65536)] = 0

    @staticmethod
    def drawn_on(config: EngineConfig) -> bool:
        return not config.disable_radix_cache


class ExhaustRows(_Action, frozen=True, tag="exhaust_rows"):
    """Send long requests with one-token prompts (ballast) until ``leave_rows`` request rows are left.

    Their outputs share half of the pool, so they end by themselves in a small pool.
    """

    leave_rows: Annotated[int, Meta(ge=0, le=65536)] = 0


class Release(_Action, frozen=True, tag="release"):
    """Release the resources that the exhausters hold; ballast requests are aborted."""


class AdvanceClock(_Action, frozen=True, tag="advance_clock"):
    """Advance the scheduler's clock by ``seconds``, at once; see `sr_fuzz.sglang_api.clock`."""

    seconds: Annotated[float, Meta(gt=0, le=86400)] = 1.0

    @staticmethod
    def drawn_on(config: EngineConfig) -> bool:
        return bool(config.timeouts) or config.enable_streaming_session


class OpenSession(_Action, frozen=True, tag="open_session"):
    """Call ``/open_session``. SGLang refuses a name that is open. A streaming session keeps its KV between turns."""

    name: Name
    streaming: bool = False
    timeout: Annotated[float, Meta(ge=0.5, le=1000.0)] | None = None
    """Idle time in seconds after which SGLang closes the session; eight steps of the event loop count as one second."""

    @staticmethod
    def drawn_on(config: EngineConfig) -> bool:
        return config.enable_streaming_session


class CloseSession(_Action, frozen=True, tag="close_session"):
    """Call ``/close_session``; while a turn of a streaming session runs, SGLang defers it."""

    name: Name

    @staticmethod
    def drawn_on(config: EngineConfig) -> bool:
        return config.enable_streaming_session


Action = Union[
    StartReq, Step, StepUntil, Pause, Continue, Abort, AbortAll, FlushCache, EvictRadix,
    ExhaustKv, ExhaustLockRefs, ExhaustRows, Release, AdvanceClock, OpenSession, CloseSession,
]  # fmt: skip

EXHAUSTERS = (ExhaustKv, ExhaustLockRefs, ExhaustRows)
