"""Properties of SGLang's scheduler: one test per group of engine configurations, with all invariants on.

The Hypothesis profile sets how many scripts each test plays. Findings on the known list (``tests/regressions``) do not
fail these tests; a new one does, minimised and with the steps that led to it.
"""

from __future__ import annotations

import pytest
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.bugs.known import all_known
from sr_fuzz.engine.around.differential import DifferentialEngine
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.testing.properties import PropertyChecker

DEFAULT = CONFIG_SETS["default"]

# Groups by what chooses other code paths in the scheduler's loop.
GROUPS = {
    "overlap": [c for c in DEFAULT.values() if not c.disable_overlap_schedule and not c.disable_radix_cache],
    "normal": [c for c in DEFAULT.values() if c.disable_overlap_schedule and not c.disable_radix_cache],
    "no-radix": [c for c in DEFAULT.values() if c.disable_radix_cache],
}

# A test for each family of invariants was rejected: where scripts are derandomised, all families play the same scripts.


@pytest.mark.parametrize("group", GROUPS)
def test_holds(sr_check, group):
    """Without exhausters: only what any client can do."""
    sr_check(scripts(GROUPS[group], exhausters=False))


def test_holds_under_exhaustion(sr_check):
    """With pages, rows and locks held on purpose; a separate test, since its findings would mask those of the
    others."""
    sr_check(scripts(list(CONFIG_SETS["exhausters"].values()), exhausters=True))


def test_nothing_hangs_on_chance_or_company(sr_engine):
    """The same script twice gives the same trace, and each request alone gets the same output."""
    if not isinstance(sr_engine, LocalEngine):
        pytest.skip("a script finds here what earlier ones have left: two runs of it may differ")
    known = all_known(None, sr_engine.sglang_version)
    # Every tenth script, since a comparison plays a script once more and each of its requests alone.
    check = PropertyChecker(DifferentialEngine(sr_engine, every=10), known)
    check(scripts([DEFAULT["overlap-chunk16"], DEFAULT["priority-preempt"]], exhausters=False))
