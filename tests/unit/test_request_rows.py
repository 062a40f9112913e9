"""The rules of `request_rows`, each on the smallest state that breaks it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sr_fuzz.invariants.request_rows import RequestRows


def problem(free: list[int], **used: int):
    holders = [SimpleNamespace(name=name, kv=SimpleNamespace(row=row)) for name, row in used.items()]
    view = SimpleNamespace(rows={1, 2, 3}, now=SimpleNamespace(free_rows=free, holders=holders))
    return RequestRows().check(view)


def test_a_healthy_table():
    assert problem([3, 1], r0=2) is None


@pytest.mark.parametrize(
    ("free", "used", "rule"),
    [
        ([1, 1, 2], {"r0": 3}, "double_free"),
        ([1], {"r0": 2, "r1": 2, "r2": 3}, "owned_twice"),
        ([1, 2], {"r0": 2, "r1": 3}, "use_after_free"),
        ([1], {"r0": 2}, "leaked"),
        ([1, 2], {"r0": 3, "r1": 0}, "foreign_row"),
        ([1, 2, 4], {"r0": 3}, "foreign_row"),
    ],
)
def test_what_breaks_it(free: list[int], used: dict[str, int], rule: str):
    found = problem(free, **used)
    assert found is not None and found.rule == rule


def test_a_row_that_is_lost_in_the_first_step_is_seen():
    """The rows come from the pool; the first state that is looked at may be broken already."""
    found = problem([1, 2])
    assert found is not None and (found.rule, "3" in found.message) == ("leaked", True)
