"""Our scripted runtime has what SGLang's has, name by name: classes, methods, properties, functions, defaults.

SGLang's side is parsed, not imported: its server module needs packages that running a scheduler does not need.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sr_fuzz.testing import scripted_runtime

RELEASE = "0.5.23"

pytestmark = pytest.mark.skipif(
    metadata.version("sglang") != RELEASE, reason=f"the names are those of SGLang {RELEASE}, another one is installed"
)

HELPERS = "scripted_runtime_chunked_helpers.py"

# SGLang's class -> (its file, our module).
CLASSES = {
    "ScriptedContext": ("scripted_runtime/context/api.py", "sr_fuzz.testing.scripted_runtime"),
    "ScriptedReqHandle": ("scripted_runtime/req_handle.py", "sr_fuzz.testing.scripted_runtime"),
    "ScriptedHttpServer": ("scripted_runtime/http_server.py", "sr_fuzz.testing.scripted_runtime"),
    "ScriptedTestCase": ("scripted_runtime/test_case.py", "sr_fuzz.testing.scripted_runtime"),
    "ScriptedBatchRecord": ("scripted_runtime/scheduler_hook.py", "sr_fuzz.testing.scripted_runtime"),
    "BackgroundHttpPoster": ("scripted_runtime/background_http_poster.py", "sr_fuzz.testing.scripted_runtime"),
    "ScriptedTokenizerRecvProxy": ("scripted_runtime/tokenizer_recv_proxy.py", "sr_fuzz.testing.scripted_runtime"),
    "ScriptedSchedulerHook": ("scripted_runtime/scheduler_hook.py", "sr_fuzz.runtime.hook"),
    "ScriptedKvPoolExhauster": ("scripted_runtime/context/kv_pool_exhauster.py", "sr_fuzz.runtime.exhausters"),
    "ScriptedLockRefExhauster": ("scripted_runtime/context/lock_ref_exhauster.py", "sr_fuzz.runtime.exhausters"),
}

# All differences, with the reason. An entry that is no longer a difference fails the test too.
DIFFERENCES = {
    "ScriptedContext.__init__": "made by the engines alone; it takes a transport, which is HTTP on one engine only",
    "ScriptedHttpServer.__init__": "made by `start`; the processes behind it are others",
    "ScriptedSchedulerHook.__init__": "made by the engines alone; it drives any generator, no dispatch loop of its own",
    "ScriptedTokenizerRecvProxy.wait_until_arrived": "the default of a description, which only a time-out shows",
}

# Not public by name, but called by SGLang's own tests.
USED_ALL_THE_SAME = {"__init__", "_release_exhausted_pools"}


class Parameter(NamedTuple):
    name: str
    kind: inspect._ParameterKind
    default: Any


# -- SGLang's side, parsed -------------------------------------------------------------------------------------


def parsed(file: str) -> ast.Module:
    folder = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])
    return ast.parse((folder / "test" / file).read_text())


def constants_of(module: ast.Module) -> dict[str, Any]:
    """Module-level names that are bound to literals."""
    found = {}
    for node in module.body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and node.value is not None:
            try:
                found[target.id] = ast.literal_eval(node.value)
            except ValueError:
                pass
    return found


def class_body(file: str, name: str) -> list[ast.stmt]:
    return next(node.body for node in parsed(file).body if isinstance(node, ast.ClassDef) and node.name == name)


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef, constants: dict[str, Any]) -> list[Parameter]:
    def value(node: ast.expr | None) -> Any:
        if node is None:
            return inspect.Parameter.empty
        return constants[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

    args = function.args
    positional = args.posonlyargs + args.args
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    kinds = inspect.Parameter
    found = [Parameter(a.arg, kinds.POSITIONAL_OR_KEYWORD, value(d)) for a, d in zip(positional, defaults)]
    found += [Parameter(a.arg, kinds.KEYWORD_ONLY, value(d)) for a, d in zip(args.kwonlyargs, args.kw_defaults)]
    if args.kwarg is not None:
        found.append(Parameter(args.kwarg.arg, kinds.VAR_KEYWORD, inspect.Parameter.empty))
    return found


# -- comparing -------------------------------------------------------------------------------------------------


def parameter_differences(theirs: list[Parameter], ours: Any) -> str:
    """What is different for a call that SGLang accepts; empty when every such call means the same here."""
    mine = inspect.signature(ours).parameters
    for position, parameter in enumerate(theirs):
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            if not any(p.kind is parameter.kind for p in mine.values()):
                return f"takes no **{parameter.name}"
            continue
        found = mine.get(parameter.name)
        if found is None:
            return f"has no parameter {parameter.name}"
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY and list(mine).index(parameter.name) != position:
            return f"has {parameter.name} at another position"
        if found.default != parameter.default:
            return f"{parameter.name} is {found.default!r} by default, SGLang's {parameter.default!r}"
    known = {parameter.name for parameter in theirs}
    needed = [p.name for p in mine.values() if p.name not in known and _must_be_given(p)]
    return f"needs {', '.join(needed)} besides" if needed else ""


def _must_be_given(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def class_differences(file: str, name: str, ours: type) -> dict[str, str]:
    constants = constants_of(parsed(file))
    found = {}
    fields: list[str] = []
    for node in class_body(file, name):
        if isinstance(node, ast.AnnAssign):
            if node.target.id not in ours.__annotations__:
                found[f"{name}.{node.target.id}"] = "no such attribute"
            fields.append(node.target.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not node.name.startswith("_") or node.name in USED_ALL_THE_SAME:
                problem = method_difference(node, ours, constants)
                if problem:
                    found[f"{name}.{node.name}"] = problem
    if dataclasses.is_dataclass(ours) and [field.name for field in dataclasses.fields(ours)] != fields:
        found[f"{name} fields"] = f"{[field.name for field in dataclasses.fields(ours)]}, SGLang's {fields}"
    return found


def method_difference(node: ast.FunctionDef | ast.AsyncFunctionDef, ours: type, constants: dict[str, Any]) -> str:
    found = inspect.getattr_static(ours, node.name, None)
    if found is None:
        return "no such method"
    kinds = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
    if "property" in kinds:
        return "" if isinstance(found, property) else "no property"
    if "classmethod" in kinds and not isinstance(found, classmethod):
        return "no classmethod"
    function = getattr(found, "__func__", found)
    if isinstance(node, ast.AsyncFunctionDef) != inspect.iscoroutinefunction(function):
        return "one of the two is a coroutine function"
    return parameter_differences(parameters_of(node, constants), function)


# -- the tests -------------------------------------------------------------------------------------------------


def all_class_differences() -> dict[str, str]:
    found = {}
    for name, (file, module) in CLASSES.items():
        found |= class_differences(file, name, getattr(importlib.import_module(module), name))
    return found


def test_every_class_has_what_sglangs_has_but_for_the_listed_differences():
    found = all_class_differences()
    assert {name: problem for name, problem in found.items() if name not in DIFFERENCES} == {}
    assert set(DIFFERENCES) - set(found) == set(), "listed, but no difference any more"


@pytest.mark.parametrize(
    "node", [n for n in parsed(HELPERS).body if isinstance(n, ast.FunctionDef)], ids=lambda node: node.name
)
def test_every_helper_takes_what_sglangs_takes(node):
    ours = getattr(scripted_runtime, node.name)
    assert parameter_differences(parameters_of(node, constants_of(parsed(HELPERS))), ours) == ""
    yields = any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in ast.walk(node))
    assert inspect.isgeneratorfunction(ours) == yields


def test_every_constant_of_the_helpers_has_sglangs_value():
    theirs = constants_of(parsed(HELPERS))
    assert len(theirs) == 8
    assert {name: getattr(scripted_runtime, name, None) for name in theirs} == theirs


def test_one_module_has_every_public_name():
    names = {name for name, (_, module) in CLASSES.items() if module == "sr_fuzz.testing.scripted_runtime"}
    names |= {node.name for node in parsed(HELPERS).body if isinstance(node, ast.FunctionDef)}
    names |= set(constants_of(parsed(HELPERS)))
    assert names - set(scripted_runtime.__all__) == set()
    for name in scripted_runtime.__all__:
        assert getattr(scripted_runtime, name) is not None


def test_a_name_that_it_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'ScriptedNothing'"):
        scripted_runtime.ScriptedNothing


# -- the table of docs/scripted-runtime.md ---------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def table_rows() -> list[tuple[list[str], str]]:
    """Names in the first column and text of the last one."""
    lines = (ROOT / "docs" / "scripted-runtime.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", row[0]), row[-1]) for row in cells]


def public_members(file: str, name: str) -> set[str]:
    """Public attributes, methods and properties; for a plain record its fields."""
    names = set()
    for node in class_body(file, name):
        found = node.target.id if isinstance(node, ast.AnnAssign) else getattr(node, "name", "_")
        if not found.startswith("_") or found in USED_ALL_THE_SAME - {"__init__"}:
            names.add(f"{name}.{found}")
    return {name} if name == "ScriptedBatchRecord" else names


def test_the_table_of_the_documentation_has_every_name():
    names = {node.name for node in parsed(HELPERS).body if isinstance(node, ast.FunctionDef)}
    names |= set(constants_of(parsed(HELPERS)))
    for name, (file, _) in CLASSES.items():
        names |= public_members(file, name)
    listed = [name for row, _ in table_rows() for name in row]
    assert names - set(listed) == set()
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("names, tests", table_rows(), ids=lambda cell: cell[0] if isinstance(cell, list) else "")
def test_every_test_that_the_table_names_exists(names, tests):
    assert tests, f"no test for {names}"
    for part in tests.split("; "):
        group, colon, _ = part.partition(": ")
        for test in re.findall(r"`([^`]+)`", part):
            if not colon:
                assert (ROOT / test).is_file() and "def test_" in (ROOT / test).read_text(), test
                continue
            folder = ROOT / "tests" / "scripted"
            assert f"\ndef {test}(t" in (folder / f"{group}.py").read_text(), test
            assert re.search(f'[":]{test}"', (folder / f"test_{group}.py").read_text()), test
