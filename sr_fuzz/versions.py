"""Everything that differs between the supported SGLang releases, in one place.

The rest of the project asks here for a booted scheduler, `sr_fuzz.messages` for a message, `sr_fuzz.kv_records` for
what a request holds, and never looks at ``sglang.__version__``. Differences are decided by what a release *has* (a
parameter, an attribute), not by its number, wherever that can be seen; numbers only guard the supported range.

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

What follows from it sits in these three, in `sr_fuzz.view` (allocators, trees) and in `sr_fuzz.cpu` (stand-ins,
kernels).
"""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import sys
from collections.abc import Callable
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

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
    from sglang.srt.lora import lora_drainer
    from sglang.srt.managers import scheduler
    from sglang.srt.observability import req_time_stats

    for module in (scheduler, req_time_stats):
        module.time = clock
    # It compares with what the time stats have noted, but asks for the time by another name.
    lora_drainer.time = SimpleNamespace(monotonic=clock.perf_counter)


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


def pipeline_turns(scheduler: Any) -> int:
    """Turns for which an engine must look idle before it is: a result may be between two pipeline stages."""
    args = scheduler.server_args
    return 1 if args.pp_size == 1 else 2 * (args.pp_size + getattr(args, "pp_async_batch_depth", 0))


def busy_check_knows_prompts() -> bool:
    """Whether SGLang's busy memory check counts what never leaves a window (``swa_evict_floor``): from 0.5.22 on."""
    from sglang.srt.managers.scheduler_components import pool_stats_observer

    return hasattr(pool_stats_observer, "kv_private_swa_tokens")


# -- the sockets between SGLang's processes --------------------------------------------------------------------


def ipc_decoder() -> Callable[[bytes], Any]:
    """What turns the bytes of a message between SGLang's processes into the object, as SGLang itself does here."""
    from sglang.srt.managers import io_struct

    # A release without the switch knows pickle alone.
    if getattr(io_struct, "_USE_PICKLE_IPC", True):
        return pickle.loads
    return io_struct.msgpack_decode
