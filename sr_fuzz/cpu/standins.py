"""Stand-ins and settings that SGLang's import and boot need without a GPU; they do not change its logic."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

from sr_fuzz.oracle.settings import MODEL_PACKAGE

_mended = False
_library = None
"""Kept for the life of the process: the operators that it defines disappear with it."""


def environment() -> dict[str, str]:
    """Return the environment variables that must be set before SGLang is imported."""
    return {
        # One thread: if a process with a running OpenMP pool is forked, the child hangs in its first parallel region.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "SGLANG_EXTERNAL_MODEL_PACKAGE": MODEL_PACKAGE,
        # The nodes of the Rust tree cannot be read from Python, so its pages could only be counted.
        "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": "python",
        # Only our plugin is loaded: the fuzzer must not depend on other installed plugins.
        "SGLANG_PLUGINS": "sr_fuzz",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


SOCKETLESS = {"SGLANG_USE_PICKLE_IPC": "1"}
"""Environment of a scheduler without sockets: it then receives objects instead of bytes from the stand-in socket."""

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""Environment of an engine on the CPU of a machine with a GPU: SGLang takes GPU code paths wherever it finds a GPU."""

WANTED = "SR_FUZZ_STANDINS"
"""Environment variable that is set for SGLang's processes where there is no GPU."""


def wanted() -> bool:
    """Whether this process was started by an engine that runs without a GPU."""
    return bool(os.environ.get(WANTED))


def install() -> None:
    """Set the environment of a scheduler without sockets, and fix the imports. Call it before SGLang is imported."""
    os.environ.update(environment() | {WANTED: "1"} | WITHOUT_GPU | SOCKETLESS)
    mend_imports()


def mend_imports() -> None:
    """Fix what keeps SGLang from being imported without a GPU. Idempotent; call it before the import.

    A torchvision that was built for another torch lacks two operator schemas. For the other fix see
    `_let_configs_be_registered_again`.
    """
    global _mended
    if _mended:
        return
    _mended = True
    import torch

    torch.set_num_threads(1)
    if not _torchvision_has_operators():
        _define_torchvision_operators()
    _let_configs_be_registered_again()


def _torchvision_has_operators() -> bool:
    """Whether the compiled part of torchvision loads.

    It then has defined its operators, and a second definition would abort.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    for library in Path(spec.origin).parent.glob("_C*.so") if spec and spec.origin else ():
        try:
            torch.ops.load_library(str(library))
            return True
        except OSError:
            pass
    return False


def _define_torchvision_operators() -> None:
    global _library
    import torch

    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _let_configs_be_registered_again() -> None:
    """Let SGLang's own model configurations replace those with the same name in a newer ``transformers``.

    Releases up to 0.5.19 register them at import without ``exist_ok``, which fails with a ``transformers`` that is
    newer than the one they were built for. Later releases pass ``exist_ok`` themselves.
    """
    from transformers import AutoConfig

    AutoConfig.register = staticmethod(functools.partial(AutoConfig.register, exist_ok=True))
