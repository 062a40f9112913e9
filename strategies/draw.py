"""Draws random scripts with Hypothesis and uses nothing else of it: nothing is saved, replayed, shrunk or reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis.strategies import SearchStrategy
from sr_fuzz.strategies.fresh import BACKEND

from sr_fuzz.script import Script, script_hash

Item = TypeVar("Item")


def for_each(items: SearchStrategy[Item], use: Callable[[Item], object], *, seed: int, count: int) -> None:
    """Call ``use`` on up to ``count`` items; the same ``seed`` draws the same ones. Exceptions in ``use``
    propagate."""

    # All settings are given, so that the active profile (``ci`` derandomises) has no effect.
    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        backend=BACKEND,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(items)
    def body(item: Item) -> None:
        use(item)

    body()


def first(scripts: SearchStrategy[Script], *, seed: int, count: int) -> list[Script]:
    """Up to ``count`` scripts, none of them twice."""
    drawn: dict[str, Script] = {}
    for_each(scripts, lambda script: drawn.setdefault(script_hash(script), script), seed=seed, count=count)
    return list(drawn.values())
