"""Speculative decoding with n-grams on a CPU that has no compiled kernels.

SGLang has a CPU path for speculative decoding, with kernels in a separate package. SGLang decides at import, from one
environment variable, whether it runs on a CPU; setting it would also require CPU kernels that the oracle does not need.
So we set `_is_cpu` in the speculative modules only, and set our kernels there under the names of the compiled ones.
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

# The modules of SGLang that read the flag or import a kernel; not every release has all of them.
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

# The number of tokens of a request that are passed to the corpus. Our corpus needs all of them; SGLang's own corpus
# grows with the square of this number.
_WHOLE_HISTORY = 1 << 20


def settings(page_size: int, device: str) -> dict[str, Any]:
    """Return SGLang's settings for drafts, small because the pools are small.

    A tree needs a page size of 1; otherwise the drafts are a chain.
    """
    chosen = {
        # A request reserves room for two trees; with the default, 12 drafts, three would fill most pools here.
        "speculative_num_draft_tokens": 4,
        "speculative_ngram_max_bfs_breadth": 2 if page_size == 1 else 1,
    }
    return chosen | ({"speculative_ngram_max_trie_depth": _WHOLE_HISTORY} if device == "cpu" else {})


def check(config: EngineConfig, device: str) -> None:
    """Raise `EngineError`, in one line, for drafts that cannot be verified on this engine."""
    asked = f"speculative_algorithm={config.speculative_algorithm}"
    if config.model != "dense":
        raise EngineError(f"{asked} with model={config.model}: the oracle verifies drafts with one pool alone")
    if device != "cpu" and stands_for("sgl_kernel"):
        raise EngineError(f"{asked} on {device} needs SGLang's kernels: install sgl_kernel")


def install() -> None:
    """Enable speculative decoding in this process. Idempotent; call it before a scheduler is built."""
    # Imported here because they need torch and numpy, and `settings` is also used where those are not installed.
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
    """While the context is active, modules that import a kernel find one, whether the package is installed or not."""
    names = ("sgl_kernel", "sgl_kernel.speculative")
    # `patch.dict` is not used, because it would remove the modules that are imported meanwhile.
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
    """While the context is active, SGLang's settings do not turn off overlap scheduling for drafts on a CPU."""
    from sglang.srt.arg_groups import speculative_hook

    with patch.object(speculative_hook, "_disable_overlap_schedule_for_cpu", lambda *args: None):
        yield
