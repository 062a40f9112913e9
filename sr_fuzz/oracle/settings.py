"""What SGLang is told so that it loads the oracle model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODEL_PATH = Path(__file__).parent / "model_config"
"""A model directory: a configuration that names the oracle model, no weights, no tokenizer."""

MODEL_PACKAGE = "sr_fuzz.oracle.models"
"""For SGLang's ``SGLANG_EXTERNAL_MODEL_PACKAGE``."""


def oracle_settings(kind: str = "dense") -> dict[str, Any]:
    """Settings for the oracle model of a kind of cache: a configuration without weights or a tokenizer."""
    return {
        "model_path": str(MODEL_PATH if kind == "dense" else MODEL_PATH / kind),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        # Holds token ids and positions exactly in the key buffer.
        "dtype": "float32",
        # Pure torch, on every device: the model computes no attention.
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "grammar_backend": "none",
        "random_seed": 0,
    }
