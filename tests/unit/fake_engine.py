"""A fake engine without a scheduler: whether a script breaks something is a plain function of the script.

It is enough for what happens *after* a violation, which is about scripts, runs and files only. What it finds is no
evidence about SGLang.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sr_fuzz.engine.contract import Isolation
from sr_fuzz.outcome import Outcome, StepRecord, Violation
from sr_fuzz.script import Action, EngineConfig, Script, Step, StepUntil, script_hash
from sr_fuzz.script.errors import ConfigNotBooted, EngineError
from sr_fuzz.script.text import action_text

Rule = Callable[[Script], Violation | None]


class FakeEngine:
    """Runs scripts by ``rule``; ``played`` holds every script in the order of the runs.

    ``faulty``: for each seeded fault, by import path, the rule of an engine that has it. Where that rule finds
    something, the fault was triggered; a fault in ``unseen`` is triggered everywhere, and others where ``acts`` says
    so. Every fault is reached everywhere. Several faults at once are keyed by their paths with commas between them.
    """

    sglang_version = "0.0.fake"
    sglang_tree: str | None = None
    isolation: Isolation = "fresh"

    def __init__(self, rule: Rule, faulty: dict[str, Rule] | None = None) -> None:
        self.rule = rule
        self.faulty = faulty or {}
        self.played: list[Script] = []
        self.unseen: set[str] = set()
        self.acts: Callable[[str, Script], bool] = lambda path, script: path in self.unseen
        self.faults: tuple[str, ...] = ()
        self.started: list[EngineConfig] = []
        self.restarts = 0
        self.not_checked: dict[str, str] = {}

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        pass

    def fresh(self) -> FakeEngine:
        return self

    def refuse(self, config: EngineConfig) -> None:
        pass

    def start(self, config: EngineConfig) -> None:
        self.started.append(config)

    def restart(self) -> None:
        self.restarts += 1

    def keep(self, n: int) -> None:
        pass

    def execute(
        self,
        path: str,
        *,
        config: EngineConfig,
        args: Sequence[Any] = (),
        invariants: Sequence[str] | None = None,
        limit_s: float | None = None,
    ) -> Outcome:
        raise EngineError(f"{path}: there is no scheduler here that could run it")

    def with_faults(self, *paths: str) -> FakeEngine:
        """An engine with faults; a fault that it does not know cannot be booted."""
        engine = FakeEngine(self.faulty.get(",".join(paths), _not_booted))
        engine.faults = paths
        engine.unseen, engine.acts = self.unseen, self.acts
        return engine

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        self.played.append(script)
        violation = self.rule(script)
        return Outcome(
            script_hash(script),
            self.sglang_version,
            violation,
            steps=10,
            forwards=7,
            wall_s=0.01,
            trace=trace_of(script, violation),
            checks={"kv_pages": 10},
            not_checked=self.not_checked,
            faults={
                path.partition(":")[2]: (1, int(self.acts(path, script) or violation is not None))
                for path in self.faults
            },
        )


def _not_booted(script: Script) -> Violation | None:
    raise ConfigNotBooted("SGLang did not boot with this configuration: AttributeError: no such function\nTraceback")


STEP_UNTIL_STEPS = 3
"""Steps that every `StepUntil` takes here."""


def _steps(action: Action) -> int:
    return action.n if isinstance(action, Step) else STEP_UNTIL_STEPS if isinstance(action, StepUntil) else 0


def trace_of(script: Script, violation: Violation | None) -> tuple[StepRecord, ...]:
    """The steps of the script, up to the violation; actions are recorded at the step before which they came."""
    steps: list[StepRecord] = []
    actions: list[str] = []
    last = violation.step if violation is not None and violation.when == "step" else None
    for action in script.actions:
        actions.append(action_text(action))
        for _ in range(_steps(action)):
            steps.append(StepRecord(len(steps) + 1, tuple(actions)))
            actions.clear()
            if len(steps) == last:
                return tuple(steps)
    steps.append(StepRecord(len(steps) + 1, (*actions, "epilogue: release, continue, drain")))
    return tuple(steps)


def leak(step: int = 9, *, when: str = "end", message: str = "page 5 is owned by nobody") -> Violation:
    """A violation as the page invariant reports it."""
    return Violation("kv_pages", "leaked", message, step, when)  # type: ignore[arg-type]
