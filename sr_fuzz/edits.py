"""Simplifications of a script: what the minimiser's passes are made of.

An *edit* is a pure function from one `State` to a simpler one. Edits made for one state stay meaningful after others
have been applied, because actions are known by key, not by position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from sr_fuzz.outcome import Outcome, StepRecord
from sr_fuzz.script import Action, EngineConfig, Script, StartReq, Step, StepUntil, action_text

MAX_STEP = 1000
"""What ``Step.n`` allows; steps are not merged beyond it."""


class State(msgspec.Struct, frozen=True):
    """A script whose actions have keys, so that edits made in any order still mean the same action."""

    config: EngineConfig
    actions: dict[int, Action]

    @property
    def script(self) -> Script:
        return Script(config=self.config, actions=tuple(merged(self.actions).values()))


Edit = Callable[[State], State]
"""One simplification. It must leave a state as it is where its target has gone."""


def merged(actions: dict[int, Action]) -> dict[int, Action]:
    """Neighbouring steps as one: the engine sees no difference."""
    result: dict[int, Action] = {}
    last: int | None = None
    for key, action in actions.items():
        before = result.get(last) if last is not None else None
        if isinstance(action, Step) and isinstance(before, Step) and before.n + action.n <= MAX_STEP:
            result[last] = Step(before.n + action.n)  # type: ignore[index]
        else:
            result[key] = action
            last = key
    return result


# -- edits -----------------------------------------------------------------------------------------------------


def drop(keys: Iterable[int]) -> Edit:
    gone = frozenset(keys)
    return lambda state: State(state.config, {k: a for k, a in state.actions.items() if k not in gone})


def change(key: int, change: Callable[[Action], Action]) -> Edit:
    def edit(state: State) -> State:
        if key not in state.actions:
            return state
        return State(state.config, {**state.actions, key: change(state.actions[key])})

    return edit


def set_fields(key: int, **values: Any) -> Edit:
    return change(key, lambda action: msgspec.structs.replace(action, **values))


def set_prompt(key: int, **values: Any) -> Edit:
    def change(action: Action) -> Action:
        assert isinstance(action, StartReq)
        prompt = msgspec.structs.replace(action.prompt, **values)
        tail = min(prompt.unique_tail, prompt.length)
        return msgspec.structs.replace(action, prompt=msgspec.structs.replace(prompt, unique_tail=tail))

    return change(key, change)


def configure(**values: Any) -> Edit:
    return lambda state: State(msgspec.structs.replace(state.config, **values), state.actions)


# -- what a script and its trace tell -----------------------------------------------------------------------------


def without(state: State, name: str) -> Edit:
    """Drop a request and every action that names it."""
    return drop([key for key, action in state.actions.items() if getattr(action, "name", None) == name])


def _turns_sent(actions: dict[int, Action], trace: Sequence[StepRecord]) -> dict[int, int]:
    """The turn before which each action was sent, as far as the trace tells. Steps are not sent."""
    sent = [(text, record.step) for record in trace for text in record.actions]
    turns: dict[int, int] = {}
    for key, action in actions.items():
        if not isinstance(action, (Step, StepUntil)) and sent and sent[0][0] == action_text(action):
            turns[key] = sent.pop(0)[1]
    return turns


def unplayed(actions: dict[int, Action], trace: Sequence[StepRecord]) -> list[int]:
    """Actions that the run did not come to: all after the first one that was not sent."""
    turns = _turns_sent(actions, trace)
    keys = list(actions)
    if not turns:
        return []
    first = keys.index(max(turns)) + 1
    while first < len(keys) and isinstance(actions[keys[first]], (Step, StepUntil)):
        first += 1
    return keys[first:]


def turns_of_step_until(actions: dict[int, Action], outcome: Outcome) -> dict[int, int]:
    """How many turns each ``StepUntil`` took, where it stands alone between two actions that were sent."""
    turns = _turns_sent(actions, outcome.trace)
    keys = list(actions)
    result: dict[int, int] = {}
    for before, key, after in zip([None, *keys], keys, [*keys[1:], None], strict=False):
        if not isinstance(actions[key], StepUntil) or before not in turns:
            continue
        if after is None and outcome.violation is not None:
            end = outcome.violation.step
        else:
            end = turns.get(after, 0)
        if turns[before] < end <= turns[before] + MAX_STEP:
            result[key] = end - turns[before]
    return result


def optional_fields(action: Action) -> list[tuple[str, Any]]:
    """Fields that are not at their default, with the default; sizes are not here but in `numbers`."""
    defaults = action.__struct_defaults__
    fields = action.__struct_fields__[len(action.__struct_fields__) - len(defaults) :]
    sizes = ("prompt", "max_new_tokens", "n")
    return [(f, d) for f, d in zip(fields, defaults, strict=True) if f not in sizes and getattr(action, f) != d]


class Number(msgspec.Struct, frozen=True):
    """A size somewhere in a script: a prompt's length, ``max_new_tokens``, the ``n`` of a step."""

    key: int
    field: str

    def value(self, state: State) -> int:
        action = state.actions.get(self.key)
        return getattr(getattr(action, "prompt", None) if self.field == "length" else action, self.field, 0)

    def edit(self, value: int) -> Edit:
        set_field = set_prompt if self.field == "length" else set_fields
        return set_field(self.key, **{self.field: value})


def numbers(key: int, action: Action) -> list[Number]:
    if isinstance(action, StartReq):
        fields = ["length"] * (action.prompt.length > 1) + ["max_new_tokens"] * (action.max_new_tokens > 1)
        return [Number(key, field) for field in fields]
    return [Number(key, "n")] if isinstance(action, Step) and action.n > 1 else []


