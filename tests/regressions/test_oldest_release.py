"""The oldest supported release, beside the installed one: it shows the known bugs where their files say so."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from sr_fuzz.bugs.catalogue import KnownBug, shipped
from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.outcome import signature
from sr_fuzz.sglang_api.sources import sglang_folder
from sr_fuzz.sglang_api.versions import RELEASES

OLDEST = RELEASES[0]

BUGS = {path.stem: bug for path, bug in shipped().items() if bug.engine == "local"}


@pytest.fixture(scope="module")
def oldest_engine(pytestconfig: pytest.Config, sr_engine: Engine) -> Iterator[LocalEngine]:
    """``sr_engine`` is asked for because it skips where the profile has no device; nothing of it starts."""
    if pytestconfig.getoption("--sr-sglang") is not None:
        pytest.skip("test_known_bugs.py plays the release that --sr-sglang names")
    with LocalEngine(sys_path=[str(sglang_folder(OLDEST))]) as engine:
        yield engine


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_it_shows_where_its_file_says_so(oldest_engine: LocalEngine, bug: KnownBug):
    assert oldest_engine.sglang_version == OLDEST
    outcome = oldest_engine.run(bug.script)
    if not bug.is_open_in(OLDEST):
        assert outcome.ok, outcome.report()
        return
    assert outcome.violation is not None, "its file says that this release has it"
    found = signature(outcome.violation, bug.script.config)
    assert any(fnmatchcase(found, known) for known in bug.shown_in(OLDEST)), f"{found}: {outcome.report()}"
