"""Import paths of faults and fixes in files written by earlier versions, in which they were part of the tests."""

from __future__ import annotations

_PACKAGES = {"tests.mends.": "sr_fuzz.faults.fixes.", "tests.faults.": "sr_fuzz.faults.catalogue."}

_MODULES = {"endings": "finishes", "hybrid": "hybrid_caches"}
"""Modules of the catalogue that have been renamed: old name -> new name."""


def current(path: str) -> str:
    """Return the current path of ``module:function``; any other path is returned unchanged."""
    for old, new in _PACKAGES.items():
        if path.startswith(old):
            module, colon, function = path.removeprefix(old).partition(":")
            return f"{new}{_MODULES.get(module, module)}{colon}{function}"
    return path
