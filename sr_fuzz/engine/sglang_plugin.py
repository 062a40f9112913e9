"""Our entry point in the group ``sglang.srt.plugins``: SGLang calls `load` in each of its processes.

Without our environment variable it does nothing at all.
"""

from __future__ import annotations

from sr_fuzz.faults import activate_from_environment


def load() -> None:
    """Enter the faults that ``SR_FUZZ_FAULTS`` names."""
    activate_from_environment()
