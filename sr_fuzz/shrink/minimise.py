"""The script minimiser: it finds a short script that still breaks the same rule at the same location.

Hypothesis shrinks the choices from which a script was generated. This minimiser works on the script itself, where names
connect actions to requests and the trace tells where the violation happened, so it needs an order of magnitude fewer
runs.

Rules:

* A candidate is accepted only if its run shows the *same whole signature* (`sr_fuzz.outcome.signature`). A run that
  shows another violation is a rejection, however similar it looks, so that a minimal script never shows another bug.
* Every candidate is simpler than the script it was made from: it has fewer actions, a smaller number, or one more field
  at its default. So the search ends, and the same script and engine always give the same result.
* No script runs twice (rejected scripts are remembered by `script_hash`), and a candidate that changes nothing, or that
  `validate` refuses, does not run.
* There are at most ``max_runs`` runs. Passes are ordered by their gain per run: deletion before cosmetics; and
  cosmetics stop at half of the budget.

Each pass is a list of independent edits (`sr_fuzz.shrink.edits`). `_Search.apply` tries all of them at once and, if
that fails, each half. That takes few runs where nearly all edits succeed (most actions of a random script are noise).
If one half succeeded, the other half is known to fail without a run, because both together are a script that was
already rejected.

The passes, in order:

1. *bold*: drop what was never played, and keep only the requests that the violation names, or those of its step;
2. *actions*: drop everything but the requests; adjacent steps are merged, at no cost. This comes before the requests
   because they are easier to drop once the noise between them is gone;
3. *requests*: drop whole requests, each with the actions that name it;
4. *configuration*: every field to its default at once, then by halves. Traits in the signature are kept. Each run here
   boots a scheduler, so there are few runs;
5. *fields*: optional fields of actions to their defaults, ``StepUntil`` to the equivalent ``Step``;
6. *again*: requests, then all actions, one by one, because more is superfluous in a simpler script. A script that is
   still long may use the whole budget here, a short one only the budget of cosmetics;
7. *numbers*: to 1, then by halves;
8. *names*: ``r0``, ``r1`` … in order of appearance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.script import EngineConfig, Script, ScriptError, SessionParams, StartReq, Step, script_hash, validate
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.traits import TRAITS
from sr_fuzz.shrink.edits import (
    Edit,
    State,
    configure,
    cut,
    drop,
    numbers,
    optional_fields,
    rename,
    replace_with,
    set_fields,
    set_prompt,
    steps_of_step_until,
    without,
    without_session,
)

Run = Callable[[Script], Outcome]
"""Plays a script in a fresh scheduler. May raise `EngineError`."""

MAX_RUNS = 60
"""At 20 to 50 ms a run this is one to three seconds for a finding; most findings need half of it."""

SHORT = 6
"""Length in actions that a reader understands at a glance; a longer script is worth the whole budget."""


class Minimised(msgspec.Struct, frozen=True):
    """The result of the minimiser."""

    script: Script
    violation: Violation
    """The violation that the minimal script shows: same signature, usually at another step and with other names."""
    runs: int
    outcome: Outcome
    """The run of the minimal script. It has no violation when the given script did not reproduce."""


def minimise(
    script: Script,
    violation: Violation,
    run: Run,
    *,
    max_runs: int = MAX_RUNS,
    outcome: Outcome | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_simpler: Callable[[Minimised], None] = lambda so_far: None,
) -> Minimised:
    """Shrink ``script`` while ``run`` shows a violation with the signature of ``violation``.

    ``outcome`` is the run that showed the violation, if available: its trace guides the search. Without it the script
    is run again, which counts. ``stop`` is called before each run; once it returns True the search ends with the result
    so far. ``on_simpler`` is called with each simpler script, so that an interrupt loses none. Raises `EngineError`
    only if that first run does; a candidate that the engine cannot run (for example because it refuses the
    configuration) is rejected like any other.
    """
    runs = 0
    if outcome is None:
        outcome, runs = run(script), 1
        if not _shows(outcome, script.config, signature(violation, script.config)):
            return Minimised(script, violation, runs, outcome)
    search = _Search(script, violation, outcome, run, stop, max_runs, runs, on_simpler)
    for each in _PASSES:
        each(search)
    return search.so_far


def _shows(outcome: Outcome, config: EngineConfig, target: str) -> bool:
    return outcome.violation is not None and signature(outcome.violation, config) == target


# -- the search ------------------------------------------------------------------------------------------------


class _Search:
    """The search: the simplest script so far, and the methods that try a simpler one."""

    def __init__(
        self,
        script: Script,
        violation: Violation,
        outcome: Outcome,
        run: Run,
        stop: Callable[[], bool],
        max_runs: int,
        runs: int,
        on_simpler: Callable[[Minimised], None],
    ) -> None:
        self.state = State(script.config, dict(enumerate(script.actions)))
        self.script = script
        self.violation = violation
        self.outcome = outcome
        self.runs = runs
        self._run = run
        self._stop = stop
        self._max_runs = max_runs
        self._on_simpler = on_simpler
        self._target = signature(violation, script.config)
        self._rejected: set[str] = set()

    @property
    def cosmetics_left(self) -> bool:
        """False once half of the budget is used: going from 40 tokens to 37 helps no reader."""
        return self.runs < self._max_runs // 2

    @property
    def so_far(self) -> Minimised:
        return Minimised(self.script, self.violation, self.runs, self.outcome)

    def accept(self, *edits: Edit) -> bool:
        """Try all ``edits`` together; keep them if the run shows the same signature."""
        state = self.state
        for edit in edits:
            state = edit(state)
        state = state.merged()
        script = state.script
        if script == self.script:
            self.state = state
            return True
        key = script_hash(script)
        if key in self._rejected or self.runs >= self._max_runs or self._stop():
            return False
        outcome = self._try(script)
        if outcome is None or not _shows(outcome, script.config, self._target):
            self._rejected.add(key)
            return False
        assert outcome.violation is not None
        self.state, self.script = state, script
        self.outcome, self.violation = outcome, outcome.violation
        self._on_simpler(self.so_far)
        return True

    def _try(self, script: Script) -> Outcome | None:
        try:
            validate(script)
        except ScriptError:
            return None
        self.runs += 1
        try:
            return self._run(script)
        except EngineError:
            return None

    def apply(self, edits: Sequence[Edit], *, cosmetic: bool = False) -> list[Edit]:
        """Keep as many of ``edits`` as possible; returns those that failed alone."""
        if not edits or (cosmetic and not self.cosmetics_left):
            return []
        if self.accept(*edits):
            return []
        if len(edits) == 1:
            return list(edits)
        half = (len(edits) + 1) // 2
        return self.apply(edits[:half], cosmetic=cosmetic) + self.apply(edits[half:], cosmetic=cosmetic)


# -- passes ----------------------------------------------------------------------------------------------------


def _pass_bold(search: _Search) -> None:
    played = cut(search.state, search.outcome)
    names = search.script.names
    named = {name for name in names if re.search(rf"\b{name}\b", search.violation.message)}
    last = search.outcome.trace[-1:]
    active = named.union(*((*step.batch, *step.waiting, *step.running, step.chunked) for step in last))
    for keep in (named, active & set(names)):
        others = [name for name in names if name not in keep]
        if keep and others and search.accept(played, *(without(search.state, name) for name in others)):
            return
    search.accept(played)


def _pass_actions(search: _Search) -> None:
    search.apply([drop([k]) for k, a in search.state.actions.items() if not isinstance(a, StartReq)])


def _pass_requests(search: _Search) -> None:
    search.apply([without_session(search.state, name) for name in search.script.sessions])
    search.apply([without(search.state, name) for name in search.script.names])


# Without a value SGLang takes what memory is free: gigabytes that each boot fills.
_SIZED_BY_MEMORY = ("max_mamba_cache_size",)


def _pass_config(search: _Search) -> None:
    config, defaults = search.state.config, EngineConfig()
    changed = [f for f in config.__struct_fields__ if getattr(config, f) != getattr(defaults, f)]
    kept = {*TRAITS, *_SIZED_BY_MEMORY}
    search.apply([configure(**{f: getattr(defaults, f)}) for f in changed if f not in kept])


def _pass_fields(search: _Search) -> None:
    edits: list[Edit] = []
    for key, action in search.state.actions.items():
        edits += [set_fields(key, **{field: default}) for field, default in optional_fields(action)]
        if isinstance(action, StartReq):
            simpler = {"family": 0, "unique_tail": 0, "after": None}
            edits += [set_prompt(key, **{f: value}) for f, value in simpler.items() if getattr(action.prompt, f)]
            if action.session is not None:
                edits.append(set_fields(key, session=SessionParams(action.session.id, action.session.rid)))
    search.apply(edits, cosmetic=True)
    steps = steps_of_step_until(search.state, search.outcome)
    search.apply([replace_with(key, Step(n)) for key, n in steps.items()], cosmetic=True)


def _pass_again(search: _Search) -> None:
    cosmetic = len(search.script.actions) <= SHORT
    edits = [without(search.state, name) for name in search.script.names]
    edits += [drop([key]) for key in search.state.actions]
    for edit in edits:
        search.apply([edit], cosmetic=cosmetic)


def _pass_numbers(search: _Search) -> None:
    sites = [site for key, action in search.state.actions.items() for site in numbers(key, action)]
    search.apply([site.edit(1) for site in sites], cosmetic=True)
    while sites and search.cosmetics_left:
        halves = [(site, site.value(search.state) // 2) for site in sites]
        edits = {site.edit(half): site for site, half in halves if half > 1}
        failed = search.apply(list(edits), cosmetic=True)
        sites = [site for edit, site in edits.items() if edit not in failed]


def _pass_names(search: _Search) -> None:
    names = {name: f"r{index}" for index, name in enumerate(search.script.names)}
    names |= {name: f"s{index}" for index, name in enumerate(search.script.sessions)}
    search.accept(rename(names))


_PASSES = (
    _pass_bold,
    _pass_actions,
    _pass_requests,
    _pass_config,
    _pass_fields,
    _pass_again,
    _pass_numbers,
    _pass_names,
)
