"""A night: several processes, one store, nothing lost when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from command_line import CORE, leak_on_abort
from fake_engine import Rule
from forked import forked, kill_self
from night_processes import CONFIGS, night
from sr_fuzz.strategies import draw
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.campaign.events import Emitted, Event, FindingNew, Finished, Resumed, ScriptDone
from sr_fuzz.campaign.search import round_seed
from sr_fuzz.campaign.store import Store
from sr_fuzz.outcome import Violation
from sr_fuzz.outcome.files import load
from sr_fuzz.script import Pause, Script, from_json, script_hash
from sr_fuzz.script.errors import EngineError

FOUND = "kv_pages:leaked:radix+overlap"


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def until_emitted(event: Event) -> None:
    """Stop the night when the first finding is written."""
    if isinstance(event, Emitted):
        raise KeyboardInterrupt


def state_of(folder: Path) -> dict:
    return json.loads((folder / "state" / "nights.json").read_text())


def test_a_finding_has_a_folder_with_all_that_one_needs_of_it(tmp_path: Path):
    summary, events = night(leak_on_abort, tmp_path, max_scripts=None, on_event=until_emitted)
    assert [event.signature for event in events if isinstance(event, FindingNew)] == [FOUND]
    test = only(tmp_path / "findings", "*/test_*.py")
    assert {path.name for path in test.parent.iterdir()} == {
        test.name, "finding.json", "minimal.json", "original.json", "trace.json",
    }  # fmt: skip
    assert test.stem == f"test_{test.parent.name}" and load(test).script.actions == CORE
    assert from_json((test.parent / "minimal.json").read_bytes()).actions == CORE
    original = from_json((test.parent / "original.json").read_bytes())
    assert len(original.actions) == load(test.parent / "finding.json").finding.original_actions  # type: ignore[union-attr]
    assert json.loads((test.parent / "trace.json").read_text())[0]["step"] == 1
    assert summary.findings[FOUND].path == test and not (tmp_path / "findings" / "unfinished").exists()


def test_the_next_night_knows_what_was_found_and_goes_on(tmp_path: Path):
    night(leak_on_abort, tmp_path, max_scripts=None, on_event=until_emitted)
    first = state_of(tmp_path)
    summary, events = night(leak_on_abort, tmp_path, seed=2)
    assert not any(isinstance(event, FindingNew) for event in events)
    assert summary.findings[FOUND].status == "known" and "found before" in summary.findings[FOUND].reason
    second = state_of(tmp_path)
    assert [one["seed"] for one in second["nights"]] == [1, 2]
    assert second["scripts"] == first["scripts"] + summary.scripts
    assert set(first["cells"]) <= set(second["cells"])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_seed_draws_the_same_scripts_however_many_search(tmp_path: Path, workers: int):
    played = tmp_path / "played"

    def note(script: Script) -> Violation | None:
        with played.open("a") as file:
            file.write(f"{script_hash(script)}\n")
        return None

    wanted = {
        script_hash(script)
        for number, config in enumerate(CONFIGS.values())
        for script in draw.first(scripts([config]), seed=round_seed(7, number), count=100)
    }

    def until_all(event: Event) -> None:
        if isinstance(event, ScriptDone) and wanted <= set(played.read_text().split()):
            raise KeyboardInterrupt

    summary, _ = night(note, tmp_path / "store", workers=workers, seed=7, max_scripts=2000, on_event=until_all)
    assert summary.interrupted, "all of them were played"


def test_no_script_is_played_twice_in_rounds_that_follow_each_other(tmp_path: Path):
    played = tmp_path / "played"

    def note(script: Script) -> Violation | None:
        with played.open("a") as file:
            file.write(f"{script_hash(script)}\n")
        return None

    night(note, tmp_path / "store", workers=1, max_scripts=500)
    found = played.read_text().split()
    assert len(found) == len(set(found)) >= 500


def test_a_searcher_that_is_killed_is_started_again(tmp_path: Path):
    started: list[int] = []

    def kill_one(event: Event) -> None:
        if isinstance(event, ScriptDone) and len(started) == 3:
            os.kill(started[-1], signal.SIGKILL)
            started.append(0)

    summary, _ = night(lambda script: None, tmp_path, max_scripts=150, on_event=kill_one, started=started)
    (trouble,) = summary.troubles
    assert trouble.what == "the searcher was lost: signal 9" and trouble.doing == "searching"
    assert summary.scripts >= 150 and len(started) == 5


def test_a_follower_that_is_killed_loses_no_finding(tmp_path: Path):
    flag = tmp_path / "kill once"
    flag.touch()

    def rule(script: Script) -> Violation | None:
        if script.actions == CORE and flag.exists():  # what only the minimiser makes
            flag.unlink()
            kill_self()
        return leak_on_abort(script)

    summary, events = night(rule, tmp_path / "store", max_scripts=None, on_event=until_emitted)
    assert not flag.exists()
    assert [trouble.what for trouble in summary.troubles] == ["the follower was lost: signal 9"]
    assert load(only(tmp_path / "store" / "findings", "*/test_*.py")).script.actions == CORE
    assert any(isinstance(event, Resumed) and event.shows for event in events)


def test_a_finding_that_kills_each_follower_does_not_hold_up_the_others(tmp_path: Path):
    """The other bug shows when the first one has killed a follower."""
    flag, store = tmp_path / "killed", tmp_path / "store"

    def rule(script: Script) -> Violation | None:
        if script.actions == CORE:  # what only the minimiser makes of a leak
            flag.touch()
            kill_self()
        if (found := leak_on_abort(script)) is not None:
            return found
        is_other = flag.exists() and any(isinstance(action, Pause) for action in script.actions)
        return Violation("pause", "output grew", "r0 got 3 tokens", 5) if is_other else None

    def until_other(event: Event) -> None:
        if isinstance(event, Emitted) and event.finding.violation.invariant == "pause":
            raise KeyboardInterrupt

    summary, _ = night(rule, store, max_scripts=None, on_event=until_other)
    assert summary.interrupted
    lost, left = sorted(summary.troubles, key=lambda trouble: trouble.doing == "following up")
    assert (lost.what, lost.count) == ("the follower was lost: signal 9", 2)
    assert "has killed the follower; it is left unfinished" in left.what and left.count == 1
    assert list((store / "findings" / "unfinished").glob("*.json"))


def test_a_round_that_kills_each_searcher_ends_there(tmp_path: Path):
    def rule(script: Script) -> Violation | None:
        if script.config == CONFIGS["small"]:
            kill_self()
        return None

    summary, _ = night(rule, tmp_path, workers=1, max_scripts=250)
    (trouble,) = summary.troubles
    assert summary.scripts >= 250 and not summary.gave_up
    assert state_of(tmp_path)["nights"][0]["rounds"] >= 3 and trouble.count >= 2


def test_a_follower_that_is_killed_at_its_start_is_started_again(tmp_path: Path):
    flag = tmp_path / "kill once"
    flag.touch()

    def at_start(sys_path: tuple[str, ...]) -> Rule:
        if flag.exists():
            flag.unlink()
            kill_self()
        return lambda script: None

    summary, _ = night(lambda script: None, tmp_path / "store", elsewhere=at_start)
    assert summary.scripts >= 60 and not summary.gave_up


def test_searchers_that_cannot_start_leave_no_process(tmp_path: Path):
    started: list[int] = []

    def at_start(sys_path: tuple[str, ...]) -> Rule:
        if (tmp_path / "store" / "state" / "nights.json").exists():  # written when the follower is there
            raise EngineError("no such kernel")
        return lambda script: None

    (tmp_path / "store").mkdir()
    with pytest.raises(EngineError, match="no such kernel"):
        night(lambda script: None, tmp_path / "store", workers=3, elsewhere=at_start, started=started)
    assert len(started) == 4 and not [pid for pid in started if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_night_that_is_killed_loses_nothing(tmp_path: Path):
    flag, store = tmp_path / "kill once", tmp_path / "store"
    flag.touch()

    def rule(script: Script) -> Violation | None:
        if script.actions == CORE and flag.exists():  # in the follower, which the minimiser runs in
            flag.unlink()
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()  # it ends with the campaign
        return leak_on_abort(script)

    assert forked(lambda: night(rule, store, max_scripts=None) and None) == -signal.SIGKILL
    assert list((store / "findings" / "unfinished").glob("*.json"))
    _, events = night(leak_on_abort, store, seed=2, max_scripts=None, on_event=until_emitted)
    assert any(isinstance(event, Resumed) and event.shows for event in events)
    assert load(only(store / "findings", "*/test_*.py")).script.actions == CORE
    assert len(state_of(store)["nights"]) == 2


def test_a_violation_is_on_the_disk_before_it_waits(tmp_path: Path):
    """The follower may need hours for what came before. The listener interrupts again while the processes end."""
    seen: list[bool] = []

    def look(event: Event) -> None:
        if isinstance(event, ScriptDone) and event.signature is not None:
            seen.append(bool(list((tmp_path / "findings" / "unfinished").glob("*.json"))))
            raise KeyboardInterrupt

    summary, events = night(leak_on_abort, tmp_path, max_scripts=None, on_event=look)
    assert seen and all(seen)
    assert summary.waiting or summary.uncounted or summary.findings, "a violation is told, whoever came to it"
    assert summary.interrupted and isinstance(events[-1], Finished)


def test_where_no_process_lives_it_gives_up(tmp_path: Path):
    def die(script: Script) -> Violation | None:
        kill_self()
        return None

    summary, _ = night(die, tmp_path, max_scripts=100)
    assert "processes in a row were lost" in summary.gave_up and summary.scripts == 0


def test_a_store_has_one_campaign_at_a_time(tmp_path: Path):
    from sr_fuzz.campaign.store import StoreError

    first = Store(tmp_path)
    with pytest.raises(StoreError, match="another campaign writes to this store"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


@pytest.mark.parametrize("content", ["{}", "no json", '{"format": 99}', '{"format": 1, "nights": 3}', "[" * 10_000])
def test_a_state_that_cannot_be_read_says_how_to_go_on(tmp_path: Path, content: str):
    from sr_fuzz.campaign.store import StoreError

    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "nights.json").write_text(content)
    with pytest.raises(StoreError, match="remove it to begin anew, the findings stay") as error:
        Store(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "state" / "nights.json").unlink()
    Store(tmp_path).close()
