"""Each known bug of SGLang is still there: an expected failure, strict, so that a fix in SGLang turns this test red.

Only the bug itself is expected: an engine that cannot play the script is no expected failure, and neither is another
violation that its script shows by now.
"""

from __future__ import annotations

import pytest

from sr_fuzz.bugs.catalogue import KnownBug, shipped
from sr_fuzz.testing.known_bug import BugShown, assert_bug_is_gone


def bugs(engine: str) -> list:
    """Test parameters: the bugs that this engine shows, each with the releases in which it is expected to."""
    return [
        pytest.param(
            bug,
            id=path.stem,
            marks=pytest.mark.xfail(strict=True, raises=BugShown, reason=bug.reason)
            if bug.releases is None
            else pytest.mark.sglang_bug(bug.releases, reason=bug.reason),
        )
        for path, bug in shipped().items()
        if bug.engine == engine
    ]


@pytest.mark.parametrize("bug", bugs("local"))
def test_it_shows(sr_engine, bug: KnownBug):
    assert_bug_is_gone(sr_engine.run(bug.script), bug.script, *bug.shown_in(sr_engine.sglang_version))


@pytest.mark.parametrize("bug", bugs("server"))
def test_it_shows_on_the_server(sr_server_engine, bug: KnownBug):
    assert_bug_is_gone(sr_server_engine.run(bug.script), bug.script, *bug.shown_in(sr_server_engine.sglang_version))
