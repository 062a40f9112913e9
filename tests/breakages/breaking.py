"""What a breakage is: a small change of SGLang that breaks one rule of one invariant, and a script that triggers it.

A breakage is no seeded fault: it stands for no bug, and need not be found by a campaign. It shows that a rule can be
broken, and that it says so. All breakages are patched into one engine (`broken_as_told`), because each engine costs a
boot per configuration; the one that acts is named by the first action of its script, an abort of a request of that
name, which concerns nobody.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.script import Abort, Action, EngineConfig, Prompt, Script, StartReq, Step

# The configuration of the triggers of most seeded faults: overlap, chunks, a prefix tree and a small pool.
CONFIG = EngineConfig(max_total_tokens=64, max_running_requests=4, schedule_conservativeness=0.05)

ONE: tuple[Action, ...] = (StartReq("r0", ignore_eos=True), Step(12))
"""A request that runs to its end."""

TWO: tuple[Action, ...] = (
    StartReq("r0", Prompt(length=12), ignore_eos=True),
    StartReq("r1", Prompt(family=1, length=6), ignore_eos=True),
    Step(12),
)

_SCHEDULER = "sglang.srt.managers.scheduler:Scheduler"


@dataclass(frozen=True)
class Breakage:
    """One rule, and what breaks it."""

    rule: str
    does: str
    """What it does to SGLang, in one line."""
    name: str
    actions: tuple[Action, ...]
    config: EngineConfig
    alone: str = ""
    """``invariant: reason``: the invariant that says it first, so that it can be seen only with the others off."""
    patches: dict[tuple[str, str], Callable] = field(default_factory=dict)
    """By owner (``module:class``, or ``module``) and name: a wrapper as for `sr_fuzz.faults.wrapped`."""

    @property
    def healthy(self) -> Script:
        """The script without the action that lets the breakage act."""
        return Script(self.config, self.actions)

    @property
    def script(self) -> Script:
        return Script(self.config, (Abort(self.name), *self.actions))

    @property
    def invariants(self) -> list[str] | None:
        """The invariants that must be on; None for all."""
        return [self.rule.partition(":")[0]] if self.alone else None

    @property
    def first(self) -> str:
        """The invariant that speaks first when all are on."""
        return (self.alone or self.rule).partition(":")[0]


BREAKAGES: dict[str, Breakage] = {}
"""By rule; another place that reports the same rule has its name behind an ``@``."""


def _register(rule: str, function: Callable, patches: dict[tuple[str, str], Callable], **kwargs: Any) -> None:
    name = f"b{len(BREAKAGES)}_"
    rule, _, variant = rule.partition("@")
    key = f"{rule}@{variant}" if variant else rule
    assert key not in BREAKAGES, f"{key} has a breakage"
    does = (function.__doc__ or "").partition("\n")[0]
    BREAKAGES[key] = Breakage(rule, does, name, patches=patches, **kwargs)


def state(
    rule: str, actions: tuple[Action, ...] = ONE, config: EngineConfig = CONFIG, alone: str = ""
) -> Callable[[Callable], Callable]:
    """Register a function that gets the scheduler at the end of each step, until it returns true: then it has acted."""

    def decorate(function: Callable[[Any], Any]) -> Callable:
        done: list[bool] = []

        def receive(original: Callable, scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            if not done and function(scheduler):
                triggered()
                done.append(True)
            return original(scheduler, *args, **kwargs)

        patches = {(_SCHEDULER, "ingest_requests"): receive}
        _register(rule, function, patches, actions=actions, config=config, alone=alone)
        return function

    return decorate


def call(
    rule: str,
    owner: str,
    name: str,
    actions: tuple[Action, ...] = ONE,
    config: EngineConfig = CONFIG,
    alone: str = "",
    also: dict[tuple[str, str], Callable] | None = None,
) -> Callable[[Callable], Callable]:
    """Register a wrapper of a function of SGLang: it gets the original and its arguments.

    ``owner`` is ``module:class`` or ``module``, below ``sglang.srt``; ``also``: further wrappers.
    """

    def decorate(function: Callable) -> Callable:
        patches = {(owner, name): function, **(also or {})}
        under = {(f"sglang.srt.{owner}", name): wrapper for (owner, name), wrapper in patches.items()}
        _register(rule, function, under, actions=actions, config=config, alone=alone)
        return function

    return decorate


# -- patching all of them in -----------------------------------------------------------------------------------

_acting: list[str] = []
"""Name of the breakage that acts in this process; a child plays one script."""


@fault("broken_as_told", stands_for="no bug: each rule of each invariant", expected=())
@contextmanager
def broken_as_told() -> Iterator[None]:
    """Patches all breakages in; the one acts that a script names by an abort."""
    with ExitStack() as stack:
        for one in BREAKAGES.values():
            for (owner, name), wrapper in one.patches.items():
                stack.enter_context(wrapped(_resolve(owner), name, partial(_if_told, one.name, wrapper)))
        stack.enter_context(wrapped(_resolve(_SCHEDULER), "abort_request", _listen))
        yield


def _resolve(owner: str) -> Any:
    module, _, name = owner.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def _if_told(name: str, wrapper: Callable, original: Callable, *args: Any, **kwargs: Any) -> Any:
    return wrapper(original, *args, **kwargs) if name in _acting else original(*args, **kwargs)


def _listen(original: Callable, scheduler: Any, message: Any) -> Any:
    _acting.extend(one.name for one in BREAKAGES.values() if (message.rid or "").startswith(one.name))
    return original(scheduler, message)


# -- what breakages ask of a scheduler -------------------------------------------------------------------------


def running(scheduler: Any) -> list[Any]:
    """Requests with output that have not ended, and hold KV."""
    from sr_fuzz.sglang_api.request_state import kv_state

    batches = (scheduler.running_batch, scheduler.last_batch)
    reqs = {req.rid: req for batch in batches if batch is not None for req in batch.reqs}
    return [req for req in reqs.values() if req.output_ids and not req.finished() and kv_state(req) is not None]


def row_of(scheduler: Any, req: Any) -> Any:
    """The slots of a request's row: a tensor that can be written."""
    from sr_fuzz.sglang_api.request_state import kv_state

    kv = kv_state(req)
    return scheduler.req_to_token_pool.req_to_token[kv.row, : kv.allocated]


def with_one_more(free: Any, entry: int) -> Any:
    """A tensor of free pages or slots, and one more."""
    import torch

    return torch.cat([free, free.new_tensor([entry])])
