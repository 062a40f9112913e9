"""Examples of a strategy, and the configurations that strategies are tried with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.strategies import SearchStrategy
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.fresh import BACKEND

from sr_fuzz.script import EngineConfig, Script

DEFAULT = CONFIG_SETS["default"]
CONFIGS = tuple(DEFAULT.values())

# The extremes of what a configuration may be; strategies must not only suit the sizes of the default set.
EXTREMES = (
    EngineConfig(max_total_tokens=8, chunked_prefill_size=1, max_running_requests=1),
    EngineConfig(page_size=64, max_total_tokens=64, chunked_prefill_size=64, max_queued_requests=1),
    EngineConfig(page_size=16, max_total_tokens=256, chunked_prefill_size=-1, disable_radix_cache=True),
    EngineConfig(
        max_total_tokens=65536, chunked_prefill_size=8192, enable_priority_scheduling=True,
        priority_scheduling_preemption_threshold=1000, max_running_requests=256, max_queued_requests=1024,
    ),
)  # fmt: skip

# All settings are given, so that the active profile has no effect. `too_slow` is left out: it depends on a clock.
EXPLORING = settings(
    derandomize=True, database=None, deadline=None, phases=[Phase.generate], backend="hypothesis",
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
AFRESH = settings(EXPLORING, backend=BACKEND)


def sample(strategy: SearchStrategy[Any], count: int, how: settings = AFRESH) -> list[Any]:
    drawn: list[Any] = []

    @settings(how, max_examples=count)
    @given(strategy)
    def draw(value: Any) -> None:
        drawn.append(value)

    draw()
    return drawn


def assert_found(strategy: SearchStrategy[Any], condition: Callable[[Any], bool]) -> None:
    """Raises `NoSuchExample` when none of thousands of draws satisfies the condition."""
    find(strategy, condition, settings=settings(AFRESH, max_examples=5000))


def share(drawn: list[Script], condition: Callable[[Script], bool]) -> float:
    return sum(map(condition, drawn)) / len(drawn)
