"""The setup of an SGLang process of a live engine by our plugin: it installs the hook and registers the process.

It is called in every SGLang process before its work begins: by the entry point of the group ``sglang.srt.plugins``, or
at the start of a forked process. It has an effect only if the environment names a private folder. The rank that
receives requests gets the dispatcher; other ranks follow it as usual. Other data-parallel replicas are not driven:
SGLang runs each of them independently.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sr_fuzz.cpu import pinned_memory, standins
from sr_fuzz.engine.boot import Booted, bind_oracle
from sr_fuzz.engine.environment import LIVE
from sr_fuzz.engine.live.channel import Channel
from sr_fuzz.engine.live.dispatch import Dispatcher, no_warm_up, warm_up
from sr_fuzz.engine.live.keeper import PROCESSES
from sr_fuzz.engine.process_messages import SOCKET, STACKS, STEPS
from sr_fuzz.engine.step_limit import StepCounter
from sr_fuzz.faults import separate_counts
from sr_fuzz.runtime.hook import ScriptedSchedulerHook
from sr_fuzz.runtime.recorder import OutputRecorder, RecordingSender
from sr_fuzz.sglang_api import messages, process_groups, seams, session_clock, versions

# The functions with which SGLang starts its processes, and the names of the processes in messages.
_ROLES = {
    "run_scheduler_process": "scheduler process",
    "run_scheduler_process_with_init_pipe": "scheduler process",
    "run_detokenizer_process": "detokenizer process",
    "run_data_parallel_controller_process": "data-parallel controller process",
}


def attach() -> None:
    """Attach this process to the live engine that its environment names."""
    role = _role()
    if role is not None:  # the main process is known to the keeper and needs no setup
        _take_part(role)


def attach_forked(function: str) -> None:
    """Attach a forked process that begins with ``function``. SGLang does not load plugins again after a fork."""
    separate_counts()
    role = _ROLES.get(function)
    if role is not None:
        _take_part(role)


def _take_part(role: str) -> None:
    folder = Path(os.environ[LIVE])
    register(folder, role)
    if role == "scheduler process":
        if standins.wanted():
            from sr_fuzz.engine.settings import install_kernels

            install_kernels()
        process_groups.keep_private(folder)
        live = _Live(folder)
        seams.live_seams(wrap_channels=live.wrap_channels, make_hook=live.make_hook, run_loop=live.run_loop)


def register(folder: Path, role: str) -> None:
    """Ask the keeper to report the death of this process."""
    path = folder / PROCESSES / str(os.getpid())
    # The file is written atomically, because the keeper may read it at any moment.
    unfinished = folder / f"{os.getpid()}.unfinished"
    unfinished.write_text(role)
    unfinished.rename(path)


def _role() -> str | None:
    frame = sys._getframe()
    while frame is not None:
        role = _ROLES.get(frame.f_code.co_name)
        if role is not None:
            return role
        frame = frame.f_back
    return None


def dump_stacks_to(folder: Path) -> None:
    """Make a fatal signal or SIGUSR1 write this process's Python stack into `STACKS`."""
    # Never closed, because the handler needs the descriptor.
    stacks = os.open(folder / STACKS, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    faulthandler.enable(file=stacks, all_threads=False)
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=False)


class _Live:
    """One scheduler process.

    It collects our objects at SGLang's seams, in the order in which the constructor creates them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = time.monotonic()
        self._proxy: Any = None
        self._underlying: Any = None
        self._recorder = OutputRecorder()
        self._senders: tuple[RecordingSender, ...] = ()
        self._dispatcher: Dispatcher | None = None

    def wrap_channels(self, channels: Any) -> dict[str, Any]:
        if channels.recv_from_tokenizer is None:
            return {}  # a rank that receives its requests from another rank
        from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy

        self._underlying = channels.recv_from_tokenizer
        self._proxy = ScriptedTokenizerRecvProxy(underlying=self._underlying, decode=messages.ipc_decoder())
        names = ("send_to_tokenizer", "send_to_detokenizer")
        senders = {name: RecordingSender(self._recorder, onward=getattr(channels, name)) for name in names}
        self._senders = tuple(senders.values())
        return {"recv_from_tokenizer": self._proxy, **senders}

    def make_hook(self, scheduler: Any) -> ScriptedSchedulerHook | None:
        if self._proxy is None:
            return None
        if not seams.is_driver(scheduler):
            # Another data-parallel replica, which plays no script: its recorded messages would never be cleared.
            self._proxy.stand_aside()
            self._recorder.close()
            return None
        from sr_fuzz.runtime.http_poster import BackgroundHttpPoster
        from sr_fuzz.runtime.http_transport import HttpTransport

        hook = ScriptedSchedulerHook(scheduler)
        args = scheduler.server_args
        transport = HttpTransport(
            self._proxy,
            BackgroundHttpPoster(),
            f"http://{args.host}:{args.port}",
            default_dp_rank=0 if args.dp_size > 1 else None,
            answered=self._recorder.answered,
        )
        version = versions.sglang_version()
        booted = Booted(scheduler, hook, self._proxy, self._recorder, transport, version)
        self._dispatcher = begin(booted, self._folder, self._started, skip_warm_up=args.skip_server_warmup)
        return hook

    def run_loop(self, scheduler: Any, loop: Callable[[], None]) -> None:
        bind_oracle(scheduler)
        if standins.wanted() and getattr(scheduler, "is_hybrid_ssm", False):
            pinned_memory.install()
        session_clock.install(scheduler)
        # This must come after SGLang's own setup of the process, which enables faulthandler on standard error.
        dump_stacks_to(self._folder)
        if self._dispatcher is None:
            return loop()
        run_dispatched(self._dispatcher, loop)


def begin(booted: Booted, folder: Path, started: float, *, skip_warm_up: bool) -> Dispatcher:
    """Connect to the user's process, and give the dispatcher's generator to the hook."""
    channel, steps = Channel(folder / SOCKET, bind=False), StepCounter(folder / STEPS)
    dispatcher = Dispatcher(booted, channel, steps, pid=os.getpid(), started=started)
    generator = dispatcher.loop(no_warm_up() if skip_warm_up else warm_up(booted))
    booted.hook.begin(generator, observer=None, proxy=booted.proxy)
    return dispatcher


def run_dispatched(dispatcher: Dispatcher, loop: Callable[[], None]) -> None:
    """Run SGLang's event loop. If it ends by an exception, report it to the user's process and re-raise it."""
    try:
        loop()
    except BaseException as error:
        dispatcher.scheduler_raised(error)
        raise
