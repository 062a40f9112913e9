"""Messages between the user's process and an engine's processes, as msgpack of typed structs, without pickle.

The local engine, over socket pairs that its processes inherit::

    user's process --(SEQPACKET: Boot + one end of a job channel)--> zygote --fork--> configuration process
    user's process <==========(job channel: Run/Execute, Alive …, Reply)========> configuration process --fork--> child

A live scheduler (the server engine, persistent mode), over a ZMQ ``PAIR`` socket on a private ``ipc://`` path::

    user's process <--(Attached; then Run/Execute -> Done/Failed, Reset)--> hook in the scheduler process
"""

from __future__ import annotations

from typing import Any

import msgspec

from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script

# A `Boot` message is one datagram; a configuration with its faults takes a few hundred bytes.
MAX_BOOT_BYTES = 65536


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """Message to the zygote: fork a process that boots this configuration and serves the attached channel."""

    config: EngineConfig
    faults: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """First reply on a job channel: the scheduler is ready."""

    sglang_version: str
    pid: int
    boot_s: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request could not be performed; ``message`` is one line, ``detail`` a traceback or the end of a log."""

    message: str
    detail: str = ""


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """The child that played was ended from outside; ``message`` and ``detail`` as in `Failed`."""

    message: str
    detail: str = ""


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """Sent now and then while a script makes steps: it is long and does not hang."""


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Play a script in a fresh child."""

    script: Script
    invariants: tuple[str, ...] | None = None
    limit_s: float = 20.0
    """Longest time of one step in seconds. A valid script may have half a million of them, and each of its requests
    ends, so there is no limit of the whole. See `sr_fuzz.engine.step_limit`."""


class Execute(msgspec.Struct, frozen=True, tag="execute"):
    """Run a script function (``module:function``, a generator over a context) in a fresh child."""

    path: str
    args: tuple[Any, ...] = ()
    invariants: tuple[str, ...] | None = None
    limit_s: float = 20.0
    """Longest time of the whole function in seconds, since nothing else ends one that steps for ever."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The outcome of a run; ``failure`` is the traceback of a script function that raised."""

    outcome: Outcome
    failure: str = ""


class Attached(msgspec.Struct, frozen=True, tag="attached"):
    """First message of a live scheduler: the event loop runs, the warm-up is over, and jobs are accepted."""

    protocol: int
    sglang_version: str
    sglang_folder: str
    """Folder of its SGLang; the user's process never imports SGLang."""
    pid: int
    boot_s: float


class Reset(msgspec.Struct, frozen=True, tag="reset"):
    """Sent after each job of a live scheduler, when its reset to an empty state has succeeded or failed."""

    problem: str = ""


Job = Run | Execute
Reply = Ready | Failed | Lost | Done | Alive
LiveReply = Attached | Failed | Done | Reset

ALIVE_S = 1.0
"""Time between two `Alive` in seconds: a fraction of the limit of a step."""

PROTOCOL = 3
"""Version of the messages to and from a live scheduler; raised whenever an old one would have another meaning."""

# Files in the private folder of a live scheduler.
SETTINGS = "engine.json"
"""The settings of its main process."""
SOCKET = "control"
STEPS = "steps"
"""The number of the step that a scheduler makes, as `StepCounter` keeps it."""
STACKS = "stacks"
"""The file that a scheduler's Python stack is written to, at a fatal signal or on SIGUSR1."""

encode = msgspec.msgpack.Encoder().encode
decode_boot = msgspec.msgpack.Decoder(Boot).decode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
decode_live_reply = msgspec.msgpack.Decoder(LiveReply).decode
