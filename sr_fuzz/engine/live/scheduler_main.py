"""A live scheduler without HTTP: ``python -m sr_fuzz.engine.live.scheduler_main FOLDER``.

It is used on devices whose processes cannot be forked. The process boots one scheduler, as the local engine does, which
plays one script after another and is emptied in between.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from sr_fuzz.cpu import missing_kernels, standins
from sr_fuzz.lifetime.parent_death import die_with_parent
from sr_fuzz.script import EngineConfig


class Order(msgspec.Struct, frozen=True):
    """The content of the settings file."""

    config: EngineConfig
    device: str = "cpu"
    model: str | None = None


def main(folder: Path) -> None:
    die_with_parent(os.getppid())
    started = time.monotonic()
    os.environ.update(standins.SOCKETLESS)
    if standins.wanted():
        standins.mend_imports()
    else:
        missing_kernels.install()
    from sr_fuzz.engine.boot import boot
    from sr_fuzz.engine.live.process_setup import begin, dump_stacks_to, register, run_dispatched
    from sr_fuzz.engine.process_messages import SETTINGS
    from sr_fuzz.sglang_api import contract

    register(folder, "scheduler process")
    contract.checked_version()
    order = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Order)
    booted = boot(order.config, device=order.device, model=order.model)
    dump_stacks_to(folder)
    dispatcher = begin(booted, folder, started, skip_warm_up=True)
    run_dispatched(dispatcher, booted.scheduler.run_event_loop)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
