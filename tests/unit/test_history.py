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
from sr_fuzz.campaign.bisection import Bisection, from_rows
from sr_fuzz.campaign.events import Event, HistoryDone
from sr_fuzz.campaign.history import HISTORY, Histories, History
from sr_fuzz.campaign.workers.messages import HistorySetup
from sr_fuzz.outcome import Finding, Violation, signature
from sr_fuzz.report.bisection import history_lines
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

    def histories(
        self, *trees: str, releases: tuple[str, ...] = RELEASES, under_test: str | None = "0.5.20"
    ) -> Histories:
        return Histories(
            releases, trees, self.open, lambda finding, folder, done: self.done.append(done), under_test=under_test
        )

    def play(self, folder: Path, *trees: str, finding: Finding = FINDING, under_test: str | None = "0.5.20") -> History:
        histories = self.histories(*trees, under_test=under_test)
        histories.add(finding, folder, just_found=True)
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
    first.add(FINDING, tmp_path, just_found=True)
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


def of_trees(done: History) -> dict[str, str]:
    return {tree.row.point: tree.row.verdict.kind for tree in done.trees}


def test_source_trees_are_no_points_between_releases(tmp_path: Path, played: Played):
    """A tree may be older than any of them."""
    played.leaking = {"0.5.20", "0.5.21", "/trees/mine"}
    done = played.play(tmp_path, "/trees/mine", "/trees/other", under_test="/trees/mine")
    assert played.order == ["/trees/other", *reversed(RELEASES)]
    assert of_trees(done) == {"/trees/mine": "shows", "/trees/other": "does not show"}
    (period,) = done.releases.periods
    assert period.introduced.by == "0.5.20" and period.mended is None
    assert history_lines(done.releases, [tree.row for tree in done.trees]) == [
        "introduced in 0.5.20; the last without it: 0.5.19", "still there in 0.5.21, the newest that could tell",
        "/trees/mine: shows", "/trees/other: does not show",
    ]  # fmt: skip


def test_a_tree_that_has_changed_is_played_again(tmp_path: Path, played: Played):
    source = tmp_path / "tree" / "sglang" / "a.py"
    source.parent.mkdir(parents=True)
    source.write_text("1")
    tree = str(tmp_path / "tree")
    played.leaking = {tree}
    assert of_trees(played.play(tmp_path, tree)) == {tree: "shows"}
    again = played.histories(tree)
    again.add(FINDING, tmp_path)
    assert not again
    source.write_text("mended")
    played.leaking = set()
    played.order.clear()
    again = played.histories(tree)
    again.add(FINDING, tmp_path)
    again.play_next()
    assert played.order == [tree] and of_trees(played.done[-1]) == {tree: "does not show"}


def test_that_it_was_found_there_holds_for_the_sglang_under_test_alone(tmp_path: Path, played: Played):
    """A wheel may have the version of a release, and be another."""
    played.leaking = {"/cache/wheel-1"}
    done = played.play(tmp_path, "/cache/wheel-1", under_test="/cache/wheel-1")
    assert set(kinds(done.releases).values()) == {"does not show"} and of_trees(done) == {"/cache/wheel-1": "shows"}
    assert history_lines(done.releases) == ["does not show from 0.5.18 to 0.5.21"]


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
    done = played.play(tmp_path, str(tree), under_test=str(tree))
    assert done.commits is not None and not done.no_commits
    (period,) = done.commits.periods
    assert period.introduced.is_exact and period.introduced.by.endswith("it leaks")
    assert history.read(tmp_path) == done
    (tmp_path / "other").mkdir()
    leaking.add("0.5.21")
    other = played.play(tmp_path / "other", str(tree), under_test=str(tree))
    assert other.commits is None and not other.no_commits, "it is older than the commits of this line"


def test_a_search_of_commits_that_is_interrupted_is_made_the_next_night(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
):
    made = Repository(tmp_path / "checkout")
    made.commit("healthy", {SCHEDULER: ""})
    made.git("tag", "v0.5.21")
    made.commit("it leaks", {SCHEDULER: "1"})
    tree = str(made.folder / "python")
    played.leaking = {tree}

    def interrupted(*args: object) -> Bisection:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(history, "over_commits", interrupted)
        with pytest.raises(KeyboardInterrupt):
            played.play(tmp_path, tree, under_test=tree)
    played.order.clear()
    wanted = from_rows(FINDING.signature, [])
    monkeypatch.setattr(history, "over_commits", lambda *args: wanted)
    assert played.play(tmp_path, tree, under_test=tree).commits == wanted
    assert not played.order, "what was played is on the disk"


def test_without_the_tag_of_the_release_it_says_why_no_commit_is_named(tmp_path: Path, played: Played):
    tree = tmp_path / "tree"
    tree.mkdir()
    played.leaking = {str(tree)}
    done = played.play(tmp_path, str(tree), under_test=str(tree))
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


def test_a_release_is_fetched_once_a_night_for_all_findings(tmp_path: Path, played: Played):
    played.missing = {"0.5.18"}
    histories = played.histories()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        histories.add(FINDING, tmp_path / name)
    while histories:
        histories.play_next()
        histories.add(FINDING, tmp_path / "one")  # as each later sighting does
    assert played.order.count("0.5.18") == 1 and len(played.done) == 2


def until_history(event: Event) -> None:
    if isinstance(event, HistoryDone):
        raise KeyboardInterrupt


def leaks(script: Script) -> Violation | None:
    return leak() if len(script.actions) else None


def test_a_night_tells_which_sglangs_have_a_finding(tmp_path: Path):
    setup = HistorySetup((), FIRST_OF_TWO)
    summary, events = night(leaks, tmp_path, max_scripts=None, history=setup, on_event=until_history)
    done = [event for event in events if isinstance(event, HistoryDone)]
    assert [(row.point, row.verdict.kind) for row in done[0].trees] == [("/trees/new", "shows")]
    (file,) = (tmp_path / "findings").glob(f"*/{HISTORY}")
    assert of_trees(history.read(file.parent)) == {"/trees/new": "shows"}
    assert summary.findings[done[0].signature].trees == done[0].trees


def test_a_history_that_kills_the_follower_is_played_once_a_night(tmp_path: Path):
    setup = HistorySetup((), FIRST_OF_TWO)

    def elsewhere(sys_path: tuple[str, ...]) -> Rule:
        return (lambda script: kill_self() or None) if sys_path else leaks

    summary, _ = night(leaks, tmp_path, max_scripts=3000, history=setup, elsewhere=elsewhere)
    assert [trouble.what for trouble in summary.troubles] == ["the follower was lost: signal 9"]
    assert summary.troubles[0].count == 1 and not summary.gave_up
