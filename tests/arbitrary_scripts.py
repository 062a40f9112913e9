"""Arbitrary valid scripts, drawn from the types of the script language alone.

The strategies of the product draw scripts that make sense. These draw whatever validation accepts: each field anywhere
within its limits and often at one of them, each name any of a few, so that names are used twice, before their time, for
something else, or never exist. A new action or field is drawn without a change here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from msgspec import inspect
from msgspec.structs import replace

from sr_fuzz.script import Action, EngineConfig, Script, ScriptError, StartReq, Step, StepUntil, validate
from sr_fuzz.script.defaults import defaults_of

NAMES = ("a", "b", "r1", "r10", "R1", "s", "s_1", "t2", "ballast", "ballast0", "abcdefghijklmnop", "x")
"""Few, so that most names that an action refers to exist. Some are prefixes of others, since SGLang aborts by prefix;
some are like the ids that sr_fuzz itself makes."""

# Without requests and steps nothing happens; all other actions are equally frequent.
_WEIGHTS = {StartReq: 6, Step: 4, StepUntil: 2}

# A few more than a limit are as interesting as the limit: 0, 1, 2; the powers of two around chunks and pages.
_NEAR = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129)


def scripts(
    configs: SearchStrategy[EngineConfig], *, least_actions: int = 0, most_actions: int = 40
) -> SearchStrategy[Script]:
    """Valid scripts on one of ``configs``. About a tenth of the actions that are drawn are left out as invalid."""
    return _scripts(configs, least_actions, most_actions)


@st.composite
def _scripts(draw: DrawFn, configs: SearchStrategy[EngineConfig], least: int, most: int) -> Script:
    script = Script(draw(configs), ())
    for _ in range(draw(st.integers(least, most))):
        action = draw(st.sampled_from(_kinds()).flatmap(structs))
        script = _with_action(script, action)
    return script


@functools.cache
def _kinds() -> tuple[type, ...]:
    return tuple(kind for kind in get_args(Action) for _ in range(_WEIGHTS.get(kind, 1)))


def arbitrary_configs(
    bases: Sequence[EngineConfig], *, fixed: Sequence[str] = ("tp_size", "pp_size", "dp_size")
) -> SearchStrategy[EngineConfig]:
    """Valid configurations that differ from one of ``bases`` in up to five fields, none of them ``fixed``."""
    return _arbitrary_configs(tuple(bases), tuple(fixed))


@st.composite
def _arbitrary_configs(draw: DrawFn, bases: tuple[EngineConfig, ...], fixed: tuple[str, ...]) -> EngineConfig:
    config = draw(st.sampled_from(bases))
    fields = {field.name: field.type for field in inspect.type_info(EngineConfig).fields if field.name not in fixed}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=5, unique=True)):
        changed = replace(config, **{name: draw(values(fields[name]))})
        if _valid(Script(changed, ())):
            config = changed
    return config


# -- values of a type ------------------------------------------------------------------------------------------


@functools.cache
def structs(cls: type[msgspec.Struct]) -> SearchStrategy[Any]:
    """Objects of ``cls`` in which each field has any value of its type, or, half of the time, its default."""
    return _structs(cls, [(field, values(field.type)) for field in inspect.type_info(cls).fields])


@st.composite
def _structs(draw: DrawFn, cls: type[msgspec.Struct], fields: list[tuple[inspect.Field, SearchStrategy[Any]]]) -> Any:
    return cls(**{field.name: draw(drawn) for field, drawn in fields if field.required or draw(st.booleans())})


def values(kind: inspect.Type) -> SearchStrategy[Any]:
    """Any value of a type, within its limits. Raises ``TypeError`` for a kind of type that no action has so far."""
    match kind:
        case inspect.Metadata(type=inner):
            return values(inner)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType(values=members):
            return st.sampled_from(members)
        case inspect.StrType():
            return st.sampled_from(NAMES)
        case inspect.IntType(ge=least, le=most, lt=end):
            return _whole_numbers(least, most if end is None else end - 1)
        case inspect.FloatType(gt=above, ge=least, le=most):
            low = least if above is None else above + 1e-9
            return st.one_of(st.sampled_from((low, most)), st.floats(low, most), st.floats(low, min(most, low + 2)))
        case inspect.VarTupleType(item_type=item, max_length=most):
            return st.lists(values(item), max_size=most).map(tuple)
        case inspect.UnionType(types=types):
            return st.one_of(*map(values, types))
        case inspect.StructType(cls=cls):
            return structs(cls)
    raise TypeError(f"no arbitrary value of {kind} is known; say how to draw one")


@st.composite
def _whole_numbers(draw: DrawFn, least: int, most: int) -> int:
    """Mostly small, seldom at the far end: a thousand steps cost a second, and most of them show nothing."""
    near = [value for value in _NEAR if least <= value <= most]
    how = draw(st.integers(0, 19))
    if how < 2:
        return draw(st.sampled_from(sorted({least, most, max(least, most - 1)})))
    if how < 4 or not near:
        return draw(st.integers(least, most))
    return draw(st.sampled_from(near))


# -- what validation accepts -----------------------------------------------------------------------------------


def _with_action(script: Script, action: Action) -> Script:
    """The script with the action, of which as few fields as possible are changed so that it is valid; if none helps,
    the script as it was."""
    for changed in (action, *_variants(action)):
        longer = replace(script, actions=(*script.actions, changed))
        if _valid(longer):
            return longer
    return script


def _valid(script: Script) -> bool:
    try:
        validate(script)
    except ScriptError:
        return False
    return True


def _variants(action: Any) -> Iterator[Any]:
    """The action with one field at its default or a name exchanged, then with more and more fields at their
    defaults."""
    yield from _one_changed(action)
    plain = action
    for name, default in defaults_of(action).items():
        plain = replace(plain, **{name: default})
        yield plain
        yield from _renamed(plain)


def _one_changed(value: msgspec.Struct) -> Iterator[Any]:
    for name, default in defaults_of(value).items():
        inner = getattr(value, name)
        if isinstance(inner, msgspec.Struct):
            yield from (replace(value, **{name: changed}) for changed in _one_changed(inner))
        if inner != default:
            yield replace(value, **{name: default})
    yield from _renamed(value)


def _renamed(value: msgspec.Struct) -> Iterator[Any]:
    if hasattr(value, "name"):
        yield from (replace(value, name=name) for name in NAMES)
