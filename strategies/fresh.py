"""A Hypothesis backend that draws each script independently.

Hypothesis explores by varying what it has drawn before. That suits properties of pure functions. Here most scripts of a
round were near copies of earlier ones (62 % shared at least 60 % of their actions with one of the same round of 100),
and each costs a run of a scheduler. Hypothesis's plain provider draws each example independently; registered under a
name of our own, it is not touched by the mutator and is still reproducible by seed.
"""

from __future__ import annotations

from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

BACKEND = "sr_fuzz_fresh"
"""For ``hypothesis.settings(backend=…)``."""

# Hypothesis's documented way to add a backend is this table, although the module is named internal.
AVAILABLE_PROVIDERS[BACKEND] = f"{HypothesisProvider.__module__}.{HypothesisProvider.__qualname__}"
