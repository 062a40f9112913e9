"""Scripts: an engine configuration and a list of actions, as immutable data.

A script is the only thing that travels between the rooms of this project: strategies make it, engines run it,
the minimiser shortens it, the repro writer prints it. It imports nothing of ours, knows no engine and holds no
token: a prompt is *described* (`Prompt`), so that prefixes are shared on purpose and a script stays a few lines.

Three forms, all lossless except the last:

* Python values, the frozen ``msgspec`` structs of this module;
* JSON, through `to_json` and `from_json`; a file carries ``format``, and a file of another format is refused;
* one line of text, through `sr_fuzz.script_text`, for logs and reports.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta

from sr_fuzz.script_errors import escaped, explain, short

FORMAT_VERSION = 1
"""Raised whenever an old file would be read with another meaning."""

VOCAB_SIZE = 64
"""Tokens of the oracle model: small, so that families collide now and then and stop tokens are really hit."""

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

SCHEDULE_POLICIES = ("fcfs", "lpm", "dfs-weight", "lof", "random", "routing-key", "hrrn")

# \Z, not $: that one also matches before a line break at the end.
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9_]{0,15}\Z",
        description="a name: a letter, then at most 15 letters, digits or underscores",
    ),
]
Stage = Literal[
    "first_chunk", "nth_chunk", "last_chunk", "first_decode", "mid_decode", "last_decode",
    "waiting", "retracted", "finished",
]  # fmt: skip
TokenId = Annotated[int, Meta(ge=0, lt=VOCAB_SIZE)]

# 4096 is the context length of the oracle model: a longer prompt is refused by SGLang whatever the pool.
PromptLen = Annotated[int, Meta(ge=1, le=4096)]
NewTokens = Annotated[int, Meta(ge=0, le=4096)]


class ScriptError(ValueError):
    """A script that cannot be read or makes no sense. The message is one line and names the field."""


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What of the engine a script depends on. The names are those of SGLang's ``ServerArgs`` where it has one.

    Pools are small on purpose: memory pressure finds more than variety of operations does.
    """

    page_size: Annotated[int, Meta(ge=1, le=64)] = 1
    max_total_tokens: Annotated[int, Meta(ge=8, le=65536)] = 128
    """KV pool, in tokens; a multiple of ``page_size``."""
    max_running_requests: Annotated[int, Meta(ge=1, le=256)] = 6
    """Request rows."""
    chunked_prefill_size: Annotated[int, Meta(ge=-1, le=8192)] = 16
    """Tokens a prefill batch may take; -1 turns chunking off."""
    max_prefill_tokens: Annotated[int, Meta(ge=1, le=65536)] = 16384
    disable_overlap_schedule: bool = False
    enable_mixed_chunk: bool = False
    disable_radix_cache: bool = False
    schedule_policy: Literal["fcfs", "lpm", "dfs-weight", "lof", "random", "routing-key", "hrrn"] = "fcfs"
    schedule_conservativeness: Annotated[float, Meta(ge=0.01, le=10.0)] = 1.0
    """Low values admit more than fits, so that running requests must be retracted."""
    enable_priority_scheduling: bool = False
    disable_priority_preemption: bool = False
    schedule_low_priority_values_first: bool = False
    priority_scheduling_preemption_threshold: Annotated[int, Meta(ge=0, le=1000)] = 10
    max_queued_requests: Annotated[int, Meta(ge=1, le=1024)] | None = None
    stream_interval: Annotated[int, Meta(ge=1, le=64)] = 1
    tp_size: Annotated[int, Meta(ge=1, le=8)] = 1
    pp_size: Annotated[int, Meta(ge=1, le=8)] = 1
    dp_size: Annotated[int, Meta(ge=1, le=8)] = 1
    """Tensor, pipeline and data parallel ranks; more than one of any needs the server engine."""
    retraction_policy: Literal["length", "priority"] | None = None
    """Who goes first when memory runs out while decoding; None: what the release does by default, ``length``."""
    prefix_tree: Literal["legacy", "unified", "rust"] | None = None
    """Which prefix tree: ``RadixCache``, or the unified one with its Python or its Rust core. None: the release's own
    choice, with the Python core where it has several."""
    req_waiting_timeout: Annotated[float, Meta(gt=0, le=3600)] | None = None
    req_running_timeout: Annotated[float, Meta(gt=0, le=3600)] | None = None
    """Seconds, on the virtual clock that `AdvanceClock` moves, until a request that waits or runs is aborted."""
    enable_hierarchical_cache: bool = False
    """Prefixes that leave the device go to the host's memory, and come back from there."""
    hicache_write_policy: Literal["write_back", "write_through", "write_through_selective"] | None = None
    speculative_algorithm: Literal["NGRAM"] | None = None
    disaggregation_mode: Literal["null", "prefill", "decode"] = "null"
    """One half of a disaggregated pair, over the fake transfer backend: there is nobody at the other end."""
    model: Literal["dense", "swa", "pure_swa", "mamba"] = "dense"
    """Which kind of KV cache the oracle model asks for: one pool for all layers; a second one for layers that see a
    sliding window; nothing but a window; attention beside a layer with a recurrent state (Mamba, linear attention)."""
    swa_full_tokens_ratio: Annotated[float, Meta(ge=0.05, le=1.0)] | None = None
    """Size of the sliding-window pool as a part of ``max_total_tokens``; None leaves it to SGLang."""
    max_mamba_cache_size: Annotated[int, Meta(ge=2, le=1024)] | None = None
    """Slots for recurrent states; None leaves it to SGLang."""
    mamba_radix_cache_strategy: Literal["no_buffer", "extra_buffer", "extra_buffer_lazy"] | None = None
    """Where a state that the prefix tree will keep is written while its request runs on."""
    mamba_track_interval: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Decode steps between two states that are kept, with an extra buffer."""
    enable_streaming_session: bool = False
    is_embedding: bool = False
    """Every request asks for the embedding of its prompt; what it says about output does not count."""

    @property
    def world_size(self) -> int:
        """Scheduler processes."""
        return self.tp_size * self.pp_size * self.dp_size


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, array_like=False):
    """A described prompt: ``length - unique_tail`` tokens shared by its family, then a tail of its own.

    Two prompts of one family share their first ``min`` of the shared parts; two of different families share
    nothing but chance. The tail is a function of the request's name.
    """

    family: Annotated[int, Meta(ge=0, le=255)] = 0
    length: PromptLen = 8
    unique_tail: Annotated[int, Meta(ge=0, le=4096)] = 0
    uniform: bool = False
    """All tokens equal, one token a family, and no tail: the only prompts that SGLang's scripted runtime can send."""
    after: Name | None = None
    """A request started earlier: the shared part is then the beginning of what that one reads and generates, its prompt
    and behind it its reference output, as in the next turn of a chat; the family does not matter."""


class SessionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What of a session a request continues: SGLang's ``session_params``, with the script's names for ids.

    A streaming session only appends to its last turn, so there the rest is refused. A plain one is a tree of requests:
    without ``rid`` and ``replace`` a request begins a new branch.
    """

    id: Name
    """The session's name; it need not be open."""
    rid: Name | None = None
    """The request to continue."""
    offset: Annotated[int, Meta(ge=0, le=4096)] | None = None
    """Tokens of the history to keep; SGLang takes 0 for all."""
    replace: bool = False
    drop_previous_output: bool = False


class _Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="action"):
    """Base of all actions; the tag is the ``action`` field of the JSON form."""


class StartReq(_Action, frozen=True, tag="start_req"):
    """Send a generate request. ``max_new_tokens`` is clipped by SGLang to what the context and the pool hold."""

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
    """Answers wanted: SGLang's tokenizer manager prefills the prompt once, then sends ``n`` requests of its own."""


class Step(_Action, frozen=True, tag="step"):
    """Let the event loop turn ``n`` times."""

    n: Annotated[int, Meta(ge=1, le=1000)] = 1


class StepUntil(_Action, frozen=True, tag="step_until"):
    """Step until request ``name`` reaches ``stage``, at most ``max_steps`` turns; not reaching it is no error.

    ``nth`` says which chunk ``nth_chunk`` means. A stage that has passed counts as reached, except ``waiting``.
    """

    name: Name
    stage: Stage
    nth: Annotated[int, Meta(ge=1, le=1000)] = 1
    max_steps: Annotated[int, Meta(ge=1, le=1000)] = 40


class Pause(_Action, frozen=True, tag="pause"):
    """``/pause_generation``. ``abort`` aborts everything first, as the tokenizer manager does in that mode."""

    mode: Literal["retract", "in_place", "abort"] = "retract"


class Continue(_Action, frozen=True, tag="continue"):
    """``/continue_generation``."""


class Abort(_Action, frozen=True, tag="abort"):
    """``/abort_request`` for one name. Without ``await_arrival`` the message arrives one turn later."""

    name: Name
    await_arrival: bool = True


class AbortAll(_Action, frozen=True, tag="abort_all"):
    """``/abort_request`` with ``abort_all``."""

    await_arrival: bool = True


class FlushCache(_Action, frozen=True, tag="flush_cache"):
    """``/flush_cache``; SGLang refuses it while anything runs, which is legal."""


class EvictRadix(_Action, frozen=True, tag="evict_radix"):
    """The prefix cache's own ``evict``, of ``num_tokens`` tokens or (None) of all that can go."""

    num_tokens: Annotated[int, Meta(ge=1, le=65536)] | None = None


class ExhaustKv(_Action, frozen=True, tag="exhaust_kv"):
    """Take free KV pages through the allocator's ``alloc`` until ``leave_pages`` are left."""

    leave_pages: Annotated[int, Meta(ge=0, le=65536)] = 0


class ExhaustLockRefs(_Action, frozen=True, tag="exhaust_lock_refs"):
    """Lock evictable tree nodes through ``inc_lock_ref`` until ``leave_refs`` of them are left."""

    leave_refs: Annotated[int, Meta(ge=0, le=65536)] = 0


class ExhaustRows(_Action, frozen=True, tag="exhaust_rows"):
    """Send long requests with one-token prompts (ballast) so that ``leave_rows`` request rows are left.

    Their outputs share half of the pool, so they end by themselves in a tiny one.
    """

    leave_rows: Annotated[int, Meta(ge=0, le=65536)] = 0


class Release(_Action, frozen=True, tag="release"):
    """Give back what the exhausters hold; ballast requests are aborted."""


class AdvanceClock(_Action, frozen=True, tag="advance_clock"):
    """Let ``seconds`` pass on the scheduler's clock, at once; see `sr_fuzz.runtime.clock`."""

    seconds: Annotated[float, Meta(gt=0, le=86400)] = 1.0


class OpenSession(_Action, frozen=True, tag="open_session"):
    """``/open_session``. SGLang refuses a name that is open. A streaming session keeps its KV between its turns."""

    name: Name
    streaming: bool = False
    timeout: Annotated[float, Meta(ge=0.5, le=1000.0)] | None = None
    """Idle seconds after which SGLang closes it; eight turns of the event loop count as one second."""


class CloseSession(_Action, frozen=True, tag="close_session"):
    """``/close_session``; while a turn of a streaming session runs, SGLang puts it off."""

    name: Name


Action = Union[
    StartReq, Step, StepUntil, Pause, Continue, Abort, AbortAll, FlushCache, EvictRadix,
    ExhaustKv, ExhaustLockRefs, ExhaustRows, Release, AdvanceClock, OpenSession, CloseSession,
]  # fmt: skip

EXHAUSTERS = (ExhaustKv, ExhaustLockRefs, ExhaustRows)

# A longer script says nothing that a shorter one cannot, and its trace no longer fits in a report.
MAX_ACTIONS = 500


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine configuration and the actions to play on it."""

    config: EngineConfig
    actions: Annotated[tuple[Action, ...], Meta(max_length=MAX_ACTIONS)]
    format: int = FORMAT_VERSION

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the requests it starts, in order."""
        return tuple(a.name for a in self.actions if isinstance(a, StartReq))

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the sessions that it opens, each once, in order."""
        return tuple(dict.fromkeys(a.name for a in self.actions if isinstance(a, OpenSession)))

    @property
    def uses_exhausters(self) -> bool:
        return any(isinstance(a, EXHAUSTERS) for a in self.actions)


def to_json(script: Script, *, indent: int = 0) -> bytes:
    """Encode; ``indent`` spaces a level make it readable, 0 makes it compact."""
    data = msgspec.json.encode(script)
    return msgspec.json.format(data, indent=indent) + b"\n" if indent else data


def from_json(data: bytes | str, *, source: str = "script") -> Script:
    """Decode and validate. Raises `ScriptError`, one line: source, field, what is expected, what is there."""
    try:
        # Not msgspec's decoder: the standard one names line and column, and lets NaN through to where it is refused
        # by the name of its field.
        raw = json.loads(data, object_pairs_hook=_refuse_repeated_fields)
    except ScriptError as error:
        raise ScriptError(f"{source}: {error}") from None
    except RecursionError:
        raise ScriptError(f"{source}: nested too deeply to be a script") from None
    except ValueError as error:
        raise ScriptError(f"{source}: not JSON: {error}") from None
    return _checked(raw, source)


def validate(script: Script, *, source: str = "script") -> Script:
    """Check a script that was built in Python as `from_json` would. Returns the script, or raises `ScriptError`."""
    try:
        raw = msgspec.to_builtins(script)
    except (TypeError, ValueError, RecursionError) as error:
        raise ScriptError(f"{source}: holds a value that JSON cannot express: {error}") from None
    return _checked(raw, source)


def _refuse_repeated_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ScriptError(f"field `{escaped(repeated)}` is given twice in one object")
    return fields


def _checked(raw: Any, source: str) -> Script:
    """Turn plain values into a script: first the types, then what they cannot say."""
    if not isinstance(raw, dict):
        raise ScriptError(f"{source}: expected an object with the fields config, actions, got {short(raw)}")
    found = raw.get("format", FORMAT_VERSION)
    if type(found) is not int or found != FORMAT_VERSION:
        raise ScriptError(
            f"{source}: format: this version of sr_fuzz reads format {FORMAT_VERSION}, the file has {short(found)}"
        )
    try:
        script = msgspec.convert(raw, Script)
    except msgspec.ValidationError as error:
        raise ScriptError(f"{source}: {explain(error, Script, raw)}") from None
    _check_config(script.config, source)
    _check_requests(script, source)
    _check_sessions(script, source)
    return script


def _check_config(config: EngineConfig, source: str) -> None:
    page = config.page_size
    if config.max_total_tokens % page:
        raise ScriptError(
            f"{source}: config.max_total_tokens: expected a multiple of page_size {page}, got {config.max_total_tokens}"
        )
    chunk = config.chunked_prefill_size
    if chunk == 0 or chunk > 0 and chunk % page:
        raise ScriptError(
            f"{source}: config.chunked_prefill_size: expected -1 (off) or a multiple of page_size {page}, got {chunk}"
        )
    if config.retraction_policy == "priority" and not config.enable_priority_scheduling:
        raise ScriptError(
            f"{source}: config.retraction_policy: priority needs enable_priority_scheduling, which is false"
        )


def _check_requests(script: Script, source: str) -> None:
    seen: dict[str, int] = {}
    for index, action in enumerate(script.actions):
        if not isinstance(action, StartReq):
            continue
        where = f"{source}: actions[{index}]"
        if action.name in seen:
            raise ScriptError(
                f"{where}.name: {action.name} is already started by actions[{seen[action.name]}]; "
                "a name stands for one request"
            )
        seen[action.name] = index
        length, tail = action.prompt.length, action.prompt.unique_tail
        if tail > length:
            raise ScriptError(f"{where}.prompt.unique_tail: expected 0 to the prompt's length {length}, got {tail}")
        after = action.prompt.after
        if after is not None and seen.get(after, index) == index:
            raise ScriptError(f"{where}.prompt.after: expected a request started before {action.name}, got {after}")
        if after is not None and action.prompt.uniform:
            raise ScriptError(f"{where}.prompt.after: expected none, since the prompt is uniform, got {after}")
        if tail and action.prompt.uniform:
            raise ScriptError(f"{where}.prompt.unique_tail: expected 0, since the prompt is uniform, got {tail}")


def _check_sessions(script: Script, source: str) -> None:
    started = set(script.names)
    for index, action in enumerate(script.actions):
        if isinstance(action, StartReq):
            _check_kind(action, script.config, f"{source}: actions[{index}]")
        if not isinstance(action, OpenSession):
            continue
        where = f"{source}: actions[{index}]"
        if action.name in started:
            raise ScriptError(f"{where}.name: {action.name} is a request of this script; a session needs another name")
        if action.streaming and not script.config.enable_streaming_session:
            raise ScriptError(
                f"{where}.streaming: true needs config.enable_streaming_session, which is false: the server refuses it"
            )


def _check_kind(action: StartReq, config: EngineConfig, where: str) -> None:
    if action.n > 1 and action.session is not None:
        raise ScriptError(f"{where}.n: expected 1, since the request belongs to a session, got {action.n}")
    if not config.is_embedding:
        return
    if action.n > 1:
        raise ScriptError(f"{where}.n: expected 1, since config.is_embedding is true, got {action.n}")
    if action.session is not None:
        raise ScriptError(f"{where}.session: expected null, since config.is_embedding is true, got an object")


def script_hash(script: Script) -> str:
    """A stable content hash: 16 hex digits of the SHA-256 of the canonical JSON form (keys sorted)."""
    canonical = msgspec.json.encode(msgspec.to_builtins(script), order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:16]
