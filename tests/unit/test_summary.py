"""What the summary of a campaign reports about gaps and about known bugs."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sr_fuzz.campaign.counts import Counts
from sr_fuzz.campaign.events import FindingTally, Summary
from sr_fuzz.cli.listeners import campaign_status
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.report.summary import summary
from sr_fuzz.script import EngineConfig

DENSE, STATES = EngineConfig(), EngineConfig(model="mamba")


def shown(done: Summary) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(done))
    return capture.get()


def outcome(**told) -> Outcome:
    return Outcome("", "0.5.23", **told)


def test_what_has_no_subject_anywhere_is_no_gap():
    done = Summary()
    counts = Counts(done)
    counts.add(DENSE, "dense", outcome(checks={"kv_pages": 3}, no_subject={"mamba_slots": "no", "embeddings": "no"}))
    counts.add(STATES, "states", outcome(checks={"mamba_slots": 3}, no_subject={"embeddings": "no"}))
    counts.end()
    assert done.no_subject == {"embeddings": "no"}
    assert "nothing here to check for embeddings" in shown(done) and "not checked" not in shown(done)


def test_what_could_not_be_checked_or_in_part_only_is_said_with_where_and_why():
    done = Summary()
    counts = Counts(done)
    counts.add(DENSE, "rust", outcome(coarse={"tree_locks": "which slots"}, not_checked={"load": "two pools"}))
    counts.add(DENSE, "rust", outcome(coarse={"tree_locks": "which slots"}))
    counts.add(DENSE, "dense", outcome())
    counts.end()
    assert "not checked: load in 1 script (rust): two pools" in shown(done)
    assert "checked in part: tree_locks in 2 scripts (rust): which slots" in shown(done)


def test_a_known_bug_is_one_entry_whatever_it_broke():
    done = Summary()
    for name, rule, times in (("a", "leaked", 2), ("b", "leaked", 1), ("c", "owned_twice", 4)):
        violation = Violation("kv_pages", rule, "page 3", 4)
        done.findings[name] = FindingTally("known", violation, times, Path("tests/test_x.py"), "the cause")
    text = shown(done)
    assert "known  kv_pages: leaked, kv_pages: owned_twice, seen 7 times" in text
    assert text.count("the cause") == text.count("tests/test_x.py") == 1


def test_a_campaign_that_played_nothing_is_no_success():
    assert campaign_status(Summary()) == 4
    assert campaign_status(Summary(scripts=1)) == 0
