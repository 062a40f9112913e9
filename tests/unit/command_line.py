"""Shared by the tests of the command line: a script with a bug, its rule, and the one line of an error."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fake_engine import leak

from sr_fuzz import cli
from sr_fuzz.outcome import Violation
from sr_fuzz.script import Abort, EngineConfig, FlushCache, Prompt, Script, StartReq, Step

CORE = (StartReq("r0", Prompt(length=1), 1), Abort("r0"))
SCRIPT = Script(EngineConfig(), (StartReq("r0", Prompt(length=30)), Step(3), StartReq("r1"), Abort("r0"), FlushCache()))


def leak_on_abort(script: Script) -> Violation | None:
    started: set[str] = set()
    for action in script.actions:
        if isinstance(action, StartReq):
            started.add(action.name)
        elif isinstance(action, Abort) and action.name in started:
            return leak()
    return None


def error_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sr-fuzz: error: ")
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err
