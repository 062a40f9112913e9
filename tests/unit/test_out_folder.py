"""The folder of the findings: a killed campaign loses nothing, and only something better replaces what is there."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CORE, leak_on_abort
from fake_engine import FakeEngine, Rule, leak
from forked import forked, kill_self
from msgspec.structs import replace
from test_campaign import SCRIPTS

from sr_fuzz.bugs.known import Known
from sr_fuzz.campaign.events import Emitted, Event, FindingNew, Resumed, Summary
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.emit.replacing import digest
from sr_fuzz.lifetime import locks
from sr_fuzz.outcome import Finding, Outcome, Violation
from sr_fuzz.outcome.files import load, save_finding
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script import EngineConfig, Script, Step
from sr_fuzz.script.errors import EngineError

FOUND = "kv_pages:leaked:radix+overlap"


def campaign(rule: Rule, out: Path, **options: object) -> tuple[Summary, list[Event]]:
    events: list[Event] = []
    settings: dict[str, object] = dict(scripts=SCRIPTS, time_s=600, seed=1, out=out, known={}, max_scripts=40)
    summary = run_campaign(FakeEngine(rule), on_event=events.append, **(settings | options))  # type: ignore[arg-type]
    return summary, events


def at_run(number: int, act: Callable[[], None]) -> Rule:
    """`leak_on_abort`, and ``act`` at its ``number``-th violation."""
    seen = [0]

    def rule(script: Script) -> Violation | None:
        violation = leak_on_abort(script)
        seen[0] += violation is not None
        if violation is not None and seen[0] == number:
            act()
        return violation

    return rule


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


# -- a second campaign -----------------------------------------------------------------------------------------


def test_what_is_in_the_folder_is_known_to_the_next_campaign(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    before = snapshot(tmp_path)
    summary, events = campaign(leak_on_abort, tmp_path, seed=2)
    (tally,) = summary.findings.values()
    assert (tally.status, tally.path) == ("known", only(tmp_path, "test_*.py")) and "found before" in tally.reason
    assert not any(isinstance(event, FindingNew) for event in events)
    assert snapshot(tmp_path) == before


def test_a_renamed_test_is_known_as_well(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    test = only(tmp_path, "test_*.py")
    test.with_suffix(".json").unlink()
    renamed = test.rename(tmp_path / "test_the_leak_of_the_last_page.py")
    summary, _ = campaign(leak_on_abort, tmp_path, seed=2)
    (tally,) = summary.findings.values()
    assert (tally.status, tally.path) == ("known", renamed)


def test_what_a_seeded_fault_has_shown_is_no_known_bug(tmp_path: Path):
    engine = FakeEngine(leak_on_abort)
    engine.faults = ("faulty:drops",)
    run_campaign(
        engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={}, max_scripts=40, on_event=lambda event: None
    )
    summary, _ = campaign(leak_on_abort, tmp_path)
    (tally,) = summary.new
    assert tally.path is not None and load(tally.path.with_suffix(".json")).finding.faults == ()  # type: ignore[union-attr]
    assert len(list(tmp_path.glob("test_*.py"))) == 2


@pytest.fixture
def interruptible():
    """Ctrl-C as at a terminal: it is ignored when the tests are started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_never_puts_a_worse_test_in_the_place_of_a_better_one(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    test = only(tmp_path, "test_*.py")
    before = snapshot(tmp_path)
    # Without its signature it is not known, so it is found again, and stopped at its first run.
    test.with_suffix(".json").rename(aside := tmp_path / "aside")
    text = test.read_text()
    test.unlink()
    stop = at_run(2, lambda: signal.raise_signal(signal.SIGINT))

    def put_back(event: Event) -> None:
        if isinstance(event, FindingNew):
            test.write_text(text)
            aside.rename(test.with_suffix(".json"))

    summary = run_campaign(
        FakeEngine(stop), scripts=SCRIPTS, time_s=600, seed=2, out=tmp_path, known={}, max_scripts=40, on_event=put_back
    )
    assert summary.interrupted and summary.new[0].path == test
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("interruptible")
def test_a_finding_that_ctrl_c_left_unconfirmed_is_completed_by_the_next_campaign(tmp_path: Path):
    campaign(at_run(2, lambda: signal.raise_signal(signal.SIGINT)), tmp_path)
    test = only(tmp_path, "test_*.py")
    assert "not run again since" in test.read_text()
    summary, _ = campaign(leak_on_abort, tmp_path, seed=2)
    assert len(summary.new) == 1 and only(tmp_path, "test_*.py") == test
    case = load(test.with_suffix(".json"))
    assert case.script.actions == CORE and case.finding is not None and case.finding.reliability == "5 of 5 fresh runs"


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_the_minimiser_has_reached(tmp_path: Path):
    campaign(at_run(5, lambda: signal.raise_signal(signal.SIGINT)), tmp_path)
    finding = load(only(tmp_path, "test_*.json")).finding
    assert finding is not None and len(finding.script.actions) < finding.original_actions and not finding.tried


class Busy(FakeEngine):
    """Where a script has more actions than the minimal one, another request is in the last batch."""

    def run(self, script: Script, **options: object) -> Outcome:
        outcome = super().run(script)
        if len(script.actions) == len(CORE) or not outcome.trace:
            return outcome
        return replace(outcome, trace=(*outcome.trace[:-1], replace(outcome.trace[-1], mode="decode")))


def test_the_same_bug_in_another_situation_gets_no_second_test(tmp_path: Path):
    def search(seed: int) -> Summary:
        engine = Busy(leak_on_abort)
        return run_campaign(
            engine, scripts=SCRIPTS, time_s=600, seed=seed, out=tmp_path, known={}, max_scripts=60,
            triage=Triage(engine, {}), on_event=lambda event: None,
        )  # fmt: skip

    assert len(search(1).new) == 1
    before = snapshot(tmp_path)
    again = search(2)
    assert not again.new and not again.suspects and snapshot(tmp_path) == before
    assert {tally.path for tally in again.known} == {only(tmp_path, "test_*.py")}


@pytest.mark.usefixtures("interruptible")
def test_an_edited_test_is_never_replaced(tmp_path: Path):
    campaign(at_run(2, lambda: signal.raise_signal(signal.SIGINT)), tmp_path)
    test = only(tmp_path, "test_*.py")
    edited = test.read_text() + "\n# what I know about it\n"
    test.write_text(edited)
    summary, events = campaign(leak_on_abort, tmp_path, seed=2)
    assert test.read_text() == edited
    (tally,) = summary.new
    assert [event.beside for event in events if isinstance(event, Emitted)] == [test]
    assert tally.path is not None and tally.path != test and load(tally.path).script.actions == CORE


# -- a killed campaign -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [2, 5, 12])
def test_a_finding_that_is_being_followed_up_survives_a_kill(tmp_path: Path, at: int):
    assert forked(lambda: campaign(at_run(at, kill_self), tmp_path) and None) == -signal.SIGKILL
    raw = only(tmp_path / "unfinished", "*.json")
    case = load(raw)
    assert case.signature == FOUND and leak_on_abort(case.script) is not None

    summary, events = campaign(leak_on_abort, tmp_path, seed=2)
    assert Resumed(raw, True) in events and len(summary.new) == 1
    assert not (tmp_path / "unfinished").exists()
    assert load(only(tmp_path, "test_*.py")).script.actions == CORE


def test_what_shows_no_more_is_kept_aside(tmp_path: Path):
    assert forked(lambda: campaign(at_run(2, kill_self), tmp_path) and None) == -signal.SIGKILL
    raw = only(tmp_path / "unfinished", "*.json")
    summary, events = campaign(lambda script: None, tmp_path)
    assert Resumed(raw, False) in events and not summary.findings
    assert load(only(tmp_path / "not-reproduced", "*.json")).signature == FOUND
    assert not (tmp_path / "unfinished").exists() and not list(tmp_path.glob("test_*"))


def test_an_unfinished_finding_of_a_campaign_that_still_runs_is_left_to_it(tmp_path: Path):
    def look() -> None:
        raw = only(tmp_path / "unfinished", "*.json")
        assert forked(lambda: campaign(lambda script: None, tmp_path) and None) == 0
        assert raw.exists()
        looked.append(raw)

    looked: list[Path] = []
    campaign(at_run(3, look), tmp_path)
    assert looked and not looked[0].exists()


@pytest.mark.parametrize("last", [".json", ".py"])
def test_a_kill_between_a_finding_and_its_test_is_made_good(tmp_path: Path, last: str):
    out = tmp_path / "findings"
    campaign(leak_on_abort, out)
    whole = snapshot(out)
    shutil.rmtree(out)

    def work() -> None:
        replace = Path.replace

        def replace_and_end(self: Path, target: Path) -> Path:
            done = replace(self, target)
            if target.name.startswith("test_") and target.suffix == last:
                kill_self()
            return done

        Path.replace = replace_and_end  # type: ignore[method-assign,assignment]
        campaign(leak_on_abort, out)

    assert forked(work) == -signal.SIGKILL
    assert len(list(out.glob("test_*.py"))) == (last == ".py")
    summary, _ = campaign(leak_on_abort, out)
    assert not summary.new and snapshot(out) == whole


def test_a_test_that_a_person_has_removed_stays_removed(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    only(tmp_path, "test_*.py").unlink()
    campaign(lambda script: None, tmp_path)
    assert not list(tmp_path.glob("test_*.py"))
    summary, _ = campaign(leak_on_abort, tmp_path, seed=2)
    assert len(summary.new) == 1 and only(tmp_path, "test_*.py") == summary.new[0].path


def test_an_unfinished_finding_of_another_engine_is_left_to_it(tmp_path: Path):
    def work() -> None:
        engine = FakeEngine(at_run(2, kill_self))
        engine.faults = ("faulty:drops",)
        run_campaign(
            engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={}, max_scripts=40, on_event=print
        )

    assert forked(work) == -signal.SIGKILL
    raw = only(tmp_path / "unfinished", "*.json")
    _, events = campaign(lambda script: None, tmp_path)
    assert raw.exists() and not any(isinstance(event, Resumed) for event in events)


def test_on_a_full_disk_an_unfinished_finding_stays(tmp_path: Path):
    assert forked(lambda: campaign(at_run(12, kill_self), tmp_path) and None) == -signal.SIGKILL
    raw = only(tmp_path / "unfinished", "*.json")
    before = raw.read_bytes()
    assert forked(lambda: campaign(leak_on_abort, tmp_path, seed=2) and None, max_file_bytes=100) == 0
    assert raw.read_bytes() == before and not list(tmp_path.glob("test_*.py"))


def test_what_the_disk_refuses_at_the_start_makes_it_forget_nothing_else(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    finding = only(tmp_path, "test_*.json")
    torn = json.loads(finding.read_text())
    torn["test"]["complete"] = False
    (tmp_path / "test_a_torn_one.json").write_text(json.dumps(torn))

    def work() -> None:
        summary, _ = campaign(leak_on_abort, tmp_path, seed=2)
        assert not summary.new and [trouble.doing for trouble in summary.troubles] == ["reading"]

    assert forked(work, max_file_bytes=100) == 0


def test_a_suspect_that_was_found_before_is_known(tmp_path: Path):
    listed, fix = tmp_path / "listed.json", "fixes:one"
    known = Known([(FOUND, (listed, "a cause"))])

    def search(seed: int) -> Summary:
        engine = FakeEngine(leak_on_abort, {fix: leak_on_abort})
        return run_campaign(
            engine, scripts=SCRIPTS, time_s=600, seed=seed, out=tmp_path / "out", known=known, max_scripts=40,
            triage=Triage(engine, {listed: (fix,)}), script_of=lambda path: None, on_event=lambda event: None,
        )  # fmt: skip

    assert len(search(1).suspects) == 1
    before = snapshot(tmp_path / "out")
    again = search(2)
    assert not again.suspects and not again.new and snapshot(tmp_path / "out") == before
    (tally,) = [tally for tally in again.known if "found before" in tally.reason]
    assert tally.path == only(tmp_path / "out", "test_*_suspect.py")


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path):
    def work() -> None:
        Path.replace = lambda self, target: kill_self()  # type: ignore[method-assign,assignment,return-value]
        write_whole(tmp_path / "test_a.json", b"{}")

    assert forked(work) == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    lock = locks.hold(alive := tmp_path / ".test_b.json.01234567.unfinished")
    campaign(lambda script: None, tmp_path)
    assert list(tmp_path.iterdir()) == [alive]
    os.close(lock)


# -- a disk that takes no more ---------------------------------------------------------------------------------


def test_on_a_full_disk_the_campaign_goes_on_and_tells_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, told = tmp_path / "out", tmp_path / "told"
    out.mkdir()

    def work() -> None:
        from io import StringIO

        from rich.console import Console

        from sr_fuzz.report.terminal import Terminal

        console = Console(file=StringIO(), width=120)
        summary = run_campaign(
            FakeEngine(leak_on_abort), scripts=SCRIPTS, time_s=600, seed=1, out=out, known={}, max_scripts=40,
            on_event=Terminal(console),
        )  # fmt: skip
        assert summary.scripts == 40
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        lines = [line.strip() for line in shown.splitlines()]
        told.write_text(next(line for line in lines if line.startswith('{"config"')))
        assert any(line.startswith("trouble while writing") and "test_kv_pages_leaked" in line for line in lines), shown

    assert forked(work, max_file_bytes=600) == 0
    assert load(told).script.actions == CORE
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_later_loses_no_finding(tmp_path: Path):
    out = tmp_path / "out"
    out.write_text("somebody has put a file there")
    summary, _ = campaign(leak_on_abort, out)
    (tally,) = summary.new
    assert tally.path is None and tally.finding is not None and tally.finding.script.actions == CORE
    assert {trouble.doing for trouble in summary.troubles} == {"writing"}
    assert out.read_text() == "somebody has put a file there"


def test_a_finding_file_says_what_its_test_was(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    raw = json.loads(only(tmp_path, "test_*.json").read_text())
    assert len(raw["test"]["sha256"]) == 64


# -- an engine that cannot play what is unfinished -------------------------------------------------------------


def leave_unfinished(out: Path, *, count: int = 1, faults: tuple[str, ...] = ()) -> list[Path]:
    """What killed campaigns leave."""
    folder = out / "unfinished"
    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        script = Script(EngineConfig(), (*CORE, Step(number + 1)))
        finding = Finding(FOUND, script, leak(), FakeEngine.sglang_version, original_actions=9, faults=faults)
        paths.append(folder / f"leak_{number}.0123abcd.json")
        save_finding(finding, paths[-1])
    return paths


def test_where_nothing_can_be_played_it_gives_up_and_keeps_what_is_unfinished(tmp_path: Path):
    class Broken(FakeEngine):
        def run(self, script: Script, **options: object) -> Outcome:
            raise EngineError("no memory")

    paths = leave_unfinished(tmp_path, count=7)
    summary = run_campaign(
        Broken(leak_on_abort), scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={}, max_scripts=40,
        on_event=lambda event: None,
    )  # fmt: skip
    assert "could not be played" in summary.gave_up and not summary.scripts
    assert all(path.exists() for path in paths)


def test_a_fix_that_does_not_boot_takes_no_configuration_away(tmp_path: Path):
    fix = "fixes:one"
    (path,) = leave_unfinished(tmp_path, faults=(fix,))
    engine = FakeEngine(lambda script: None)  # an engine with that fix does not boot
    summary = run_campaign(
        engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={}, max_scripts=40,
        triage=Triage(engine, {tmp_path / "listed.json": (fix,)}), on_event=lambda event: None,
    )  # fmt: skip
    assert path.exists() and summary.scripts == 40 and not summary.not_played
    assert EngineConfig() in {script.config for script in engine.played}


def test_an_unfinished_finding_behind_a_known_bug_is_followed_up_with_that_bug_fixed(tmp_path: Path):
    fix = "fixes:one"
    leave_unfinished(tmp_path, faults=(fix,))
    engine = FakeEngine(lambda script: None, {fix: leak_on_abort})
    summary = run_campaign(
        engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={}, max_scripts=40,
        triage=Triage(engine, {tmp_path / "listed.json": (fix,)}), on_event=lambda event: None,
    )  # fmt: skip
    (tally,) = summary.new
    assert tally.finding is not None and tally.finding.faults == (fix,) and tally.finding.script.actions == CORE
    assert not (tmp_path / "unfinished").exists()


def test_files_that_never_end_are_passed_over(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    test = only(tmp_path, "test_*.py")
    for name in ("test_pipe.py", "test_pipe.json"):
        os.mkfifo(tmp_path / name)
    for name in ("test_zeros.py", "test_zeros.json"):
        (tmp_path / name).symlink_to("/dev/zero")
    summary, _ = campaign(leak_on_abort, tmp_path, seed=2)
    (tally,) = summary.findings.values()
    assert (tally.status, tally.path) == ("known", test)


def test_a_killed_replacing_is_completed(tmp_path: Path):
    """Between the two files of a better test the older test is still there."""
    campaign(leak_on_abort, tmp_path)
    file, test = only(tmp_path, "test_*.json"), only(tmp_path, "test_*.py")
    whole = snapshot(tmp_path)
    older = test.read_bytes().replace(b"5 of 5", b"4 of 5")
    torn = json.loads(file.read_text())
    torn["test"] |= {"complete": False, "replaces": digest(older)}
    test.write_bytes(older)
    file.write_text(json.dumps(torn))
    campaign(lambda script: None, tmp_path)
    assert snapshot(tmp_path) == whole


def test_a_file_of_somebody_else_is_no_finding_aside(tmp_path: Path):
    assert forked(lambda: campaign(at_run(2, kill_self), tmp_path) and None) == -signal.SIGKILL
    raw = only(tmp_path / "unfinished", "*.json")
    aside = tmp_path / "not-reproduced"
    aside.mkdir()
    taken = aside / f"{raw.name.split('.')[0]}.json"
    taken.write_text("notes of a person")
    campaign(lambda script: None, tmp_path)
    assert taken.read_text() == "notes of a person"
    (other,) = set(aside.iterdir()) - {taken}
    assert load(other).signature == FOUND


def test_unfinished_findings_wait_when_time_is_up(tmp_path: Path):
    assert forked(lambda: campaign(at_run(2, kill_self), tmp_path) and None) == -signal.SIGKILL
    raw = only(tmp_path / "unfinished", "*.json")
    _, events = campaign(lambda script: None, tmp_path, time_s=0)
    assert raw.exists() and not any(isinstance(event, Resumed) for event in events)
