"""Our entry point in the group ``sglang.srt.plugins``: SGLang calls `load` in each of its processes.

It does nothing unless one of our environment variables is set.
"""

from __future__ import annotations

import os

from sr_fuzz.engine.environment import LIVE, ORACLE
from sr_fuzz.faults import activate_from_environment


def load() -> None:
    """Activate the faults that ``SR_FUZZ_FAULTS`` names, and attach to the live engine of ``SR_FUZZ_LIVE``."""
    activate_from_environment()
    if os.environ.get(LIVE):
        from sr_fuzz.engine.live.process_setup import attach

        attach()
    elif os.environ.get(ORACLE):
        from sr_fuzz.engine.upstream.oracle_pools import bind_oracle_when_loop_starts

        bind_oracle_when_loop_starts()
