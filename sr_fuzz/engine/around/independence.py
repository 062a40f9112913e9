"""A check for a model without an oracle: each request must get the same output as when it runs alone.

`AloneEngine` plays a script, and then plays each of its completed requests again, in a separate script. At temperature
0 the two outputs are equal unless the output depends on the schedule. A difference is a violation like any other, so it
is minimised, confirmed and written out.

A reference output from another process or another framework was rejected: it would have to agree in every rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.oracle.function import all_prompt_tokens
from sr_fuzz.oracle.settings import output_window
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.script import Abort, Action, EngineConfig, Prompt, Script, StartReq

NAME = "schedule_dependent_output"
FAMILY = "output"

# Number of requests whose output alone is cached. The minimiser asks for the requests of one script repeatedly, a
# search hardly ever for one of an earlier script. With some hundred tokens each, the cache takes a few megabytes.
_REMEMBERED = 1000

# Number of tokens around the first difference that the message shows.
_SHOWN = 8

_Key = tuple[EngineConfig, StartReq, tuple[int, ...]]


class AloneEngine(WrappedEngine):
    """An engine whose outcomes also report a request whose output differs from its output alone."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._alone: dict[_Key, tuple[int, ...] | None] = {}

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        """As the engine's own ``run``; compares if ``invariants`` is None or names the family ``output``."""
        outcome = self._engine.run(script, invariants=invariants, limit_s=limit_s)
        return self.compare(script, outcome, invariants=invariants)

    def compare(self, script: Script, outcome: Outcome, *, invariants: Sequence[str] | None = None) -> Outcome:
        """Return ``outcome`` with a violation if the output of a request differs from its output alone."""
        if outcome.violation is not None or (invariants is not None and FAMILY not in invariants):
            return outcome
        # With max_new_tokens=0 the output is a placeholder token.
        requests = [a for a in script.actions if isinstance(a, StartReq) and a.max_new_tokens]
        tokens = all_prompt_tokens(script.actions, output_window(script.config.model))
        checks = 0
        for request in (a for a in requests if a.name in outcome.outputs):
            got, alone = outcome.outputs[request.name], self._output_alone(script, request, tokens[request.name])
            if alone is not None and got != alone:
                message = _difference(request.name, got, alone)
                return replace(outcome, violation=Violation(NAME, "differs_from_alone", message, outcome.steps, "end"))
            checks += alone is not None
        return replace(outcome, checks=outcome.checks | {NAME: checks})

    def _output_alone(self, script: Script, request: StartReq, tokens: list[int]) -> tuple[int, ...] | None:
        """Return the output of the request alone; None when the request does not complete there."""
        # The name only affects the prompt's tail, so requests that differ in nothing else share a cache entry.
        key = (script.config, replace(request, name="r0", prompt=Prompt()), tuple(tokens))
        if key not in self._alone:
            if len(self._alone) == _REMEMBERED:
                self._alone.pop(next(iter(self._alone)))
            outcome = self._engine.run(Script(script.config, _alone(script, request)), invariants=())
            self._alone[key] = outcome.outputs.get(request.name)
        return self._alone[key]


def _alone(script: Script, request: StartReq) -> tuple[Action, ...]:
    """Return the actions for the request alone.

    The requests that its prompt comes after are started first and aborted in the same step, so they never run.
    """
    starts = {action.name: action for action in script.actions if isinstance(action, StartReq)}
    actions: list[Action] = [request]
    while (after := request.prompt.after) is not None:
        request = starts[after]
        actions = [request, Abort(after), *actions]
    return tuple(actions)


def _difference(name: str, got: tuple[int, ...], alone: tuple[int, ...]) -> str:
    at = next((i for i, (one, other) in enumerate(zip(got, alone)) if one != other), min(len(got), len(alone)))
    return (
        f"{name} got another output than alone, from token {at} on: {_part(got, at)} of {len(got)} tokens, "
        f"alone {_part(alone, at)} of {len(alone)}"
    )


def _part(tokens: tuple[int, ...], at: int) -> str:
    shown = " ".join(map(str, tokens[at : at + _SHOWN]))
    return f"[{shown}{' …' if len(tokens) > at + _SHOWN else ''}]"
