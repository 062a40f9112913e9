"""The result of a run (trace, violation, outcome), and the finding that a search derives from it.

These are plain immutable data, like scripts, so that they can be sent between processes as msgpack and stored as JSON.
"""

from __future__ import annotations

from sr_fuzz.outcome.finding import Finding
from sr_fuzz.outcome.identity import signature
from sr_fuzz.outcome.outcome import Outcome
from sr_fuzz.outcome.trace import StepRecord
from sr_fuzz.outcome.violation import Violation, When

__all__ = ["Finding", "Outcome", "StepRecord", "Violation", "When", "signature"]
