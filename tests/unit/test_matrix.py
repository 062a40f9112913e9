"""The matrix as text: what was observed of each mode on each release, and the reason where nothing was."""

from __future__ import annotations

from bench.matrix import Cell, markdown
from bench.modes import MODES, Mode
from sr_fuzz.outcome import Outcome, Violation

RELEASES = ("0.5.20", "0.5.21", "0.5.22")


def lines(**cells: dict[str, Cell]) -> list[str]:
    return markdown(cells, RELEASES).splitlines()


def cell(**told) -> Cell:
    seen = Cell("runs")
    seen.add(Outcome("", "0.5.20", **told))
    return seen


def test_a_row_counts_what_is_exact_coarse_and_not_checked():
    seen = cell(checks={"kv_pages": 3, "tree_locks": 3}, coarse={"tree_locks": "slots"}, not_checked={"output": "no"})
    assert "| rust | runs: 1 exact, 1 coarse, 1 not checked |" in "\n".join(lines(rust=dict.fromkeys(RELEASES, seen)))


def test_reasons_name_their_releases_once():
    refused, runs = Cell("refused", "no such argument"), cell(checks={"kv_pages": 1})
    told = lines(hicache={"0.5.20": refused, "0.5.21": refused, "0.5.22": runs}, lora=dict.fromkeys(RELEASES, refused))
    assert "* no such argument: hicache (0.5.20, 0.5.21); lora (all releases)" in told


def test_modes_of_the_same_releases_stand_together():
    same = dict.fromkeys(RELEASES, cell(checks={"kv_pages": 1}, coarse={"tree_locks": "slots"}))
    assert "* `tree_locks`: slots: a, b (all releases)" in lines(a=same, b=same)


def test_what_was_found_is_said():
    found = cell(checks={"kv_pages": 1}, violation=Violation("kv_pages", "leaked", "page 3", 4))
    assert found.short == "runs: 1 exact; found 1"
    assert "* `kv_pages: leaked`: swa (all releases)" in lines(swa=dict.fromkeys(RELEASES, found))


def test_a_mode_takes_members_of_a_set_or_one_of_each_name():
    assert len({mode.name for mode in MODES}) == len(MODES)
    assert list(Mode("paged", ("paged",)).members(2)) == ["paged4-chunk16", "paged4-chunk8-tiny"]
    assert list(Mode("both", ("paged", "mixed-chunk16")).members(2)) == ["paged4-chunk16", "mixed-chunk16"]
