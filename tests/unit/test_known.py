"""The known list is made from emitted tests, which are read without running them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import leak

from sr_fuzz.bugs.known import KnownError, known_signatures
from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.outcome import Finding
from sr_fuzz.script import EngineConfig, Script, StartReq


def finding(signature: str) -> Finding:
    return Finding(signature, Script(EngineConfig(), (StartReq("r0"),)), leak(), "0.5.23")


CAUSE = "sgl-project/sglang#1: " + "a long story about pages, chunks and aborts; " * 5


def test_an_emitted_test_with_a_known_cause_is_known(tmp_path: Path):
    one = emit(finding("kv_pages:leaked:radix+overlap"), tmp_path, known_cause="short")
    long = "kv_pages:leaked:" + "trait+" * 40
    two = emit(finding(long), tmp_path, known_cause=CAUSE)
    assert known_signatures(tmp_path) == {
        "kv_pages:leaked:radix+overlap": (one, "short"),
        long: (two, CAUSE.strip()),
    }


def test_a_test_without_the_mark_is_not_known(tmp_path: Path):
    emit(finding("kv_pages:leaked:radix+overlap"), tmp_path)
    assert known_signatures(tmp_path) == {}


def test_a_bug_of_some_releases_is_known_in_these_alone(tmp_path: Path):
    path = emit(finding("liveness:lost:radix+overlap"), tmp_path, known_cause=CAUSE, releases=">=0.5.16,<0.5.22")
    known = {"liveness:lost:radix+overlap": (path, CAUSE.strip())}
    assert known_signatures(tmp_path, "0.5.21") == known_signatures(tmp_path) == known
    assert known_signatures(tmp_path, "0.5.22") == {}


def test_a_bug_may_be_known_by_several_signatures(tmp_path: Path):
    path = emit(finding("liveness:lost:radix+overlap"), tmp_path, known_cause="short")
    source = path.read_text()
    path.write_text(source.replace("SCRIPT = ", 'ALSO_SEEN_AS = ("liveness:lost:radix+normal", "a:b")\n\nSCRIPT = ', 1))
    assert known_signatures(tmp_path) == {
        signature: (path, "short")
        for signature in ("liveness:lost:radix+overlap", "liveness:lost:radix+normal", "a:b")
    }


def test_a_star_stands_for_the_kinds_of_engine_that_show_the_same(tmp_path: Path):
    path = emit(finding("exception:AssertionError:radix+overlap:79334c"), tmp_path, known_cause="short")
    also = 'ALSO_SEEN_AS = ("exception:AssertionError:*:79334c",)'
    path.write_text(path.read_text().replace("SCRIPT = ", f"{also}\n\nSCRIPT = ", 1))
    known = known_signatures(tmp_path)
    assert known["exception:AssertionError:no-radix+normal+paged:79334c"] == (path, "short")
    assert "exception:AssertionError:radix+overlap:000000" not in known
    assert "exception:RuntimeError:radix+overlap:79334c" not in known


def test_releases_that_cannot_be_read_are_named(tmp_path: Path):
    emit(finding("liveness:lost:radix+overlap"), tmp_path, known_cause="c", releases="up to 0.5.21")
    with pytest.raises(KnownError, match=r"test_\w+\.py: releases: expected a version specifier .*'up to 0\.5\.21'"):
        known_signatures(tmp_path, "0.5.21")


def test_a_mark_without_a_reason_is_known(tmp_path: Path):
    path = tmp_path / "test_x.py"
    path.write_text('SIGNATURE = "a:b"\n@pytest.mark.xfail\ndef test_x(sr_engine): ...\n')
    assert known_signatures(tmp_path) == {"a:b": (path, "")}


def test_files_are_not_run(tmp_path: Path):
    path = tmp_path / "test_x.py"
    path.write_text('raise SystemExit\nSIGNATURE = "a:b"\n@pytest.mark.xfail(reason="c")\ndef test_x(): ...\n')
    assert known_signatures(tmp_path) == {"a:b": (path, "c")}


def test_other_tests_and_a_missing_folder_are_no_trouble(tmp_path: Path):
    (tmp_path / "test_other.py").write_text("@pytest.mark.xfail(reason='x')\ndef test_other(): ...\n")
    (tmp_path / "conftest.py").write_text("((")
    assert known_signatures(tmp_path) == {}
    assert known_signatures(tmp_path / "missing") == {}


@pytest.mark.parametrize("content", [b"x = (\n", b"x = 1\0", b"\xff\xfe"])
def test_a_file_that_is_not_python_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "test_x.py").write_bytes(content)
    with pytest.raises(KnownError, match=r"test_x\.py.*: not Python source") as caught:
        known_signatures(tmp_path)
    assert "\n" not in str(caught.value)
