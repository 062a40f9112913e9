"""Checks of what is installed, what will work, what is missing and how to get it.

The checks do not import SGLang, because that takes seconds and may fail with the very errors that they explain. Only
torch is imported, because a torch that cannot load its libraries looks intact from the outside. The checks for the
persistent and the server engine are in `live_checks`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sr_fuzz.doctor.check import Check, Torch
from sr_fuzz.doctor.live_checks import checks as live_checks
from sr_fuzz.engine.prerequisites import LIMITS, low_limits
from sr_fuzz.faults.names import fault_rows
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.contract import missing_rows, unreadable
from sr_fuzz.sglang_api.contract_table import CONTRACT, Name
from sr_fuzz.sglang_api.sources import has_rust_tree_core
from sr_fuzz.sglang_api.user_folders import why_no_cache
from sr_fuzz.sglang_api.versions import TESTED, imported_package, is_installed, untested, version_in

MIN_PYTHON = (3, 11)

# Measured on SGLang 0.5.23: 0.65 GB for the process that has SGLang and a scheduler loaded. Forked children share most
# of it; each further configuration and each worker adds some hundred megabytes.
MIN_FREE_GB = 2.0

_MOST_NAMES = 40
"""Of a tree under development a few names are missing; of another package hundreds, of which a screenful will do."""

_MOST_SEAMS = 3

NOT_TRIED = "not imported for a test: see limits"

_PR_GET_PDEATHSIG = 2
"""From Linux's ``prctl.h``: this call has no side effect and shows that ``prctl`` is available."""


def checks(first: Sequence[str] = ()) -> list[Check]:
    """Check this machine, required things first. Takes about two seconds, for importing torch; never raises.

    ``first``: the folders that an engine puts first on its path. SGLang is the one that it would import, which need not
    be the installed one; another one is also imported for a test, which takes ten seconds.
    """
    package, low, no_cache, free_gb = imported_package(first), low_limits(), why_no_cache(), free_memory_gb()
    # Within such limits torch may end this process, or import for minutes, and SGLang's source may not be read either.
    torch = load_torch() if not low else Torch("", NOT_TRIED, ())
    # What keeps every SGLang from being imported says nothing about this one.
    other = package if package is not None and not is_installed(package) else None
    tried = other is not None and not low and no_cache is None
    return [
        check_python(sys.version_info[:3]),
        check_torch(torch),
        check_sglang(version_in(package) if package is not None else None, tree=other),
        *([check_contract(_lacking(package), unreadable(package))] if package is not None and not low else []),
        *([check_tree_core(has_rust_tree_core(package))] if package is not None else []),
        check_platform(sys.platform, has_fork=hasattr(os, "fork"), has_prctl=can_prctl()),
        check_memory(free_gb),
        check_limits(low),
        check_home(no_cache),
        check_git(shutil.which("git")),
        check_gpu(torch),
        *live_checks(torch, free_gb),
        *([check_import(why_not_imported(other))] if other is not None and tried else []),
    ]


# -- looking ---------------------------------------------------------------------------------------------------


def load_torch() -> Torch:
    """Import torch and list its GPUs. A broken installation raises OSError as often as ImportError."""
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return Torch(torch.__version__, "", tuple(torch.cuda.get_device_name(i) for i in range(count)))
    except Exception as error:
        return Torch("", _one_line(error), ())


def can_prctl() -> bool:
    """Whether a child process can ask Linux to kill it when its parent ends."""
    try:
        signal = ctypes.c_int()
        return ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(signal), 0, 0, 0) == 0
    except (OSError, AttributeError, TypeError):
        return False


def free_memory_gb(control_group: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the memory available without swapping, in GB: the minimum of the machine's and the container's."""
    import psutil

    free = [psutil.virtual_memory().available]
    try:
        limit = int((control_group / "memory.max").read_text())
        used = int((control_group / "memory.current").read_text())
        stat = dict(line.split() for line in (control_group / "memory.stat").read_text().splitlines())
        # File cache counts as used, but the kernel drops it before it kills a process.
        free.append(limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or one without a limit ("max")
    return max(min(free), 0) / 1e9


def why_not_imported(package: Path) -> str | None:
    """Import that package as an engine does, in a process of its own, which takes ten seconds. None: it works."""
    from sr_fuzz.engine.local.engine import LocalEngine

    try:
        with LocalEngine(sys_path=[str(package.parent)]) as engine:
            _ = engine.sglang_version
    except EngineError as error:
        return str(error).partition("\n")[0]
    return None


# -- judging ---------------------------------------------------------------------------------------------------


def check_python(version: tuple[int, ...]) -> Check:
    ok = version[:2] >= MIN_PYTHON
    return Check(
        name="Python",
        ok=ok,
        found=".".join(map(str, version)),
        needed=f"{'.'.join(map(str, MIN_PYTHON))} or newer",
        how="" if ok else "install a newer Python, then: make PYTHON=/path/to/python distclean venv",
    )


def check_torch(torch: Torch) -> Check:
    return Check(
        name="torch",
        ok=bool(torch.version),
        found=torch.version or (NOT_TRIED if torch.error == NOT_TRIED else f"does not import: {torch.error}"),
        needed="any build that imports; a CPU build is enough",
        how="" if torch.version or torch.error == NOT_TRIED else _HOW_TORCH,
    )


_HOW_TORCH = "make distclean venv; the top of the Makefile says how to get a CPU build"


def check_sglang(found: str | None, *, tree: Path | None = None) -> Check:
    """``found``: its version; ``tree``: the package, None for the installed one."""
    low, high = TESTED
    where = f", in {tree}" if tree is not None and found is not None and str(tree.parent) not in found else ""
    return Check(
        name="SGLang",
        ok=found is not None,
        found="not installed" if found is None else found + ("" if untested(found) is None else ", not tested") + where,
        needed=f"any; tested with {low} to {high}",
        how="" if found is not None else "make venv, or: pip install --no-deps -r (a lock file of requirements/)",
    )


def _lacking(package: Path) -> tuple[Name, ...]:
    return missing_rows(package) + missing_rows(package, fault_rows(version_in(package)))


def check_contract(lacking: Sequence[Name], broken: Sequence[str] = ()) -> Check:
    """Check the names of SGLang that sr_fuzz relies on; a missing seam is an error, and a file that cannot be read.

    ``broken``: why files cannot be read; of the names in them nothing can be said.
    """
    if broken:
        return Check("contract", ok=False, found="; ".join(broken), needed="a source that Python can read")
    seams = [name.shown for name in lacking if name.seam]
    shown = [f"{name.lacking}; {name.cost}" for name in lacking if not name.seam]
    if len(shown) > _MOST_NAMES:
        shown[_MOST_NAMES:] = [f"and {len(shown) - _MOST_NAMES} names more"]
    more = f" and {len(seams) - _MOST_SEAMS} more" if len(seams) > _MOST_SEAMS else ""
    asked = len(CONTRACT) + len(fault_rows())
    found = f"{asked} names" if not lacking else f"{len(lacking)} of {asked} names are missing"
    return Check(
        name="contract",
        ok=not lacking,
        found=found + (f"; nothing can be played without {', '.join(seams[:_MOST_SEAMS])}{more}" if seams else ""),
        needed="what sr_fuzz asks of SGLang, read from its source",
        how="\n".join(shown),
        required=bool(seams),
    )


def check_tree_core(there: bool) -> Check:
    return Check(
        name="Rust core",
        ok=there,
        found="compiled" if there else "not there",
        needed="only for configurations of the set `rust`; any other uses the Python tree core",
        how="" if there else "build SGLang's Rust extensions in that tree",
        required=False,
    )


def check_import(problem: str | None) -> Check:
    """``problem``: why an engine cannot import the tree that was asked for."""
    return Check(
        name="import",
        ok=problem is None,
        found="an engine imports it" if problem is None else problem,
        needed="SGLang's scheduler can be imported",
        how="" if problem is None else "mend the tree, or name another one",
    )


def check_platform(platform: str, *, has_fork: bool, has_prctl: bool) -> Check:
    lacking = [name for name, there in (("os.fork", has_fork), ("prctl", has_prctl)) if not there]
    return Check(
        name="platform",
        ok=not lacking,
        found=f"{platform} without {' and '.join(lacking)}" if lacking else f"{platform} with os.fork and prctl",
        needed="Linux: each script runs in a forked process that dies with its parent",
        how="run in a Linux container or virtual machine" if lacking else "",
    )


def check_memory(free_gb: float) -> Check:
    ok = free_gb >= MIN_FREE_GB
    return Check(
        name="memory",
        ok=ok,
        found=f"{free_gb:.1f} GB free",
        needed=f"about {MIN_FREE_GB:.0f} GB",
        how="" if ok else "close other programs, or raise the container's memory limit",
    )


def check_limits(low: Sequence[str]) -> Check:
    """``low``: which limits of processes are too low for an engine, one line each."""
    return Check(
        name="limits",
        ok=not low,
        found=f"{len(low)} too low" if low else "none that matters",
        needed=", ".join(limit.shown for limit in LIMITS) + " for a process",
        how="\n".join(low),
    )


def check_home(problem: str | None) -> Check:
    """``problem``: why SGLang could not make its caches."""
    return Check(
        name="home",
        ok=problem is None,
        found="SGLang's caches can be made" if problem is None else "SGLang's caches cannot be made",
        needed="a home folder that can be written to",
        how=problem or "",
    )


def check_git(path: str | None) -> Check:
    return Check(
        name="git",
        ok=path is not None,
        found=path or "not found",
        needed="only to clone and to contribute",
        how="" if path else "install it with the system's package manager",
        required=False,
    )


def check_gpu(torch: Torch) -> Check:
    return Check(
        name="GPU",
        ok=bool(torch.gpus),
        found=", ".join(torch.gpus) or "none that torch can use",
        needed="only for the profile `gpu` and tests marked `gpu`",
        how="" if torch.gpus else "on a machine with a CUDA GPU, install a CUDA build of torch",
        required=False,
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
