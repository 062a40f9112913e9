"""The objects that the tokenizer manager sends to the scheduler, made as this release makes them."""

from __future__ import annotations

import functools
import inspect
import pickle
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sr_fuzz.script.errors import UnsupportedVersion


def generate_message(*, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> Any:
    """The ``TokenizedGenerateReqInput`` that the tokenizer manager would send for a ``/generate`` body."""
    from sglang.srt.managers.io_struct import SessionParams, TokenizedGenerateReqInput
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(**sampling)
    params.normalize(None)
    if "session_params" in fields:
        fields["session_params"] = SessionParams(**fields["session_params"])
    values = {
        "rid": rid,
        "input_text": "",
        "input_ids": array("q", input_ids),
        "sampling_params": params,
        "stream": True,
        **fields,
    }
    # What asks for nothing goes without saying, where this SGLang has another name for it.
    neutral = {"return_logprob": False, "logprob_start_len": -1, "top_logprobs_num": 0}
    _, known = _fields(TokenizedGenerateReqInput)
    values = {name: value for name, value in neutral.items() if name in known} | values
    return _made(TokenizedGenerateReqInput, values)


def embedding_message(*, rid: str, input_ids: Sequence[int], **fields: Any) -> Any:
    """The ``TokenizedEmbeddingReqInput`` that the tokenizer manager would send for an ``/encode`` body."""
    from sglang.srt.managers.io_struct import TokenizedEmbeddingReqInput
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(max_new_tokens=0)
    params.normalize(None)
    values = {
        "rid": rid,
        "input_text": "",
        "input_ids": array("q", input_ids),
        "sampling_params": params,
        **fields,
    }
    return _made(TokenizedEmbeddingReqInput, values)


def adapter_fields(name: str) -> dict[str, Any]:
    """What the tokenizer manager adds for a LoRA adapter whose id is its name."""
    from sglang.srt.managers.io_struct import TokenizedGenerateReqInput

    # The name, for events about the cache, came later than the id.
    known = inspect.signature(TokenizedGenerateReqInput).parameters
    return {field: name for field in ("lora_id", "lora_name") if field in known}


def _made(cls: type, values: Mapping[str, Any]) -> Any:
    """An object of ``cls``, whose other required fields are None. Raises `UnsupportedVersion` for a field it lacks."""
    required, known = _fields(cls)
    if unknown := sorted(set(values) - known):
        raise UnsupportedVersion(f"this SGLang's {cls.__name__} has no {', '.join(unknown)}")
    return cls(**dict.fromkeys(required) | dict(values))


@functools.cache
def _fields(cls: type) -> tuple[tuple[str, ...], frozenset[str]]:
    """Parameters without a default, and all; remembered, since a signature of msgspec's takes a millisecond."""
    parameters = inspect.signature(cls).parameters
    required = (name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty)
    return tuple(required), frozenset(parameters)


class Control(NamedTuple):
    """A control call: where a client posts it, and what the tokenizer manager sends to the scheduler for it."""

    path: str
    message: str
    """A class of ``managers/io_struct.py``; its fields have the names of those in the body."""
    reply: str | None = None
    """The class of the one reply that the sender waits for; None where it sends without waiting."""
    constants: Mapping[str, Any] = {}
    """Fields that SGLang asks for and no script varies."""


CONTROLS = {
    "pause": Control("/pause_generation", "PauseGenerationReqInput"),
    "continue": Control("/continue_generation", "ContinueGenerationReqInput"),
    "abort": Control("/abort_request", "AbortReq"),
    "flush_cache": Control("/flush_cache", "FlushCacheReqInput", "FlushCacheReqOutput"),
    # The capacity is stored and never read.
    "open_session": Control(
        "/open_session", "OpenSessionReqInput", "OpenSessionReqOutput", {"capacity_of_str_len": 4096}
    ),
    "close_session": Control("/close_session", "CloseSessionReqInput"),
}
"""Every control call that a script can make. One more is a row here, and a sender in `sr_fuzz.play.interpreter`."""


def control_message(call: str, **fields: Any) -> Any:
    """The message that the tokenizer manager would send for a control call with these fields in its body."""
    from sglang.srt.managers import io_struct

    control = CONTROLS[call]
    message = getattr(io_struct, control.message, None)
    if message is None:
        raise UnsupportedVersion(f"this SGLang has no message {control.message}, which `{call}` sends")
    return _made(message, {**control.constants, **fields})


def disaggregation_fields(half: str, number: int) -> dict[str, Any]:
    """What a request brings along from the router of a disaggregated pair; ``number`` tells requests apart.

    The prefill half does not get SGLang's fake bootstrap host: it marks warm-ups, which leave nothing in the prefix
    tree, and whose prompts up to 0.5.22 may not be longer than a chunk. The decode half, which has no tree here, looks
    for everybody else in a table of prefill servers.
    """
    from sglang.srt.disaggregation.utils import FAKE_BOOTSTRAP_HOST

    return {"bootstrap_host": FAKE_BOOTSTRAP_HOST if half == "decode" else "127.0.0.1", "bootstrap_room": number}


# -- the sockets between SGLang's processes --------------------------------------------------------------------


def ipc_decoder() -> Callable[[bytes], Any]:
    """What steps the bytes of a message between SGLang's processes into the object, as SGLang itself does here."""
    from sglang.srt.managers import io_struct

    # A release without the switch knows pickle alone.
    if getattr(io_struct, "_USE_PICKLE_IPC", True):
        return pickle.loads
    return io_struct.msgpack_decode
