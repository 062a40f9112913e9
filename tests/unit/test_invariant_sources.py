"""Invariants read the view only, and each one is in a file that is named after it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sr_fuzz.invariants import ALL

FOLDER = Path(__file__).parents[2] / "invariants"

def reads_scheduler(source: str) -> list[int]:
    """Lines that bypass the view and access the scheduler."""
    nodes = ast.walk(ast.parse(source))
    return [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr == "scheduler"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_it_reads_the_view_alone(path: Path):
    assert not reads_scheduler(path.read_text())


def test_reaching_past_the_view_is_seen():
    assert reads_scheduler("def check(self, view):\n    return view.scheduler.waiting_queue") == [2]


def test_the_file_has_the_name_of_the_invariant():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "base"}
    assert {invariant.__module__.rpartition(".")[2]: invariant.name for invariant in ALL} == {n: n for n in files}
