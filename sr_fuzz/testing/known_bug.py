"""The assertion of a test of a bug: it fails in one way for that bug, and in another way for anything else."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import Script


class BugShown(AssertionError):
    """The bug that a test promises is there: the one failure that may be expected."""


class OtherFailure(pytest.fail.Exception):
    """Something else than the promised bug. It is never an expected failure, whatever a mark says."""


def assert_bug_is_gone(outcome: Outcome, script: Script, *signatures: str) -> None:
    """Raise `BugShown` when ``outcome`` shows the bug with these signatures, in which ``*`` matches any text.

    Raise `OtherFailure` when it shows another violation, and when nothing looked for the bug because this SGLang lacks
    a name that its invariant needs.
    """
    __tracebackhide__ = True
    if outcome.violation is None:
        _check_that_it_was_looked_for(outcome, signatures)
        return
    found = signature(outcome.violation, script.config)
    if not matches(found, signatures):
        promised = " or ".join(signatures)
        raise OtherFailure(f"its script shows something else, {found}, not {promised}\n{outcome.report()}", False)
    raise BugShown(outcome.report())


def matches(found: str, signatures: tuple[str, ...]) -> bool:
    """Whether a signature is one of ``signatures``, in which ``*`` matches any text."""
    return any(fnmatchcase(found, wanted) for wanted in signatures)


def _check_that_it_was_looked_for(outcome: Outcome, signatures: tuple[str, ...]) -> None:
    for invariant in dict.fromkeys(wanted.partition(":")[0] for wanted in signatures):
        if invariant in outcome.not_checked:
            why = outcome.not_checked[invariant]
            raise OtherFailure(f"{invariant} was not checked, so that nothing is known of the bug: {why}", False)
