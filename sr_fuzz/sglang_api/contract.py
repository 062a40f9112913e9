"""The contract with SGLang: every name of it that the engines rely on, and what is lost where one is missing.

It is checked against the source, so any tree can be asked, also one that cannot be imported here. A *seam* is a name
without which nothing can be played: an engine refuses to start, in one line that names it. Anything else costs what
`Name.without` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sr_fuzz.script.errors import UnsupportedVersion
from sr_fuzz.sglang_api.source_names import SourceNames
from sr_fuzz.sglang_api.versions import version_in


class Name(NamedTuple):
    """One thing that is asked of SGLang, under any of the names that it has had."""

    module: str
    """Below ``sglang``."""
    names: tuple[str, ...]
    """One of them must be there: ``function``, ``Class`` or ``Class.attribute``; an empty one is the module itself."""
    read_by: str
    """The room, or the file in it."""
    without: str
    """What is lost; empty where nothing is, because SGLang without it does not need it."""
    seam: bool = False
    elsewhere: tuple[str, ...] = ()
    """Modules that may define it in its place, and whose names that one passes on."""

    @property
    def shown(self) -> str:
        return f"{self.module}: {' or '.join(self.names)}" if any(self.names) else self.module

    def is_in(self, source: SourceNames) -> bool:
        modules = (self.module, *self.elsewhere)
        return any(source.has(module, name) for module in modules for name in self.names)


_NOTHING = "nothing can be played"


def _seams(module: str, *names: str, read_by: str) -> Iterator[Name]:
    for name in names:
        yield Name(module, (name,), read_by, _NOTHING, seam=True)


def _rows(module: str, read_by: str, without: str, *names: str | tuple[str, ...]) -> Iterator[Name]:
    for name in names:
        yield Name(module, (name,) if isinstance(name, str) else name, read_by, without)


_SCHEDULER = "srt.managers.scheduler"
_BATCH = "srt.managers.schedule_batch"
_MESSAGES = "srt.managers.io_struct"

CONTRACT: tuple[Name, ...] = (
    # -- booting, and the seams at which the hook and the channels get in
    *_seams(
        _SCHEDULER,
        "Scheduler.maybe_init_scripted_scheduler_hook", "Scheduler.run_event_loop", "Scheduler.is_fully_idle",
        read_by="sglang_api/seams",
    ),
    *_seams(
        "srt.managers.scheduler_components.ipc_channels", "SchedulerIpcChannels.create", read_by="sglang_api/seams"
    ),
    Name(
        "srt.managers.scheduler_components.request_receiver", ("SchedulerRequestReceiver.scripted_scheduler_hook",),
        "sglang_api/seams", "the hook is called at the head of no step", seam=True,
    ),
    *_seams("srt.server_args", "ServerArgs", "PortArgs.init_new", read_by="sglang_api/seams, engine/settings"),
    Name(
        "srt.environ", ("Envs.SGLANG_EXTERNAL_MODEL_PACKAGE",), "engine", "the oracle model cannot be loaded", seam=True
    ),
    *_seams("srt.layers.logits_processor", "LogitsProcessor", read_by="oracle/models"),
    *_seams("srt.sampling.sampling_params", "SamplingParams", read_by="sglang_api/messages"),
    *_seams(_MESSAGES, "TokenizedGenerateReqInput", read_by="sglang_api/messages"),
    # -- the scheduler's state
    *_seams(
        _SCHEDULER,
        "Scheduler.waiting_queue", "Scheduler.running_batch", "Scheduler.last_batch", "Scheduler.chunked_req",
        "Scheduler.tree_cache", "Scheduler.req_to_token_pool", "Scheduler.token_to_kv_pool_allocator",
        "Scheduler.tp_worker", "Scheduler.max_running_requests", "Scheduler.session_controller",
        read_by="view",
    ),
    *_rows(_SCHEDULER, "view", "pauses are not seen: paused_frozen", "Scheduler._engine_paused"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "priority, admission", "Scheduler.enable_priority_preemption"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "sglang_busy_check", "Scheduler.invariant_checker"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "load", "Scheduler.load_inquirer"),
    # -- requests
    *_seams(
        _BATCH,
        "Req.rid", "Req.origin_input_ids", "Req.output_ids", "Req.sampling_params", "Req.finished",
        "Req.finished_reason", "Req.to_finish",
        read_by="view",
    ),
    *_seams(_BATCH, "Req.kv", read_by="sglang_api/request_state"),
    *_rows(_BATCH, "view", "retractions: retraction, reach", "Req.retraction_count"),
    *_rows(_BATCH, "sglang_api/request_state", "outputs at a stop: oracle_output", "Req.output_ids_through_stop"),
    *_rows(_BATCH, "view", "adapters: lora", "Req.lora_id"),
    *_rows(_BATCH, "view", "sessions", "Req.session"),
    *_rows(_BATCH, "view", "priority", "Req.priority"),
    *_rows(_BATCH, "sglang_api/request_state", "tree_locks, window_locks, state_locks", ("Req.lock", "Req.last_node")),
    *_rows(_BATCH, "invariants/kv_content", "what a batch runs: chunks, kv_content", "ScheduleBatch.reqs",
           "ScheduleBatch.forward_mode"),
    # -- pools
    *_seams(
        "srt.mem_cache.memory_pool", "ReqToTokenPool.free_slots", "ReqToTokenPool.req_to_token", read_by="view"
    ),
    *_rows("srt.mem_cache.allocator.base", "sglang_api/allocators", "kv_pages, and what an exhauster holds",
           "BaseTokenToKVPoolAllocator.free_pages", "BaseTokenToKVPoolAllocator.free_group",
           "BaseTokenToKVPoolAllocator.alloc", "BaseTokenToKVPoolAllocator.available_size"),
    *_rows("srt.mem_cache.base_prefix_cache", "sglang_api/request_state", "evictions by scripts", "EvictParams"),
    *_rows("srt.mem_cache.base_prefix_cache", "sglang_api/request_state", "window_locks, state_locks",
           "IncLockRefResult"),
    # -- messages in and out
    *_rows(_MESSAGES, "sglang_api/messages", "embeddings", "TokenizedEmbeddingReqInput"),
    *_rows(_MESSAGES, "sglang_api/messages", "the control call of that name", "PauseGenerationReqInput",
           "ContinueGenerationReqInput", "AbortReq", "FlushCacheReqInput", "OpenSessionReqInput",
           "CloseSessionReqInput"),
    *_rows(_MESSAGES, "invariants/control_replies", "control_replies", "FlushCacheReqOutput", "OpenSessionReqOutput"),
    *_rows(_MESSAGES, "sglang_api/messages", "sessions", "SessionParams"),
    *_rows(_MESSAGES, "runtime/recorder", "what clients are sent: streams, usage, oracle_output",
           "BatchTokenIDOutput.rids", "BatchTokenIDOutput.finished_reasons", "BatchTokenIDOutput.output_ids",
           "BatchTokenIDOutput.prompt_tokens", "BatchTokenIDOutput.completion_tokens",
           "BatchTokenIDOutput.cached_tokens"),
    *_rows(_MESSAGES, "runtime/recorder", "embeddings", "BatchEmbeddingOutput.embeddings"),
    # -- clocks
    *_rows("srt.observability.req_time_stats", "sglang_api/clock", "time-outs of requests on a virtual clock", "time"),
    *_rows("srt.lora.lora_drainer", "sglang_api/clock", "the time-out of adapters that are drained", "time"),
    *_rows("srt.session.session_controller", "sglang_api/session_clock", "time-outs of sessions",
           "SessionController.maybe_reap"),
    # Older schedulers publish their configuration themselves, and are told their ranks.
    *_rows("srt.runtime_context", "sglang_api/seams", "", "publish", "SpawnRanks"),
    *_rows("srt.runtime_context", "sglang_api/seams", "several ranks", "get_parallel"),
    # -- modes
    *_rows("srt.disaggregation.utils", "sglang_api/messages", "halves of a disaggregated pair", "FAKE_BOOTSTRAP_HOST"),
    *_rows("srt.managers.schedule_policy", "sglang_api/server_args", "schedule policies", "CacheAwarePolicy",
           "CacheAgnosticPolicy"),
    *_rows("srt.lora.lora_registry", "oracle/adapter_weights", "adapters", "LoRARef"),
    *_rows("srt.lora.utils", "oracle/adapter_weights", "adapters", "LoRAType"),
    *_rows("srt.layers.linear", "oracle/models", "adapters", "RowParallelLinear"),
    *_rows("srt.layers.pooler", "oracle/models", "embeddings", "Pooler", "PoolingType"),
    *_rows("srt.distributed.utils", "oracle/models", "pipeline stages", "get_pp_indices"),
    *_rows("srt.distributed.parallel_state", "oracle/models", "pipeline stages", "get_pp_group"),
    *_rows("srt.model_executor.forward_batch_info", "oracle/models", "pipeline stages", "PPProxyTensors"),
    *_rows("srt.managers.scheduler_components.pool_stats_observer", "sglang_api/scheduler_state",
           "sglang_busy_check beside a sliding window", ""),
    # -- what is replaced where there is no GPU
    *_rows("srt.mem_cache.allocator.paged", "cpu/kernels", "pages of more than one token on a CPU", ""),
    *_rows("srt.lora.lora_overlap_loader", "cpu/adapter_loading", "adapters that load beside a forward, on a CPU", ""),
    *_rows("srt.arg_groups.speculative_hook", "cpu/speculation", "speculative decoding on a CPU", ""),
    *_rows("srt.disaggregation.fake", "cpu/transfer", "halves of a disaggregated pair on a CPU", ""),
    *_rows("srt.utils.numa_utils", "engine/parallel_ranks", "several ranks on a CPU", "init_threads_binding"),
    # -- servers
    Name(
        "srt.utils", ("kill_process_tree",), "engine/upstream", "SGLang's own runtime: confirm --on sglang",
        elsewhere=("srt.utils.common",),
    ),
    *_rows("srt.entrypoints.http_server", "engine/live", "the server engine", "launch_server"),
    *_rows("test.scripted_runtime.http_server", "engine/upstream", "SGLang's own runtime: confirm --on sglang",
           "ScriptedHttpServer"),
)  # fmt: skip


def missing(package: Path) -> list[Name]:
    """The rows whose name is lost in the package in that folder, and something with it; the seams first."""
    source = SourceNames(package)
    lost = (row for row in CONTRACT if row.without and not row.is_in(source))
    return sorted(lost, key=lambda row: not row.seam)


def checked_version() -> str:
    """The version of the SGLang that this process imports. Raises `UnsupportedVersion` where it lacks a seam."""
    import sglang

    package = Path(sglang.__file__).parent
    check_seams(package)
    return version_in(package)


def check_seams(package: Path) -> None:
    """Raises `UnsupportedVersion`, one line, where one is missing."""
    source = SourceNames(package)
    lacking = [row.shown for row in CONTRACT if row.seam and not row.is_in(source)]
    if lacking:
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UnsupportedVersion(
            f"SGLang {version_in(package)} cannot be played: sglang.{lacking[0]} is missing{more}; "
            f"`sr-fuzz doctor --sglang {package.parent}` lists the contract"
        )
