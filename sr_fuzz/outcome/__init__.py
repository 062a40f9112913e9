"""What a run of a script gives back: trace, violation, outcome; and what a search makes of it: a finding.

Plain immutable data, like scripts, so that it crosses process borders as msgpack and goes into files as JSON.
"""

from __future__ import annotations

from sr_fuzz.outcome.finding import Finding
from sr_fuzz.outcome.identity import signature
from sr_fuzz.outcome.outcome import Outcome
from sr_fuzz.outcome.trace import StepRecord
from sr_fuzz.outcome.violation import Violation, When

__all__ = ["Finding", "Outcome", "StepRecord", "Violation", "When", "signature"]
