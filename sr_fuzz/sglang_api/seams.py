"""Construction of a scheduler, and the seams for our channels and our hook. The seams are SGLang's own."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def make_scheduler(args: Any) -> Any:
    """Build SGLang's own ``Scheduler`` as its ``run_scheduler_process`` does."""
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.server_args import PortArgs

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


@contextmanager
def seams(*, channels: dict[str, Any], hook_factory: Any):
    """While the context is active, a new scheduler gets our channels and our hook at SGLang's own seams.

    ``SchedulerIpcChannels.create`` builds every socket; ``maybe_init_scripted_scheduler_hook`` sets the hook that the
    request receiver calls at the start of each step. Both are restored when the context ends.
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


@contextmanager
def load_reports_in(folder: Path) -> Iterator[None]:
    """While the context is active, a new scheduler reports its load in ``folder`` instead of in /dev/shm.

    SGLang never removes that file, and not at all when the scheduler cannot be made.
    """
    try:
        from sglang.srt.managers import load_snapshot
    except ImportError:
        load_snapshot = None
    before = getattr(load_snapshot, "shm_path_for", None)
    if before is None:
        yield
        return
    load_snapshot.shm_path_for = lambda name: str(folder / "load")
    try:
        yield
    finally:
        load_snapshot.shm_path_for = before


def live_seams(*, wrap_channels: Any, make_hook: Any, run_loop: Any) -> None:
    """Patch the same seams for the rest of this process, in a scheduler that SGLang itself starts, with sockets.

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


def before_event_loop(prepare: Callable[[Any], None]) -> None:
    """Call ``prepare`` with each scheduler of this process before its first step. Only the first call has an effect."""
    from sglang.srt.managers.scheduler import Scheduler

    original = Scheduler.run_event_loop
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def run_event_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        prepare(self)
        return original(self, *args, **kwargs)

    Scheduler.run_event_loop = run_event_loop


def import_scheduler() -> None:
    """Import the modules that every scheduler needs, before processes are forked that need them."""
    import sglang.srt.managers.scheduler  # noqa: F401


def is_driver(scheduler: Any) -> bool:
    """Whether this rank receives requests from the tokenizer and plays scripts: the first one of each parallelism."""
    return not any(_rank(scheduler, name) for name in ("pp_rank", "tp_rank", "attn_cp_rank", "dp_rank"))


def _rank(scheduler: Any, name: str) -> int:
    holder = getattr(scheduler, "ps", None)
    if holder is None or not hasattr(holder, name):
        from sglang.srt.runtime_context import get_parallel

        holder = get_parallel()
    return getattr(holder, name, None) or 0
