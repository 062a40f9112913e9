"""Property tests: Hypothesis generates scripts, an engine plays them, and a new finding fails the test.

The order matters. Hypothesis only generates (its profiles leave out ``Phase.shrink``). Its final replay of the failing
example is answered from a cache, so it takes no time and cannot be flaky. Then the minimiser shrinks the script itself,
and the finding is confirmed in fresh processes and, if requested, written out. Then the test fails with a report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis.strategies import SearchStrategy

from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.emit.replacing import NotReplaced
from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.parallel_ranks import Ranks
from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.script import Script
from sr_fuzz.script.text import text
from sr_fuzz.shrink.finding_steps import first_seen, reproduce, shrink


class FindingFailure(AssertionError):
    """Base of one class per signature.

    Hypothesis would otherwise treat failures raised from one line as one failure.
    """

    _classes: dict[str, type[FindingFailure]] = {}

    def __init__(self, script: Script, outcome: Outcome, violation: Violation) -> None:
        super().__init__(f"{violation.invariant}: {violation.rule}")
        self.script, self.outcome, self.violation = script, outcome, violation

    @classmethod
    def of(cls, found: str) -> type[FindingFailure]:
        """Return the exception class of a signature."""
        return cls._classes.setdefault(found, type("FindingFailure", (cls,), {"__doc__": found}))


class PropertyChecker:
    """Checks properties on an engine; known findings do not fail a test."""

    def __init__(
        self,
        engine: Engine,
        known: Mapping[str, tuple[Path, str]],
        emit_to: Path | None = None,
        ranks: Ranks = Ranks(),
    ) -> None:
        """``ranks`` are set in each script, so that a finding that is written out contains them."""
        self._engine = engine
        self._known = known
        self._emit_to = emit_to
        self._ranks = ranks

    def __call__(self, scripts: SearchStrategy[Script], *, invariants: Sequence[str] | None = None) -> None:
        """Run as many scripts as the Hypothesis profile says; a new finding calls ``pytest.fail`` with a report.

        ``invariants``: names or families to check; None for all.
        """
        # Hypothesis replays only the script that failed last.
        last: tuple[Script, Outcome] | None = None

        def run(script: Script) -> Outcome:
            nonlocal last
            if last is None or last[0] != script:
                last = script, self._engine.run(script, invariants=invariants)
            return last[1]

        @given(scripts.map(self._ranks.in_script))
        def holds(script: Script) -> None:
            outcome = run(script)
            if outcome.violation is None:
                return
            found = signature(outcome.violation, script.config)
            if found in self._known:
                event(f"known finding: {found}")
                return
            raise FindingFailure.of(found)(script, outcome, outcome.violation)

        try:
            holds()
        except FindingFailure as failure:
            pytest.fail(self._report(failure, invariants), pytrace=False)

    def _report(self, failure: FindingFailure, invariants: Sequence[str] | None) -> str:
        def run(script: Script) -> Outcome:
            return self._engine.run(script, invariants=invariants)

        seen = first_seen(failure.script, failure.outcome, self._engine)
        finding, outcome = reproduce(shrink(seen, run), self._engine, invariants=invariants)
        lines = [
            f"new finding {finding.signature} ({finding.reliability})",
            f"minimised from {finding.original_actions} to {len(finding.script.actions)} actions in "
            f"{finding.reruns} runs:",
            text(finding.script),
            outcome.report(),
        ]
        if self._emit_to is not None:
            try:
                lines.append(f"written to {emit(finding, self._emit_to, trace=outcome.trace)}")
            except NotReplaced as kept:
                lines.append(str(kept))
            except OSError as error:
                lines.append(f"not written: {error.filename}: {error.strerror}")
        else:
            lines.append("run with --sr-emit DIR to have it written out as a test")
        return "\n".join(lines)
