"""Properties of SGLang's scheduler: one test per invariant family and group of engine configurations.

How many scripts each plays is the Hypothesis profile's business. Findings on the known list (``tests/regressions``) do
not fail these tests; a new one does, minimised and with the steps that led to it.
"""

from __future__ import annotations

import pytest

from strategies.configs import CONFIG_SETS
from strategies.scripts import scripts

DEFAULT = CONFIG_SETS["default"]

# By what chooses other code paths in the scheduler's loop.
GROUPS = {
    "overlap": [c for c in DEFAULT.values() if not c.disable_overlap_schedule and not c.disable_radix_cache],
    "normal": [c for c in DEFAULT.values() if c.disable_overlap_schedule and not c.disable_radix_cache],
    "no-radix": [c for c in DEFAULT.values() if c.disable_radix_cache],
}

FAMILIES = ("memory", "lifecycle", "output", "sglang")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_holds(sr_check, family, group):
    """Without exhausters: what any client can do."""
    sr_check(scripts(GROUPS[group], exhausters=False), invariants=[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_holds_under_exhaustion(sr_check, family):
    """With pages, rows and locks held on purpose; apart from the others, whose findings these would mask."""
    sr_check(scripts(list(CONFIG_SETS["exhausters"].values()), exhausters=True), invariants=[family])
