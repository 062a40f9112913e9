"""SGLang's settings for the oracle model."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

MODEL_PATH = Path(__file__).parent / "model_config"
"""A model directory with a configuration that names the oracle model, without weights and tokenizer."""

MODEL_PACKAGE = "sr_fuzz.oracle.models"
"""The value of SGLang's ``SGLANG_EXTERNAL_MODEL_PACKAGE``."""


@functools.cache
def output_window(model: str) -> int | None:
    """Return how many tokens, including the newest, the output of an engine configuration's model depends on.

    None means all of them. Only `pure_swa` has no layer that sees the whole history.
    """
    if model != "pure_swa":
        return None
    # SGLang counts the tokens before a position.
    return json.loads((MODEL_PATH / model / "config.json").read_text())["sliding_window_size"] + 1


def oracle_settings(kind: str = "dense") -> dict[str, Any]:
    """Return the settings for the oracle model with a kind of cache; it has no weights and no tokenizer."""
    return {
        "model_path": str(MODEL_PATH if kind == "dense" else MODEL_PATH / kind),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        # float32 stores token ids and positions exactly in the key buffer.
        "dtype": "float32",
        # Pure torch on every device, since the model computes no attention.
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "grammar_backend": "none",
        "random_seed": 0,
    }
