"""The stand-ins for the page allocation kernels return the slots of SGLang's kernels, and handle a short free list."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sr_fuzz.cpu import kernels

PAGE = 4


def _extend(requests: list[tuple[int, int, int]], free: list[int]) -> list[int]:
    """Slots for requests of (prefix length, whole length, last slot of the prefix)."""
    prefix, seq, last = (torch.tensor(column) for column in zip(*requests))
    out = torch.full((int((seq - prefix).sum()),), -7)
    kernel = kernels.OnCpu(kernels.alloc_extend)
    kernel[(len(requests),)](prefix, seq, last, torch.tensor(free, dtype=torch.int64), out, 8, PAGE)
    return out.tolist()


def _decode(requests: list[tuple[int, int]], free: list[int]) -> list[int]:
    """Slots for requests of (length with the new token, last slot so far)."""
    seq, last = (torch.tensor(column) for column in zip(*requests))
    out = torch.full((len(requests),), -7)
    kernel = kernels.OnCpu(kernels.alloc_decode)
    kernel[(len(requests),)](seq, last, torch.tensor(free, dtype=torch.int64), out, 8, PAGE)
    return out.tolist()


@pytest.mark.parametrize(
    ("request_", "slots"),
    [
        pytest.param((0, 3, -1), [36, 37, 38], id="part of a new page"),
        pytest.param((0, 4, -1), [36, 37, 38, 39], id="one whole page"),
        pytest.param((0, 6, -1), [36, 37, 38, 39, 8, 9], id="one page and a part, pages in list order"),
        pytest.param((2, 4, 21), [22, 23], id="the rest of the prefix's last page"),
        pytest.param((2, 3, 21), [22], id="less than the rest of it"),
        pytest.param((2, 9, 21), [22, 23, 36, 37, 38, 39, 8], id="the rest, a page and a part"),
        pytest.param((4, 5, 23), [36], id="a prefix that ends with its page"),
    ],
)
def test_extend_fills_the_last_page_then_free_pages(request_, slots):
    assert _extend([request_], free=[9, 2, 5]) == slots


def test_extend_gives_each_request_its_own_pages():
    slots = _extend([(0, 5, -1), (3, 4, 14), (3, 6, 18)], free=[9, 2, 5, 7])
    assert slots == [36, 37, 38, 39, 8, 15, 19, 20, 21]


def test_decode_takes_a_page_only_where_one_begins():
    slots = _decode([(6, 21), (5, 27), (8, 34), (9, 47)], free=[9, 2])
    assert slots == [22, 36, 35, 8]


@pytest.mark.parametrize("free", [[], [9]])
def test_a_short_free_list_is_no_error(free):
    # SGLang compares afterwards and discards the slots; those that need no page are correct all the same.
    assert len(_extend([(0, 9, -1)], free)) == 9
    assert _decode([(5, 27), (9, 47), (6, 21)], free)[2] == 22


def test_slots_are_those_of_the_real_kernels():
    """Compared under Triton's interpreter, on random batches, and with SGLang's own functions without Triton."""
    sglang = importlib.util.find_spec("sglang")
    assert sglang is not None and sglang.origin is not None
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "triton_kernels.py"), str(Path(sglang.origin).parent)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("150 batches equal alloc_extend_naive alloc_decode_naive"), done.stdout


@pytest.fixture
def paged(monkeypatch):
    """An SGLang that contains only the module of its paged allocator."""
    names = ["sglang", "sglang.srt", "sglang.srt.mem_cache", "sglang.srt.mem_cache.allocator"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = ModuleType("sglang.srt.mem_cache.allocator.paged")
    module.alloc_extend_kernel = module.alloc_decode_kernel = "Triton"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sys.modules[names[-1]].paged = module
    return module


def test_kernels_are_replaced_where_a_release_has_nothing_else(paged):
    kernels.install()
    assert isinstance(paged.alloc_extend_kernel, kernels.OnCpu)
    assert isinstance(paged.alloc_decode_kernel, kernels.OnCpu)


def test_a_release_that_can_do_without_triton_is_left_as_it_is(paged):
    paged.alloc_decode_naive = "its own"
    kernels.install()
    assert paged.alloc_extend_kernel == paged.alloc_decode_kernel == "Triton"
