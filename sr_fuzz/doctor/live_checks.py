"""Checks of what the live engines (persistent, server), several ranks and real models need."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sr_fuzz.cpu import missing_kernels
from sr_fuzz.doctor.check import Check, Torch, installed

SERVER_PACKAGES = ("aiohttp", "fastapi", "orjson", "python-multipart", "pyzmq", "soundfile", "uvicorn", "uvloop")
"""Distributions without which SGLang's HTTP server, or our HTTP client for it, cannot be imported."""

# Measured on SGLang 0.5.23: three processes with SGLang imported, one of them with a scheduler.
SERVER_GB = 2.0
# One more process.
RANK_GB = 0.7

# SGLang reports its load through a few KB; NCCL and gloo use some MB per rank. A container has 64 MB by default.
MIN_SHARED_MB = 32

# sun_path of unix(7) holds 108 bytes, the last of which is 0. The longest name that is appended to the folder for
# temporary files is that of an SGLang socket in an engine's private folder.
_MAX_SOCKET_PATH = 107
_SOCKET_NAME = len("/sr-fuzz-12345678/tmp/tmp12345678")


def checks(torch: Torch, free_gb: float) -> list[Check]:
    """Check this machine. None of the results is required: the local engine works without them."""
    return [
        check_packages({name: installed(name) for name in SERVER_PACKAGES}),
        check_shared_memory(shared_memory_mb()),
        check_sockets(tempfile.gettempdir()),
        check_ranks(len(torch.gpus), free_gb),
        check_kernels(missing_kernels.missing(), on_gpu=bool(torch.gpus)),
    ]


# -- looking ---------------------------------------------------------------------------------------------------


def shared_memory_mb(folder: Path = Path("/dev/shm")) -> float | None:
    """Return the free space for shared memory, in MB; None where nothing can be written."""
    return shutil.disk_usage(folder).free / 1e6 if os.access(folder, os.W_OK) else None


# -- judging ---------------------------------------------------------------------------------------------------


def check_packages(versions: Mapping[str, str | None]) -> Check:
    missing = [name for name, version in versions.items() if version is None]
    return Check(
        name="HTTP server",
        ok=not missing,
        found=f"without {', '.join(missing)}" if missing else f"its {len(versions)} packages",
        needed="only for the server engine",
        how=f"pip install --no-deps {' '.join(missing)}" if missing else "",
        required=False,
    )


def check_shared_memory(free_mb: float | None) -> Check:
    ok = free_mb is not None and free_mb >= MIN_SHARED_MB
    return Check(
        name="/dev/shm",
        ok=ok,
        found="cannot be written to" if free_mb is None else f"{free_mb:,.0f} MB free",
        needed=f"{MIN_SHARED_MB} MB, only for the server engine",
        how="" if ok else "mount it, or make it larger (a container: --shm-size=1g)",
        required=False,
    )


def check_sockets(folder: str) -> Check:
    longest = _MAX_SOCKET_PATH - _SOCKET_NAME
    ok = len(os.fsencode(folder)) <= longest
    return Check(
        name="sockets",
        ok=ok,
        found=f"in {folder}" + ("" if ok else f", a path of {len(os.fsencode(folder))} bytes"),
        needed=f"a path of at most {longest} bytes, only for the persistent and the server engine",
        how="" if ok else "set TMPDIR to a folder with a shorter path",
        required=False,
    )


def check_ranks(gpus: int, free_gb: float) -> Check:
    """``gpus``: 0 on the CPU."""
    fit = gpus or max(0, int((free_gb - SERVER_GB) / RANK_GB) + 1)
    ok = fit > 1
    more = "more GPUs" if gpus else "close other programs, or raise the container's memory limit"
    return Check(
        name="ranks",
        ok=ok,
        found=f"{fit} would fit",
        needed=f"2 and more only for --sr-tp, --sr-pp, --sr-dp; each takes a GPU, or {RANK_GB} GB on the CPU",
        how="" if ok else more,
        required=False,
    )


def check_kernels(missing: Sequence[str], *, on_gpu: bool) -> Check:
    return Check(
        name="GPU kernels",
        ok=not missing,
        found=f"without {', '.join(missing)}" if missing else ", ".join(missing_kernels.PACKAGES),
        needed="only for a real model on a GPU (--sr-model); the oracle model runs without",
        how="pip install sglang, with its dependencies" if missing and on_gpu else "",
        required=False,
    )
