"""The files of the known bugs that ship with the package."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sr_fuzz.bugs.catalogue import KnownError, read_bug, shipped
from sr_fuzz.bugs.known import all_known
from sr_fuzz.emit.pytest_repro import stem
from sr_fuzz.outcome import Finding
from sr_fuzz.sglang_api.versions import RELEASES

ONE, BUG = next(iter(shipped().items()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[1]", "bug_format: this version of sr_fuzz reads 1, got null"),
        ({"bug_format": 2, "new_field": 1}, "bug_format: this version of sr_fuzz reads 1, got 2"),
        ({"also_seen_ass": []}, "unknown field `also_seen_ass`; the fields are bug_format, signature, reason, script"),
        ({"releases": "0.5"}, 'releases: expected a version specifier such as <0.5.22, got "0.5"'),
        ({"engine": "sever"}, 'engine: expected one of local, server, got "sever"'),
        ({"faces": {"<0.5.22": 3}}, "faces: expected an object in which each value is a text"),
        ({"violation": 3}, "violation: expected an object with the fields invariant, rule, message, step, when, locat"),
        ({"script": {"config": {}}}, "script: field `actions` is missing; the fields are config, actions, format"),
        ({"script": {"config": {"page_size": 3}, "actions": []}}, "script: config.max_total_tokens: expected a multip"),
        ("[" * 100_000, "nested too deeply to be a script"),
    ],
)
def test_a_broken_one_is_named_in_one_line(tmp_path: Path, change: str | dict, says: str):
    path = tmp_path / "bug.json"
    raw = msgspec.json.decode(ONE.read_bytes())
    path.write_bytes(change.encode() if isinstance(change, str) else msgspec.json.encode(raw | change))
    with pytest.raises(KnownError) as refused:
        read_bug(path)
    assert str(refused.value).startswith(f"{path}: {says}") and "\n" not in str(refused.value)


def test_what_it_shows_on_older_releases_is_expected_there_and_known_nowhere():
    face = "kv_pages:leaked:radix+overlap+sessions"
    [bug] = [bug for bug in shipped().values() if face in bug.faces.values()]
    assert face in bug.shown_in("0.5.16") and face not in bug.shown_in("0.5.23")
    assert face not in bug.signatures and face not in all_known(None, "0.5.16")


SEEN = [path for path, bug in shipped().items() if bug.violation is not None]


@pytest.mark.parametrize("path", SEEN, ids=[path.stem for path in SEEN])
def test_it_has_the_name_under_which_it_would_be_written_anew(path: Path):
    bug = shipped()[path]
    assert path.stem == stem(Finding(bug.signature, bug.script, bug.violation, bug.sglang_version))


PAGES = Path(__file__).parents[2] / "docs" / "findings"

OPEN = [path for path, bug in shipped().items() if bug.engine == "local" and bug.is_open_in(RELEASES[-1])]


@pytest.mark.parametrize("path", OPEN, ids=[path.stem for path in OPEN])
def test_a_page_leads_to_the_text_for_an_issue(path: Path):
    """Written by ``python -m bench.issues`` for the newest release; it quotes the bug's file."""
    told = (PAGES / "issues" / f"{path.stem}.md").read_text()
    assert f"Cause: {shipped()[path].reason}" in told
    assert all(head in told for head in ("### Describe the bug", "### Reproduction", "### Environment"))
    assert any(f"](issues/{path.stem}.md)" in page.read_text() for page in PAGES.glob("*.md"))
