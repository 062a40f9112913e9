"""Speculative decoding with n-grams on a CPU that has no compiled kernels.

SGLang has code for drafts on a CPU, and kernels for it in a package of its own. At import it decides whether a CPU is
the device, by an environment variable that also makes it want kernels where the oracle needs none. So its modules for
drafts alone are told: they get the flag, and our kernels under the names of the compiled ones.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from sr_fuzz.cpu.missing_kernels import StandIn, stands_for
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError

# SGLang's modules of which some have the flag, some import a kernel; not every release has all.
_MODULES = (
    "sglang.kernels.ops.kvcache.cache_move",
    "sglang.srt.mem_cache.allocation",
    "sglang.kernels.ops.speculative.cache_locs",
    "sglang.kernels.ops.speculative.eagle",
    "sglang.kernels.ops.speculative.spec_tree",
    "sglang.kernels.ops.speculative.reconstruct_tree",
    "sglang.srt.speculative.eagle_utils",
    "sglang.srt.speculative.spec_utils",
    "sglang.srt.speculative.ngram_worker",
)

# The name under which a kernel is imported -> its name in `draft_kernels`.
_KERNELS = {
    "assign_extend_cache_locs_cpu": "assign_extend_cache_locs",
    "assign_req_to_token_pool_cpu": "assign_req_to_token_pool",
    "copy_all_layer_kv_cache_cpu": "copy_all_layer_kv_cache",
    "fill_accept_out_cache_loc_cpu": "fill_accept_out_cache_loc",
    "sgl_verify_tree_greedy_cpu": "verify_tree_greedy",
    "reconstruct_indices_from_tree_mask": "reconstruct_indices_from_tree_mask",
}

# Tokens of a request that a corpus is asked with. Ours needs all of them; SGLang's own grows with the square.
_WHOLE_HISTORY = 1 << 20


def settings(page_size: int, device: str) -> dict[str, Any]:
    """Settings of SGLang's for drafts, small as the pools are; a tree needs pages of one token, else it is a chain."""
    chosen = {
        # A request reserves two trees ahead: of the default, 12 drafts, three requests would fill most pools here.
        "speculative_num_draft_tokens": 4,
        "speculative_ngram_max_bfs_breadth": 2 if page_size == 1 else 1,
    }
    return chosen | ({"speculative_ngram_max_trie_depth": _WHOLE_HISTORY} if device == "cpu" else {})


def check(config: EngineConfig, device: str) -> None:
    """Refuse, in one line, drafts that nothing here can verify."""
    asked = f"speculative_algorithm={config.speculative_algorithm}"
    if config.model != "dense":
        raise EngineError(f"{asked} with model={config.model}: the oracle verifies drafts with one pool alone")
    if device != "cpu" and stands_for("sgl_kernel"):
        raise EngineError(f"{asked} on {device} needs SGLang's kernels: install sgl_kernel")


def install() -> None:
    """Let this process speculate. Idempotent; call it before a scheduler is made."""
    # Here, not above: they need torch and numpy, and settings are read where those are not there.
    from sr_fuzz.cpu import draft_kernels
    from sr_fuzz.oracle import drafts

    with _kernel_package():
        for name in _MODULES:
            module = _module(name)
            if module is None:
                continue
            module._is_cpu = True
            for kernel, ours in _KERNELS.items():
                setattr(module, kernel, getattr(draft_kernels, ours))
        corpus: Any = importlib.import_module("sglang.srt.speculative.cpp_ngram.ngram_corpus")
    corpus.get_ngram_corpus_cls = lambda: drafts.DraftCorpus


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


@contextlib.contextmanager
def _kernel_package() -> Iterator[None]:
    """While inside, modules that import a kernel find one, whether the package is installed or not."""
    names = ("sgl_kernel", "sgl_kernel.speculative")
    # Not by `patch.dict`, which would take out again what is imported meanwhile.
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules.update({name: StandIn(name) for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


@contextlib.contextmanager
def overlap_accepted() -> Iterator[None]:
    """While inside, SGLang's settings leave overlap scheduling on, which they turn off for drafts on a CPU."""
    from sglang.srt.arg_groups import speculative_hook

    with patch.object(speculative_hook, "_disable_overlap_schedule_for_cpu", lambda *args: None):
        yield
