"""The names of SGLang that the built-in faults and fixes patch, read from their source.

A separate list would only repeat the source: the imports in the function of a fault, and the arguments of ``wrapped``
or ``patch.object``. The names are rows of the contract like any other.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from sr_fuzz.sglang_api.contract_table import Name
from sr_fuzz.sglang_api.versions import is_among

_ROOMS = {"catalogue": "the seeded fault", "fixes": "the fix"}

_PATCHING = ("wrapped", "object")
"""Names of the functions that patch: ``wrapped(owner, "name", ...)`` and ``patch.object(owner, "name", ...)``."""


@functools.cache
def fault_rows(version: str | None = None) -> tuple[Name, ...]:
    """Return a row for each name that a fault or a fix imports, and for each attribute that it patches there.

    Fixes of bugs that SGLang ``version`` does not have are left out; None stands for any version.
    """
    rows: dict[tuple[str, str, str], Name] = {}
    for room, what in _ROOMS.items():
        for path in sorted((Path(__file__).parent / room).glob("*.py")):
            for function in _functions(path):
                if is_among(version, _releases(function)) is False:
                    continue
                for module, name in _names(function):
                    row = Name(module, (name,), f"faults/{room}/{path.stem}", f"{what} {function.name}")
                    rows[module, name, function.name] = row
    return tuple(rows.values())


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef))


def _releases(function: ast.FunctionDef) -> str:
    """Return the releases that its decorator names; empty, which every version is among, where it names none."""
    calls = (node for node in function.decorator_list if isinstance(node, ast.Call))
    given = [ast.literal_eval(one.value) for call in calls for one in call.keywords if one.arg == "releases"]
    return given[0] if given else ""


def _names(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sglang."):
            module = node.module.removeprefix("sglang.")
            imported |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
    yield from imported.values()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and _called(node.func) in _PATCHING and len(node.args) > 1:
            owner, name = node.args[:2]
            if isinstance(owner, ast.Name) and owner.id in imported and isinstance(name, ast.Constant):
                module, attribute = imported[owner.id]
                # An attribute of a class, or of a module if a module was imported.
                is_class = attribute.lstrip("_")[:1].isupper()
                yield (module, f"{attribute}.{name.value}") if is_class else (f"{module}.{attribute}", name.value)


def _called(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
