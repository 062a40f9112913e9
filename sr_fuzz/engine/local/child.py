"""The work of a child process: it plays one job on the scheduler that it was forked with, and returns the result."""

from __future__ import annotations

import traceback

from sr_fuzz.engine.boot import Booted
from sr_fuzz.engine.player import Player
from sr_fuzz.engine.process_messages import Done, Execute, Failed, Run
from sr_fuzz.runtime.hook import ScriptEnded


def play(booted: Booted, job: Run | Execute) -> Done | Failed:
    """Run SGLang's event loop until the script ends or an error occurs; every error is returned as data."""
    try:
        player = Player(booted, job)
        booted.hook.begin(player.generator(), observer=player.monitor, proxy=booted.proxy)
    except Exception as error:
        return Failed(f"sr_fuzz itself failed: {error!r}", traceback.format_exc())
    try:
        booted.scheduler.run_event_loop()
    except ScriptEnded:
        return player.done()
    except BaseException as error:
        return player.judge(error)
    return player.loop_left()
