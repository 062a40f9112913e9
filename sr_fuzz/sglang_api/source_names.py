"""Finds which names a source tree of SGLang defines, from its source, without importing it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "sglang."

# Maximum depth to which base classes are followed; SGLang's own hierarchies are shallower.
_MAX_BASES = 8


class SourceNames:
    """Looks names up in the modules of one package."""

    def __init__(self, package: Path) -> None:
        """``package``: the folder of the package ``sglang``."""
        self._package = package
        self.unreadable: dict[str, str] = {}
        """Why a file that was looked at cannot be read, by its path."""
        self._module = functools.cache(self._parse)

    def has(self, module: str, name: str) -> bool:
        """Whether ``module`` (``srt.managers.scheduler``) defines or imports ``name``.

        ``name`` is a function, a class, a constant, or ``Class.attribute``: a method, a field, or an attribute that a
        method of the class or of one of its bases assigns to ``self``. If it is empty, the module itself is looked up.
        """
        owner, _, attribute = name.partition(".")
        if name and not attribute and self._file(f"{module}.{owner}") is not None:
            return True  # a package, which need not have a file of its own
        tree = self._module(module)
        if tree is None or not name:
            return tree is not None
        if not attribute:
            return owner in _defined(tree)
        return self._class_has(module, owner, attribute, _MAX_BASES)

    def _class_has(self, module: str, name: str, attribute: str, depth: int) -> bool:
        found = self._class(module, name, depth)
        if found is None or depth == 0:
            return False
        where, node = found
        if attribute in attributes(node):
            return True
        bases = (base.id for base in node.bases if isinstance(base, ast.Name))
        return any(self._class_has(where, base, attribute, depth - 1) for base in bases)

    def _class(self, module: str, name: str, depth: int) -> tuple[str, ast.ClassDef] | None:
        """Return the class of that name in the module, or in the module from which it is imported."""
        tree = self._module(module)
        if tree is None or depth == 0:
            return None
        for node in _statements(tree):
            if isinstance(node, ast.ClassDef) and node.name == name:
                return module, node
            if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith(_PREFIX):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._class(node.module.removeprefix(_PREFIX), alias.name, depth - 1)
        return None

    def _parse(self, module: str) -> ast.Module | None:
        path = self._file(module)
        if path is None:
            return None
        try:
            return ast.parse(path.read_bytes(), filename=str(path))
        except SyntaxError as error:
            self.unreadable[str(path)] = f"{type(error).__name__}: {error.msg}, at {path}:{error.lineno}"
        except (ValueError, OSError) as error:
            self.unreadable[str(path)] = f"{type(error).__name__}: {error}, at {path}"
        return None  # a module that cannot be read has no names

    def _file(self, module: str) -> Path | None:
        path = self._package.joinpath(*module.split("."))
        found = (candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file())
        return next(found, None)


@functools.cache
def _statements(tree: ast.Module) -> tuple[ast.stmt, ...]:
    """Return the module's statements, including those under ``if`` and ``try``."""
    return tuple(_walk(tree))


def _walk(tree: ast.Module) -> Iterator[ast.stmt]:
    waiting: list[ast.stmt] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            handlers = getattr(node, "handlers", ())
            inner = [*node.body, *getattr(node, "orelse", ()), *(line for one in handlers for line in one.body)]
            waiting += reversed(inner)


@functools.cache
def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names |= {target.id for target in _targets(node) if isinstance(target, ast.Name)}
    return names


@functools.cache
def attributes(node: ast.ClassDef) -> set[str]:
    """Return the names that the class body defines, and those that its functions assign to ``self``."""
    names: set[str] = set()
    for inner in node.body:
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(inner.name)
        elif isinstance(inner, (ast.Assign, ast.AnnAssign)):
            names |= {target.id for target in _targets(inner) if isinstance(target, ast.Name)}
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Assign, ast.AnnAssign)):
            names |= {
                target.attr
                for target in _targets(inner)
                if isinstance(target, ast.Attribute)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
            }
    return names


def _targets(node: ast.Assign | ast.AnnAssign) -> Iterator[ast.expr]:
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        yield from target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
