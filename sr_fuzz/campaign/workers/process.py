"""What a process of a campaign does: it starts an engine, and does what the messages say until it is stopped."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from sr_fuzz.bugs.known import Known, all_fixes, all_known
from sr_fuzz.campaign.events import Event
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.campaign.workers.channel import Channel
from sr_fuzz.campaign.workers.codec import Codec
from sr_fuzz.campaign.workers.follower import Follower
from sr_fuzz.campaign.workers.messages import (
    Beside,
    CannotStart,
    Counted,
    EngineSetup,
    FollowerSetup,
    FromProcess,
    PlayHistory,
    Ready,
    Round,
    SearcherSetup,
    Sighted,
    Taken,
    Told,
    ToProcess,
)
from sr_fuzz.campaign.workers.searcher import Searcher
from sr_fuzz.campaign.workers.told_trouble import ToldTrouble
from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.options import choose, make_engine
from sr_fuzz.faults.canary import canary
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError, ProcessLost
from sr_fuzz.script.text import config_text
from sr_fuzz.strategies.scripts import drawn_scripts

MakeEngine = Callable[[EngineSetup], Engine]


def local_engine(setup: EngineSetup) -> Engine:
    """Return the engine that a setup asks for. Raises `EngineError`."""
    return make_engine(choose("local"), faults=setup.faults, sys_path=setup.sys_path, limit_s=setup.limit_s)


def serve(channel: Channel, make: MakeEngine = local_engine) -> None:
    """Do the work of a process until its channel is closed or it is told to stop."""
    try:
        _serve(channel, make)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the campaign has ended
    except EngineError as error:
        _tell_end(channel, str(error).partition("\n")[0])
    except Exception:
        _tell_end(channel, traceback.format_exc())


def _tell_end(channel: Channel, why: str) -> None:
    try:
        channel.send(Codec().encode(CannotStart(why)))
    except OSError:
        pass  # the campaign has ended


def _serve(channel: Channel, make: MakeEngine) -> None:
    setup = _next(channel, Codec())
    if not isinstance(setup, SearcherSetup | FollowerSetup):
        return
    codec = Codec.after(setup)

    def send(message: FromProcess) -> None:
        channel.send(codec.encode(message))

    with make(setup.engine) as engine:
        version = _started(engine)
        if isinstance(setup, SearcherSetup):
            send(Ready(version, engine.sglang_tree))
            _search(channel, codec, setup, engine, send)
        else:
            _follow_up(channel, codec, setup, engine, make, send)


def _started(engine: Engine) -> str:
    """Start the engine, once more if one of its processes was killed meanwhile."""
    try:
        return engine.sglang_version
    except ProcessLost:
        return engine.sglang_version


def _next(channel: Channel, codec: Codec) -> ToProcess | None:
    data = channel.receive()
    return codec.decode_to(data) if data is not None else None


def _search(
    channel: Channel, codec: Codec, setup: SearcherSetup, engine: Engine, send: Callable[[FromProcess], None]
) -> None:
    searcher = Searcher(
        engine, lambda names: drawn_scripts([setup.configs[name] for name in names], exhausters=setup.exhausters),
        send=send, is_stopped=channel.has_more,
    )  # fmt: skip
    while isinstance(message := _next(channel, codec), Round):
        searcher.play(message)


def _follow_up(
    channel: Channel,
    codec: Codec,
    setup: FollowerSetup,
    engine: Engine,
    make: MakeEngine,
    send: Callable[[FromProcess], None],
) -> None:
    def tell(event: Event) -> None:
        send(Told(event))

    def open_other(folder: Path | None, faults: tuple[str, ...]) -> Engine:
        after = setup.history.path if setup.history is not None else ()
        first = (str(folder),) if folder is not None else ()
        return make(replace(setup.engine, sys_path=(*first, *after), faults=faults))

    known = Known([]) if setup.all_new else all_known(setup.known, engine.sglang_version)
    fixes = all_fixes(setup.known, engine.sglang_version)
    follower = Follower(
        engine, setup.out,
        known=known, triage=Triage(engine, fixes, all_new=setup.all_new),
        canary=(lambda: engine.with_faults(canary.path)) if setup.canary else None,
        troubles=ToldTrouble(send), on_event=tell, name_of=_namer(setup.configs), findings=setup.findings,
        own_folders=setup.own_folders,
        history=setup.history, open_other=open_other,
    )  # fmt: skip
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # so the campaign stops a follow-up
    try:
        unfinished = follower.read()
        send(Ready(engine.sglang_version, engine.sglang_tree, follower.found_before, follower.known))
        follower.resume(
            [each for each in unfinished if each.case.signature not in setup.skip], setup.time_s,
            is_stopped=channel.has_more, on_next=lambda each: send(Taken(each.case.signature or "")),
        )  # fmt: skip
        send(follower.handled())
        while isinstance(message := _next(channel, codec), Sighted | Counted | Beside | PlayHistory):
            follower.handle(message)
            send(follower.handled())
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        send(follower.handled())  # what was being followed up is on the disk
    finally:
        signal.signal(signal.SIGINT, before)
        follower.close()


def _namer(configs: dict[str, EngineConfig]) -> Callable[[EngineConfig], str]:
    names = {configuration: name for name, configuration in configs.items()}
    return lambda configuration: names.get(configuration, config_text(configuration))
