"""Sensitivity of the fuzzer: how soon each seeded fault is found, by which invariant, and how short its script becomes.

For each fault the same random scripts are played, in the same order, until one of them shows a violation that it does
not show on the healthy scheduler. That script is minimised, and the result is confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import msgspec

from sr_fuzz.engine.contract import Engine
from sr_fuzz.faults import Fault
from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.outcome.files import named, read_json
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script import EngineConfig, Script, script_hash
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.explain import short
from sr_fuzz.script.reading import converted, refuse_unwritable
from sr_fuzz.script.text import text
from sr_fuzz.shrink.confirm import confirm
from sr_fuzz.shrink.minimise import minimise

FORMAT = 1
"""Raised whenever an old report would be read with another meaning."""

# A hang takes the whole limit in every run. Scripts take a tenth of a second, so the limit suffices on a busy machine
# too.
LIMIT_S = 10.0

# Only hangs come near this limit: sixty runs of a hang would take ten minutes.
PATIENCE_S = 60.0


class Search(msgspec.Struct):
    """The measurement of one fault. If ``detected_by`` is empty the fault was not detected."""

    fault: str
    stands_for: str = ""
    expected: tuple[str, ...] = ()
    scripts: int = 0
    """Scripts played, including the one that showed the fault."""
    reached: int = 0
    """Scripts in which the patched code was executed."""
    triggered: int = 0
    """Scripts in which the fault misbehaved."""
    cut_short: bool = False
    """Whether the time was up before all scripts were played."""
    search_s: float = 0.0
    """Time until the fault was detected, including the boots of the configurations."""
    detected_by: str = ""
    """``invariant:rule``."""
    as_expected: bool = False
    first_actions: int = 0
    reruns: int = 0
    """Runs that the minimiser used."""
    minimise_s: float = 0.0
    minimal_actions: int = 0
    minimal: str = ""
    reproduced: int = 0
    tried: int = 0
    problem: str = ""
    """Why the fault could not be measured, or a remark on the result."""

    @property
    def detected(self) -> bool:
        return bool(self.detected_by)

    @property
    def why_not(self) -> str:
        """Why the fault was not detected; empty when it was."""
        if self.detected:
            return ""
        if not self.scripts:
            return self.problem or "no script was played"
        return self._how_far() + ("; the time was up" if self.cut_short else "")

    def _how_far(self) -> str:
        if self.triggered:
            return f"triggered in {self.triggered} of {self.scripts} scripts, and not seen"
        if self.reached:
            return f"reached in {self.reached} of {self.scripts} scripts, never triggered"
        return f"never reached in {self.scripts} scripts"


class Report(msgspec.Struct):
    """The report, as it is stored in the JSON file."""

    sglang_version: str
    seed: int
    max_scripts: int
    searches: list[Search] = msgspec.field(name="rows")
    median_s: float | None = None
    """Median time until detection, over the faults that were detected."""
    median_scripts: float | None = None
    median_actions: float | None = None
    """Median length of the minimal scripts."""
    format: int = FORMAT

    def summarise(self) -> None:
        """Fill in the medians."""
        seen = [one for one in self.searches if one.detected]
        if seen:
            self.median_s = round(median(one.search_s for one in seen), 3)
            self.median_scripts = median(one.scripts for one in seen)
            self.median_actions = median(one.minimal_actions for one in seen)

    def save(self, path: Path) -> None:
        write_whole(path, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def load_report(path: Path) -> Report:
    """Read a report. Raises ``ValueError``, one line that names the file."""
    raw, source = read_json(path), named(path)
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        found = short(raw["format"]) if "format" in raw else "none"
        raise ValueError(f"{source}: this version reads reports of format {FORMAT}, got {found}")
    report = converted(raw, Report, f"{source}: no sensitivity report")
    refuse_unwritable(raw, source)
    return report


class Sensitivity:
    """Measures one fault after another; ``healthy`` is an engine without faults that can create engines with faults."""

    def __init__(self, healthy: Engine, *, time_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``time_s``: the longest search for one fault, in seconds."""
        self._healthy = healthy
        self._time_s = time_s
        self._clock = clock
        self._on_healthy: dict[str, Outcome] = {}

    def measure(self, fault: Fault, scripts: Sequence[Script]) -> Search:
        """Search for one fault. An engine that cannot play it is reported in ``Search.problem``."""
        one = Search(fault.name, fault.stands_for, fault.expected)
        with self._healthy.with_faults(fault.path) as engine:
            self._search(one, fault, engine, scripts)
        return one

    def _search(self, one: Search, fault: Fault, engine: Engine, scripts: Sequence[Script]) -> None:
        started = self._clock()
        unusable: set[EngineConfig] = set()
        for script in scripts:
            if self._clock() - started > self._time_s:
                one.cut_short = True
                return
            if script.config in unusable:
                continue
            try:
                outcome = _run(engine, script)
                one.scripts += 1
                one.search_s = round(self._clock() - started, 3)
                reached, triggered = outcome.faults.get(fault.name, (0, 0))
                one.reached += reached > 0
                one.triggered += triggered > 0
                seen = outcome.violation
                if seen is not None and not self._shows(script, signature(seen, script.config)):
                    self._shrink(one, script, outcome, seen, engine)
                    return
            except EngineError as error:
                # Some releases lack the function that a fault patches, or the feature that a configuration asks for.
                unusable.add(script.config)
                one.problem = f"{_configurations(len(unusable))} could not be played: {str(error).splitlines()[0]}"

    def _shows(self, script: Script, found: str) -> bool:
        """Whether the fault causes this signature.

        One that the healthy scheduler shows too is a finding, but not this fault.
        """
        key = script_hash(script)
        if key not in self._on_healthy:
            self._on_healthy[key] = _run(self._healthy, script)
        violation = self._on_healthy[key].violation
        return violation is not None and signature(violation, script.config) == found

    def _shrink(self, one: Search, script: Script, outcome: Outcome, violation: Violation, engine: Engine) -> None:
        one.detected_by = f"{violation.invariant}:{violation.rule}"
        one.as_expected = violation.invariant in one.expected or not one.expected
        one.first_actions = len(script.actions)
        found = signature(violation, script.config)
        started = self._clock()

        def run(candidate: Script) -> Outcome:
            return _run(engine, candidate)

        def stop() -> bool:
            return self._clock() - started > PATIENCE_S

        small = minimise(script, violation, run, outcome=outcome, stop=stop)
        one.minimise_s = round(self._clock() - started, 3)
        one.reruns, one.minimal_actions, one.minimal = small.runs, len(small.script.actions), text(small.script)
        one.reproduced, one.tried = confirm(small.script, found, engine.fresh(), limit_s=LIMIT_S)
        if self._shows(small.script, found):
            one.problem = "the minimal script shows the same without the fault: it is that of a bug of SGLang"


def _configurations(count: int) -> str:
    return "a configuration" if count == 1 else f"{count} configurations"


def _run(engine: Engine, script: Script) -> Outcome:
    return engine.run(script, limit_s=LIMIT_S)


class Comparison(msgspec.Struct):
    """The comparison of a report with an earlier one.

    Each entry is a line of text that begins with the fault's name.
    """

    lost: list[str] = []
    """Faults that were detected before and are not detected now."""
    slower: list[str] = []
    """Faults that took more scripts, got a longer minimal script, or ran out of time before the number of scripts it
    took before."""
    gained: list[str] = []
    """Faults that are detected now and were not detected, or not in the report, before."""
    unmeasured: list[str] = []
    """Faults that were detected before and are not among those measured now."""


def compare(now: Report, before: Report) -> Comparison:
    """Return what became worse and what became better. Times are not compared, because they depend on the machine."""
    result = Comparison()
    searches = {one.fault: one for one in now.searches}
    for old in before.searches:
        one = searches.pop(old.fault, None)
        if one is None:
            if old.detected:
                result.unmeasured.append(f"{old.fault}: not measured")
        elif old.detected and one.cut_short and one.scripts < old.scripts:
            how_far = f"{one.scripts} of the {old.scripts} scripts it took before"
            result.slower.append(f"{old.fault}: undecided: the time was up after {how_far}")
        elif old.detected and not one.detected:
            result.lost.append(f"{old.fault}: was detected by {old.detected_by}; now {one.why_not}")
        elif one.detected and not old.detected:
            result.gained.append(f"{old.fault}: detected now, by {one.detected_by}")
        elif one.detected and (one.scripts > old.scripts or one.minimal_actions > old.minimal_actions):
            result.slower.append(_step(one, old))
    result.gained += [f"{one.fault}: not in the baseline" for one in searches.values()]
    return result


def _step(one: Search, old: Search) -> str:
    return (
        f"{one.fault}: scripts {old.scripts} -> {one.scripts}, seconds {old.search_s:.1f} -> {one.search_s:.1f}, "
        f"minimal actions {old.minimal_actions} -> {one.minimal_actions}"
    )
