"""Turns a `StartReq` into the fields of a request's body: each field goes under its own name."""

from __future__ import annotations

from typing import Any

from sr_fuzz.script import StartReq
from sr_fuzz.script.actions import SAMPLING_FIELDS
from sr_fuzz.script.defaults import defaults_of

# Fields that the interpreter itself turns into ids, tokens and the session's parameters.
_TRANSLATED = {"prompt", "session"}

# Fields that are sent at their defaults too, because the defaults of a script are not SGLang's.
_ALWAYS = {"max_new_tokens", "ignore_eos", "stream"}

# Without `return_logprob` these fields mean nothing, with it they are sent at their defaults too.
_OF_LOGPROBS = {"logprob_start_len", "top_logprobs_num"}

# Fields of a `StartReq` that the body of ``/encode`` has too.
_OF_EMBEDDINGS = ("lora_path",)


def generate_fields(action: StartReq) -> dict[str, Any]:
    """Fields of a ``/generate`` body, those of its ``sampling_params`` in a dictionary under ``sampling``."""
    sent = {name: value for name, value in _given(action).items() if name not in _TRANSLATED}
    sampling = {name: sent.pop(name) for name in SAMPLING_FIELDS if name in sent}
    return {"sampling": sampling, **sent}


def embedding_fields(action: StartReq) -> dict[str, Any]:
    """Fields of an ``/encode`` body."""
    given = _given(action)
    return {name: given[name] for name in _OF_EMBEDDINGS if name in given}


def _given(action: StartReq) -> dict[str, Any]:
    """The fields that are sent, by name; a tuple becomes a list, which JSON has."""
    sent = {}
    for name, default in defaults_of(action).items():
        value = getattr(action, name)
        needed = action.return_logprob if name in _OF_LOGPROBS else name in _ALWAYS or value != default
        if needed:
            sent[name] = list(value) if isinstance(value, tuple) else value
    return sent
