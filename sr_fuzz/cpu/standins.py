"""What SGLang's import and boot need on a machine without a GPU, and nothing that changes its logic."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

from sr_fuzz.oracle.settings import MODEL_PACKAGE

_mended = False
_library = None
"""Kept for good: what it defines goes with it."""


def environment() -> dict[str, str]:
    """Environment settings that must stand before SGLang is imported."""
    return {
        # One thread: forking a process whose OpenMP pool runs would hang the child on its first parallel region.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "SGLANG_EXTERNAL_MODEL_PACKAGE": MODEL_PACKAGE,
        # The Rust tree cannot be walked from Python, so its pages could only be counted.
        "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": "python",
        # Only our plugin: the fuzzer must not depend on what else is installed.
        "SGLANG_PLUGINS": "sr_fuzz",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


SOCKETLESS = {"SGLANG_USE_PICKLE_IPC": "1"}
"""Environment of a scheduler without sockets: it then asks what stands for one for objects instead of bytes."""

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""For an engine on the CPU of a machine with a GPU: SGLang would take the GPU's code paths wherever it sees one."""

WANTED = "SR_FUZZ_STANDINS"
"""Set in the environment of SGLang's processes where there is no GPU."""


def wanted() -> bool:
    """Whether this process was started by an engine that runs without a GPU."""
    return bool(os.environ.get(WANTED))


def install() -> None:
    """Set the environment of a scheduler without sockets, and mend the imports. Call it before SGLang is imported."""
    os.environ.update(environment() | {WANTED: "1"} | WITHOUT_GPU | SOCKETLESS)
    mend_imports()


def mend_imports() -> None:
    """Mend what keeps SGLang from being imported without a GPU. Idempotent; call it before the import.

    A torchvision that was built for another torch lacks two operator schemas; for the rest see
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
    """Whether its compiled part loads here; then it has defined its operators, and a second definition would abort."""
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
    """Let SGLang's own model configurations replace those that a newer ``transformers`` has under the same name.

    Releases up to 0.5.19 register them without ``exist_ok`` at import, which fails where ``transformers`` is newer than
    the one they were made for. Later releases pass ``exist_ok`` themselves.
    """
    from transformers import AutoConfig

    AutoConfig.register = staticmethod(functools.partial(AutoConfig.register, exist_ok=True))
