"""Edits of a script, from which the minimiser's passes are built.

An *edit* is a pure function from one `State` to a simpler one. Edits made for one state stay valid after others have
been applied, because actions are identified by key, not by position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sr_fuzz.outcome import Outcome, StepRecord
from sr_fuzz.script import Action, EngineConfig, Script, StartReq, Step, StepUntil
from sr_fuzz.script.defaults import defaults_of
from sr_fuzz.script.text import action_text

MAX_STEP = 1000
"""The maximum of ``Step.n``; steps are not merged beyond it."""


class State(msgspec.Struct, frozen=True):
    """A script whose actions have keys, which increase in the order of the actions."""

    config: EngineConfig
    actions: dict[int, Action]

    @property
    def script(self) -> Script:
        return Script(config=self.config, actions=tuple(self.actions.values()))

    def merged(self) -> State:
        """Merge adjacent steps under the key of the first one; for the engine nothing changes."""
        actions: dict[int, Action] = {}
        last = -1
        for key, action in self.actions.items():
            before = actions.get(last)
            if isinstance(action, Step) and isinstance(before, Step) and before.n + action.n <= MAX_STEP:
                actions[last] = Step(before.n + action.n)
            else:
                actions[key] = action
                last = key
        return State(self.config, actions)


Edit = Callable[[State], State]
"""One simplification. It returns the state unchanged if its subject is no longer there."""


# -- edits -----------------------------------------------------------------------------------------------------


def drop(keys: Iterable[int]) -> Edit:
    """Drop actions. A prompt whose ``after`` names a dropped request becomes a plain prompt of its own family."""
    gone = frozenset(keys)

    def edit(state: State) -> State:
        left = {key: action for key, action in state.actions.items() if key not in gone}
        names = {action.name for action in left.values() if isinstance(action, StartReq)}
        return State(state.config, {key: _after_one_of(names, action) for key, action in left.items()})

    return edit


def _after_one_of(names: set[str], action: Action) -> Action:
    if not isinstance(action, StartReq) or action.prompt.after is None or action.prompt.after in names:
        return action
    return msgspec.structs.replace(action, prompt=msgspec.structs.replace(action.prompt, after=None))


def without(state: State, name: str) -> Edit:
    """Drop a request and every action that names it."""
    return drop(key for key, action in state.actions.items() if getattr(action, "name", None) == name)


def without_session(state: State, name: str) -> Edit:
    """Drop a session, its requests, and every action that names one of these."""
    turns = {a.name for a in state.actions.values() if isinstance(a, StartReq) and a.session and a.session.id == name}
    gone = turns | {name}
    return drop(key for key, action in state.actions.items() if getattr(action, "name", None) in gone)


def change(key: int, how: Callable[[Action], Action]) -> Edit:
    def edit(state: State) -> State:
        if key not in state.actions:
            return state
        return State(state.config, {**state.actions, key: how(state.actions[key])})

    return edit


def replace_with(key: int, action: Action) -> Edit:
    return change(key, lambda _: action)


def set_fields(key: int, **values: Any) -> Edit:
    return change(key, lambda action: msgspec.structs.replace(action, **values))


def set_prompt(key: int, **values: Any) -> Edit:
    """Set fields of a prompt; a tail that has become longer than the prompt is shortened with it."""

    def how(action: Action) -> Action:
        assert isinstance(action, StartReq)
        prompt = msgspec.structs.replace(action.prompt, **values)
        tail = min(prompt.unique_tail, prompt.length)
        return msgspec.structs.replace(action, prompt=msgspec.structs.replace(prompt, unique_tail=tail))

    return change(key, how)


def configure(**values: Any) -> Edit:
    return lambda state: State(msgspec.structs.replace(state.config, **values), state.actions)


def rename(names: Mapping[str, str]) -> Edit:
    """Rename requests and sessions, unless an action that names no request or session now would name one then."""

    def renamed(action: Action) -> Action:
        old = getattr(action, "name", None)
        if old is None:
            return action
        action = msgspec.structs.replace(action, name=names.get(old, old))
        if not isinstance(action, StartReq):
            return action
        if action.prompt.after is not None:
            prompt = msgspec.structs.replace(action.prompt, after=names.get(action.prompt.after, action.prompt.after))
            action = msgspec.structs.replace(action, prompt=prompt)
        if action.session is not None:
            session = action.session
            ids = {"id": names.get(session.id, session.id), "rid": names.get(session.rid, session.rid)}
            action = msgspec.structs.replace(action, session=msgspec.structs.replace(session, **ids))
        return action

    def edit(state: State) -> State:
        strangers = {name for action in state.actions.values() for name in _named(action)} - set(names)
        if strangers & set(names.values()):
            return state
        return State(state.config, {key: renamed(action) for key, action in state.actions.items()})

    return edit


def _named(action: Action) -> set[str | None]:
    session = action.session if isinstance(action, StartReq) else None
    return {getattr(action, "name", None)} | ({session.id, session.rid} if session is not None else set())


# -- what a script and its trace tell --------------------------------------------------------------------------


def cut(state: State, outcome: Outcome) -> Edit:
    """Drop all actions and steps that the run did not reach. Changes nothing where the trace does not tell."""
    steps = _first_steps(state, outcome.trace)
    if not steps:
        return drop(())
    last = max(steps)
    after = drop(key for key in state.actions if key > last)
    taken = _end(outcome) - steps[last]

    def shorten(action: Action) -> Action:
        return Step(min(action.n, taken)) if isinstance(action, Step) and taken > 0 else action

    return lambda state: change(last, shorten)(after(state))


def steps_of_step_until(state: State, outcome: Outcome) -> dict[int, int]:
    """Return how many steps each ``StepUntil`` took, as far as the trace tells: ``{key: steps}``, at least 1 step."""
    steps = _first_steps(state, outcome.trace)
    nexts = [*list(steps.values())[1:], _end(outcome)]
    taken = {key: end - begin for (key, begin), end in zip(steps.items(), nexts, strict=False)}
    return {key: n for key, n in taken.items() if isinstance(state.actions[key], StepUntil) and 0 < n <= MAX_STEP}


EPILOGUE = "epilogue"
"""Prefix of the trace's lines for what the interpreter does after the script."""


def _first_steps(state: State, trace: Sequence[StepRecord]) -> dict[int, int]:
    """Return the step before which each action in the trace was played. A long trace has lost its beginning."""
    played = [(text, step.step) for step in trace for text in step.actions if not text.startswith(EPILOGUE)]
    keys = list(state.actions)
    texts = [action_text(action) for action in state.actions.values()]
    seen = [text for text, _ in played]
    for start in range(len(texts) - len(seen) + 1):
        if texts[start : start + len(seen)] == seen:
            return {key: step for key, (_, step) in zip(keys[start:], played, strict=False)}
    return {}


def _end(outcome: Outcome) -> int:
    """Return the step after the script's last one: the first of the epilogue, or the one after the violation."""
    for step in outcome.trace:
        if any(text.startswith(EPILOGUE) for text in step.actions):
            return step.step
    return outcome.violation.step + 1 if outcome.violation is not None else 0


def optional_fields(action: Action) -> list[tuple[str, Any]]:
    """Return the fields that are not at their default, with the default. Sizes are handled by `numbers`."""
    sizes = ("prompt", "max_new_tokens") if isinstance(action, StartReq) else ("n",)
    return [(f, d) for f, d in defaults_of(action).items() if f not in sizes and getattr(action, f) != d]


class Number(msgspec.Struct, frozen=True):
    """A size in a script: a prompt's ``length``, ``max_new_tokens``, or the ``n`` of a step."""

    key: int
    field: str

    def value(self, state: State) -> int:
        """Return its value in ``state``; 0 when its action was dropped."""
        action: Any = state.actions.get(self.key)
        return getattr(getattr(action, "prompt", None) if self.field == "length" else action, self.field, 0)

    def edit(self, value: int) -> Edit:
        set_field = set_prompt if self.field == "length" else set_fields
        return set_field(self.key, **{self.field: value})


def numbers(key: int, action: Action) -> list[Number]:
    """Return the sizes in ``action`` that could be smaller."""
    sizes: dict[str, int] = {}
    if isinstance(action, StartReq):
        sizes = {"length": action.prompt.length, "max_new_tokens": action.max_new_tokens}
    elif isinstance(action, Step):
        sizes = {"n": action.n}
    return [Number(key, field) for field, size in sizes.items() if size > 1]
