"""Everything that differs between the supported SGLang releases, in one place.

The rest of the project asks here for a booted scheduler, a message or a request's KV record, and never looks at
``sglang.__version__``. Differences are decided by what a release *has* (a parameter, an attribute), not by its number,
wherever that can be seen; numbers only guard the supported range.

=========  ==========================================================================================
release    what changed
=========  ==========================================================================================
0.5.17     configuration is published process-wide before anything reads it
0.5.19     a request's KV bookkeeping moved from the request into ``req.kv``; the unified tree, whose
           nodes go by integer ids, replaced ``RadixCache``, whose nodes are handed out themselves;
           a free group that is closed is None instead of a stale list
0.5.20     schedule policy ``hrrn``; pages freed late are staged in a list of tensors; model
           configurations are registered with ``exist_ok``, so that a newer ``transformers`` will do
0.5.21     the scheduler takes two arguments; ranks are published instead of passed
0.5.22     a request's tree lock is an object (``req.lock``) instead of following from ``last_node``;
           pages of more than one token are allocated without Triton where there is none
=========  ==========================================================================================

What follows from it sits here, in `sr_fuzz.view` (allocators, trees) and in `sr_fuzz.cpu` (stand-ins, kernels).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pickle
import sys
from array import array
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

from sr_fuzz.errors import UnsupportedVersion

SUPPORTED = ("0.5.16", "0.5.23")


def check_version(found: str) -> str:
    """Return ``found`` if it is supported, else raise `UnsupportedVersion` with one clear line."""
    low, high = SUPPORTED
    try:
        version = Version(found)
        ok = Version(low) <= Version(version.base_version) <= Version(high)
    except InvalidVersion:
        ok = False
    if not ok:
        shown = " ".join(found.split()) or "without a version"
        raise UnsupportedVersion(
            f"SGLang {shown} is not supported: this sr_fuzz runs SGLang {low} to {high}; "
            f"install one of these, e.g. with `make venv`"
        )
    return found


def sglang_version() -> str:
    """The version of the SGLang that this process imports, checked."""
    import sglang

    return check_version(version_of(sglang))


def version_of(package: ModuleType) -> str:
    """The version of an imported package, which need not be the installed one: ``PYTHONPATH`` may put another first.

    ``__version__`` alone will not do: a source tree without a built ``_version.py`` answers with the version of
    whatever is installed. Raises `UnsupportedVersion` when nothing beside the package tells.
    """
    folder = Path(package.__file__).parent
    if (folder / "_version.py").exists():
        return package.__version__
    for distribution in metadata.distributions(name=package.__name__):
        if Path(distribution.locate_file(package.__name__)).resolve() == folder.resolve():
            return distribution.version
    raise UnsupportedVersion(
        f"the {package.__name__} in {folder.parent} does not say which version it is; install it with pip, "
        f"which writes {package.__name__}/_version.py"
    )


# -- booting ---------------------------------------------------------------------------------------------------


def make_scheduler(args: Any) -> Any:
    """Build SGLang's own ``Scheduler`` the way its ``run_scheduler_process`` does."""
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.server_args import PortArgs

    if args.device == "cpu":
        # Here, not above: who only asks for a version must get its answer where torch does not import.
        from sr_fuzz.cpu import host_cache, kernels, transfer

        kernels.install()
        host_cache.install()
        transfer.install()
    port_args = PortArgs.init_new(args)
    _publish(args)
    if "gpu_id" not in inspect.signature(Scheduler.__init__).parameters:
        return Scheduler(args, port_args)
    ranks = {"gpu_id": 0, "dp_rank": None}
    wanted = list(inspect.signature(Scheduler.__init__).parameters)[3:]
    return Scheduler(args, port_args, **{name: ranks.get(name, 0) for name in wanted})


def _publish(args: Any) -> None:
    try:
        from sglang.srt import runtime_context
    except ImportError:
        return  # before 0.5.17 the constructor publishes
    if not hasattr(runtime_context, "publish"):
        return
    extra = {}
    if hasattr(runtime_context, "SpawnRanks"):
        extra["ranks"] = runtime_context.SpawnRanks(world_rank=0, dp_rank=None, gpu_id=0)
    runtime_context.publish(args, role="scheduler", **extra)


def set_clock(clock: Any) -> None:
    """Let the scheduler and its requests' time stats read this clock; see `sr_fuzz.runtime.clock`."""
    from sglang.srt.managers import scheduler
    from sglang.srt.observability import req_time_stats

    for module in (scheduler, req_time_stats):
        module.time = clock


def clock_of(scheduler: Any) -> Any:
    """What a scheduler asks for the time: a clock of ours, or the module ``time``."""
    return sys.modules[type(scheduler).__module__].time


def tree_kind(tree_cache: Any) -> str:
    """``legacy``, ``unified`` (the Python core), ``rust``, or ``none``."""
    if getattr(tree_cache, "disable", False):
        return "none"  # the unified tree has its core all the same
    core = getattr(tree_cache, "tree_core", None)
    if core is not None:
        return "rust" if type(core).__name__.startswith("Rust") else "unified"
    if not hasattr(tree_cache, "root_node"):
        return "none"
    return "unified" if type(tree_cache).__name__.startswith("Unified") else "legacy"


@contextmanager
def seams(*, channels: dict[str, Any], hook_factory: Any):
    """While inside, a scheduler that is constructed gets our channels and our hook at SGLang's own seams.

    ``SchedulerIpcChannels.create`` builds every socket, ``maybe_init_scripted_scheduler_hook`` sets the hook that the
    request receiver calls at the head of each turn; both are restored on leaving.
    """
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.managers.scheduler_components.ipc_channels import SchedulerIpcChannels

    create = SchedulerIpcChannels.__dict__["create"]
    init_hook = Scheduler.maybe_init_scripted_scheduler_hook

    def local_create(cls, **_ignored):
        return cls(**channels)

    def local_hook(self):
        self.scripted_scheduler_hook = hook_factory(self)

    SchedulerIpcChannels.create = classmethod(local_create)
    Scheduler.maybe_init_scripted_scheduler_hook = local_hook
    try:
        yield
    finally:
        SchedulerIpcChannels.create = create
        Scheduler.maybe_init_scripted_scheduler_hook = init_hook


def live_seams(*, wrap_channels: Any, make_hook: Any, run_loop: Any) -> None:
    """The same seams for the rest of this process, in a scheduler that SGLang itself starts, sockets and all.

    ``wrap_channels(channels)`` returns the fields to replace; ``make_hook(scheduler)`` returns a hook or None;
    ``run_loop(scheduler, loop)`` is called instead of ``loop()``, SGLang's own ``run_event_loop``.
    """
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.managers.scheduler_components.ipc_channels import SchedulerIpcChannels

    create, loop = SchedulerIpcChannels.create, Scheduler.run_event_loop

    def live_create(cls, **arguments):
        channels = create(**arguments)
        return dataclasses.replace(channels, **wrap_channels(channels))

    def live_hook(self):
        self.scripted_scheduler_hook = make_hook(self)

    def live_loop(self):
        return run_loop(self, lambda: loop(self))

    SchedulerIpcChannels.create = classmethod(live_create)
    Scheduler.maybe_init_scripted_scheduler_hook = live_hook
    Scheduler.run_event_loop = live_loop


def is_driver(scheduler: Any) -> bool:
    """Whether this rank takes requests from the tokenizer and plays scripts: the first of each kind of parallelism."""
    return not any(_rank(scheduler, name) for name in ("pp_rank", "tp_rank", "attn_cp_rank", "dp_rank"))


def _rank(scheduler: Any, name: str) -> int:
    holder = getattr(scheduler, "ps", None)
    if holder is None or not hasattr(holder, name):
        from sglang.srt.runtime_context import get_parallel

        holder = get_parallel()
    return getattr(holder, name, None) or 0


def batches(scheduler: Any) -> list[tuple[str, Any]]:
    """The batches whose requests can go on, with the names of their places; with pipeline stages one for each slot."""
    if scheduler.server_args.pp_size == 1:
        named = [("running", scheduler.running_batch), ("last_batch", scheduler.last_batch)]
    else:
        # The loop swaps these lists' entries in and out of ``running_batch`` and ``last_batch`` as it goes round.
        slots = (("microbatch", "mbs"), ("last_batch", "last_mbs"), ("running", "running_mbs"))
        named = [(place, batch) for place, name in slots for batch in getattr(scheduler, name, ())]
        named += [("running", scheduler.running_batch)]
    return [(place, batch) for place, batch in named if batch is not None]


def disaggregation_queues(scheduler: Any) -> list[tuple[str, list[Any]]]:
    """The queues of one half of a disaggregated pair, with the requests in them; none in the unified mode."""
    found = []
    for place, owner, names in (
        ("bootstrap", "disagg_prefill_bootstrap_queue", ("queue",)),
        ("prealloc", "disagg_decode_prealloc_queue", ("queue", "retracted_queue", "held_rebootstrap_reqs")),
        ("transfer", "disagg_decode_transfer_queue", ("queue",)),
    ):
        queue = getattr(scheduler, owner, None)
        for name in names:
            # Of a decode queue the entries are records of a request and its receiver.
            reqs = [getattr(entry, "req", entry) for entry in getattr(queue, name, ())]
            found.append((place if name == "queue" else name, reqs))
    found.append(("inflight", list(getattr(scheduler, "disagg_prefill_inflight_queue", None) or ())))
    return [(place, reqs) for place, reqs in found if reqs]


def disaggregation_fields(half: str, number: int) -> dict[str, Any]:
    """What a request brings along from the router of a disaggregated pair; ``number`` tells requests apart.

    The prefill half does not get SGLang's fake bootstrap host: it marks warm-ups, which leave nothing in the prefix
    tree, and whose prompts up to 0.5.22 may not be longer than a chunk. The decode half, which has no tree here, looks
    for everybody else in a table of prefill servers.
    """
    from sglang.srt.disaggregation.utils import FAKE_BOOTSTRAP_HOST

    return {"bootstrap_host": FAKE_BOOTSTRAP_HOST if half == "decode" else "127.0.0.1", "bootstrap_room": number}


def pipeline_turns(scheduler: Any) -> int:
    """Turns for which an engine must look idle before it is: a result may be between two pipeline stages."""
    args = scheduler.server_args
    return 1 if args.pp_size == 1 else 2 * (args.pp_size + getattr(args, "pp_async_batch_depth", 0))


# -- messages --------------------------------------------------------------------------------------------------


def generate_message(*, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> Any:
    """The ``TokenizedGenerateReqInput`` that the tokenizer manager would send for a ``/generate`` body."""
    from sglang.srt.managers.io_struct import SessionParams, TokenizedGenerateReqInput
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(**sampling)
    params.normalize(None)
    if "session_params" in fields:
        fields["session_params"] = SessionParams(**fields["session_params"])
    values = {
        "rid": rid,
        "input_text": "",
        "input_ids": array("q", input_ids),
        "sampling_params": params,
        "return_logprob": False,
        "logprob_start_len": -1,
        "top_logprobs_num": 0,
        "stream": True,
        **fields,
    }
    for name in _required_fields(TokenizedGenerateReqInput):
        values.setdefault(name, None)
    return TokenizedGenerateReqInput(**values)


def embedding_message(*, rid: str, input_ids: Sequence[int], **fields: Any) -> Any:
    """The ``TokenizedEmbeddingReqInput`` that the tokenizer manager would send for an ``/encode`` body."""
    from sglang.srt.managers.io_struct import TokenizedEmbeddingReqInput
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(max_new_tokens=0)
    params.normalize(None)
    values = {
        "rid": rid,
        "input_text": "",
        "input_ids": array("q", input_ids),
        "sampling_params": params,
        **fields,
    }
    for name in _required_fields(TokenizedEmbeddingReqInput):
        values.setdefault(name, None)
    return TokenizedEmbeddingReqInput(**values)


@functools.cache
def _required_fields(cls: type) -> tuple[str, ...]:
    """Parameters without a default; remembered, since looking at a signature of msgspec's takes a millisecond."""
    parameters = inspect.signature(cls).parameters.items()
    return tuple(name for name, parameter in parameters if parameter.default is inspect.Parameter.empty)


def pause_message(mode: str) -> Any:
    from sglang.srt.managers.io_struct import PauseGenerationReqInput

    return PauseGenerationReqInput(mode=mode)


def continue_message(torch_empty_cache: bool) -> Any:
    from sglang.srt.managers.io_struct import ContinueGenerationReqInput

    return ContinueGenerationReqInput(torch_empty_cache=torch_empty_cache)


def abort_message(rid: str, abort_all: bool) -> Any:
    from sglang.srt.managers.io_struct import AbortReq

    return AbortReq(rid=rid, abort_all=abort_all)


def flush_message() -> Any:
    from sglang.srt.managers.io_struct import FlushCacheReqInput

    return FlushCacheReqInput()


def open_session_message(session_id: str, streaming: bool, timeout: float | None) -> Any:
    from sglang.srt.managers.io_struct import OpenSessionReqInput

    # The capacity is stored and never read.
    return OpenSessionReqInput(
        capacity_of_str_len=4096, session_id=session_id, streaming=streaming, timeout=timeout
    )


def close_session_message(session_id: str) -> Any:
    from sglang.srt.managers.io_struct import CloseSessionReqInput

    return CloseSessionReqInput(session_id=session_id)


# -- a request's KV bookkeeping --------------------------------------------------------------------------------


class KvState(NamedTuple):
    """What a request holds of the KV cache, in tokens; its own slots are row positions [protected, allocated)."""

    row: int
    protected: int
    """Positions below this belong to the prefix tree."""
    committed: int
    """Positions below this have been written by a forward that was launched."""
    allocated: int


def kv_state(req: Any) -> KvState | None:
    """The request's KV bookkeeping; None when it holds no row."""
    record = req.kv
    if hasattr(record, "req_pool_idx"):
        return kv_of_record(record)
    # Up to 0.5.18 ``req.kv`` holds the allocated length alone, and is None while nothing is allocated.
    if req.req_pool_idx is None:
        return None
    allocated = record.kv_allocated_len if record is not None else 0
    return KvState(int(req.req_pool_idx), int(req.cache_protected_len), int(req.kv_committed_len), int(allocated))


def kv_of_record(record: Any) -> KvState | None:
    """The same from a KV record of 0.5.19 and later, a request's or a session's."""
    if record.req_pool_idx is None:
        return None
    lens = (record.cache_protected_len, record.kv_committed_len, record.kv_allocated_len)
    return KvState(int(record.req_pool_idx), *map(int, lens))


def committed_len(req: Any) -> int:
    """Positions written by a forward that was launched; a request that has given its row back still tells."""
    holder = req.kv if hasattr(req.kv, "req_pool_idx") else req
    return int(holder.kv_committed_len)


def output_through_stop(req: Any) -> list[int]:
    """The request's output as its client is to see it.

    A decode half that retracts takes the newest token back, and puts it in again when the prefill half has computed
    everything before it once more.
    """
    held_back = getattr(req, "pd_rebootstrap_forced_output_id", None)
    return [*req.output_ids_through_stop, *([] if held_back is None else [held_back])]


def lock_node(req: Any) -> Any:
    """The node (up to 0.5.18 the node itself, later its integer id) whose path this request has locked, or None.

    Up to 0.5.21 a waiting request may keep a ``last_node`` from a match without holding a lock: whoever holds no KV
    holds no lock.
    """
    if hasattr(req, "lock"):
        return None if req.lock is None else req.lock.node
    if kv_state(req) is None or _stands_for_session(req.last_node):
        return None
    return req.last_node


def _stands_for_session(node: Any) -> bool:
    """A later turn of a streaming session has a node for show: the lock is its session's."""
    return type(node).__name__ == "_VirtualNode"


def transfer_locks(tree_cache: Any) -> list[tuple[Any, str]]:
    """Nodes that a hierarchical cache has locked for a copy that is under way, with what is being done."""
    found = []
    for name, what in (("ongoing_write_through", "a copy to the host"), ("ongoing_load_back", "a copy from the host")):
        for entry in getattr(tree_cache, name, {}).values():
            # A record from 0.5.17 on; before, a tuple that begins with the node, or the node.
            node = getattr(entry, "node_id", entry[0] if isinstance(entry, tuple) else entry)
            if getattr(entry, "lock_params", True) is not None:
                found.append((node, what))
    return found


class LockReceipt(NamedTuple):
    """What a lock of a hybrid tree covers besides the path of full attention."""

    window_end: Any
    """Mark of the last node that the lock on the window covers, from its node upwards; None: all up to the root."""
    window: bool
    """Whether the lock on the window is still held."""
    state: bool
    """Whether the recurrent state of its node is locked."""


@functools.cache
def has_lock_receipts() -> bool:
    """Whether a lock counts every node it covers and says so: from 0.5.20 on. Before, evicted ones were passed over."""
    from sglang.srt.mem_cache.base_prefix_cache import IncLockRefResult

    fields = {field.name for field in dataclasses.fields(IncLockRefResult)}
    return "skipped_lock_components" in fields and "skip_lock_node_ids" not in fields


def lock_receipt(req: Any) -> LockReceipt:
    """What the lock of a request that holds one covers, where `has_lock_receipts`."""
    if hasattr(req, "lock"):
        return receipt_parts(req.lock.receipt, released=req.lock.swa_released)
    return receipt_parts(req.lock_receipt, released=req.swa_prefix_lock_released)


def receipt_parts(receipt: Any, *, released: bool = False) -> LockReceipt:
    """Read what ``inc_lock_ref`` gave; ``released``: the lock on the window, and what is beside it, was let go."""
    skipped = {str(component) for component in receipt.skipped_lock_components}
    if hasattr(receipt, "component_lock_uuids"):
        ends = {str(component): end for component, end in receipt.component_lock_uuids.items()}
        end = ends.get("swa")
    else:
        end = receipt.swa_uuid_for_lock
    return LockReceipt(end, not released and "swa" not in skipped, not released and "mamba" not in skipped)


def busy_check_knows_prompts() -> bool:
    """Whether SGLang's busy memory check counts what never leaves a window (``swa_evict_floor``): from 0.5.22 on."""
    from sglang.srt.managers.scheduler_components import pool_stats_observer

    return hasattr(pool_stats_observer, "kv_private_swa_tokens")


def window_freed(req: Any, page_size: int) -> tuple[int, int]:
    """Row positions [from, to) whose pages of the sliding window's pool this request has given back already."""
    kv = req.kv
    if hasattr(kv, "swa_dead_lo"):
        lo = int(kv.swa_dead_lo(page_size))
    else:
        # Up to 0.5.18 both are the request's own.
        lo = max(int(req.cache_protected_len), int(req.swa_evict_floor))
        lo = -(-lo // page_size) * page_size
    if hasattr(kv, "component_evicted_seqlens"):
        ends = {str(component): end for component, end in kv.component_evicted_seqlens.items()}
        hi = ends.get("swa", 0)
    else:
        hi = kv.swa_evicted_seqlen if kv is not None else 0
    return lo, max(lo, int(hi))


def state_slots(req: Any) -> list[int]:
    """Slots of recurrent states that the request holds: its own first, then those that are kept for the tree."""
    holder = req.kv if hasattr(req.kv, "mamba_pool_idx") else req
    slots = [] if holder.mamba_pool_idx is None else [int(holder.mamba_pool_idx)]
    kept = holder.mamba_ping_pong_track_buffer
    return slots + [slot for slot in (kept.tolist() if kept is not None else []) if slot != -1]


def state_pending(req: Any) -> bool:
    """Whether its own state is still to be copied or cleared, at the next forward."""
    holder = req.kv if hasattr(req.kv, "mamba_pool_idx") else req
    return holder.mamba_cow_src_index is not None or bool(holder.mamba_needs_clear)


def evict(tree_cache: Any, num_tokens: int | None) -> None:
    """The tree's own eviction; None evicts whatever is evictable."""
    if not hasattr(tree_cache, "evict") or getattr(tree_cache, "disable", False):
        return
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams

    count = num_tokens if num_tokens is not None else evictable_tokens(tree_cache)
    if count > 0:
        tree_cache.evict(EvictParams(num_tokens=count))


def evictable_tokens(tree_cache: Any) -> int:
    size = tree_cache.evictable_size()
    return size[0] if isinstance(size, tuple) else size


# -- the sockets between SGLang's processes --------------------------------------------------------------------


def ipc_decoder() -> Callable[[bytes], Any]:
    """What turns the bytes of a message between SGLang's processes into the object, as SGLang itself does here."""
    from sglang.srt.managers import io_struct

    # A release without the switch knows pickle alone.
    if getattr(io_struct, "_USE_PICKLE_IPC", True):
        return pickle.loads
    return io_struct.msgpack_decode
