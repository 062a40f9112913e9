"""What ends a process from outside is told from what SGLang does to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_fuzz.engine.outside import ended_by_sglang, oom_kills, signal_in, why_killed


def files(folder: Path, groups: str, **counters: str) -> tuple[Path, Path]:
    """A list of control groups, and a mount with these files in it."""
    (folder / "cgroup").write_text(groups)
    for path, text in counters.items():
        file = folder / "mount" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "cgroup", folder / "mount"


V2 = "low 0\nhigh 0\nmax 412\noom 3\noom_kill 2\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


@pytest.mark.parametrize(
    ("groups", "counters", "expected"),
    [
        ("0::/user.slice/job\n", {"user.slice/job/memory.events": V2}, 2),
        ("0::/outside/of/the/namespace\n", {"memory.events": V2}, 2),
        ("5:cpu:/a\n4:memory:/box\n0::/\n", {"memory/box/memory.oom_control": V1}, 5),
        ("4:hugetlb,memory:/box\n", {"memory/memory.oom_control": V1}, 5),
        ("4:memory:/box\n", {"memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
    ],
    ids=["version 2", "namespace", "version 1", "version 1 at its root", "old kernel", "no counter", "no group"],
)
def test_kills_for_lack_of_memory_are_counted(tmp_path: Path, groups: str, counters: dict[str, str], expected):
    assert oom_kills(*files(tmp_path, groups, **counters)) == expected


def test_without_a_list_of_groups_nothing_is_said(tmp_path: Path):
    assert oom_kills(tmp_path / "none", tmp_path) is None


def test_what_ended_it():
    assert "lack of memory" in why_killed("SIGKILL", 2, 3)
    for before, now in ((2, 2), (None, 3), (3, None)):
        assert why_killed("SIGKILL", before, now) == "the scheduler process was ended from outside by SIGKILL"
    assert why_killed("SIGTERM", 2, 3) == "the scheduler process was ended from outside by SIGTERM"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGQUIT"])
def test_a_crash_of_its_own_is_a_finding(name: str):
    assert why_killed(name, 2, 3) is None


def test_what_sglang_logs_after_a_kill_from_outside_is_a_reaction_to_it():
    """Its watchdog sees the death within a second and ends the other processes."""
    seen = "Subprocess scheduler (pid=7) crashed with exit code -9. Triggering SIGQUIT for cleanup\nkill_process_tree"
    assert not ended_by_sglang(f"a request came\n{seen}") and signal_in(seen) == "SIGKILL"
    assert signal_in(seen.replace("-9", "1")) is None
    assert ended_by_sglang(f"Scheduler hit an exception: Traceback\n{seen}")
    assert ended_by_sglang(seen.replace("-9", "1"))
