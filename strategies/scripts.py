"""Strategies for whole scripts, which are drawn up front as data.

Swarm testing: every script first draws what it may use at all (action kinds, traits of its requests, motifs and their
weights) and then draws only from that. Scripts that may use everything resemble each other, and an action that undoes
much (a flush, an abort of all) hides what another would have revealed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from sr_fuzz.strategies.actions import KINDS, SINGLES, SWITCHES, ScriptBuilder
from sr_fuzz.strategies.motifs import MOTIFS
from sr_fuzz.strategies.profiles import PROFILES, Profile
from sr_fuzz.strategies.requests import Draw, draw_digits, draw_traits, sizes_of
from sr_fuzz.strategies.weights import weights_of

from sr_fuzz.script import Abort, AbortAll, Continue, EngineConfig, Pause, Script, StartReq, Step, StepUntil

# Shortest and longest script of each class, in actions, and how many of sixteen scripts are of it. Much is found only
# after a while (a tree that has filled up, a ratio that has adapted), so two in five scripts have 30 actions or more.
# Motifs are not cut, so the last one may exceed the length by a few actions.
_LENGTHS = (((3, 6),) * 2 + ((7, 14),) * 3 + ((15, 29),) * 4 + ((30, 44),) * 5 + ((45, 60),) * 2)  # fmt: skip

# In every script, since without them nothing happens; a step comes first because it is the simplest choice.
_ALWAYS = ("step", "step", "start_req")

_EXHAUSTER_MOTIFS = tuple(motif for motif in MOTIFS.values() if "exhausters" in motif.needs)
_PLAIN_MOTIFS = tuple(motif for motif in MOTIFS.values() if "exhausters" not in motif.needs)

_Piece = Callable[[ScriptBuilder], object]


class Drawn(NamedTuple):
    """A script, and what it was made from."""

    script: Script
    motifs: tuple[str, ...]
    """Names, sorted."""


def scripts(configs: Sequence[EngineConfig], *, exhausters: bool | None = None) -> SearchStrategy[Script]:
    """Strategy: valid scripts of 3 to about 75 actions over ``configs``, each configuration as often as the others.

    Each script has a pressure profile, and most profiles open with requests that need more than the KV pool. How often
    each piece is drawn depends on the configuration, see `sr_fuzz.strategies.weights`. ``exhausters``: True, every
    script holds memory, rows or locks at some time; False, none does; None, one in ten does, since findings of
    exhausters mask others. Raises `ValueError` when there is no configuration.
    """
    return drawn_scripts(configs, exhausters=exhausters).map(lambda drawn: drawn.script)


def drawn_scripts(configs: Sequence[EngineConfig], *, exhausters: bool | None = None) -> SearchStrategy[Drawn]:
    """Strategy: what `scripts` draws, each with its motifs; the same seed draws the same scripts."""
    if not configs:
        raise ValueError("scripts() needs at least one engine configuration, got none")
    return _drawn_scripts(tuple(configs), exhausters)


@st.composite
def _drawn_scripts(draw: Draw, configs: tuple[EngineConfig, ...], exhausters: bool | None) -> Drawn:
    which, size, fine, hold, when = draw_digits(draw, len(configs), len(_LENGTHS), 16, 10, 3)
    config = configs[which]
    profile = draw_profile(draw, config)
    shortest, longest = _LENGTHS[size]
    target = shortest + fine * (longest - shortest) // 15
    builder = ScriptBuilder(
        draw=draw,
        config=config,
        traits=draw_traits(draw, config),
        switches=_draw_switches(draw, config),
        exhausters=exhausters if exhausters is not None else hold == 9,
        busy=profile.busy,
        turns_at_once=config.enable_streaming_session and draw_digits(draw, 4) == (0,),
    )
    menu = draw_menu(builder)
    opening: list[_Piece] = [profile.open]
    if builder.exhausters:
        opening.insert(when % (len(opening) + 1), _hold)
    for piece in opening:
        if when == 2:
            # Run something first, so that the tree is not empty when the pressure comes.
            _add_piece(draw, builder, menu, profile.much_work)
        piece(builder)
    while len(builder.actions) < target:
        _add_piece(draw, builder, menu, profile.much_work)
    return Drawn(Script(config, tuple(builder.actions)), tuple(sorted(builder.motifs)))


def draw_profile(draw: Draw, config: EngineConfig) -> Profile:
    """The pressure profile of one script."""
    weights = weights_of(config).profiles
    names = [name for name in PROFILES for _ in range(weights[name])]
    (which,) = draw_digits(draw, len(names))
    return PROFILES[names[which]]


def _draw_switches(draw: Draw, config: EngineConfig) -> frozenset[str]:
    digits, weights = draw_digits(draw, *[4] * len(SWITCHES)), weights_of(config).switches
    chosen = (switch for switch, digit in zip(SWITCHES, digits, strict=True) if digit >= 4 - weights[switch])
    return frozenset(switch for switch in chosen if KINDS[switch].drawn_on(config))


def draw_menu(builder: ScriptBuilder) -> list[_Piece]:
    """The pieces that the script is built from, each repeated as often as its weight."""
    abilities, weights = builder.abilities, weights_of(builder.config)
    motifs = [motif for motif in _PLAIN_MOTIFS if motif.needs <= abilities]
    chosen, heavy = (builder.digits(1 << len(motifs))[0] for _ in range(2))
    menu: list[_Piece] = [SINGLES[tag] for tag in _ALWAYS]
    for index, motif in enumerate(motifs):
        if chosen >> index & 1:
            weight = motif.weight * weights.motif(motif.name)
            menu += [motif.add] * (weight * (3 if heavy >> index & 1 else 1))
    menu += [SINGLES[switch] for switch in SWITCHES if switch in builder.switches]
    others = (tag for tag in SINGLES if tag not in SWITCHES and tag not in _ALWAYS)
    menu += [SINGLES[tag] for tag in others if KINDS[tag].drawn_on(builder.config)]
    return menu + [_hold] * builder.exhausters


def _add_piece(draw: Draw, builder: ScriptBuilder, menu: list[_Piece], much_work: int) -> None:
    """Append one piece of the menu to the builder."""
    piece, resume, rest, steps = draw_digits(draw, len(menu), 4, 2, 4)
    # A pause that is never ended would make the rest of the script idle; some pauses last longer all the same.
    if builder.paused and resume:
        if rest and not isinstance(builder.actions[-1], Step):
            builder.add(Step(1 + steps))
        builder.add(Continue())
    # Behind a long queue a new request does not run before the script ends, and no strike can hit it.
    if rest and not builder.paused and builder.work > much_work:
        builder.add(Step((4, 8, 12, 20)[steps]))
    menu[piece](builder)


def _hold(builder: ScriptBuilder) -> None:
    motifs = [motif for motif in _EXHAUSTER_MOTIFS if motif.needs <= builder.abilities]
    motifs[builder.digits(len(motifs))[0]].add(builder)


def kv_pressure(script: Script) -> float:
    """The most memory that unfinished requests need together, as a multiple of the KV pool. Above 1 they do not fit.

    A request needs its prompt and ``max_new_tokens``, as SGLang clips them, for as many steps as it would take alone,
    or until it is aborted; so this is a low estimate. With a prefix cache, what a family shares counts once. A prompt
    that SGLang refuses counts nothing.
    """
    config, sizes = script.config, sizes_of(script.config)
    step, most = 0, 0
    alive: dict[str, tuple[int, StartReq]] = {}
    for action in script.actions:
        match action:
            case Step(n=steps) | StepUntil(max_steps=steps):
                step += steps
            case Abort(name=name):
                alive.pop(name, None)
            case AbortAll() | Pause(mode="abort"):
                alive.clear()
            case StartReq(name=name, prompt=prompt) if prompt.length <= sizes.longest:
                alive = {other: entry for other, entry in alive.items() if entry[0] > step}
                alive[name] = (step + math.ceil(prompt.length / sizes.chunk) + _clipped(action, config), action)
                most = max(most, _wanted([start for _, start in alive.values()], config))
    return most / config.max_total_tokens


def _clipped(start: StartReq, config: EngineConfig) -> int:
    return min(start.max_new_tokens, sizes_of(config).new_tokens_limit(start.prompt.length))


def _wanted(starts: Sequence[StartReq], config: EngineConfig) -> int:
    """Tokens that these requests take together at their longest."""
    if config.disable_radix_cache:
        return sum(start.prompt.length + _clipped(start, config) for start in starts)
    shared: dict[int, int] = {}
    for prompt in (start.prompt for start in starts):
        shared[prompt.family] = max(shared.get(prompt.family, 0), prompt.length - prompt.unique_tail)
    own = sum(start.prompt.unique_tail + _clipped(start, config) for start in starts)
    return own + sum(shared.values())
