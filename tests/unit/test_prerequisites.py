"""What no engine can start without, a home folder and high enough limits, is said at once and says what to do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sr_fuzz.doctor import installation as doctor
from sr_fuzz.engine import prerequisites
from sr_fuzz.engine.options import choose, make_engine
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api import releases, user_folders

NO_HOME = "there is no home folder: HOME is not set, and the password file has no entry for this user; set HOME to a"


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user id without an entry in the password file, in a container."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


def why_no_engine() -> str:
    with pytest.raises(EngineError) as refused:
        make_engine(choose(), faults=(), sys_path=())
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_no_engine_is_made_and_no_release_is_fetched():
    assert why_no_engine().startswith(NO_HOME)
    with pytest.raises(EngineError, match="there is no home folder"):
        releases.release_folder("0.5.20")


def test_a_home_folder_that_cannot_be_written_to_is_said_with_what_to_do(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("SGLANG_CACHE_DIR", raising=False)
    said = why_no_engine()
    assert f"it makes caches in {tmp_path / 'file' / '.cache' / 'sglang'}, which cannot be written to" in said
    assert said.endswith("set HOME to a folder that can be written to")
    # The caches may lie elsewhere.
    monkeypatch.setenv("SGLANG_CACHE_DIR", str(tmp_path / "caches"))
    assert user_folders.why_no_cache() is None
    assert not (tmp_path / "caches").exists(), "looking makes nothing"


def test_caches_that_are_there_are_not_asked_about(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SGLANG_CACHE_DIR", raising=False)
    (tmp_path / ".cache" / "sglang").mkdir(parents=True)
    assert user_folders.why_no_cache() is None


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    def limit(kind: int, soft: int, hard: int) -> None:
        real = resource.getrlimit
        monkeypatch.setattr(resource, "getrlimit", lambda asked: (soft, hard) if asked == kind else real(asked))

    return limit


@pytest.mark.parametrize(
    ("kind", "soft", "hard", "says"),
    [
        (
            resource.RLIMIT_AS, 512_000_000, -1,
            "ulimit -v is too low: a process of an engine needs 2 GB of addresses; raise it with ulimit -S -v hard",
        ),
        (resource.RLIMIT_AS, 512_000_000, 512_000_000, "2 GB of addresses; raise it where it is set"),
        (resource.RLIMIT_DATA, 300_000_000, -1, "ulimit -d is too low: a process of an engine needs 1 GB of data"),
        (resource.RLIMIT_NOFILE, 24, 4096, "ulimit -n is too low: a process of an engine needs 128 open files"),
    ],
)  # fmt: skip
def test_a_limit_that_is_too_low_is_said_before_anything_is_started(
    kind: int, soft: int, hard: int, says: str, limited: Callable[[int, int, int], None]
):
    limited(kind, soft, hard)
    assert says in why_no_engine()


def test_doctor_sees_it_and_does_not_try_what_would_take_minutes(
    limited: Callable[[int, int, int], None], tmp_path: Path
):
    (tmp_path / "sglang").mkdir()
    (tmp_path / "sglang" / "__init__.py").write_text("")
    limited(resource.RLIMIT_AS, 512_000_000, -1)
    found = {check.name: check for check in doctor.checks([str(tmp_path)])}
    assert not found["limits"].ok and found["limits"].required
    assert "raise it with ulimit -S -v hard" in found["limits"].how
    assert found["torch"].found == doctor.NOT_TRIED and found["torch"].how == ""
    assert "import" not in found and "contract" not in found


@pytest.mark.usefixtures("no_home")
def test_doctor_sees_that_there_is_no_home():
    [home] = [check for check in doctor.checks() if check.name == "home"]
    assert not home.ok and home.required and home.how.startswith(NO_HOME)


def test_a_healthy_process_has_all_of_it():
    assert prerequisites.low_limits() == [] and user_folders.why_no_cache() is None
    prerequisites.check()


@pytest.mark.parametrize("command", ["replay", "doctor"])
def test_the_command_line_says_it_at_once(command: str, script_file: Path):
    """Within this limit the import of SGLang would take the three minutes after which it is given up."""
    file = str(script_file) if command == "replay" else ""
    limited = ["bash", "-c", f'ulimit -v 500000; "$0" -m sr_fuzz {command} {file}', sys.executable]
    ran = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    says = "ulimit -v is too low: a process of an engine needs 2 GB of addresses"
    assert says in (ran.stderr if command == "replay" else ran.stdout)
    assert "Traceback" not in ran.stderr
