"""The text form of scripts, one line for logs and reports; it cannot be parsed."""

from __future__ import annotations

import msgspec

from sr_fuzz.script.actions import Action, SessionParams, StartReq
from sr_fuzz.script.defaults import defaults_of
from sr_fuzz.script.engine_config import EngineConfig
from sr_fuzz.script.script import Script


def config_text(config: EngineConfig) -> str:
    """Return the fields that differ from the default, as ``name=value``, or ``default``."""
    changed = msgspec.to_builtins(config)
    return " ".join(f"{name}={value}" for name, value in changed.items()) or "default"


def action_text(action: Action) -> str:
    """Return one action as one short line, e.g. ``r0 = start_req(0:40+3, new=8)``."""
    if isinstance(action, StartReq):
        return _start_text(action)
    defaults = defaults_of(action)
    shown = [str(getattr(action, field)) for field in action.__struct_fields__ if field not in defaults]
    for index, (field, default) in enumerate(defaults.items()):
        value = getattr(action, field)
        if index == 0 and not shown and _says_it_alone(default):
            shown.append(str(value))
        elif value != default:
            shown.append(f"{field}={value}")
    tag = action.__struct_config__.tag
    return f"{tag}({', '.join(shown)})" if shown else str(tag)


def _says_it_alone(default: object) -> bool:
    """Whether a first field is shown always and without its name, because it is the action's main argument."""
    return isinstance(default, (int, str)) and not isinstance(default, bool)


def _start_text(action: StartReq) -> str:
    prompt = action.prompt
    shape = f"{prompt.after or prompt.family}:{prompt.length}"
    shape += f"+{prompt.unique_tail}" if prompt.unique_tail else ""
    parts = [shape, *["uniform"] * prompt.uniform, f"new={action.max_new_tokens}"]
    for field, default in defaults_of(action).items():
        value = getattr(action, field)
        # The prompt and the length are always shown, in a special form.
        if field not in ("prompt", "max_new_tokens") and value != default:
            shown = _session_text(value) if isinstance(value, SessionParams) else value
            parts.append(field if value is True else f"{field}={shown}")
    return f"{action.name} = start_req({', '.join(parts)})"


def _session_text(params: SessionParams) -> str:
    """Return ``s0``, or with its other fields ``s0(rid=r1, replace)``."""
    more = {name: value for name, value in msgspec.to_builtins(params).items() if name != "id"}
    shown = [name if value is True else f"{name}={value}" for name, value in more.items()]
    return f"{params.id}({', '.join(shown)})" if shown else params.id


def text(script: Script) -> str:
    """Return the whole script in one line: ``[config] action; action; …``."""
    return f"[{config_text(script.config)}] " + "; ".join(action_text(a) for a in script.actions)
