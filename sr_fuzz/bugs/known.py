"""Known findings: the bugs that ship with the package, and a folder of emitted tests, marked with the cause of each.

``xfail`` stands for a bug that is open in every release, ``sglang_bug(releases, reason=...)`` for one of the releases
that a version specifier (PEP 440) names. One bug may break several rules, or one rule on several kinds of engine: then
its test lists the other signatures in ``ALSO_SEEN_AS``, a tuple of strings, in which ``*`` stands for anything. The
folder is read as source, never imported, so that a campaign starts at once and runs no code of others.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import InvalidSpecifier

from sr_fuzz.bugs.catalogue import KnownError, shipped
from sr_fuzz.outcome.files import finding_beside, is_readable, named, violation_beside
from sr_fuzz.outcome.identity import renewed
from sr_fuzz.script import Script
from sr_fuzz.script.errors import ScriptError
from sr_fuzz.script.wording import one_line, shortened
from sr_fuzz.sglang_api.versions import is_among


class _Mark(NamedTuple):
    """What says that a bug is open."""

    reason: str
    releases: str | None
    """A version specifier; None for all of them."""


class Known(Mapping[str, tuple[Path, str]]):
    """``{signature: (file, reason)}``; a key with ``*`` in it holds for every signature that it matches.

    Several bugs can have one signature: the mapping gives the first of them, `candidates` gives all.
    """

    def __init__(self, entries: Iterable[tuple[str, tuple[Path, str]]]) -> None:
        self._entries: dict[str, list[tuple[Path, str]]] = {}
        for key, bug in entries:
            self.add(key, bug)

    def candidates(self, signature: str) -> tuple[tuple[Path, str], ...]:
        """Return file and reason of each bug with that signature: those that name it, then those whose pattern
        matches it."""
        named = self._entries.get(signature, [])
        patterns = [key for key in self._entries if "*" in key and fnmatchcase(signature, key)]
        return tuple(dict.fromkeys([*named, *(bug for key in patterns for bug in self._entries[key])]))

    def add(self, signature: str, bug: tuple[Path, str]) -> None:
        """Add a bug that turned out to have that signature too."""
        bugs = self._entries.setdefault(signature, [])
        if bug not in bugs:
            bugs.append(bug)

    def pairs(self) -> list[tuple[str, tuple[Path, str]]]:
        """Return all entries as they were given."""
        return [(key, bug) for key, bugs in self._entries.items() for bug in bugs]

    def __getitem__(self, signature: str) -> tuple[Path, str]:
        bugs = self.candidates(signature)
        if not bugs:
            raise KeyError(signature)
        return bugs[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def known_signatures(folder: Path, sglang_version: str | None = None) -> Known:
    """Every finding in ``folder`` that is open in that release (None: in any).

    Empty when there is no such folder. A test without a mark is not in it: its bug is mended, so that seeing it again
    is news. Raises `KnownError` for a file that is not Python, or names releases in no way that can be read.
    """
    known: list[tuple[str, tuple[Path, str]]] = []
    for path in _tests(folder):
        tree = _parse(path)
        signatures, mark = _signatures(tree), _mark(tree)
        if signatures and mark is not None and _open_in(sglang_version, mark, path):
            known += [(signature, (path, mark.reason)) for signature in _renewed(signatures, path)]
    return Known(known)


def emitted_in(folder: Path, sglang_version: str | None = None) -> Iterator[tuple[Path, list[str], str]]:
    """Give each emitted test in ``folder``, marked or not: its path, its signatures, and the reason of its mark or "".

    A test may have a folder of its own there. One whose mark names other releases than ``sglang_version`` is left out.
    A file that cannot be read is none: the folder is a user's, and may hold anything.
    """
    for path in filter(is_readable, sorted({*folder.glob("*.py"), *_tests(folder)})):
        try:
            tree = _parse(path)
            signatures, mark = _renewed(_signatures(tree), path), _mark(tree)
            is_open = mark is None or _open_in(sglang_version, mark, path)
        except KnownError:
            continue
        if signatures and is_open:
            yield path, signatures, mark.reason if mark is not None else ""


def all_known(folder: Path | None, sglang_version: str | None = None) -> Known:
    """The shipped bugs that are open in that release, and those of a user's ``folder``; see `known_signatures`."""
    entries = [
        (signature, (path, bug.reason))
        for path, bug in shipped().items()
        if bug.is_open_in(sglang_version)
        for signature in bug.signatures
    ]
    own = known_signatures(folder, sglang_version).pairs() if folder is not None else []
    return Known([*own, *entries])


def script_of(path: Path) -> Script | None:
    """The script that shows a known bug: a shipped one, or that of the finding beside a user's test. None without."""
    bug = shipped().get(path)
    if bug is not None:
        return bug.script
    finding = finding_beside(path)
    return finding.script if finding is not None else None


def all_fixes(
    folder: Path | None, sglang_version: str | None = None, *, server: bool = False
) -> dict[Path, tuple[str, ...]]:
    """What mends the shipped bugs that are open in that release, and those of a user's ``folder``; see `fixes`.

    ``server``: whether it is for the server engine. Elsewhere the fix of a bug that only a server has mends nothing.
    """
    own = {
        path: bug.fixes
        for path, bug in shipped().items()
        if bug.fixes and bug.is_open_in(sglang_version) and (server or bug.engine != "server")
    }
    return own | (fixes(folder, sglang_version) if folder is not None else {})


def fixes(folder: Path, sglang_version: str | None = None) -> dict[Path, tuple[str, ...]]:
    """Import paths of what mends the bugs that are open in that release (``FIXED_BY``), by the file of their test.

    ``FIXED_BY`` is a string, or a tuple of them where a test shows more than one bug; the last version called it
    ``MENDED_BY``.
    """
    found: dict[Path, tuple[str, ...]] = {}
    for path in _tests(folder):
        tree = _parse(path)
        value, mark = _assigned(tree, "FIXED_BY") or _assigned(tree, "MENDED_BY"), _mark(tree)
        # Only literals are read; without one there is no fix to play.
        strings = _strings(value) if value is not None else ()
        if strings and mark is not None and _open_in(sglang_version, mark, path):
            found[path] = strings
    return found


def _tests(folder: Path) -> list[Path]:
    """The tests in a folder, and those that have a folder of their own there."""
    own = (path for path in folder.glob("*/test_*.py") if path.stem == f"test_{path.parent.name}")
    return sorted([*folder.glob("test_*.py"), *own])


def _renewed(signatures: Iterable[str], path: Path) -> list[str]:
    try:
        violation = violation_beside(path)
    except ScriptError as error:
        raise KnownError(str(error)) from None
    return [renewed(signature, violation) for signature in signatures]


def _open_in(version: str | None, mark: _Mark, path: Path) -> bool:
    if mark.releases is None:
        return True
    try:
        return is_among(version, mark.releases) is not False
    except InvalidSpecifier:
        expected, got = "expected a version specifier such as <0.5.22", shortened(repr(mark.releases))
        raise KnownError(f"{named(path)}: releases: {expected}, got {got}") from None


def _parse(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of an escape in a text: the file is not ours to judge
            return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{named(path)}:{line}" if line else named(path)
        raise KnownError(f"{where}: not Python source: {one_line(str(getattr(error, 'msg', error)))}") from None
    except OSError as error:
        raise KnownError(f"{named(path)}: cannot be read: {error.strerror or error}") from None


def _signatures(tree: ast.Module) -> list[str]:
    """``SIGNATURE``, then what ``ALSO_SEEN_AS`` lists; empty for a test that sr-fuzz has not emitted."""
    own, others = _assigned(tree, "SIGNATURE"), _assigned(tree, "ALSO_SEEN_AS")
    if own is None:
        return []
    return [*_strings(own), *(_strings(others) if others is not None else ())]


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """What is assigned to ``name`` at module level; the last assignment holds, as when the file is run."""
    for node in reversed(tree.body):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value
    return None


def _mark(tree: ast.Module) -> _Mark | None:
    """The first test's mark ``xfail`` or ``sglang_bug``, its reason ``""`` where it gives none; None without a mark."""
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for decorator in function.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            name = call.func if call else decorator
            if not isinstance(name, ast.Attribute) or name.attr not in ("xfail", "sglang_bug"):
                continue
            reasons = [k.value for k in call.keywords if k.arg == "reason"] if call else []
            reason = (_constant_string(reasons[0]) if reasons else None) or ""
            releases = _constant_string(call.args[0]) if name.attr == "sglang_bug" and call and call.args else None
            return _Mark(reason, releases)
    return None


def _strings(node: ast.expr) -> tuple[str, ...]:
    """A string, or those of a tuple or list."""
    nodes = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    return tuple(text for text in map(_constant_string, nodes) if text is not None)


def _constant_string(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
