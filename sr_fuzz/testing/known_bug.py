"""What a test of a known bug expects: the bug itself, and nothing else that its script may show by now."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import Script


def assert_bug_is_gone(outcome: Outcome, script: Script, *signatures: str) -> None:
    """Raise ``AssertionError``, the expected failure, when ``outcome`` shows the bug that has these signatures.

    In a signature ``*`` stands for anything. Another violation fails the test, also one that is marked ``xfail`` with
    ``raises=AssertionError``.
    """
    if outcome.violation is not None:
        found = signature(outcome.violation, script.config)
        if not any(fnmatchcase(found, wanted) for wanted in signatures):
            pytest.fail(f"its script shows something else, {found}\n{outcome.report()}", pytrace=False)
    assert outcome.ok, outcome.report()
