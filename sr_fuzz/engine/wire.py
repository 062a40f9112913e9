"""Messages between the processes of the local engine; msgpack of typed structs, so nothing is unpickled.

::

    user's process --(SEQPACKET: Boot + one end of a job channel)--> zygote --fork--> configuration process
    user's process <==============(job channel: Run/Execute, Reply)=============> configuration process --fork--> child
"""

from __future__ import annotations

from typing import Any

import msgspec

from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script

# Boot messages are one datagram; a configuration with its faults takes a few hundred bytes.
MAX_BOOT_BYTES = 65536


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """To the zygote: fork a process that boots this configuration and serves the channel that came along."""

    config: EngineConfig
    faults: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """First reply on a job channel: the scheduler is up."""

    sglang_version: str
    pid: int
    boot_s: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The process could not do what it was asked; ``message`` is one line, ``detail`` a traceback or log tail."""

    message: str
    detail: str = ""


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Play a script in a fresh child."""

    script: Script
    invariants: tuple[str, ...] | None = None
    limit_s: float = 20.0


class Execute(msgspec.Struct, frozen=True, tag="execute"):
    """Run a script function (``module:function``, a generator over a context) in a fresh child."""

    path: str
    args: tuple[Any, ...] = ()
    invariants: tuple[str, ...] | None = None
    limit_s: float = 20.0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The outcome of a run; ``failure`` when a script function raised an assertion of its own."""

    outcome: Outcome
    failure: str = ""


Job = Run | Execute
Reply = Ready | Failed | Done

encode = msgspec.msgpack.Encoder().encode
decode_boot = msgspec.msgpack.Decoder(Boot).decode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
