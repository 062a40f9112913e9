"""Builds the objects that the tokenizer manager sends to the scheduler, as this release builds them."""

from __future__ import annotations

import functools
import inspect
import pickle
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sr_fuzz.script.errors import UnsupportedVersion


def generate_message(*, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> Any:
    """Return the ``TokenizedGenerateReqInput`` that the tokenizer manager sends for a ``/generate`` body."""
    from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(**sampling)
    params.normalize(None)
    if "session_params" in fields:
        from sglang.srt.managers.io_struct import SessionParams

        fields["session_params"] = SessionParams(**fields["session_params"])
    values = {
        "rid": rid,
        "input_text": "",
        "input_ids": array("q", input_ids),
        "sampling_params": params,
        "stream": True,
        **fields,
    }
    # Fields with neutral values are left out if this SGLang has another name for them.
    neutral = {"return_logprob": False, "logprob_start_len": -1, "top_logprobs_num": 0}
    _, known = _fields(TokenizedGenerateReqInput)
    values = {name: value for name, value in neutral.items() if name in known} | values
    return _made(TokenizedGenerateReqInput, values)


def embedding_message(*, rid: str, input_ids: Sequence[int], **fields: Any) -> Any:
    """Return the ``TokenizedEmbeddingReqInput`` that the tokenizer manager sends for an ``/encode`` body."""
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
    """Return the fields that the tokenizer manager adds for a LoRA adapter whose id is its name."""
    from sglang.srt.managers.io_struct import TokenizedGenerateReqInput

    # The field for the name, used in cache events, was added later than the one for the id.
    known = inspect.signature(TokenizedGenerateReqInput).parameters
    return {field: name for field in ("lora_id", "lora_name") if field in known}


def _made(cls: type, values: Mapping[str, Any]) -> Any:
    """Return an object of ``cls``; its other required fields are None.

    Raises `UnsupportedVersion` for a missing field.
    """
    required, known = _fields(cls)
    if unknown := sorted(set(values) - known):
        raise UnsupportedVersion(f"this SGLang's {cls.__name__} has no {', '.join(unknown)}")
    return cls(**dict.fromkeys(required) | dict(values))


@functools.cache
def _fields(cls: type) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the parameters without a default, and all parameters. It is cached: msgspec's signature takes 1 ms."""
    parameters = inspect.signature(cls).parameters
    required = (name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty)
    return tuple(required), frozenset(parameters)


class Control(NamedTuple):
    """A control call: the path to which a client posts it, and the message that the tokenizer manager sends for it."""

    path: str
    message: str
    """A class of ``managers/io_struct.py``; its fields have the same names as those in the body."""
    reply: str | None = None
    """The class of the single reply that the sender waits for; None if it does not wait."""
    constants: Mapping[str, Any] = {}
    """Fields that SGLang requires and that no script varies."""


CONTROLS = {
    "pause": Control("/pause_generation", "PauseGenerationReqInput"),
    "continue": Control("/continue_generation", "ContinueGenerationReqInput"),
    "abort": Control("/abort_request", "AbortReq"),
    "flush_cache": Control("/flush_cache", "FlushCacheReqInput", "FlushCacheReqOutput"),
    # SGLang stores the capacity and never reads it.
    "open_session": Control(
        "/open_session", "OpenSessionReqInput", "OpenSessionReqOutput", {"capacity_of_str_len": 4096}
    ),
    "close_session": Control("/close_session", "CloseSessionReqInput"),
}
"""Every control call that a script can make. A new one needs a row here and a sender in `sr_fuzz.play.interpreter`."""


def control_message(call: str, **fields: Any) -> Any:
    """Return the message that the tokenizer manager sends for a control call with these fields in its body."""
    from sglang.srt.managers import io_struct

    control = CONTROLS[call]
    message = getattr(io_struct, control.message, None)
    if message is None:
        raise UnsupportedVersion(f"this SGLang has no message {control.message}, which `{call}` sends")
    return _made(message, {**control.constants, **fields})


def disaggregation_fields(half: str, number: int) -> dict[str, Any]:
    """Return the fields that the router of a disaggregated pair adds to a request; ``number`` is unique per request.

    The prefill half does not get SGLang's fake bootstrap host, which marks warm-ups: these leave nothing in the prefix
    tree, and up to 0.5.22 their prompts may not be longer than a chunk. The decode half, which has no tree here, gets
    it, because it looks up all other hosts in a table of prefill servers.
    """
    from sglang.srt.disaggregation.utils import FAKE_BOOTSTRAP_HOST

    return {"bootstrap_host": FAKE_BOOTSTRAP_HOST if half == "decode" else "127.0.0.1", "bootstrap_room": number}


# -- the sockets between SGLang's processes --------------------------------------------------------------------


def ipc_decoder() -> Callable[[bytes], Any]:
    """Return the function that decodes a message between SGLang's processes, as SGLang itself does here."""
    from sglang.srt.managers import io_struct

    # A release without the switch supports only pickle.
    if getattr(io_struct, "_USE_PICKLE_IPC", True):
        return pickle.loads
    return io_struct.msgpack_decode
