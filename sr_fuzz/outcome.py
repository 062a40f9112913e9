"""What a run of a script gives back: trace, violation, outcome; and what a search makes of it: a finding.

Plain immutable data, like scripts, so that it crosses process borders as msgpack and goes into files as JSON.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sr_fuzz.script import EngineConfig, Script

When = Literal["step", "settled", "end"]


class StepRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of the event loop, as seen at the head of the next one. Sizes in tokens unless they say pages."""

    step: int
    actions: tuple[str, ...] = ()
    """Text of the actions that were sent before this turn."""
    mode: str | None = None
    """Forward mode of the batch that ran (``extend``, ``decode``, ``mixed``), None when none ran."""
    batch: tuple[str, ...] = ()
    """Names of the requests in that batch."""
    chunked: str | None = None
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    free_pages: int = 0
    free_rows: int = 0
    paused: bool = False
    sent: tuple[str, ...] = ()
    """What the engine answered in this turn, e.g. ``r0 +2``, ``r1 +1 finish:length``, ``r2 abort``."""

    @property
    def line(self) -> str:
        """One line for a report."""
        ran = f"{self.mode}[{' '.join(self.batch)}]" if self.mode else ("paused" if self.paused else "-")
        parts = [f"{self.step:4d}  {ran:<28}"]
        parts.append(f"free {self.free_pages:>3}p {self.free_rows:>2}r")
        if self.waiting:
            parts.append(f"wait {' '.join(self.waiting)}")
        if self.chunked:
            parts.append(f"chunk {self.chunked}")
        if self.sent:
            parts.append("-> " + ", ".join(self.sent))
        head = "".join(f"      | {action}\n" for action in self.actions)
        return head + "  ".join(parts)


class Violation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One invariant broken at one step."""

    invariant: str
    """Name of the invariant, or ``exception``, ``crash``, ``hang`` for what the engine itself did."""
    rule: str
    """Which part of the invariant; stable text without numbers (``leaked``, ``AssertionError`` …)."""
    message: str
    """What was seen and what was expected, with page numbers and request names."""
    step: int
    when: When = "step"
    location: tuple[str, ...] = ()
    """Innermost code locations inside SGLang, innermost first: ``managers/scheduler.py:run_batch: <source line>``."""
    stack: str = ""
    """The Python stack, where there was one."""


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
    """Invariants that are about something that this engine does not have, with what."""
    not_checked: dict[str, str] = {}
    """Invariants that could not be checked here, with the reason: what they are about may be broken unseen."""
    coarse: dict[str, str] = {}
    """Invariants that were checked in part, with what was checked and why not the rest."""
    outputs: dict[str, tuple[int, ...]] = {}
    """Tokens that were sent of each request that finished by length or at a stop, by the script's name for it."""
    log: tuple[str, ...] = ()
    """Last lines that SGLang logged (warnings and worse)."""
    notes: tuple[str, ...] = ()
    """Remarks on what the script did that not every client can do, e.g. sending requests while paused."""
    faults: dict[str, tuple[int, int]] = {}
    """How often each seeded fault was reached and triggered, by its name; unknown where a live scheduler died."""
    reach: dict[str, int] = {}
    """How often each kind of `sr_fuzz.reach_kinds` was reached."""

    @property
    def ok(self) -> bool:
        return self.violation is None

    def report(self, last: int = 30) -> str:
        """A readable text: the violation, then the last steps of the trace."""
        if self.violation is None:
            return f"no violation in {self.steps} steps ({self.forwards} forwards) on SGLang {self.sglang_version}"
        v = self.violation
        lines = [f"{v.invariant}: {v.rule} at step {v.step} ({v.when}) on SGLang {self.sglang_version}", v.message]
        lines += [f"  at {place}" for place in v.location]
        if self.trace:
            lines.append(f"last steps (of {self.steps}):")
            lines += [record.line for record in self.trace[-last:]]
        lines += [f"note: {note}" for note in self.notes]
        if v.stack:
            lines += ["stack:", v.stack.rstrip()]
        if self.log:
            lines.append("SGLang said:")
            lines += [f"  {line}" for line in self.log]
        return "\n".join(lines)


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A violation with its minimal script, its signature, and how often it reproduces."""

    signature: str
    script: Script
    violation: Violation
    sglang_version: str
    reproduced: Annotated[int, Meta(ge=0)] = 0
    tried: Annotated[int, Meta(ge=0)] = 0
    original_actions: int = 0
    """Length of the script that first showed it."""
    reruns: int = 0
    """Runs that the minimiser used."""
    faults: tuple[str, ...] = ()
    """Seeded faults that were on."""

    @property
    def reliability(self) -> str:
        return f"{self.reproduced} of {self.tried} fresh runs"


def signature(violation: Violation, config: EngineConfig) -> str:
    """What makes two violations the same finding: invariant, rule, code location in SGLang, engine traits.

    No address, request name, page number or count goes in. Traits are only those that choose other code paths of
    the scheduler's loop: the cache kind, the event loop, paged allocation, pipeline stages.
    """
    traits = [
        "no-radix" if config.disable_radix_cache else "radix",
        "normal" if config.disable_overlap_schedule else "overlap",
    ]
    if config.page_size > 1:
        traits.append("paged")
    if config.pp_size > 1:
        traits.append("pipeline")
    if config.model != "dense":
        traits.append(config.model)
    if config.prefix_tree == "rust":
        traits.append("rust")
    if config.enable_hierarchical_cache:
        traits.append("hicache")
    if config.disaggregation_mode != "null":
        traits.append(config.disaggregation_mode)
    if config.enable_streaming_session:
        traits.append("sessions")
    if config.is_embedding:
        traits.append("embedding")
    if config.enable_lora:
        traits.append("lora")
    if config.speculative_algorithm is not None:
        traits.append(config.speculative_algorithm.lower())
    # Where a hang was interrupted is chance: a loop has many lines.
    where = "" if violation.invariant == "hang" else "|".join(violation.location[:2])
    digest = hashlib.sha256(where.encode()).hexdigest()[:6] if where else ""
    parts = [violation.invariant, violation.rule, "+".join(traits)]
    return ":".join(parts + [digest] if digest else parts)
