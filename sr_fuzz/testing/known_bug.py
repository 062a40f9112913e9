"""The assertion of a test of a known bug, which fails as expected on that bug only."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import Script


def assert_bug_is_gone(outcome: Outcome, script: Script, *signatures: str) -> None:
    """Raise ``AssertionError``, the expected failure, when ``outcome`` shows the bug with these signatures.

    ``*`` in a signature matches any text. Another violation fails the test, even if it is marked ``xfail`` with
    ``raises=AssertionError``.
    """
    if outcome.violation is not None:
        found = signature(outcome.violation, script.config)
        if not any(fnmatchcase(found, wanted) for wanted in signatures):
            pytest.fail(f"its script shows something else, {found}\n{outcome.report()}", pytrace=False)
    assert outcome.ok, outcome.report()
