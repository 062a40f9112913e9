"""Stand-ins for GPU kernel packages; each test runs in an interpreter of its own, since they change its imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sr_fuzz.cpu import missing_kernels

pytestmark = pytest.mark.skipif(
    set(missing_kernels.missing()) != set(missing_kernels.PACKAGES), reason="a kernel package is installed here"
)


def run(code: str, **environment: str) -> str:
    """The output of ``code``, which runs after the stand-ins are installed."""
    code = f"from sr_fuzz.cpu import missing_kernels\nmissing_kernels.install()\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_everything_is_found_in_a_stand_in_and_nothing_can_be_called():
    code = """
import sgl_kernel.quantization.deeply as deeply
from flashinfer.comm import Mapping
from sgl_kernel import scalar_types
names = [scalar_types.uint4b8, Mapping]
try:
    deeply.dequantize(1)
except ModuleNotFoundError as error:
    print(error)
"""
    said = run(code)
    assert said.startswith("sgl_kernel.quantization.deeply.dequantize was called, but sgl_kernel is not installed")


def test_sglang_is_told_that_they_are_not_the_real_ones():
    code = "import os; print(*(os.environ.get(n) for names in missing_kernels.PACKAGES.values() for n in names))"
    assert run(code) == "1 false"


def test_what_is_installed_is_left_as_it_is(tmp_path: Path):
    (tmp_path / "sgl_kernel").mkdir()
    (tmp_path / "sgl_kernel" / "__init__.py").write_text("def rmsnorm():\n    return 'the real one'\n")
    code = """
import sgl_kernel
print(sgl_kernel.rmsnorm(), hasattr(sgl_kernel, "scalar_types"))
try:
    import sgl_kernel.allreduce
except ModuleNotFoundError as error:
    print(error)
"""
    lines = run(code, PYTHONPATH=str(tmp_path)).splitlines()
    assert lines == ["the real one False", "No module named 'sgl_kernel.allreduce'"]


@pytest.mark.parametrize("name", ["sglang.jit_kernel.clamp_position", "sglang.kernels.ops.attention.clamp_position"])
def test_the_kernel_that_would_be_compiled_is_computed_by_torch(name: str):
    code = f"""
import importlib.util, sys, torch
spec = sys.meta_path[0].find_spec({name!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
lengths = torch.tensor([0, 1, 5], dtype=torch.int32)
print(module.clamp_position(lengths).tolist(), module.clamp_position_cuda(lengths).dtype)
"""
    assert run(code) == "[0, 0, 4] torch.int64"


def test_drafts_on_a_gpu_are_refused_where_their_kernels_are_stand_ins():
    code = """
from sr_fuzz.cpu import speculation
from sr_fuzz.script import EngineConfig
for device, model in (("cuda", "dense"), ("cpu", "dense"), ("cpu", "swa")):
    try:
        speculation.check(EngineConfig(speculative_algorithm="NGRAM", model=model), device)
    except Exception as error:
        print(device, error)
"""
    assert run(code).splitlines() == [
        "cuda speculative_algorithm=NGRAM on cuda needs SGLang's kernels: install sgl_kernel",
        "cpu speculative_algorithm=NGRAM with model=swa: the oracle verifies drafts with one pool alone",
    ]
