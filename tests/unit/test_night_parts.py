"""The parts of a night, each alone: what waits, who gets time, which states count, and what goes between processes."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import pytest
from command_line import SCRIPT, error_of
from fake_engine import leak

from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.campaign.backlog import MOST, MOST_A_FACE, Backlog, Waiting
from sr_fuzz.campaign.cells import cells_of
from sr_fuzz.campaign.events import Explained, FindingTally, Summary
from sr_fuzz.campaign.order import RoundRobin
from sr_fuzz.campaign.store import Store
from sr_fuzz.campaign.workers.channel import Channel, Reader
from sr_fuzz.campaign.workers.codec import Codec
from sr_fuzz.campaign.workers.messages import (
    EngineSetup,
    FollowerSetup,
    FromProcess,
    Handled,
    Played,
    Stop,
    Told,
)
from sr_fuzz.cli.nightly import seconds_until
from sr_fuzz.outcome import Outcome, StepRecord
from sr_fuzz.script import EngineConfig


def outcome(*steps: StepRecord) -> Outcome:
    return Outcome("hash", "0.0.fake", leak(), trace=steps)


def waiting(found: str, mode: str = "decode") -> Waiting:
    return Waiting(found, SCRIPT, outcome(StepRecord(1, mode=mode)))


def test_what_nobody_knows_comes_first_and_one_face_does_not_fill_the_backlog():
    backlog = Backlog(lambda found: found.startswith("new"))
    for _ in range(MOST_A_FACE + 3):
        backlog.add(waiting("old"))
    backlog.add(waiting("old", "extend"))
    backlog.add(waiting("new"))
    assert len(backlog) == MOST_A_FACE + 2 and backlog.new() == 1
    assert backlog.take_hits() == {}, "they are counted when one of them has been told"
    taken = [backlog.take() for _ in range(len(backlog))]
    assert [one.found for one in taken if one is not None] == ["new", "old", "old", "old"]
    assert backlog.take() is None and backlog.take_hits() == {"old": 3} and backlog.take_hits() == {}


def test_the_backlog_has_an_end():
    backlog = Backlog(lambda found: True)
    for number in range(MOST + 5):
        backlog.add(waiting(f"new {number}"))
    assert len(backlog) == MOST


def test_each_group_of_configurations_gets_a_round_in_turn_and_what_does_not_boot_none():
    order = RoundRobin(["a", "b", "c", "d", "e"], size=2)
    first = [order.next() for _ in range(3)]
    assert sorted(name for group in first for name in group) == ["a", "b", "c", "d", "e"]
    assert [order.next() for _ in range(3)] == first
    for name in ("a", "b", "c", "d"):
        order.leave_out(name)
    assert order.next() == order.next() == ("e",)
    order.leave_out("e")
    assert order.next() == ()


def test_cells_tell_batch_chunk_pause_pressure_and_who_went_back_to_waiting():
    found = cells_of(
        outcome(
            StepRecord(1, ("r0 = start_req(1:3)",), mode="extend", running=("r0",), free_pages=40, chunked="r0"),
            StepRecord(2, ("pause(retract)",), paused=True, waiting=("r0",), free_pages=2),
            StepRecord(3, ("epilogue: drain",), mode="decode", batch=("r0",), free_pages=0),
        )
    )
    assert found == {
        "state:extend free chunked", "state:idle low paused waiting back", "state:decode full",
        "pair:start_req pause",
    }  # fmt: skip


def test_a_message_comes_as_it_was_sent_whatever_the_pieces():
    tallies = {"x": FindingTally("new", leak(), path=Path("/y"))}
    codec = Codec()
    messages = [Played(3, SCRIPT, outcome(), ("a", "b"), ("twins",)), Handled(tallies, {}, {}, 1.0, 2.0, 3.0)]
    one, other = socket.socketpair()
    with one, other:
        for message in messages:
            Channel(one).send(codec.encode(message))
        reader = Reader()
        pieces: list[bytes] = []
        while data := _some(other):
            pieces += reader.feed(data)
    assert [codec.decode_from(piece) for piece in pieces] == messages


def _some(end: socket.socket) -> bytes:
    end.setblocking(False)
    try:
        return end.recv(7)
    except BlockingIOError:
        return b""


def test_a_message_of_another_format_is_refused():
    codec = Codec()
    setup = FollowerSetup(EngineSetup(), {"default": EngineConfig()}, Path("/out"), True, 60.0)
    assert codec.decode_to(codec.encode(setup)) == setup
    with pytest.raises(ValueError, match="reads messages of format 1, got 7"):
        codec.decode_to(codec.encode(setup).replace(b'"format":1', b'"format":7'))
    with pytest.raises(ValueError, match="no message of a campaign"):
        codec.decode_to(b"[]")
    assert codec.decode_to(codec.encode(Stop())) == Stop()


def test_a_summary_of_findings_is_a_message():
    tally = FindingTally("known", leak(), count=3, path=Path("a/b.json"), reason="why", causes={"why": 2})
    message = Handled({"x": tally}, Summary().canary, {"fix": "why not"}, 1.0, 2.0, 3.0)
    assert Codec().decode_from(Codec().encode(message)) == message


def test_what_follows_a_setup_has_no_path_of_this_machine(tmp_path: Path):
    """The other end may have its folders elsewhere."""
    (one, bug), two = (tmp_path / "one", next(iter(shipped()))), tmp_path / "two"

    def codec(home: Path) -> Codec:
        return Codec.after(FollowerSetup(EngineSetup(), {}, home / "findings", True, 60.0, home / "marked"))

    def told(home: Path) -> list[FromProcess]:
        tally = FindingTally("new", leak(), path=home / "findings" / "test_a" / "test_a.py")
        tests = (home / "marked" / "test_b.py", bug)
        return [Handled({"x": tally}, {}, {}, 1.0, 2.0, 3.0), Told(Explained("kv_pages: leaked", tests))]

    data = [codec(one).encode(message) for message in told(one)]
    assert not any(str(tmp_path).encode() in line or str(bug.parent).encode() in line for line in data)
    assert [codec(two).decode_from(line) for line in data] == told(two)
    with pytest.raises(ValueError, match="no Path of a message: .'elsewhere', 'test_a/"):
        codec(two).decode_from(data[0].replace(b'["findings",', b'["elsewhere",'))


def test_until_is_the_next_time_that_the_clock_shows_it():
    now = datetime.datetime(2026, 3, 1, 22, 30)
    assert seconds_until(datetime.time(7, 0), now) == 8.5 * 3600
    assert seconds_until(datetime.time(22, 31), now) == 60
    assert seconds_until(datetime.time(22, 30), now) == 24 * 3600


def test_a_seed_is_used_once_in_a_store(tmp_path: Path):
    from sr_fuzz.campaign.record import Night

    store = Store(tmp_path)
    for seed in (5, 6):
        store.record.begin(Night("now", "0.0.fake", seed))
    assert (store.unused_seed(4), store.unused_seed(5)) == (4, 7)
    store.close()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--time", "1h", "--until", "07:00"], "--until: says when it ends, so not with --time"),
        (["--until", "25:00"], "expected a time of the day, such as 07:00"),
        (["--workers", "0"], "--workers"),
        (["--all-new", "--known", "."], "--all-new: takes the known bugs away, so not with --known"),
        (["--config", "nope"], "--config"),
        (["--store", "/proc/nowhere"], "cannot be written to"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    assert complaint in error_of(["nightly", *arguments], capsys)


def test_a_store_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = Store(tmp_path)
    assert "another campaign writes to this store" in error_of(["nightly", "--store", str(tmp_path)], capsys)
    store.close()
