"""Files are written completely or not at all, and read without a traceback."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from sr_fuzz.bugs.known import KnownError, known_signatures
from sr_fuzz.outcome import Finding, Violation
from sr_fuzz.outcome.files import load, save_finding
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script import EngineConfig, Script, ScriptError, StartReq, to_json


def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "bug.json"
    path.write_text("old")
    whole = Path.write_bytes

    def half(self: Path, data: bytes) -> None:
        whole(self, data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left on device: .*bug.json"):
        write_whole(path, b"new and longer")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bug.json"] and path.read_text() == "old"


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path):
    """``--out /dev/stdout`` is such a case: root may replace a device by a file."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"text")
    reader.join(timeout=30)
    assert read == [b"text"] and pipe.is_fifo()


def test_a_link_is_followed(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").write_text("old")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_of_another_encoding_of_unicode_is_read(tmp_path: Path, encoding: str):
    """Editors and shells of some systems write a byte order mark, or two bytes for each character."""
    script = Script(EngineConfig(), (StartReq("r0"),))
    finding = Finding("kv_pages:leaked:radix", script, Violation("kv_pages", "leaked", "page 5", 9, "end"), "0.5.23")
    save_finding(finding, tmp_path / "finding.json")
    (tmp_path / "script.json").write_bytes(to_json(script))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_text().encode(encoding))
    assert load(tmp_path / "script.json").script == script
    assert load(tmp_path / "finding.json").finding == finding


def test_a_test_that_leaves_the_interpreter_is_one_line(tmp_path: Path):
    path = tmp_path / "test_a.py"
    path.write_text("import sys\nsys.exit('bye')\n")
    with pytest.raises(ScriptError, match="test_a.py: cannot be imported: SystemExit: bye"):
        load(path)


@pytest.mark.parametrize("text", ["-" * 100_000 + "1", "x" + ".a" * 100_000, "x = " + "1+" * 20_000 + "1"])
def test_source_that_is_nested_too_deeply_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "test_a.py").write_text(text)
    with pytest.raises(KnownError, match="test_a.py: not Python source") as refused:
        known_signatures(tmp_path)
    assert "\n" not in str(refused.value)
