"""Drawing each script afresh.

Hypothesis explores by varying what it has drawn before. That suits properties of pure functions; here most of a round
were near copies of earlier scripts (62 % shared at least 60 % of their actions with one of the same round of 100), and
each costs a run of a scheduler. Its plain provider draws each example independently; registered under a name of our own
it is left alone by the mutator, and reproducible by seed all the same.
"""

from __future__ import annotations

from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

BACKEND = "sr_fuzz_fresh"
"""For ``hypothesis.settings(backend=…)``."""

# Hypothesis's documented way to add a backend is this table, although the module is named internal.
AVAILABLE_PROVIDERS[BACKEND] = f"{HypothesisProvider.__module__}.{HypothesisProvider.__qualname__}"
