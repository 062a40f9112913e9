"""Which SGLang this is, and whether it is one of the supported releases.

Differences between releases are decided by what a release *has* (a parameter, an attribute), not by its number,
wherever that can be seen; numbers only guard the supported range. What changed when:

=========  ==========================================================================================
release    what changed
=========  ==========================================================================================
0.5.17     configuration is published process-wide before anything reads it
0.5.19     a request's KV bookkeeping moved from the request into ``req.kv``; the unified tree, whose
           nodes go by integer ids, replaced ``RadixCache``, whose nodes are handed out themselves;
           a free group that is closed is None instead of a stale list
0.5.20     schedule policy ``hrrn``; pages freed late are staged in a list of tensors; model
           configurations are registered with ``exist_ok``, so that a newer ``transformers`` will do
0.5.21     the scheduler takes two arguments; ranks are published instead of passed
0.5.22     a request's tree lock is an object (``req.lock``) instead of following from ``last_node``;
           pages of more than one token are allocated without Triton where there is none
=========  ==========================================================================================
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import ModuleType

from packaging.version import InvalidVersion, Version

from sr_fuzz.script.errors import UnsupportedVersion

SUPPORTED = ("0.5.16", "0.5.23")


def check_version(found: str) -> str:
    """Return ``found`` if it is supported, else raise `UnsupportedVersion` with one clear line."""
    low, high = SUPPORTED
    try:
        version = Version(found)
        ok = Version(low) <= Version(version.base_version) <= Version(high)
    except InvalidVersion:
        ok = False
    if not ok:
        shown = " ".join(found.split()) or "without a version"
        raise UnsupportedVersion(
            f"SGLang {shown} is not supported: this sr_fuzz runs SGLang {low} to {high}; "
            f"install one of these, e.g. with `make venv`"
        )
    return found


def sglang_version() -> str:
    """The version of the SGLang that this process imports, checked."""
    import sglang

    return check_version(version_of(sglang))


def version_of(package: ModuleType) -> str:
    """The version of an imported package, which need not be the installed one: ``PYTHONPATH`` may put another first.

    ``__version__`` alone will not do: a source tree without a built ``_version.py`` answers with the version of
    whatever is installed. Raises `UnsupportedVersion` when nothing beside the package tells.
    """
    folder = Path(package.__file__).parent
    if (folder / "_version.py").exists():
        return package.__version__
    for distribution in metadata.distributions(name=package.__name__):
        if Path(distribution.locate_file(package.__name__)).resolve() == folder.resolve():
            return distribution.version
    raise UnsupportedVersion(
        f"the {package.__name__} in {folder.parent} does not say which version it is; install it with pip, "
        f"which writes {package.__name__}/_version.py"
    )
