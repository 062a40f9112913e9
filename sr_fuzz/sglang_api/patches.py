"""The list of patches in an engine's processes: every name of SGLang or of a library that is replaced.

It does not include seeded faults and fixes, whose purpose is to change SGLang's logic.
"""

from __future__ import annotations

from typing import NamedTuple


class Patch(NamedTuple):
    """One name, or several that are patched together for one reason."""

    names: str
    file: str
    """The module that patches it, below ``sr_fuzz``."""
    why: str
    where: str
    """The machines, engines and releases on which it is patched."""


_ALL = "everywhere"
_CPU = "without a GPU"

PATCHES: tuple[Patch, ...] = (
    # -- the seams
    Patch("SchedulerIpcChannels.create", "sglang_api/seams",
          "returns our queue and recorders: instead of sockets on the local engine, in front of them on a live one",
          f"{_ALL}; on the local engine only while a scheduler is made"),
    Patch("Scheduler.maybe_init_scripted_scheduler_hook", "sglang_api/seams",
          "sets our hook, which the request receiver calls at the head of each step",
          f"{_ALL}; on the local engine only while a scheduler is made"),
    Patch("Scheduler.run_event_loop", "sglang_api/seams",
          "plays scripts until the engine is closed; gives the oracle model its pools on SGLang's own runtime",
          "persistent and server engines, SGLang's own runtime"),
    # -- clocks
    Patch("time in the modules that keep time-outs of requests; lora_drainer.time", "sglang_api/clock",
          "time-outs of requests and of drained adapters go by a clock that scripts move", _ALL),
    Patch("session_controller.time, SessionController.maybe_reap of one object", "sglang_api/session_clock",
          "sessions are looked after every eighth step, not every second: replays are exact", _ALL),
    # -- SGLang's own scripted runtime
    Patch("ScriptedHttpServer.start, .execute_script, .shutdown, ._await_handshake", "sglang_api/own_runtime",
          "settings for the CPU; a dead server is noticed at once, and killed at the end instead of drained",
          "`confirm --on sglang`, `emit --format sglang`"),
    # -- processes
    Patch("multiprocessing.set_start_method, BaseProcess.run", "engine/live/forked_processes",
          "SGLang's processes are forked from its main one: one import instead of three to five",
          f"server engine, {_CPU}"),
    Patch("torch.distributed.init_process_group, new_group", "sglang_api/process_groups",
          "ranks meet in memory or in a private file and listen on loopback, a single rank nowhere: torch's own store "
          "listens on every interface", f"{_ALL}; on the local engine only while a scheduler is made"),
    Patch("tempfile.tempdir", "engine/boot",
          "SGLang makes a temporary file for the name of each socket and leaves it there",
          "local and persistent engine, while a scheduler is made"),
    Patch("load_snapshot.shm_path_for", "sglang_api/seams",
          "SGLang reports its load in shared memory and leaves it there; nothing reads it here",
          "local and persistent engine, while a scheduler is made"),
    # -- what needs a GPU
    Patch("AutoConfig.register", "cpu/standins",
          "model configurations may be registered again: a newer `transformers` has some of them itself",
          "releases up to 0.5.19 need it"),
    Patch("torchvision::nms, torchvision::qnms", "cpu/standins",
          "operators that a build of torchvision without its compiled part lacks, defined and never called",
          f"{_CPU}, where that part does not load"),
    Patch("sgl_kernel, flashinfer and other packages of kernels, in sys.meta_path", "cpu/missing_kernels",
          "stand-ins that raise when they are called; the oracle model runs none of them", "where one is missing"),
    Patch("datasets, soundfile in sys.modules", "cpu/missing_modules",
          "stand-ins that raise when they are used; only imported by SGLang's server and test cases",
          "where one is missing"),
    Patch("allocator.paged.alloc_extend_kernel, alloc_decode_kernel", "cpu/kernels",
          "Triton kernels of page allocation, computed with NumPy", f"{_CPU}, releases up to 0.5.21"),
    Patch("torch.cuda.cudart; transfer_kv_direct in SGLang's host pools; HICACHE_HOST_MEMORY_RESERVE_BYTES",
          "cpu/host_cache", "host memory of a hierarchical cache: nothing is pinned, copies are done at once", _CPU),
    Patch("torch.tensor, torch.zeros, torch.Tensor.pin_memory", "cpu/pinned_memory",
          "ordinary memory where pinned memory is asked for", f"{_CPU}, with recurrent states or adapters"),
    Patch("device_module and torch of the LoRA overlap loader", "cpu/adapter_loading",
          "a copy on a stream is over one step later", f"{_CPU}, adapters that load beside the model"),
    Patch("_platform_supports_mamba_cache_extra_buffer, or validate_mamba_extra_buffer (_validate_mamba_extra_buffer)",
          "cpu/recurrent_states", "an extra buffer of recurrent states is not refused: the oracle keeps that state",
          f"{_CPU}, while server arguments are made"),
    Patch("_is_cpu, three kernels and get_ngram_corpus_cls in sglang.srt.speculative", "cpu/speculation",
          "drafts are verified by our kernels, and come from the oracle's corpus", f"{_CPU}, speculative decoding"),
    Patch("speculative_hook._disable_overlap_schedule_for_cpu", "cpu/speculation",
          "overlap scheduling stays on with drafts", f"{_CPU}, while server arguments are made"),
    Patch("torch.cuda.Event", "cpu/transfer", "events of the CPU", _CPU),
    Patch("torch.distributed.all_reduce", "cpu/transfer",
          "a process by itself reduces by itself", f"{_CPU}; releases up to 0.5.22 need it"),
    Patch("FakeKVManager.submit_prefill_recompute", "cpu/transfer",
          "the fake backend can be asked to compute a prompt again", f"{_CPU}, releases up to 0.5.22"),
    Patch("sglang.srt.disaggregation.nixl in sys.modules", "cpu/transfer",
          "the prefill half's transfer backend is SGLang's fake one", f"{_CPU}, where nixl is not installed"),
)  # fmt: skip
