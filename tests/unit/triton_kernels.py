"""Compares our page allocation with SGLang's: ``python triton_kernels.py FOLDER_OF_SGLANG``, TRITON_INTERPRET=1.

SGLang itself is not imported, which would take ten seconds: the module of its kernels needs Triton only, and from the
module with its functions for machines without Triton only those functions are taken.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from sr_fuzz.cpu import kernels

PAGE_SIZES = (4, 16, 64)
CASES = 25


def kernels_of(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("sglang_kernels", folder / "kernels/ops/memory/allocator.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def functions_of(folder: Path) -> dict[str, Any]:
    """Those of ``alloc_extend_naive`` and ``alloc_decode_naive`` that this release has."""
    tree = ast.parse((folder / "srt/mem_cache/allocator/paged.py").read_text())
    names = ("alloc_extend_naive", "alloc_decode_naive")
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space: dict[str, Any] = {"torch": torch}
    exec(compile(tree, "paged.py", "exec"), space)
    return {name: space[name] for name in names if name in space}


def batch(rng: random.Random, page: int, grow: int) -> tuple[torch.Tensor, ...]:
    """Prefix lengths, lengths, last slots, free pages (as many as are needed, and some more)."""
    count = rng.randint(1, 9)
    # Lengths around page boundaries, where the cases differ.
    prefix = [max(0, page * rng.randint(0, 3) + rng.randint(-2, 2)) for _ in range(count)]
    end = [length + (rng.randint(1, 3 * page) if grow > 1 else 1) for length in prefix]
    last = [page * rng.randint(100, 999) + (length - 1) % page if length else -1 for length in prefix]
    needed = sum(-(-e // page) - -(-p // page) for p, e in zip(prefix, end))
    free = rng.sample(range(1000, 2000), needed + rng.randint(0, 3))
    return tuple(torch.tensor(column, dtype=torch.int64) for column in (prefix, end, last, free))


def upper(count: int) -> int:
    """Triton's ranges are powers of two."""
    return 1 << (count - 1).bit_length()


def extend(folder: Path, rng: random.Random, page: int) -> None:
    prefix, end, last, free = batch(rng, page, grow=2)
    ours, theirs, naive = (torch.full((int((end - prefix).sum()),), -7) for _ in range(3))
    grid = (len(prefix),)
    kernels.OnCpu(kernels.alloc_extend)[grid](prefix, end, last, free, ours, upper(len(prefix)), page)
    TRITON.alloc_extend_kernel[grid](prefix, end, last, free, theirs, upper(len(prefix)), page)
    assert ours.tolist() == theirs.tolist(), f"extend, page {page}: {prefix} {end} {last} {free}"
    if function := FUNCTIONS.get("alloc_extend_naive"):
        function(prefix, end, last, free, naive, page, "cpu")
        assert ours.tolist() == naive.tolist(), f"extend, page {page}, naive: {prefix} {end} {last} {free}"


def decode(folder: Path, rng: random.Random, page: int) -> None:
    prefix, end, last, free = batch(rng, page, grow=1)
    ours, theirs, naive = (torch.full((len(end),), -7) for _ in range(3))
    grid = (len(end),)
    kernels.OnCpu(kernels.alloc_decode)[grid](end, last, free, ours, upper(len(end)), page)
    TRITON.alloc_decode_kernel[grid](end, last, free, theirs, upper(len(end)), page)
    assert ours.tolist() == theirs.tolist(), f"decode, page {page}: {end} {last} {free}"
    if function := FUNCTIONS.get("alloc_decode_naive"):
        function(end, last, free, naive, page, int((prefix % page == 0).sum()))
        assert ours.tolist() == naive.tolist(), f"decode, page {page}, naive: {end} {last} {free}"


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    TRITON, FUNCTIONS = kernels_of(FOLDER), functions_of(FOLDER)
    for page_size in PAGE_SIZES:
        generator = random.Random(page_size)
        for _ in range(CASES):
            extend(FOLDER, generator, page_size)
            decode(FOLDER, generator, page_size)
    print(f"{2 * CASES * len(PAGE_SIZES)} batches equal", *FUNCTIONS)
