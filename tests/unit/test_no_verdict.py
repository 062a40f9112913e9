"""What is no verdict is exit status 2 with one line, whatever went wrong; 0 and 1 are answers that a script gave."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import error_of
from fake_engine import FakeEngine

from sr_fuzz import cli
from sr_fuzz.cli import errors

# -- files of Python that end more than themselves -------------------------------------------------------------

LEAVING = {
    "exit": ("import sys\nsys.exit(7)\n", "SystemExit: 7"),
    "exit with success": ("raise SystemExit\n", "SystemExit"),
    "skip": ("import pytest\npytest.skip('not here', allow_module_level=True)\n", "Skipped: not here"),
    "skip by import": ("import pytest\npytest.importorskip('no_such_module')\n", "Skipped: could not import"),
    "cancelled": ("import asyncio\nraise asyncio.CancelledError('late')\n", "CancelledError: late"),
    "generator": ("raise GeneratorExit\n", "GeneratorExit"),
    "nested": ("def f():\n    f()\nf()\n", "RecursionError: maximum recursion depth exceeded"),
    "syntax": ("def f(:\n", "SyntaxError: invalid syntax"),
    "no message": ("class E(Exception):\n    def __str__(self):\n        1 / 0\nraise E\n", "E: it has no message"),
    "long message": ("raise ValueError('x' * 200_000)\n", "ValueError: xxxxx"),
    "lines": ("raise ValueError('a\\nb\\x1b[31m')\n", r"ValueError: a b\x1b[31m"),
    "attribute": ("def __getattr__(name):\n    raise SystemExit(7)\n", "SystemExit: 7"),
    "zero bytes": ("\x00", "source code string cannot contain null bytes"),
}


@pytest.mark.parametrize("command", ["replay", "minimise", "emit", "confirm"])
@pytest.mark.parametrize("name", LEAVING)
def test_a_test_that_cannot_be_imported_is_one_line(command: str, name: str, tmp_path: Path, capsys):
    source, says = LEAVING[name]
    (tmp_path / "test_a.py").write_text(source)
    said = error_of([command, str(tmp_path / "test_a.py")], capsys)
    assert f"test_a.py: cannot be imported: {says}" in said or says in said
    assert said.rstrip("\n").isprintable() and len(said) < 600


def test_a_fault_whose_module_leaves_the_interpreter_is_one_line(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "leaving_faults.py").write_text("import sys\nsys.exit(7)\n")
    monkeypatch.chdir(tmp_path)
    said = error_of(["sensitivity", "--load", "leaving_faults:one"], capsys)
    assert said == "sr-fuzz: error: --load: fault 'leaving_faults:one': its module raised SystemExit: 7\n"


# -- errors of our own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [TypeError("unsupported\nformat"), KeyError("x"), SystemExit(7), SystemExit(0)])
def test_an_error_of_our_own_is_one_line_and_its_traceback_is_kept(
    engine: FakeEngine, script_file: Path, tmp_path: Path, raised: BaseException, monkeypatch, capsys
):
    def rule(script: object) -> None:
        raise raised

    engine.rule = rule
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = error_of(["replay", str(script_file)], capsys)
    assert said.startswith(f"sr-fuzz: error: sr_fuzz itself failed: {type(raised).__name__}")
    [kept] = tmp_path.glob("sr-fuzz-error-*.txt")
    assert str(kept) in said
    assert "in rule\n" in kept.read_text() and type(raised).__name__ in kept.read_text()


def test_a_traceback_that_cannot_be_kept_is_said(
    engine: FakeEngine, script_file: Path, tmp_path: Path, monkeypatch, capsys
):
    engine.rule = lambda script: 1 / 0
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    said = error_of(["replay", str(script_file)], capsys)
    assert "failed: ZeroDivisionError: division by zero; its traceback could not be kept: No such file" in said


def test_a_message_of_any_length_is_cut_in_its_middle(monkeypatch, capsys):
    def long() -> None:
        raise errors.InputError("--option: " + "x" * 100_000 + ": what to do " + "word " * 1000 + "the end")

    assert errors.exit_status(long) == 2
    said = capsys.readouterr().err
    assert said.startswith("sr-fuzz: error: --option: xxx") and said.endswith("the end\n") and len(said) < 1300


# -- output that cannot be written -----------------------------------------------------------------------------

PROGRAM = [sys.executable, "-m", "sr_fuzz"]


def run_in_shell(command: str, arguments: Sequence[str] = (), **options: object) -> subprocess.CompletedProcess[str]:
    whole = ["bash", "-c", f'"$0" -m sr_fuzz {command}', sys.executable, *arguments]
    return subprocess.run(whole, capture_output=True, text=True, check=False, **options)


def test_an_answer_that_cannot_be_written_is_none():
    ran = run_in_shell("configs > /dev/full")
    assert (ran.returncode, ran.stderr) == (2, f"sr-fuzz: error: standard output: {os.strerror(errno.ENOSPC)}\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_error(closed: str):
    assert run_in_shell(f"configs {closed}").returncode == 0
    assert run_in_shell(f"replay nowhere.json {closed}").returncode == 2


def test_an_error_that_cannot_be_written_is_a_status_all_the_same():
    assert run_in_shell("replay nowhere.json 2> /dev/full").returncode == 2


def test_a_terminal_without_such_characters_gets_escapes(tmp_path: Path):
    (tmp_path / "ä\udcff.json").write_bytes(b"[]")
    ascii_only = dict(os.environ, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    command = [*PROGRAM, "replay", tmp_path / "ä\udcff.json"]
    ran = subprocess.run(command, capture_output=True, env=ascii_only, check=False)
    assert ran.returncode == 2 and ran.stderr.startswith(b"sr-fuzz: error: /") and ran.stderr.count(b"\n") == 1
    assert b"expected an object with the fields config, actions" in ran.stderr


@pytest.mark.parametrize("command", ["replay {0}", "run", "doctor", "statistics", "sensitivity", "configs --check"])
def test_a_current_folder_that_is_gone_is_one_line(command: str, script_file: Path, tmp_path: Path):
    (tmp_path / "gone").mkdir()
    folder = f'cd "{tmp_path / "gone"}" && rmdir ../gone && '
    whole = ["bash", "-c", f'{folder}"$0" -m sr_fuzz {command.format(script_file)}', sys.executable]
    ran = subprocess.run(whole, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert "the current folder does not exist any more" in ran.stderr


# -- what is no file, or has no end ----------------------------------------------------------------------------


def test_a_file_without_an_end_is_not_read_to_it(capsys):
    assert "/dev/zero: larger than 16 MB" in error_of(["replay", "/dev/zero"], capsys)


def test_a_field_given_twice_among_many_is_found_at_once(tmp_path: Path, capsys):
    fields = ",".join(f'"k{number}":1' for number in range(200_000))
    (tmp_path / "a.json").write_text("{" + fields + ',"k199999":1}')
    assert "field `k199999` is given twice in one object" in error_of(["replay", str(tmp_path / "a.json")], capsys)


def test_names_of_files_are_shown_in_one_line(tmp_path: Path, capsys):
    said = error_of(["replay", str(tmp_path / "a\x1b[31mb\nc\udcff.json")], capsys)
    assert r"a\x1b[31mb\nc\udcff.json: cannot be read: No such file or directory" in said


# -- what is left behind ---------------------------------------------------------------------------------------


def test_a_run_that_finds_nothing_leaves_nothing(engine: FakeEngine, tmp_path: Path, monkeypatch, capsys):
    engine.rule = lambda script: None
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--max-scripts", "2", "--no-canary"]) == 0
    assert cli.main(["run", "--max-scripts", "2", "--no-canary", "--out", "a/b/c"]) == 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    assert cli.main(["run", "--max-scripts", "2", "--no-canary", "--out", "mine"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and not list((tmp_path / "mine").iterdir())


def test_a_folder_that_cannot_be_made_is_said_before_the_work_and_leaves_nothing(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for out in ("file", "file/below", f"above/{'x' * 300}"):
        said = error_of(["run", "--out", out], capsys)
        assert "--out: " in said and " cannot be written to: " in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_hypothesis_keeps_its_files_out_of_the_current_folder(tmp_path: Path):
    code = """
import sys
from sr_fuzz import cli
assert cli.main(["configs"]) == 0
from sr_fuzz.strategies import draw
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.scripts import scripts
assert len(draw.first(scripts(list(CONFIG_SETS["default"].values())), seed=1, count=5)) == 5
"""
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    environment.pop("HYPOTHESIS_STORAGE_DIRECTORY", None)
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path / "here", env=environment, stdout=subprocess.DEVNULL, check=True)
    assert list((tmp_path / "here").iterdir()) == []
    assert (tmp_path / "cache" / "sr-fuzz" / "hypothesis").is_dir()
