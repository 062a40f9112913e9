"""What may be an expected failure: the bug that a test promises, and nothing else.

pytest takes every error of a test with a bare ``xfail`` for the expected one, in its set-up and its tear-down too. So a
suite of open bugs would stay green when no scheduler runs at all. Here an engine that does not start or that breaks is
an error in every phase, and an emitted test (it has a ``SIGNATURE``) must show what it promises. This is done for the
report and not in the test, so that it holds for files that earlier versions emitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest._code import TracebackEntry

from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.outcome.files import violation_beside
from sr_fuzz.outcome.identity import renewed
from sr_fuzz.script import Script
from sr_fuzz.script.errors import EngineError, ScriptError
from sr_fuzz.testing.known_bug import BugShown, OtherFailure, matches

ENGINE_FIXTURES = frozenset({"sr_engine", "sr_check", "sr_server_engine", "sr_server"})

TROUBLE = "sr_fuzz_trouble"
"""Attribute of a report: an engine did not start, or broke. It survives the way between the processes of xdist."""



class NotStarted(pytest.fail.Exception):
    """An engine of a fixture does not start. It is never an expected failure, in whichever way a test asks for it."""


_ENGINES = "sr_fuzz.engine."
_SCRIPT_FAILED = ("execute", "execute_script", "outcome_of")
"""Functions of an engine that raise ``AssertionError`` or ``TimeoutError`` for a script function that failed."""


def judge(item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> pytest.TestReport:
    """Return the report of a phase, in which an expected failure is nothing but the promised bug."""
    if call.excinfo is None or isinstance(call.excinfo.value, (pytest.skip.Exception, pytest.xfail.Exception)):
        return report
    excused = hasattr(report, "wasxfail")
    if _is_trouble(call.excinfo) or (excused and call.when != "call" and uses_engine(item)):
        setattr(report, TROUBLE, True)
        _take_back(report)
    elif excused and (problem := _not_promised(item, call.excinfo)):
        failure = pytest.ExceptionInfo.from_exc_info(_raised(OtherFailure(problem, False)))
        report.longrepr = item.repr_failure(failure)
        _take_back(report)
    return report


def _take_back(report: pytest.TestReport) -> None:
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):
        del report.wasxfail


def _raised(error: BaseException) -> tuple[type[BaseException], BaseException, Any]:
    try:
        raise error
    except BaseException as caught:
        return type(caught), caught, caught.__traceback__


def uses_engine(item: pytest.Item) -> bool:
    """Whether a test uses an engine, also one that it has asked for while it ran (``request.getfixturevalue``)."""
    request = getattr(item, "_request", None)
    names = {*getattr(item, "fixturenames", ()), *getattr(request, "fixturenames", ())}
    return not ENGINE_FIXTURES.isdisjoint(names)


# -- trouble ---------------------------------------------------------------------------------------------------


def _is_trouble(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    """Whether an engine could not do its work; what a script function asserts is no trouble."""
    if any(isinstance(error, EngineError | NotStarted) for error in _chain(excinfo.value)):
        return True
    inside = [entry for entry in excinfo.traceback if _module_of(entry).startswith(_ENGINES)]
    if not inside:
        return False
    of_script = isinstance(excinfo.value, (AssertionError, TimeoutError)) and inside[-1].name in _SCRIPT_FAILED
    return not of_script


def _module_of(entry: TracebackEntry) -> str:
    return str(entry.frame.f_globals.get("__name__", ""))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, those that it came from, and the members of groups."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


# -- what an emitted test promises -----------------------------------------------------------------------------


def _not_promised(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    """Return why the failure is not the promised one; empty where it is, and where nothing is promised."""
    if isinstance(excinfo.value, BugShown):
        return ""
    if isinstance(excinfo.value, OtherFailure):
        return str(excinfo.value)
    module = getattr(item, "module", None)
    script = getattr(module, "SCRIPT", None)
    promised = _promised(module)
    if not uses_engine(item) or not isinstance(script, Script) or not promised:
        return ""
    shown = [outcome for outcome in _outcomes(excinfo) if outcome.violation is not None]
    found = [signature(outcome.violation, script.config) for outcome in shown if outcome.violation is not None]
    if isinstance(excinfo.value, AssertionError) and any(matches(one, promised) for one in found):
        return ""
    wanted = " or ".join(promised)
    if not isinstance(excinfo.value, AssertionError) or not found:
        return f"it fails, but not by {wanted}, the bug that it promises: {excinfo.exconly()}"
    return f"its script shows something else, {found[-1]}, not {wanted}\n{shown[-1].report()}"


def _promised(module: object) -> tuple[str, ...]:
    """Return the signatures that an emitted test promises, in their current form."""
    own, others = getattr(module, "SIGNATURE", None), getattr(module, "ALSO_SEEN_AS", ())
    if not isinstance(own, str):
        return ()
    every = (own, others) if isinstance(others, str) else (own, *others)
    try:
        violation = violation_beside(Path(str(getattr(module, "__file__", ""))))
    except ScriptError:
        violation = None  # without the file, signatures of earlier versions stay as they are
    return tuple(renewed(one, violation) for one in every)


def _outcomes(excinfo: pytest.ExceptionInfo[BaseException]) -> Iterator[Outcome]:
    """What engines gave to the functions that were running: every test that was ever emitted keeps it in a variable."""
    for entry in excinfo.traceback:
        yield from (value for value in entry.frame.f_locals.values() if isinstance(value, Outcome))
