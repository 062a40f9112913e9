"""The table of the contract: every name of SGLang that the engines rely on, and the effect of a missing one.

A *seam* is a name without which nothing can be played or observed. The effect of any other missing name is stated as
narrowly as possible: `ci/rename_each_name.py` renames each name in a tree and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sr_fuzz.sglang_api.source_names import SourceNames


class Name(NamedTuple):
    """One row: something that is used of SGLang, under any of the names that it has had."""

    module: str
    """Module path below ``sglang``."""
    names: tuple[str, ...]
    """Alternatives, one of which must exist: ``function``, ``Class`` or ``Class.attribute``; empty for the module
    itself."""
    read_by: str
    """The room, or the file in it, that uses the name."""
    without: str
    """What is lost without it, besides `unchecked`. Both are empty if nothing is lost, because such an SGLang does not
    need it."""
    seam: bool = False
    elsewhere: tuple[str, ...] = ()
    """Modules that may define it instead, and whose names the first module re-exports."""
    given: str = ""
    """The name is needed only if the module has this name, a part of SGLang that older releases lack."""
    unchecked: tuple[str, ...] = ()
    """Invariants that cannot be checked without it."""

    @property
    def lacking(self) -> str:
        """A message such as ``this SGLang has no Req.priority``."""
        name = self.names[0]
        return f"this SGLang has no {name if '.' in name else f'{self.module}.{name}'.rstrip('.')}"

    @property
    def shown(self) -> str:
        return f"{self.module}: {' or '.join(self.names)}" if any(self.names) else self.module

    @property
    def cost(self) -> str:
        """What is lost without it, as text for the user."""
        unchecked = f"not checked: {', '.join(self.unchecked)}" if self.unchecked else ""
        return "; ".join(part for part in (unchecked, self.without and f"lost: {self.without}") if part)

    def is_in(self, source: SourceNames) -> bool:
        """Whether it exists, or is not needed because the part that it belongs to does not exist."""
        if self.given and not source.has(self.module, self.given):
            return True
        modules = (self.module, *self.elsewhere)
        return any(source.has(module, name) for module in modules for name in self.names)


_NOTHING = "nothing can be played"


def _seams(module: str, *names: str, read_by: str) -> Iterator[Name]:
    for name in names:
        yield Name(module, (name,), read_by, _NOTHING, seam=True)


def _rows(
    module: str, read_by: str, without: str, *names: str | tuple[str, ...], unchecked: str = "", **more: Any
) -> Iterator[Name]:
    """``unchecked``: names of invariants, separated by spaces; ``more``: other fields of `Name`."""
    for name in names:
        any_of = (name,) if isinstance(name, str) else name
        yield Name(module, any_of, read_by, without, unchecked=tuple(unchecked.split()), **more)


def _arguments(file: str, group: str, *names: str, unchecked: str) -> Iterator[Name]:
    """Fields of ``ServerArgs``. From 0.5.20 on they are composed of groups, with one file for each group."""
    for name in names:
        yield from _rows(
            "srt.server_args", "sglang_api/scheduler_facts", "", (f"ServerArgs.{name}", f"{group}.{name}"),
            elsewhere=(f"srt.arg_groups.fields.{file}",), unchecked=unchecked,
        )  # fmt: skip


_SCHEDULER = "srt.managers.scheduler"
_BATCH = "srt.managers.schedule_batch"
_MESSAGES = "srt.managers.io_struct"

_PIPELINE = ("srt.managers.scheduler_pp_mixin",)
_UNIFIED_NODES = ("srt.mem_cache.unified_cache.unified_tree_core", "srt.mem_cache.unified_radix_cache")

_TREE = "kv_pages tree_locks window_locks state_locks kv_content lora mamba_slots mamba_content load"
"""Invariants that read the prefix tree."""

_HOLDERS = "kv_pages request_rows kv_content lora mamba_content aborts load"
"""Invariants that read which requests hold KV."""

_ALL_TOKENS = (
    "chunks oracle_output streams paused_frozen retraction admission aborts kv_content load lora mamba_content"
)
"""Invariants that read a request's output."""

CONTRACT: tuple[Name, ...] = (
    # -- booting, and the seams of the hook and the channels
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
        "srt.managers.load_snapshot", ("shm_path_for",), "sglang_api/seams",
        "that nothing is left: each boot may leave a small file in /dev/shm",
    ),
    Name(
        "srt.environ", ("Envs.SGLANG_EXTERNAL_MODEL_PACKAGE",), "engine", "the oracle model cannot be loaded", seam=True
    ),
    *_seams("srt.layers.logits_processor", "LogitsProcessor", read_by="oracle/models"),
    *_seams("srt.layers.pooler", "Pooler", "PoolingType", read_by="oracle/models"),
    *_seams("srt.distributed.utils", "get_pp_indices", read_by="oracle/models"),
    *_seams("srt.distributed.parallel_state", "get_pp_group", read_by="oracle/models"),
    *_seams("srt.model_executor.forward_batch_info", "PPProxyTensors", read_by="oracle/models"),
    *_seams("srt.sampling.sampling_params", "SamplingParams", read_by="sglang_api/messages"),
    *_seams(_MESSAGES, "TokenizedGenerateReqInput", "TokenizedGenerateReqInput.input_ids",
            "TokenizedGenerateReqInput.sampling_params", read_by="sglang_api/messages"),
    *_seams("srt.managers.tp_worker", "TpModelWorker.model_runner", read_by="view"),
    *_seams("srt.model_executor.model_runner", "ModelRunner.model", read_by="view"),
    # -- queues and batches: without one of these requests cannot be observed
    *_seams(
        _SCHEDULER,
        "Scheduler.waiting_queue", "Scheduler.running_batch", "Scheduler.last_batch", "Scheduler.chunked_req",
        "Scheduler.tree_cache", "Scheduler.req_to_token_pool", "Scheduler.token_to_kv_pool_allocator",
        "Scheduler.tp_worker", "Scheduler.session_controller", "Scheduler.server_args", "Scheduler.page_size",
        read_by="view",
    ),
    *_seams("srt.session.session_controller", "SessionController.sessions", read_by="view/sessions"),
    *_seams(_BATCH, "ScheduleBatch.reqs", "ScheduleBatch.forward_mode", "Req.rid", read_by="sglang_api/requests"),
    *_seams(_MESSAGES, "BatchTokenIDOutput.rids", "BatchTokenIDOutput.finished_reasons", "BatchEmbeddingOutput.rids",
            "BatchEmbeddingOutput.finished_reasons", "AbortReq.rid", read_by="sglang_api/outputs"),
    # -- the scheduler's state
    *_arguments("model", "Model", "is_embedding", unchecked="embeddings"),
    *_arguments("schedule", "Schedule", "schedule_policy", "enable_priority_scheduling",
                "schedule_low_priority_values_first", "priority_scheduling_preemption_threshold",
                unchecked="priority"),
    *_arguments("memory", "Memory", "enable_hierarchical_cache", unchecked="window_locks state_locks"),
    *_arguments("disagg", "Disagg", "disaggregation_mode",
                unchecked="retraction usage priority admission load aborts oracle_output sglang_busy_check"),
    *_rows("srt.configs.model_config", "sglang_api/scheduler_facts", "", "ModelConfig.vocab_size", unchecked="usage"),
    *_rows("srt.model_executor.model_runner", "view", "", "ModelRunner.lora_manager", unchecked="lora"),
    *_rows("srt.lora.lora_manager", "invariants/lora", "", "LoRAManager.max_loras_per_batch",
           "LoRAManager.memory_pool", unchecked="lora admission"),
    *_rows("srt.lora.mem_pool", "invariants/lora", "", "LoRAMemoryPool.buffer_id_to_uid",
           "LoRAMemoryPool.uid_to_buffer_id", unchecked="lora"),
    *_rows(_BATCH, "view", "", "ScheduleBatch.batch_is_full", unchecked="admission"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_state", "", "Scheduler.result_queue", "Scheduler.grammar_manager",
           unchecked="nobody_lost"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_state", "nobody_lost with pipeline stages", "Scheduler.mbs",
           "Scheduler.last_mbs", "Scheduler.running_mbs", elsewhere=_PIPELINE),
    *_rows(_SCHEDULER, "sglang_api/scheduler_state", "nobody_lost in a half of a disaggregated pair",
           "Scheduler.disagg_prefill_bootstrap_queue", "Scheduler.disagg_prefill_inflight_queue",
           "Scheduler.disagg_decode_prealloc_queue", "Scheduler.disagg_decode_transfer_queue"),
    *_rows("srt.disaggregation.decode", "sglang_api/scheduler_state", "nobody_lost in a decode half",
           "DecodePreallocQueue.queue", "DecodePreallocQueue.retracted_queue", "DecodeTransferQueue.queue"),
    *_rows("srt.disaggregation.prefill", "sglang_api/scheduler_state", "nobody_lost in a prefill half",
           "PrefillBootstrapQueue.queue"),
    *_rows("srt.managers.scheduler_components.flush_wrapper", "sglang_api/scheduler_state", "",
           "SchedulerFlushWrapper._pending", given="SchedulerFlushWrapper", unchecked="control_replies"),
    *_rows(_SCHEDULER, "view", "whether it is paused", "Scheduler._engine_paused",
           unchecked="paused_frozen liveness admission aborts http_answers sglang_busy_check"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.max_running_requests", unchecked="admission"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.chunked_prefill_size", "Scheduler.is_mixed_chunk",
           unchecked="admission"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.enable_priority_preemption", unchecked="priority"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.model_config", unchecked="usage"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.spec_algorithm",
           unchecked="admission chunks aborts"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.invariant_checker", unchecked="sglang_busy_check"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.load_inquirer", unchecked="load"),
    *_rows("srt.managers.scheduler_components.load_inquirer", "view", "", "SchedulerLoadInquirer.get_loads",
           unchecked="load"),
    *_rows("srt.managers.scheduler_components.invariant_checker", "view", "",
           "SchedulerInvariantChecker.self_check_during_busy", unchecked="sglang_busy_check"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_facts", "", "Scheduler.is_hybrid_swa", "Scheduler.is_hybrid_ssm",
           unchecked="admission load"),
    *_rows(_SCHEDULER, "view", "", "Scheduler.sliding_window_size", unchecked="kv_content"),
    *_rows(_SCHEDULER, "view", "", "Scheduler.enable_overlap", unchecked="sessions"),
    *_rows(_SCHEDULER, "sglang_api/scheduler_state", "", "Scheduler.flush_wrapper", unchecked="control_replies"),
    *_rows("srt.speculative.spec_info", "sglang_api/speculation", "", "SpeculativeAlgorithm.is_none",
           unchecked="admission chunks aborts"),
    *_rows("srt.constrained.grammar_manager", "sglang_api/scheduler_state", "", "GrammarManager.grammar_queue",
           unchecked="nobody_lost"),
    *_rows("srt.disaggregation.decode", "sglang_api/scheduler_state", "nobody_lost in a decode half",
           "DecodeRequest.req"),
    # -- requests
    *_rows(_BATCH, "sglang_api/requests", "", "Req.origin_input_ids",
           unchecked="chunks oracle_output usage sessions aborts kv_content load admission lora mamba_content"),
    *_rows(_BATCH, "sglang_api/requests", "how far requests are: stages", "Req.output_ids", unchecked=_ALL_TOKENS),
    *_rows(_BATCH, "sglang_api/requests", "stages of a script", "Req.sampling_params",
           unchecked="oracle_output streams usage admission aborts"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.finished", unchecked="oracle_output mamba_slots retraction"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.finished_reason", "Req.to_finish", unchecked="oracle_output"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.eos_token_ids", unchecked="oracle_output"),
    *_rows(_BATCH, "sglang_api/request_state", "", "Req.kv",
           unchecked=_HOLDERS + " tree_locks chunks retraction mamba_slots"),
    *_rows(_BATCH, "sglang_api/request_state", "", "ReqKvInfo.kv_allocated_len",
           ("ReqKvInfo.req_pool_idx", "Req.req_pool_idx"),
           ("ReqKvInfo.cache_protected_len", "Req.cache_protected_len"),
           ("ReqKvInfo.kv_committed_len", "Req.kv_committed_len"),
           unchecked=_HOLDERS + " tree_locks chunks retraction mamba_slots"),
    *_rows(_BATCH, "sglang_api/request_state", "", ("ReqKvInfo.mamba_pool_idx", "Req.mamba_pool_idx"),
           ("ReqKvInfo.mamba_ping_pong_track_buffer", "Req.mamba_ping_pong_track_buffer"),
           unchecked="mamba_slots mamba_content"),
    *_rows(_BATCH, "sglang_api/request_state", "", ("ReqKvInfo.mamba_cow_src_index", "Req.mamba_cow_src_index"),
           ("ReqKvInfo.mamba_needs_clear", "Req.mamba_needs_clear"), unchecked="mamba_content"),
    *_rows(_BATCH, "sglang_api/request_state", "whatever asks who holds KV, beside a sliding window",
           ("ReqKvInfo.swa_dead_lo", "Req.swa_evict_floor"),
           ("ReqKvInfo.component_evicted_seqlens", "ReqKvInfo.swa_evicted_seqlen")),
    *_rows("srt.session.streaming_session", "view/sessions", "", "SessionSlot.kv", unchecked="sessions"),
    *_rows(_BATCH, "sglang_api/requests", "counts of retractions, prefills and places, stages of a script",
           "Req.retraction_count", unchecked="retraction chunks priority"),
    *_rows(_BATCH, "sglang_api/request_state", "", "Req.output_ids_through_stop",
           unchecked="oracle_output streams aborts"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.lora_id", unchecked="lora"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.session", unchecked="retraction sessions"),
    *_rows("srt.session.session_controller", "sglang_api/requests", "", "Session.session_id", "Session.streaming",
           unchecked="retraction sessions oracle_output"),
    *_rows("srt.session.streaming_session", "view/sessions", "", "StreamingSession.slots",
           unchecked="sessions kv_pages request_rows tree_locks"),
    *_rows("srt.session.session_controller", "view/sessions", "", "Session.req_nodes", unchecked="sessions"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.input_embeds", unchecked="retraction"),
    *_rows(_BATCH, "sglang_api/requests", "drafts are not counted", "Req.spec_correct_drafts_histogram"),
    *_rows(_BATCH, "sglang_api/requests", "", "BaseFinishReason.to_json", unchecked="oracle_output"),
    *_rows("srt.sampling.sampling_params", "sglang_api/requests", "requests that set it",
           "SamplingParams.max_new_tokens", unchecked="oracle_output streams usage admission aborts"),
    *_rows("srt.sampling.sampling_params", "sglang_api/requests", "requests that set it",
           "SamplingParams.ignore_eos", "SamplingParams.stop_token_ids", unchecked="oracle_output"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.priority", unchecked="priority"),
    *_rows(_BATCH, "sglang_api/requests", "", "Req.return_logprob", unchecked="usage streams"),
    *_rows(_BATCH, "sglang_api/requests", "", ("Req.logprob_start_len", "Req.logprob"), unchecked="usage"),
    *_rows(_BATCH, "sglang_api/requests", "", ("ReqLogprob.top_logprobs_num", "Req.top_logprobs_num"),
           unchecked="usage"),
    *_rows(_BATCH, "sglang_api/request_state", "streams and aborts in a decode half",
           "Req.pd_rebootstrap_forced_output_id"),
    *_rows(_BATCH, "sglang_api/request_state", "", ("Req.lock", "Req.last_node"),
           unchecked="tree_locks window_locks state_locks"),
    *_rows(_BATCH, "view/batches", "", "ScheduleBatch.decoding_reqs", unchecked="chunks usage priority"),
    *_rows(_BATCH, "view/batches", "", "ScheduleBatch.prefix_lens", "ScheduleBatch.extend_lens",
           unchecked="chunks usage priority admission lora retraction"),
    # -- pools
    *_rows("srt.mem_cache.memory_pool", "view", "", "ReqToTokenPool.free_slots",
           unchecked="request_rows liveness admission"),
    *_rows("srt.mem_cache.memory_pool", "sglang_api/allocators", "", "HybridReqToTokenPool.mamba_allocator",
           unchecked="mamba_slots mamba_content"),
    *_rows("srt.mem_cache.allocator.mamba", "view", "", "MambaSlotAllocator.free_slots", unchecked="mamba_slots"),
    *_rows("srt.mem_cache.memory_pool", "view", "", "ReqToTokenPool.req_to_token", unchecked=_HOLDERS),
    *_rows("srt.mem_cache.allocator.paged", "sglang_api/allocators", "",
           ("PagedTokenToKVPoolAllocator.staged_pages", "PagedTokenToKVPoolAllocator.release_pages"),
           unchecked="kv_pages"),
    *_rows("srt.mem_cache.allocator.base", "sglang_api/allocators", "", "BaseTokenToKVPoolAllocator.free_pages",
           "BaseTokenToKVPoolAllocator.free_group", unchecked="kv_pages"),
    *_rows("srt.mem_cache.allocator.swa", "sglang_api/allocators", "", "SWATokenToKVPoolAllocator.full_attn_allocator",
           "SWATokenToKVPoolAllocator.swa_attn_allocator", "SWATokenToKVPoolAllocator.full_to_swa_index_mapping",
           unchecked="kv_pages kv_content load window_locks"),
    *_rows(_UNIFIED_NODES[0], "sglang_api/trees", "", "UnifiedTreeNode.component_data", "UnifiedTreeNode.key",
           "UnifiedTreeNode.id", "UnifiedTreeNode.children", elsewhere=_UNIFIED_NODES[1:], unchecked=_TREE),
    *_rows("srt.mem_cache.unified_radix_cache", "sglang_api/trees", "",
           ("UnifiedRadixCache.tree_core", "UnifiedRadixCache.root_node"), unchecked=_TREE),
    *_rows("srt.mem_cache.base_prefix_cache", "sglang_api/request_state", "", "TreeLock.node", "TreeLock.receipt",
           "TreeLock.swa_released", given="TreeLock", unchecked="tree_locks window_locks state_locks"),
    *_rows("srt.mem_cache.base_prefix_cache", "sglang_api/request_state", "evict_radix", "BasePrefixCache.evict",
           "BasePrefixCache.evictable_size"),
    *_rows("srt.mem_cache.unified_radix_cache", "sglang_api/trees", "", "UnifiedRadixCache.disable",
           "UnifiedRadixCache.tree_components", unchecked=_TREE),
    *_rows("srt.mem_cache.radix_cache", "sglang_api/trees", "", "RadixKey.raw_token_ids", "RadixKey.token_ids",
           unchecked="kv_content mamba_content"),
    *_rows("srt.mem_cache.memory_pool", "runtime/exhausters", "exhaust_lock_refs with recurrent states",
           "HybridReqToTokenPool.enable_mamba_extra_buffer"),
    *_rows("srt.mem_cache.base_prefix_cache", "runtime/exhausters", "exhaust_lock_refs", "BasePrefixCache.inc_lock_ref",
           "BasePrefixCache.dec_lock_ref"),
    *_rows("srt.mem_cache.allocator.base", "runtime/exhausters", "exhaust_kv, and release of what it holds",
           "BaseTokenToKVPoolAllocator.alloc", "BaseTokenToKVPoolAllocator.available_size"),
    *_rows("srt.mem_cache.base_prefix_cache", "sglang_api/request_state", "evict_radix", "EvictParams"),
    *_rows("srt.mem_cache.base_prefix_cache", "sglang_api/request_state", "", "IncLockRefResult",
           unchecked="tree_locks window_locks state_locks"),
    # -- messages in and out
    *_rows(_MESSAGES, "sglang_api/messages", "requests for embeddings", "TokenizedEmbeddingReqInput"),
    *_rows(_MESSAGES, "sglang_api/messages", "the control call of that name", "PauseGenerationReqInput",
           "ContinueGenerationReqInput", "AbortReq", "FlushCacheReqInput", "OpenSessionReqInput",
           "CloseSessionReqInput"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "FlushCacheReqOutput", "OpenSessionReqOutput",
           unchecked="control_replies liveness sessions"),
    *_rows(_MESSAGES, "sglang_api/incoming", "turns of sessions", "TokenizedGenerateReqInput.session_params",
           unchecked="sessions"),
    *_rows(_MESSAGES, "sglang_api/incoming", "requests with an adapter", "TokenizedGenerateReqInput.lora_id",
           unchecked="lora"),
    *_rows(_MESSAGES, "sglang_api/incoming", "the pause of a script", "PauseGenerationReqInput.mode",
           unchecked="sessions"),
    *_rows(_MESSAGES, "sglang_api/incoming", "the abort of all", "AbortReq.abort_all", unchecked="aborts"),
    *_rows(_MESSAGES, "sglang_api/incoming", "sessions of a script", "OpenSessionReqInput.session_id",
           "OpenSessionReqInput.streaming", "OpenSessionReqInput.timeout", "CloseSessionReqInput.session_id",
           unchecked="sessions"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "FlushCacheReqOutput.success",
           unchecked="liveness kv_pages mamba_slots"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "AbortReq.finished_reason",
           unchecked="aborts sessions http_answers streams"),
    *_rows(_MESSAGES, "sglang_api/messages", "turns of sessions", "SessionParams"),
    *_rows(_MESSAGES, "sglang_api/outputs", "tokens that were sent", "BatchTokenIDOutput.output_ids",
           unchecked="streams usage sessions http_answers"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "BatchTokenIDOutput.prompt_tokens", "BatchTokenIDOutput.cached_tokens",
           unchecked="usage"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "BatchTokenIDOutput.completion_tokens", unchecked="streams"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "BatchTokenIDOutput.output_token_logprobs_val",
           unchecked="streams usage"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "BatchTokenIDOutput.output_token_logprobs_idx",
           "BatchTokenIDOutput.input_token_logprobs_idx", "BatchTokenIDOutput.input_top_logprobs_val",
           "BatchTokenIDOutput.output_top_logprobs_val", unchecked="usage"),
    *_rows(_MESSAGES, "sglang_api/outputs", "", "BatchEmbeddingOutput.embeddings", unchecked="embeddings streams"),
    # -- clocks
    *_rows("srt.observability.req_time_stats", "sglang_api/clock", "time-outs of requests on a virtual clock", "time"),
    *_rows("srt.lora.lora_drainer", "sglang_api/clock", "the time-out of adapters that are drained", "time"),
    *_rows("srt.session.session_controller", "sglang_api/session_clock", "time-outs of sessions",
           "SessionController.maybe_reap"),
    # Older schedulers publish their configuration themselves, and get their ranks as arguments.
    *_rows("srt.runtime_context", "sglang_api/seams", "", "publish", "SpawnRanks"),
    *_rows("srt.runtime_context", "sglang_api/seams", "several ranks", "get_parallel"),
    # -- modes
    *_rows("srt.disaggregation.utils", "sglang_api/messages", "halves of a disaggregated pair", "FAKE_BOOTSTRAP_HOST"),
    *_rows("srt.managers.schedule_policy", "sglang_api/server_args", "names of schedule policies in a refusal",
           "CacheAwarePolicy", "CacheAgnosticPolicy"),
    *_rows("srt.lora.lora_registry", "oracle/adapter_weights", "adapters", "LoRARef"),
    *_rows("srt.lora.utils", "oracle/adapter_weights", "adapters", "LoRAType", unchecked="lora"),
    *_rows("srt.layers.linear", "oracle/models", "adapters", "RowParallelLinear"),
    *_rows("srt.managers.scheduler_components.pool_stats_observer", "sglang_api/scheduler_state",
           "sglang_busy_check beside a sliding window", ""),
    # -- patches without a GPU
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
