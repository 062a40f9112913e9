"""On which SGLangs a finding shows: what is played, in which order, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from command_line import SCRIPT
from fake_engine import FakeEngine, Rule, leak
from forked import kill_self
from night_processes import night

from sr_fuzz.campaign import bisecting, history
from sr_fuzz.campaign.bisection import Bisection
from sr_fuzz.campaign.events import Event, HistoryDone
from sr_fuzz.campaign.history import HISTORY, Histories, History
from sr_fuzz.campaign.workers.messages import HistorySetup
from sr_fuzz.outcome import Finding, Violation, signature
from sr_fuzz.script import Script
from sr_fuzz.script.errors import EngineError
from tests.repositories import Repository

FINDING = Finding(signature(leak(), SCRIPT.config), SCRIPT, leak(), "0.5.20", reproduced=5, tried=5)
RELEASES = ("0.5.18", "0.5.19", "0.5.20", "0.5.21")


class Played:
    """Fake engines by the name of their folder; ``leaking`` names those that show the finding."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, leaking: set[str]) -> None:
        self.leaking = leaking
        self.order: list[str] = []
        self.done: list[History] = []
        self.missing: set[str] = set()
        monkeypatch.setattr(bisecting, "release_folder", self.release_folder)

    def release_folder(self, release: str) -> Path:
        if release in self.missing:
            self.order.append(release)
            raise EngineError("cannot be fetched")
        return Path(release)

    def open(self, folder: Path | None, faults: tuple[str, ...]) -> FakeEngine:
        assert folder is not None
        self.order.append(str(folder))
        return FakeEngine(lambda script: leak() if str(folder) in self.leaking else None)

    def histories(self, *trees: str, releases: tuple[str, ...] = RELEASES) -> Histories:
        return Histories(releases, trees, self.open, lambda finding, folder, done: self.done.append(done))

    def play(self, folder: Path, finding: Finding = FINDING, *trees: str) -> History:
        histories = self.histories(*trees)
        histories.add(finding, folder)
        while histories:
            histories.play_next()
        return self.done[-1]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch, {"0.5.20"})


def kinds(found: Bisection) -> dict[str, str]:
    return {row.point: row.verdict.kind for row in found.rows}


def test_the_newest_is_played_first_and_that_in_which_it_was_found_not_again(tmp_path: Path, played: Played):
    done = played.play(tmp_path)
    assert played.order == ["0.5.21", "0.5.19", "0.5.18"]
    (period,) = done.releases.periods
    assert (period.introduced.by, period.introduced.after) == ("0.5.20", "0.5.19")
    assert period.mended is not None and period.mended.by == "0.5.21"
    assert history.read(tmp_path) == done and done.is_complete


def test_what_was_played_is_not_played_again_by_the_next_night(tmp_path: Path, played: Played):
    first = played.histories()
    first.add(FINDING, tmp_path)
    first.play_next()
    assert len(first) == 1 and kinds(history.read(tmp_path).releases) == {"0.5.20": "shows", "0.5.21": "does not show"}
    played.order.clear()
    played.play(tmp_path)
    assert played.order == ["0.5.19", "0.5.18"]
    later = played.histories()
    later.add(FINDING, tmp_path)
    assert not later
    with_new_release = played.histories(releases=(*RELEASES, "0.5.22"))
    with_new_release.add(FINDING, tmp_path)
    assert len(with_new_release) == 1


def test_what_could_not_be_fetched_is_asked_once_a_night(tmp_path: Path, played: Played):
    played.missing = {"0.5.18"}
    assert kinds(played.play(tmp_path).releases)["0.5.18"] == "trouble"
    assert played.order.count("0.5.18") == 1
    played.missing.clear()
    assert kinds(played.play(tmp_path).releases)["0.5.18"] == "does not show"
    assert played.order[-1] == "0.5.18" and len(played.order) == 4


def test_source_trees_come_after_the_releases(tmp_path: Path, played: Played):
    tree = msgspec.structs.replace(FINDING, sglang_tree="/trees/mine", sglang_version="0.5.30.dev1")
    played.leaking = {"0.5.21", "/trees/mine", "/trees/other"}
    done = played.play(tmp_path, tree, "/trees/mine", "/trees/other")
    assert list(kinds(done.releases)) == [*RELEASES, "/trees/mine", "/trees/other"]
    assert done.releases.periods[0].introduced.by == "0.5.21" and done.releases.periods[0].mended is None


SCHEDULER = "python/sglang/srt/managers/scheduler.py"
LEAK = "python/sglang/leak"


def test_the_commits_after_the_newest_release_without_it_are_searched(tmp_path: Path, played: Played):
    made = Repository(tmp_path / "checkout")
    made.commit("healthy", {SCHEDULER: ""})
    made.git("tag", "v0.5.21")
    made.commit("still healthy", {SCHEDULER: "1"})
    made.commit("it leaks", {SCHEDULER: "2", LEAK: ""})
    made.commit("it leaks on", {SCHEDULER: "3"})
    tree = made.folder / "python"
    leaking, plain = played.leaking, played.open

    def open_other(folder: Path | None, faults: tuple[str, ...]) -> FakeEngine:
        assert folder is not None
        if (folder / "sglang" / "leak").exists():
            leaking.add(str(folder))
        return plain(folder, faults)

    played.open = open_other  # type: ignore[method-assign]
    done = played.play(tmp_path, msgspec.structs.replace(FINDING, sglang_tree=str(tree)), str(tree))
    assert done.commits is not None and not done.no_commits
    (period,) = done.commits.periods
    assert period.introduced.is_exact and period.introduced.by.endswith("it leaks")
    assert history.read(tmp_path) == done


def test_without_the_tag_of_the_release_it_says_why_no_commit_is_named(tmp_path: Path, played: Played):
    tree = tmp_path / "tree"
    tree.mkdir()
    played.leaking = {str(tree)}
    done = played.play(tmp_path, msgspec.structs.replace(FINDING, sglang_tree=str(tree)), str(tree))
    assert done.commits is None and str(tree) in done.no_commits and "\n" not in done.no_commits


def test_one_whose_history_cannot_be_written_does_not_hold_up_the_others(tmp_path: Path, played: Played):
    (tmp_path / "file").touch()
    histories = played.histories()
    histories.add(FINDING, tmp_path / "file")
    histories.add(FINDING, tmp_path)
    with pytest.raises(OSError):
        histories.play_next()
    assert len(histories) == 1
    histories.play_next()
    assert (tmp_path / HISTORY).exists()


@pytest.mark.parametrize("content", [b"{}", b"[", b"[" * 100_000, b'{"format": 9}', b"\xff"])
def test_a_history_that_cannot_be_read_is_played_again(tmp_path: Path, played: Played, content: bytes):
    (tmp_path / HISTORY).write_bytes(content)
    assert played.play(tmp_path).is_complete and len(played.order) == 3


def test_what_no_fresh_run_showed_has_no_history(tmp_path: Path, played: Played):
    histories = played.histories()
    histories.add(msgspec.structs.replace(FINDING, reproduced=0), tmp_path)
    assert not histories


# -- in a night ------------------------------------------------------------------------------------------------

FIRST_OF_TWO = ("/trees/new",)


def until_history(event: Event) -> None:
    if isinstance(event, HistoryDone):
        raise KeyboardInterrupt


def leaks(script: Script) -> Violation | None:
    return leak() if len(script.actions) else None


def test_a_night_tells_which_sglangs_have_a_finding(tmp_path: Path):
    setup = HistorySetup((), FIRST_OF_TWO)
    summary, events = night(leaks, tmp_path, max_scripts=None, history=setup, on_event=until_history)
    done = [event for event in events if isinstance(event, HistoryDone)]
    assert kinds(done[0].releases) == {"0.0.fake": "shows", "/trees/new": "shows"}
    (file,) = (tmp_path / "findings").glob(f"*/{HISTORY}")
    assert history.read(file.parent).releases == done[0].releases
    assert summary.findings[done[0].signature].releases == done[0].releases


def test_a_history_that_kills_the_follower_is_played_once_a_night(tmp_path: Path):
    setup = HistorySetup((), FIRST_OF_TWO)

    def elsewhere(sys_path: tuple[str, ...]) -> Rule:
        return (lambda script: kill_self() or None) if sys_path else leaks

    summary, _ = night(leaks, tmp_path, max_scripts=3000, history=setup, elsewhere=elsewhere)
    assert [trouble.what for trouble in summary.troubles] == ["the follower was lost: signal 9"]
    assert summary.troubles[0].count == 1 and not summary.gave_up
