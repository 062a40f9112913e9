"""Which functions of SGLang do what a trace shows, and which ones keep what an invariant looks at.

They are where a reader begins who looks for the cause of a violation that SGLang does not notice itself. The line
numbers come from the source of the release at hand; a function that it does not have is left out.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from sr_fuzz.sglang_api.releases import cache_folder
from sr_fuzz.sglang_api.sources import sglang_folder
from sr_fuzz.sglang_api.versions import installed_package, version_in


class Place(NamedTuple):
    """A function, below ``sglang/srt``."""

    file: str
    function: str


_SCHEDULER = "managers/scheduler.py"
_RESULTS = "managers/scheduler_components/batch_result_processor.py"

_ADMIT = (Place(_SCHEDULER, "get_new_batch_prefill"), Place("managers/schedule_policy.py", "add_one_req"))
_RELEASE = (Place("mem_cache/common.py", "release_kv_cache"),)
_LOCKS = (
    Place("mem_cache/unified_radix_cache.py", "inc_lock_ref"),
    Place("mem_cache/unified_radix_cache.py", "dec_lock_ref"),
)
_STREAM = (Place("managers/scheduler_components/output_streamer.py", "stream_output"),)
_ALLOCATE = (Place("mem_cache/allocation.py", "alloc_for_extend"), Place("mem_cache/allocation.py", "alloc_for_decode"))

BY_ACTION: dict[str, tuple[Place, ...]] = {
    "start_req": (Place(_SCHEDULER, "handle_generate_request"),),
    "abort": (Place(_SCHEDULER, "abort_request"),),
    "abort_all": (Place(_SCHEDULER, "abort_request"),),
    "pause": (Place(_SCHEDULER, "pause_generation"),),
    "continue": (Place(_SCHEDULER, "continue_generation"),),
    "flush_cache": (Place(_SCHEDULER, "flush_cache"),),
    "open_session": (Place(_SCHEDULER, "open_session"),),
    "close_session": (Place(_SCHEDULER, "close_session"),),
    "advance_clock": (Place(_SCHEDULER, "_poll_timeout_aborts"),),
}
"""What takes an action of a script, by the action's tag."""

BY_MODE: dict[str, tuple[Place, ...]] = {
    "extend": (Place(_SCHEDULER, "get_new_batch_prefill"), Place(_RESULTS, "process_batch_result_prefill")),
    "mixed": (Place(_SCHEDULER, "get_new_batch_prefill"), Place(_RESULTS, "process_batch_result_prefill")),
    "decode": (Place(_SCHEDULER, "update_running_batch"), Place(_RESULTS, "process_batch_result_decode")),
}
"""What makes a batch of that forward mode, and what takes its result."""

RETRACTED = (Place("managers/schedule_batch.py", "retract_decode"), Place("managers/schedule_batch.py", "release_req"))

ANSWERED = _STREAM

BY_INVARIANT: dict[str, tuple[Place, ...]] = {
    "kv_pages": _RELEASE,
    "request_rows": _RELEASE,
    "mamba_slots": _RELEASE,
    "tree_locks": _LOCKS,
    "window_locks": _LOCKS,
    "state_locks": _LOCKS,
    "kv_content": _ALLOCATE,
    "oracle_output": _ALLOCATE,
    "mamba_content": _ALLOCATE,
    "liveness": _ADMIT,
    "admission": _ADMIT,
    "priority": _ADMIT,
    "nobody_lost": RETRACTED,
    "retraction": RETRACTED,
    "streams": _STREAM,
    "usage": _STREAM,
    "aborts": (Place(_SCHEDULER, "abort_request"),),
    "sessions": (Place("session/session_controller.py", "create_req"),),
    "lora": (Place("lora/mem_pool.py", "prepare_lora_batch"),),
    "http_answers": (Place("managers/tokenizer_manager.py", "pause_generation"), *_STREAM),
    "paused_frozen": (Place(_SCHEDULER, "pause_generation"), Place(_SCHEDULER, "get_next_batch_to_run")),
    "chunks": (Place(_SCHEDULER, "get_new_batch_prefill"), Place("managers/schedule_policy.py", "add_chunked_req")),
}
"""What keeps the subject of an invariant: frees it, locks it, admits, answers."""


def package_of(version: str, tree: str | None) -> Path | None:
    """Return the package of a release or a source tree, where it lies on this machine; nothing is fetched."""
    try:
        if tree is not None:
            # A file names it, so only a folder counts: another source could start a download.
            return sglang_folder(tree) / "sglang" if Path(tree).is_absolute() and Path(tree).is_dir() else None
        installed = installed_package()
        if installed is not None and version_in(installed) == version:
            return installed
        cached = cache_folder() / f"sglang-{Version(version)}" / "sglang"
        return cached if cached.is_dir() else None
    except (RuntimeError, OSError, InvalidVersion):
        return None  # no such tree any more, no home, no release: the functions are named without their lines


def located(place: Place, package: Path | None) -> str | None:
    """Return ``managers/scheduler.py:5675 abort_request``; None where the package has no such function.

    ``package``: the folder of ``sglang``. Without one the line is left out.
    """
    if package is None:
        return f"{place.file} {place.function}"
    line = _lines(package / "srt" / place.file).get(place.function)
    return f"{place.file}:{line} {place.function}" if line is not None else None


@functools.cache
def _lines(path: Path) -> dict[str, int]:
    """Return the line of each function in a file, by its name; of several with one name the first."""
    try:
        source = path.read_text(errors="replace")
    except OSError:
        return {}
    found: dict[str, int] = {}
    for number, line in enumerate(source.splitlines(), 1):
        if (match := re.match(r"\s*(?:async )?def (\w+)\(", line)) is not None:
            found.setdefault(match[1], number)
    return found
