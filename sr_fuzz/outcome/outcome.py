"""The outcome: the result of a run of a script."""

from __future__ import annotations

import msgspec

from sr_fuzz.outcome.plain_text import make_storable, printable
from sr_fuzz.outcome.trace import StepRecord
from sr_fuzz.outcome.violation import Violation

REPORT_STEPS = 30
"""Steps of the trace in a report: enough to see what led to a violation, on one screen."""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one run."""

    script_hash: str
    sglang_version: str
    violation: Violation | None = None
    steps: int = 0
    forwards: int = 0
    wall_s: float = 0.0
    trace: tuple[StepRecord, ...] = ()
    checks: dict[str, int] = {}
    """How often each invariant was checked."""
    no_subject: dict[str, str] = {}
    """Invariants about something that this engine does not have, with what that is."""
    not_played: dict[str, str] = {}
    """Kinds of action that were not played because this SGLang lacks a name that they need, with that name."""
    not_counted: dict[str, str] = {}
    """Parts of `reach` that were not counted for the same reason, with that name."""
    not_checked: dict[str, str] = {}
    """Invariants that could not be checked on this engine, with the reason: a violation of them would not be
    detected."""
    coarse: dict[str, str] = {}
    """Invariants that were checked in part, with what was checked and why the rest was not."""
    outputs: dict[str, tuple[int, ...]] = {}
    """The tokens sent for each request that finished by length or at a stop, by the request's name in the script."""
    log: tuple[str, ...] = ()
    """The last lines that SGLang logged (warnings and worse)."""
    notes: tuple[str, ...] = ()
    """Remarks on actions of the script that not every client can perform, e.g. sending requests while paused."""
    faults: dict[str, tuple[int, int]] = {}
    """How often each seeded fault was reached and triggered, by its name. Not known where a live scheduler died."""
    reach: dict[str, int] = {}
    """How often each kind of `sr_fuzz.play.reach_kinds` was reached."""

    def __post_init__(self) -> None:
        make_storable(self, "log", "notes")

    @property
    def ok(self) -> bool:
        return self.violation is None

    @property
    def whole_trace(self) -> str:
        """All steps of the trace, a line each; its head is missing where the script took more steps than are kept."""
        cut = self.steps - len(self.trace)
        head = [f"trace (without the first {cut} steps):" if cut > 0 else "trace:"]
        return "\n".join([*head, *(record.line for record in self.trace)])

    def report(self, last: int = REPORT_STEPS) -> str:
        """Return a text report: the violation, then the last steps of the trace."""
        left_out = [f"not played: {action}: {reason}" for action, reason in self.not_played.items()]
        if self.violation is None:
            ran = f"no violation in {self.steps} steps ({self.forwards} forwards) on SGLang {self.sglang_version}"
            return "\n".join([ran, *left_out])
        v = self.violation
        lines = [f"{v.invariant}: {v.rule} at step {v.step} ({v.when}) on SGLang {self.sglang_version}", v.message]
        lines += [f"  at {place}" for place in v.location]
        if self.trace and last:
            lines.append(f"last steps (of {self.steps}):")
            lines += [record.line for record in self.trace[-last:]]
        lines += [*left_out, *(f"note: {note}" for note in self.notes)]
        if v.stack:
            lines += ["stack:", v.stack.rstrip()]
        if self.log:
            lines.append("SGLang said:")
            lines += [f"  {line}" for line in self.log]
        return printable("\n".join(lines))
