"""Known findings: a folder of emitted tests, marked ``xfail`` with the cause of each.

The folder is read as source, never imported, so that a campaign starts at once and runs nobody's code.
"""

from __future__ import annotations

import ast
from pathlib import Path


class KnownError(ValueError):
    """A folder of known findings that cannot be read. The message is one line and names the file."""


def known_signatures(folder: Path) -> dict[str, tuple[Path, str]]:
    """``{signature: (file, reason)}`` for every open finding in ``folder``; empty when there is no such folder.

    A test without an ``xfail`` mark is not in it: its bug is mended, so that seeing it again is news.
    Raises `KnownError` for a file that is not Python.
    """
    known: dict[str, tuple[Path, str]] = {}
    for path in sorted(folder.glob("test_*.py")):
        tree = _parse(path)
        signature = _assigned(tree, "SIGNATURE")
        reason = _xfail_reason(tree)
        if signature is not None and reason is not None:
            known[signature] = (path, reason)
    return known


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else str(path)
        raise KnownError(f"{where}: not Python source: {getattr(error, 'msg', error)}") from None
    except OSError as error:
        raise KnownError(f"{path}: cannot be read: {error.strerror or error}") from None


def _assigned(tree: ast.Module, name: str) -> str | None:
    """The string assigned to ``name`` at module level."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return _constant_string(node.value)
    return None


def _xfail_reason(tree: ast.Module) -> str | None:
    """The reason of the first test's ``pytest.mark.xfail``; ``""`` where it gives none; None without the mark."""
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for decorator in function.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            mark = call.func if call else decorator
            if isinstance(mark, ast.Attribute) and mark.attr == "xfail":
                reasons = [k.value for k in call.keywords if k.arg == "reason"] if call else []
                return (_constant_string(reasons[0]) if reasons else None) or ""
    return None


def _constant_string(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
