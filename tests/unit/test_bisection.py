"""When a finding came and went, from what each point of a history says; compared with a naive reading of the table."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sr_fuzz.campaign.bisection import (
    SHOWS,
    SILENT,
    Bisection,
    Change,
    Kind,
    Period,
    PointPlayed,
    PointStarted,
    Verdict,
    WrongEnd,
    play_all,
    quick,
    search,
)
from sr_fuzz.report.bisection import BisectionOutput, answers

UNDECIDED: tuple[Kind, ...] = ("shows something else", "cannot be expressed", "does not boot", "trouble")

kinds = st.sampled_from([SHOWS, SHOWS, SILENT, SILENT, *UNDECIDED])
histories = st.lists(kinds, max_size=12)

FINDING = "kv_pages:leaked:radix"


class History:
    """Points with given verdicts; counts how often each is asked."""

    def __init__(self, verdicts: Sequence[Kind]) -> None:
        self.points = [f"p{number}" for number in range(len(verdicts))]
        self.verdicts = dict(zip(self.points, verdicts))
        self.asked: list[str] = []

    def judge(self, point: str) -> Verdict:
        self.asked.append(point)
        return Verdict(self.verdicts[point], "as it was made")


def in_words(verdicts: str) -> list[Kind]:
    """``x`` shows, ``-`` does not, ``?`` does not boot, ``o`` something else, ``n`` cannot be expressed."""
    names: dict[str, Kind] = {
        "x": SHOWS, "-": SILENT, "?": "does not boot", "o": "shows something else", "n": "cannot be expressed"
    }  # fmt: skip
    return [names[letter] for letter in verdicts]


def played(verdicts: str) -> Bisection:
    history = History(in_words(verdicts))
    return play_all(FINDING, history.points, history.judge)


def naive(history: History) -> list[tuple[str, str | None, list[str]]]:
    """Each change as one would read it off the table: the first point with the new verdict, the last one with the old
    one, those in between."""
    changes: list[tuple[str, str | None, list[str]]] = []
    decided = [point for point in history.points if history.verdicts[point] in (SHOWS, SILENT)]
    for number, point in enumerate(decided):
        before = decided[number - 1] if number else None
        was = history.verdicts[before] if before is not None else SILENT
        if history.verdicts[point] != was:
            begin = history.points.index(before) + 1 if before is not None else 0
            changes.append((point, before, history.points[begin : history.points.index(point)]))
    return changes


def changes_of(found: Bisection) -> list[tuple[str, str | None, list[str]]]:
    several = [change for period in found.periods for change in (period.introduced, period.mended) if change]
    return [(change.by, change.after, list(change.undecided)) for change in several]


# -- every point is played -------------------------------------------------------------------------------------


@given(histories)
def test_the_answers_are_those_of_a_naive_reading(verdicts: list[Kind]):
    history = History(verdicts)
    found = play_all(FINDING, history.points, history.judge)
    assert changes_of(found) == naive(history)
    assert [row.point for row in found.rows] == history.points == history.asked
    assert [row.verdict.kind for row in found.rows] == verdicts
    assert found.is_decided == any(kind in (SHOWS, SILENT) for kind in verdicts)


def test_introduced_last_without_and_mended():
    (period,) = played("--xx-").periods
    assert period == Period(Change("p2", after="p1"), Change("p4", after="p3"))
    assert period.introduced.is_exact and period.mended is not None and period.mended.is_exact


def test_a_bug_that_comes_back_has_two_periods():
    first, second = played("-xx-x").periods
    assert (first.introduced.by, first.mended and first.mended.by) == ("p1", "p3")
    assert second == Period(Change("p4", after="p3"))


@pytest.mark.parametrize("between", ["?", "o", "n", "?on"])
def test_what_cannot_tell_is_not_without_the_finding(between: str):
    (period,) = played(f"-{between}x").periods
    undecided = tuple(f"p{number + 1}" for number in range(len(between)))
    assert period.introduced == Change(f"p{len(between) + 1}", "p0", undecided)
    assert not period.introduced.is_exact


def test_the_oldest_point_has_it_already():
    (period,) = played("xx").periods
    assert period.introduced == Change("p0") and not period.introduced.is_exact


# -- halving ---------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=300)
def test_a_search_ends_at_a_change_and_all_that_lies_in_it_was_played(data: st.DataObject):
    mended = data.draw(st.booleans())
    ends = (SHOWS, SILENT) if mended else (SILENT, SHOWS)
    history = History([ends[0], *data.draw(st.lists(kinds, max_size=40)), ends[1]])
    found = search(FINDING, history.points, history.judge, mended=mended)
    (period,) = found.periods
    change = period.mended if mended else period.introduced
    assert change is not None and change.after is not None
    low, high = history.points.index(change.after), history.points.index(change.by)
    assert (history.verdicts[change.after], history.verdicts[change.by]) == ends
    assert change.undecided == tuple(history.points[low + 1 : high])
    assert all(history.verdicts[point] in UNDECIDED for point in change.undecided)
    assert len(set(history.asked)) == len(history.asked), "no point is played twice"


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_of_a_history_with_one_change_a_search_plays_few_points(before: int, after: int, data: st.DataObject):
    history = History([SILENT] * before + [SHOWS] * after)
    broken = data.draw(st.sets(st.sampled_from(history.points[1:-1] or history.points[:1]), max_size=5))
    for point in broken - {history.points[0], history.points[-1]}:
        history.verdicts[point] = "does not boot"
    found = search(FINDING, history.points, history.judge)
    assert changes_of(found) == naive(history)
    skipped = sum(row.verdict.shows is None for row in found.rows)
    assert len(history.asked) <= 2 * (math.ceil(math.log2(before + after)) + 1) + 2 * skipped


def test_a_long_row_of_broken_points_is_left_behind():
    history = History(in_words("-" * 10 + "?" * 60 + "-" * 30 + "x" * 100))
    history.points, broken = list(history.verdicts), 60
    search(FINDING, history.points, history.judge)
    assert sum(history.verdicts[point] == "does not boot" for point in history.asked) < broken / 4


@pytest.mark.parametrize(
    ("verdicts", "mended", "wrong"),
    [("xx", False, "p0"), ("--", False, "p1"), ("?x", False, "p0"), ("-n", False, "p1"), ("-x", True, "p0")],
)
def test_an_end_that_is_not_as_it_was_said_to_be_is_named(verdicts: str, mended: bool, wrong: str):
    history = History(in_words(verdicts))
    with pytest.raises(WrongEnd, match=f"^{wrong}: ") as caught:
        search(FINDING, history.points, history.judge, mended=mended)
    assert caught.value.row.point == wrong


@given(histories)
def test_quick_finds_a_true_change_and_plays_everything_where_the_ends_agree(verdicts: list[Kind]):
    history = History(verdicts)
    found = quick(FINDING, history.points, history.judge)
    assert len(set(history.asked)) == len(history.asked)
    if not verdicts or {verdicts[0], verdicts[-1]} != {SHOWS, SILENT}:
        assert changes_of(found) == naive(history)
    else:
        assert set(map(repr, changes_of(found)[verdicts[0] == SHOWS :])) <= set(map(repr, naive(history)))


# -- what is told ----------------------------------------------------------------------------------------------


def test_a_listener_hears_of_each_point_before_and_after_it_is_played():
    history, heard = History(in_words("-x")), []
    play_all(FINDING, history.points, history.judge, heard.append)
    kinds = [(type(event), getattr(event, "point", None) or event.row.point) for event in heard]
    assert kinds == [(PointStarted, "p0"), (PointPlayed, "p0"), (PointStarted, "p1"), (PointPlayed, "p1")]


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ("--xx-", ["introduced in p2; the last without it: p1", "mended in p4; the last with it: p3"]),
        ("-?nx", ["introduced in p3 or before; the last without it: p0 (no verdict: p1, p2)",
                  "still there in p3, the newest that could tell"]),
        ("xx?", ["already there in p0, the oldest that was played",
                 "still there in p1, the newest that could tell (no verdict: p2)"]),
        ("?x-", ["already there in p1 or before (no verdict: p0)", "mended in p2; the last with it: p1"]),
        ("-x-x", ["introduced in p1; the last without it: p0", "mended in p2; the last with it: p1",
                  "back in p3; the last without it: p2", "still there in p3, the newest that could tell"]),
        ("-??????x", ["introduced in p7 or before; the last without it: p0 (no verdict: p1 to p6 (6))",
                      "still there in p7, the newest that could tell"]),
    ],
)  # fmt: skip
def test_the_answers_in_words(verdicts: str, told: list[str]):
    assert answers(played(verdicts)) == [FINDING, *(f"  {line}" for line in told)]


def test_a_finding_that_shows_nowhere_is_said_with_what_could_not_tell():
    assert answers(played("--?-")) == [f"{FINDING} does not show from p0 to p3 (no verdict: p2)"]
    only = f"{FINDING} does not show in p1, the only one that could tell (no verdict: p0)"
    assert answers(played("?-")) == [only]
    assert answers(played("?n")) == [f"{FINDING}: none of 2 points could tell whether it shows"]


def test_each_verdict_is_a_line_as_soon_as_it_is_there():
    written = io.StringIO()
    with BisectionOutput(Console(width=40, file=written), Console(file=io.StringIO())) as output:
        history = History(in_words("-x"))
        play_all(FINDING, history.points, history.judge, output)
    assert written.getvalue() == "p0  does not show: as it was made\np1  shows: as it was made\n"
