"""Boot of SGLang's scheduler in this process, with our channels, our hook and the oracle model's pools."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sr_fuzz.cpu import adapter_loading
from sr_fuzz.engine import settings
from sr_fuzz.faults import activate, activate_from_environment
from sr_fuzz.lifetime.owned_folders import owned_folder
from sr_fuzz.oracle import adapter_weights
from sr_fuzz.runtime.hook import ScriptedSchedulerHook
from sr_fuzz.runtime.recorder import OutputRecorder, RecordingSender
from sr_fuzz.runtime.recv_proxy import LocalRecvProxy, SilentRecvProxy
from sr_fuzz.runtime.transport import LocalTransport, Transport
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.adapters import ADAPTERS
from sr_fuzz.script.errors import UnsupportedVersion
from sr_fuzz.sglang_api import clock, messages, process_groups, seams, server_args, session_clock, trees, versions
from sr_fuzz.sglang_api.clock import VirtualClock


@dataclass(frozen=True, slots=True)
class Booted:
    """A scheduler that is ready to run, with our objects at its seams."""

    scheduler: Any
    hook: ScriptedSchedulerHook
    proxy: Any
    """The proxy in front of the tokenizer's socket, or in place of it."""
    recorder: OutputRecorder
    transport: Transport
    sglang_version: str


def boot(
    config: EngineConfig, faults: tuple[str, ...] = (), *, device: str = "cpu", model: str | None = None
) -> Booted:
    """Boot one configuration. Call it once per process: SGLang publishes its configuration process-wide.

    ``model``: a path or name; None for the oracle model.
    """
    version = versions.sglang_version()
    if device == "cpu":
        settings.install_stand_ins(config)
    activate_from_environment()
    activate(faults)
    proxy, recorder = LocalRecvProxy(), OutputRecorder()
    channels = {
        "recv_from_tokenizer": proxy,
        "recv_from_rpc": SilentRecvProxy(),
        "send_to_tokenizer": RecordingSender(recorder),
        "send_to_detokenizer": RecordingSender(recorder),
        "send_metrics_from_scheduler": None,
    }
    os.environ.update(server_args.engine_environment(config))
    clock.set_clock(VirtualClock())
    with _private_files():
        args = settings.build(config, device=device, model=model)
        hooked = seams.seams(channels=channels, hook_factory=ScriptedSchedulerHook)
        with hooked, process_groups.private():
            if device == "cpu":
                settings.install_kernels()
            scheduler = seams.make_scheduler(args)
    _check_tree(scheduler, config, version)
    bind_oracle(scheduler)
    adapter_weights.load(scheduler)
    if device == "cpu":
        adapter_loading.install(scheduler)
    session_clock.install(scheduler)
    # Done once here instead of in each child, because the first message of a process is slow to create.
    messages.generate_message(rid="warm", input_ids=[1], sampling={"max_new_tokens": 1})
    transport = LocalTransport(proxy, recorder, adapters=ADAPTERS if config.enable_lora else ())
    return Booted(scheduler, scheduler.scripted_scheduler_hook, proxy, recorder, transport, version)


def _check_tree(scheduler: Any, config: EngineConfig, version: str) -> None:
    found = trees.tree_kind(scheduler.tree_cache)
    if config.prefix_tree not in (None, found):
        kind = type(scheduler.tree_cache).__name__
        raise UnsupportedVersion(
            f"SGLang {version} makes no {config.prefix_tree} prefix tree of this configuration, but {kind} ({found})"
        )


def bind_oracle(scheduler: Any) -> None:
    """Give the oracle model the pools to read and write; does nothing for a real model."""
    model = scheduler.tp_worker.model_runner.model
    if hasattr(model, "bind"):
        model.bind(scheduler.req_to_token_pool, scheduler.token_to_kv_pool_allocator.get_kvcache())


@contextmanager
def _private_files() -> Iterator[None]:
    """Redirect the files that SGLang creates for the names of its sockets and for its load, and never removes.

    None of them is read here.
    """
    before = tempfile.tempdir
    with owned_folder() as folder, seams.load_reports_in(folder):
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before
