"""Lists every rule that can be reported, ``invariant:rule``, from the sources.

A rule is reported by building a `Problem` (in an invariant) or a `Violation` (anywhere). The names are read from the
syntax tree: a constant, a choice between constants, a text with names in it, a variable of the function, a parameter
with what the calls in the same file pass. What cannot be read so is listed in `BY_HAND`, and nothing else may be there.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sr_fuzz.invariants import ALL

ROOT = Path(__file__).resolve().parents[1]

BY_HAND: dict[tuple[str, str], tuple[str, ...]] = {
    # Every place where requests wait, joined.
    ("invariants/liveness.py", "check"): ("liveness:stuck_*",),
    # The name of the exception's class; SGLang's own idle check reports by raising.
    ("sr_fuzz/engine/player.py", "_exception"): ("exception:*", "sglang_idle_check:failed"),
    # The name of the signal, or how the process ended.
    ("sr_fuzz/engine/crash_outcomes.py", "_ended"): ("crash:*", "hang:timeout"),
    # It passes on what an invariant has found.
    ("sr_fuzz/play/monitor.py", "_check"): (),
}
"""By file and function: the rules that it builds from names that the sources do not have; ``*`` stands for anything."""


class Site(NamedTuple):
    """One place that reports a rule."""

    rule: str
    """``invariant:rule``, with ``*`` for what is known when it happens only."""
    place: str
    """``file:line``."""
    says: str
    """Its message, with an ellipsis for each value; empty where it is made elsewhere."""


class Unreadable(ValueError):
    """A name that the sources do not tell."""


@functools.cache
def sites() -> tuple[Site, ...]:
    """Every place that reports a rule, by file. Raises `Unreadable` for one that is neither readable nor `BY_HAND`."""
    files = sorted([*ROOT.glob("invariants/*.py"), *ROOT.glob("sr_fuzz/**/*.py")])
    return tuple(site for path in files for site in sites_of(path.read_text(), str(path.relative_to(ROOT))))


def rules() -> dict[str, list[Site]]:
    """The places of each rule; the rules are in the order in which invariants are checked, then the others."""
    order = {cls.name: at for at, cls in enumerate(ALL)}
    found: dict[str, list[Site]] = {}
    for site in sorted(sites(), key=lambda site: order.get(site.rule.partition(":")[0], len(order))):
        found.setdefault(site.rule, []).append(site)
    return found


def sites_of(
    source: str, name: str, by_hand: dict[tuple[str, str], tuple[str, ...]] = BY_HAND
) -> Iterator[Site]:
    """The places in one file; ``name`` is its path from the root."""
    module = _Module(ast.parse(source))
    for call, function in module.calls:
        kind = _called(call)
        if kind not in ("Problem", "Violation"):
            continue
        place = f"{name}:{call.lineno}"
        listed = by_hand.get((name, function.name if function is not None else ""))
        try:
            found = _problem(module, call, function, name) if kind == "Problem" else _violation(module, call, function)
        except Unreadable as error:
            if listed is None:
                raise Unreadable(f"{place}: {error}") from None
            found = list(listed)
        says = module.message(_argument(call, "message"), function)
        yield from (Site(rule, place, says) for rule in found)


def _problem(module: _Module, call: ast.Call, function: _Function, name: str) -> list[str]:
    stem = Path(name).stem
    # Those of a base class are reported by each class that is derived from it.
    owners = [cls.name for cls in ALL if any(base.__module__.endswith(f".{stem}") for base in cls.__mro__)]
    names = sorted(module.values(_argument(call, "rule"), function))
    return [f"{owner}:{rule}" for owner in owners for rule in names]


def _violation(module: _Module, call: ast.Call, function: _Function) -> list[str]:
    parts = (module.values(_argument(call, field), function) for field in ("invariant", "rule"))
    return sorted(":".join(pair) for pair in itertools.product(*parts))


_FIELDS = {"Problem": ("rule", "message"), "Violation": ("invariant", "rule", "message")}


def _argument(call: ast.Call, field: str) -> ast.expr:
    at = _FIELDS[_called(call)].index(field)
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    return call.args[at] if at < len(call.args) else named[field]


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


_Function = ast.FunctionDef | None


class _Module:
    """The syntax tree of one file, with what a name can stand for."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        self.calls = list(self._calls(tree, None))
        """Every call with the function that it is in, in the order of the file."""

    def _calls(self, node: ast.AST, function: _Function) -> Iterator[tuple[ast.Call, _Function]]:
        for child in ast.iter_child_nodes(node):
            inside = child if isinstance(child, ast.FunctionDef) else function
            if isinstance(child, ast.Call):
                yield child, inside
            yield from self._calls(child, inside)

    def values(self, node: ast.expr, function: _Function) -> set[str]:
        """The texts that an expression of ``function`` can be. Raises `Unreadable`."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.IfExp():
                return self.values(node.body, function) | self.values(node.orelse, function)
            case ast.JoinedStr():
                return {"".join(parts) for parts in itertools.product(*(self.values(n, function) for n in node.values))}
            case ast.FormattedValue():
                return self.values(node.value, function)
            case ast.Attribute(value=ast.Name(id=owner), attr="name"):
                known = {cls.name for cls in ALL if cls.__name__ == owner}
                if known:
                    return known
            case ast.Name():
                return self._of_name(node.id, function)
        raise Unreadable(f"`{ast.unparse(node)}` is no constant")

    def message(self, node: ast.expr, function: _Function) -> str:
        """What a message says whatever the values are, with an ellipsis for each of them; empty where that is all."""
        if isinstance(node, ast.Name):
            node = next(iter(self._assigned(node.id, function or self._tree)), node)
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.Call):  # several of the same kind, joined
            node = next((one for one in ast.walk(node) if isinstance(one, ast.JoinedStr)), node)
        parts = node.values if isinstance(node, ast.JoinedStr) else ()
        text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)
        return re.sub("…+", "…", text)

    def _of_name(self, name: str, function: _Function) -> set[str]:
        found: set[str] = set()
        for value in self._assigned(name, function or self._tree):
            found |= self.values(value, function)
        if not found and function is not None:
            found = self._passed(name, function) if name in _parameters(function) else self._of_name(name, None)
        if not found:
            raise Unreadable(f"nothing says what `{name}` is")
        return found

    def _assigned(self, name: str, scope: ast.AST) -> Iterator[ast.expr]:
        """The expressions that a name is assigned in a function, or at the top of the file."""
        nodes = scope.body if isinstance(scope, ast.Module) else ast.walk(scope)
        for node in nodes:
            match node:
                case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                    yield node.value
                case ast.For(target=ast.Name(id=target)) if target == name:
                    yield from _elements(node.iter)
                case ast.For(target=ast.Tuple(elts=targets)) if (at := _position(name, targets)) is not None:
                    yield from (one.elts[at] for one in self._pairs(node.iter, scope) if at < len(one.elts))

    def _pairs(self, node: ast.expr, scope: ast.AST) -> Iterator[ast.Tuple]:
        """The tuples that a loop goes through: those of a tuple, or the keys of a dictionary."""
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="items")):
                for value in self._assigned(name, scope):
                    yield from (ast.Tuple([key]) for key in getattr(value, "keys", ()))
            case _:
                yield from (one for one in _elements(node) if isinstance(one, ast.Tuple))

    def _passed(self, name: str, function: ast.FunctionDef) -> set[str]:
        """What the calls of a function in this file pass for a parameter."""
        parameters = _parameters(function)
        bound = parameters[:1] in (["self"], ["cls"])
        at = parameters.index(name) - bound
        found: set[str] = set()
        for call, caller in self.calls:
            if _called(call) == function.name:
                found |= self.values(_passed_at(call, name, at, len(parameters) - bound), caller)
        return found


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args]


def _passed_at(call: ast.Call, name: str, at: int, count: int) -> ast.expr:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    # Behind `*some` positions are counted from the end: the calls here leave no parameter out.
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    return call.args[at - count if starred else at]


def _elements(node: ast.expr) -> Sequence[ast.expr]:
    return node.elts if isinstance(node, (ast.Tuple, ast.List)) else ()


def _position(name: str, targets: Sequence[ast.expr]) -> int | None:
    return next((at for at, one in enumerate(targets) if isinstance(one, ast.Name) and one.id == name), None)
