"""The log of a campaign: what another program reads is what happened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import leak_on_abort
from fake_engine import FakeEngine
from forked import forked, kill_self
from test_campaign import SCRIPTS, kinds

from sr_fuzz import cli
from sr_fuzz.campaign.event_codec import decode_line, encode_line
from sr_fuzz.campaign.events import Emitted, Event, Finished, ScriptDone, Started
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.report.event_log import EventLog
from sr_fuzz.script import Script


def events_of(rule, out: Path, listener=None) -> list[Event]:
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if listener is not None:
            listener(event)

    run_campaign(
        FakeEngine(rule), scripts=SCRIPTS, time_s=600, seed=1, out=out, known={}, max_scripts=20, on_event=listen
    )
    return events


def test_every_event_of_a_campaign_comes_back_as_it_was(tmp_path: Path):
    log = tmp_path / "log"
    with EventLog(log) as listener:
        events = events_of(leak_on_abort, tmp_path / "out", listener)
    lines = [decode_line(line) for line in log.read_bytes().splitlines()]
    assert [line.event for line in lines] == events
    assert len(kinds(events, Emitted)) == 1 and [line.time for line in lines] == sorted(line.time for line in lines)


def test_a_line_is_json_that_names_the_event(tmp_path: Path):
    line = json.loads(encode_line(Started("0.5.23", 1, 60.0, None, Path("findings"), 3), "2026-01-01T00:00:00Z"))
    assert (line["format"], line["event"]["kind"], line["event"]["out"]) == (1, "Started", "findings")


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "time": "", "event": {}}'])
def test_what_is_no_line_is_refused(line: bytes):
    with pytest.raises(ValueError, match="no line of an event log"):
        decode_line(line)


def test_a_line_of_another_format_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="reads events of format 1, got 2"):
        decode_line(b'{"format": 2, "time": "", "event": {"kind": "Unheard"}}')


def test_a_killed_campaign_has_logged_what_happened(tmp_path: Path):
    log = tmp_path / "log"
    played = [0]

    def rule(script: Script) -> None:
        played[0] += 1
        if played[0] == 5:
            kill_self()

    def work() -> None:
        with EventLog(log) as listener:
            events_of(rule, tmp_path / "out", listener)

    assert forked(work) < 0
    events = [decode_line(line).event for line in log.read_bytes().splitlines()]
    assert [type(event) for event in events] == [Started, *[ScriptDone] * 4]


def test_a_log_that_the_disk_does_not_take_ends_no_campaign(tmp_path: Path):
    def work() -> None:
        with EventLog(tmp_path / "log") as listener:
            events = events_of(lambda script: None, tmp_path / "out", listener)
        assert isinstance(events[-1], Finished) and events[-1].summary.scripts == 20
        assert str(tmp_path / "log") in listener.problem

    assert forked(work, max_file_bytes=900) == 0


def test_the_command_appends_to_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("sr_fuzz.engine.options.make_engine", lambda *args, **kwargs: FakeEngine(lambda script: None))
    options = ["--seed", "1", "--config", "overlap-chunk16", "--max-scripts", "3", "--no-canary", "--time", "10m"]
    for number in (1, 2):
        assert cli.main(["run", *options, "--out", str(tmp_path), "--log", str(tmp_path / "log")]) == 0
        events = [decode_line(line).event for line in (tmp_path / "log").read_bytes().splitlines()]
        assert len(kinds(events, Finished)) == number


def test_a_path_that_is_not_utf_8_is_written_as_it_can_be(tmp_path: Path):
    out = Path("caf\udce9")
    assert decode_line(encode_line(Started("0.5.23", 1, 60.0, None, out, 3), "")).event.out == Path("caf\\udce9")  # type: ignore[union-attr]


def test_a_torn_line_spoils_no_other(tmp_path: Path):
    log = tmp_path / "log"
    log.write_bytes(b'{"format": 1, "ti')
    with EventLog(log) as listener:
        events_of(lambda script: None, tmp_path / "out", listener)
    torn, *lines = log.read_bytes().splitlines()
    assert [type(decode_line(line).event) for line in lines][0] is Started
    with pytest.raises(ValueError, match="no line of an event log"):
        decode_line(torn)


def test_a_pipe_without_a_reader_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        EventLog(tmp_path / "pipe")
