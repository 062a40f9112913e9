"""The examples of docs/faults.md do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "faults.md").read_text()

EXAMPLE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)

COMMANDS = re.findall(r"^sr-fuzz (sensitivity --(?:fault|load) \S+(?: --set \S+)?)", PAGE, re.MULTILINE)
"""The commands that measure one fault; all faults take minutes, and are a job of their own."""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_fault_of_the_command_is_seen(command: str, tmp_path: Path):
    assert EXAMPLE is not None
    (tmp_path / "my_faults.py").write_text(EXAMPLE[1])
    run = [sys.executable, "-m", "sr_fuzz", *command.split()]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1 faults detected" in done.stdout
    promised = re.search(r"^(freed_too_early: \S+) after", PAGE, re.MULTILINE)
    assert promised is not None and (promised[1] in done.stdout or "--load" in command)


def test_both_kinds_of_example_are_there():
    assert len(COMMANDS) == 2 and any("--load" in command for command in COMMANDS)
