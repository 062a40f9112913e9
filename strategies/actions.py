"""The builder that a script is written into, strikes, and single random actions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

from sr_fuzz.strategies.requests import Draw, Traits, draw_digits, draw_relative, draw_start_req, sizes_of

from sr_fuzz.script import (
    Abort,
    AbortAll,
    Action,
    AdvanceClock,
    CloseSession,
    Continue,
    EngineConfig,
    EvictRadix,
    FlushCache,
    OpenSession,
    Pause,
    SessionParams,
    StartReq,
    Step,
    StepUntil,
)  # fmt: skip

SWITCH_WEIGHTS = {
    "step_until": 4, "abort": 3, "pause": 3, "continue": 2, "abort_all": 2, "flush_cache": 2, "evict_radix": 2
}  # fmt: skip
"""Optional action kinds by tag, and how many of four scripts may use each, unless a feature of
`sr_fuzz.strategies.weights` says otherwise. The kinds that strike most are left out least often."""

SWITCHES = tuple(SWITCH_WEIGHTS)

KINDS = {kind.__struct_config__.tag: kind for kind in get_args(Action)}
"""The classes of actions, by tag."""

STAGES_TO_AIM_AT = (
    "first_chunk", "nth_chunk", "last_chunk", "first_decode", "first_decode", "mid_decode",
    "last_decode", "waiting", "retracted", "finished",
)  # fmt: skip

# Counted from the youngest request backwards: an old request has usually finished, but it must be hit now and then too.
_AGES = (0, 0, 0, 1, 1, 2, 3, 6)

# Most entries are single steps, since bugs show in the next step; a long wait lets a decode run to its end.
STEPS = (1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 14, 20, 30)


@dataclass
class ScriptBuilder:
    """A script being written: what it may use, what it has started, and a rough idea of the engine's state."""

    draw: Draw
    config: EngineConfig
    traits: Traits = Traits()
    switches: frozenset[str] = frozenset(SWITCHES)
    exhausters: bool = False
    actions: list[Action] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    motifs: set[str] = field(default_factory=set)
    """Names of the motifs that were played into it, without those that a motif plays as a part of itself."""
    paused: bool = False
    busy: int = 2
    """With no more work than this left, a motif that needs other requests starts some."""
    sessions: dict[str, str | None] = field(default_factory=dict)
    """Sessions it has opened and not closed: name -> the last request in it."""
    turns_at_once: bool = False
    """Whether it sends a turn of a session while another turn is under way, which SGLang must refuse. The effects of
    that on SGLang mask other findings."""
    work: int = 0
    """An estimate of the steps until all requests have finished, so that a motif does not strike at an idle engine."""

    def digits(self, *radices: int) -> tuple[int, ...]:
        return draw_digits(self.draw, *radices)

    def has(self, switch: str) -> bool:
        return switch in self.switches

    @property
    def abilities(self) -> frozenset[str]:
        """What a motif may need: the switches that are on, and what configuration and traits allow."""
        config = self.config
        allowed = {
            "chunks": 0 < config.chunked_prefill_size <= config.max_total_tokens // 3,
            "mixed": config.enable_mixed_chunk,
            "preemption": config.enable_priority_scheduling and not config.disable_priority_preemption,
            "radix": not config.disable_radix_cache,
            "priority": config.enable_priority_scheduling,
            "queue_limit": config.max_queued_requests is not None,
            "logprobs": self.traits.logprobs,
            "sessions": config.enable_streaming_session,
            "turns_at_once": self.turns_at_once,
            "exhausters": self.exhausters,
            "timeouts": bool(config.timeouts),
            "lora": config.enable_lora,
        }
        return self.switches.union(name for name, allow in allowed.items() if allow)

    def add(self, *actions: Action) -> None:
        """Append actions, and update the estimate of work and the other state that they change."""
        for action in actions:
            self.actions.append(action)
            if isinstance(action, StartReq):
                self.work += math.ceil(action.prompt.length / sizes_of(self.config).chunk)
                self.work += action.max_new_tokens // 3
            elif isinstance(action, Step) and not self.paused:
                self.work = max(0, self.work - action.n)
            elif isinstance(action, StepUntil) and not self.paused:
                self.work = max(0, self.work - action.max_steps // 4)
            elif isinstance(action, AbortAll):
                self.work = 0
            elif isinstance(action, Pause):
                self.paused = True
                self.work = 0 if action.mode == "abort" else self.work
            elif isinstance(action, Continue):
                self.paused = False
            elif isinstance(action, CloseSession):
                self.sessions.pop(action.name, None)

    def start(self, **given: Any) -> str:
        """Append a `StartReq` under a new name and return the name; fields that are not given are drawn.

        Now and then a drawn prompt continues an earlier request or diverges from it.
        """
        name = self.next_name()
        if given.get("prompt") is None and self.names and not self.config.disable_radix_cache:
            (relative,) = self.digits(6)
            if relative == 5:
                given["prompt"] = draw_relative(self.draw, self.config, self.request(self.victim()))
        self.names.append(name)
        if self.turns_at_once and self.sessions and "session" not in given and self.digits(4)[0] == 0:
            given["session"] = SessionParams(list(self.sessions)[-1])
        session = given.get("session")
        if session is not None and session.id in self.sessions:
            self.sessions[session.id] = name
        self.add(draw_start_req(self.draw, self.config, name, self.traits, **given))
        return name

    def request(self, name: str) -> StartReq:
        """The request of that name. Raises `StopIteration` for one that was not started."""
        return next(a for a in self.actions if isinstance(a, StartReq) and a.name == name)

    def open_session(self, *, streaming: bool = True, timeout: float | None = None) -> str:
        """Append an `OpenSession` under a new name, and return the name."""
        name = f"s{sum(isinstance(action, OpenSession) for action in self.actions)}"
        self.sessions[name] = None
        streaming = streaming and self.config.enable_streaming_session
        self.add(OpenSession(name, streaming=streaming, timeout=timeout))
        return name

    def next_name(self) -> str:
        return f"r{len(self.names)}"

    def victim(self) -> str:
        """A request's name, more often a young one's; before any request has started, a name that does not exist
        yet."""
        (age,) = self.digits(len(_AGES))
        return self.names[-1 - _AGES[age] % len(self.names)] if self.names else self.next_name()

    def step(self) -> None:
        (steps,) = self.digits(8)
        self.add(Step(STEPS[steps]))


# -- strikes: actions that hit a request in the step in which it reaches a stage ---------------------------------


def reprise(builder: ScriptBuilder, victim: str) -> None:
    """Start another request with the victim's prompt: it needs the pages that are freed in this step."""
    prompt = next((a.prompt for a in builder.actions if isinstance(a, StartReq) and a.name == victim), None)
    builder.start(prompt=prompt)


_Strike = Callable[[ScriptBuilder, str], None]

_STRIKES: tuple[tuple[str | None, _Strike], ...] = (
    (None, reprise),
    ("abort", lambda builder, victim: builder.add(Abort(victim))),
    ("abort", lambda builder, victim: builder.add(Abort(victim))),
    ("abort", lambda builder, victim: builder.add(Abort(victim, await_arrival=False))),
    ("abort", lambda builder, victim: builder.add(Abort(builder.victim()))),
    ("pause", lambda builder, victim: builder.add(Pause("retract"))),
    ("pause", lambda builder, victim: builder.add(Pause("retract"))),
    ("pause", lambda builder, victim: builder.add(Pause("in_place"))),
    ("pause", lambda builder, victim: builder.add(Pause("in_place"), Pause("retract"))),
    ("pause", lambda builder, victim: builder.add(Pause("in_place"), Abort(victim))),
    ("pause", lambda builder, victim: builder.add(Abort(victim), Pause("retract"))),
    ("pause", lambda builder, victim: builder.add(Pause("abort"))),
    ("abort_all", lambda builder, victim: builder.add(AbortAll())),
    ("abort_all", lambda builder, victim: builder.add(AbortAll(await_arrival=False))),
    ("flush_cache", lambda builder, victim: builder.add(FlushCache())),
    ("evict_radix", lambda builder, victim: builder.add(EvictRadix())),
)


def strike(builder: ScriptBuilder, victim: str) -> None:
    """One to three strikes in one step, then a few steps, then usually the end of a pause."""
    choices = [one for switch, one in _STRIKES if switch is None or switch in builder.switches]
    more, first, second, third, steps, resume = builder.digits(4, len(choices), len(choices), len(choices), 8, 8)
    for choice in (first, second, third)[: (1, 1, 2, 3)[more]]:
        choices[choice](builder, victim)
    # Whether the engine stands still in a pause shows from the second step of the pause on.
    builder.add(Step(STEPS[steps + 4] if builder.paused else STEPS[steps]))
    if builder.paused and resume < 6:
        builder.add(Continue())
        builder.step()


def until(builder: ScriptBuilder, victim: str, stage: str, nth: int = 1) -> None:
    """Step until a stage is reached, with a bound: a stage that is never reached must not use up the run."""
    if builder.config.chunked_prefill_size < 0:
        nth = 1
    bound = 40 if stage in ("retracted", "finished", "last_decode") else 24
    if builder.paused:
        bound = 3
    builder.add(StepUntil(victim, stage, nth=nth if stage == "nth_chunk" else 1, max_steps=bound))


# -- single actions --------------------------------------------------------------------------------------------


def _step_until(builder: ScriptBuilder) -> None:
    (stage,) = builder.digits(len(STAGES_TO_AIM_AT))
    until(builder, builder.victim(), STAGES_TO_AIM_AT[stage])


def _any_step(builder: ScriptBuilder) -> None:
    (steps,) = builder.digits(len(STEPS))
    builder.add(Step(STEPS[steps]))


def _abort(builder: ScriptBuilder) -> None:
    (awaited,) = builder.digits(4)
    builder.add(Abort(builder.victim(), await_arrival=awaited != 3))


def _pause(builder: ScriptBuilder) -> None:
    (mode,) = builder.digits(8)
    builder.add(Pause((("retract",) * 4 + ("in_place",) * 3 + ("abort",))[mode]))


def _evict(builder: ScriptBuilder) -> None:
    (amount,) = builder.digits(4)
    builder.add(EvictRadix((None, 1, sizes_of(builder.config).chunk, sizes_of(builder.config).pool // 2)[amount]))


def advance_clock(builder: ScriptBuilder) -> None:
    """Let a part of a time-out pass, or somewhat more than the whole."""
    timeouts = builder.config.timeouts or (1.0,)
    which, part = builder.digits(len(timeouts), 5)
    builder.add(AdvanceClock(timeouts[which] * (0.25, 0.5, 0.75, 1.25, 2.5)[part]))


SINGLES: dict[str, Callable[[ScriptBuilder], Any]] = {
    "start_req": lambda builder: builder.start(),
    "step": _any_step,
    "step_until": _step_until,
    "abort": _abort,
    "pause": _pause,
    "continue": lambda builder: builder.add(Continue()),
    "abort_all": lambda builder: builder.add(AbortAll()),
    "flush_cache": lambda builder: builder.add(FlushCache()),
    "evict_radix": _evict,
    "advance_clock": advance_clock,
}
"""One random action of each kind, by tag. Exhausters are left out on purpose: at a random moment they take memory that
admission has promised, and the script itself causes the crash."""
