"""Import paths of faults and fixes in files that earlier versions wrote: they lay in the tests then."""

from __future__ import annotations

_PACKAGES = {"tests.mends.": "sr_fuzz.faults.fixes.", "tests.faults.": "sr_fuzz.faults.catalogue."}

_MODULES = {"endings": "finishes", "hybrid": "hybrid_caches"}
"""Modules of the catalogue that have another name now."""


def current(path: str) -> str:
    """``module:function`` where it is now; any other path as it is."""
    for old, new in _PACKAGES.items():
        if path.startswith(old):
            module, colon, function = path.removeprefix(old).partition(":")
            return f"{new}{_MODULES.get(module, module)}{colon}{function}"
    return path
