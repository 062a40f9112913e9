"""Every rule that can be reported has a proof that it works: something that breaks it, and a test that says so."""

from __future__ import annotations

import ast
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from bench import rules as page
from bench.rules_in_code import BY_HAND, Unreadable, rules, sites_of
from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.faults.catalogue import FAULTS
from sr_fuzz.sglang_api.versions import RELEASES
from tests.breakages import BREAKAGES
from tests.rules import PROOFS, SHOWN_BY_FAULT, Asserted, Broken, Known, Proof, Seeded

ROOT = Path(__file__).resolve().parents[2]

BUGS = {path.stem: bug for path, bug in shipped().items()}

# -- the table -------------------------------------------------------------------------------------------------


def test_every_rule_has_a_proof():
    assert sorted(rules().keys() - PROOFS.keys()) == [], "CONTRIBUTING.md says how a rule is proven"


def test_every_proof_is_of_a_rule_that_is_there():
    assert sorted(PROOFS.keys() - rules().keys()) == []


def test_every_proof_holds():
    problems = {rule: [complaint(rule, proof) for proof in proofs] for rule, proofs in PROOFS.items()}
    assert {rule: told for rule, told in problems.items() if not told or any(told)} == {}


def complaint(rule: str, proof: Proof) -> str | None:
    """Why a proof does not show that rule; None where it does."""
    match proof:
        case Seeded(fault):
            return _of_a_fault(rule, fault)
        case Known(name):
            return _of_a_bug(rule, name)
        case Broken(key):
            known = BREAKAGES.get(key)
            return None if known is not None and known.rule == rule else f"the breakage {key} does not break it"
        case Asserted(test):
            return _of_a_test(rule, test)


def _of_a_fault(rule: str, fault: str) -> str | None:
    """`test_seen` plays every fault, and compares the rule that it shows with `SHOWN_BY_FAULT`."""
    if fault not in FAULTS:
        return f"there is no fault {fault}"
    if SHOWN_BY_FAULT.get(fault) != rule:
        return f"{fault} is expected to show {SHOWN_BY_FAULT.get(fault)}"
    seen = _function(ROOT / "tests/faults/test_faults.py", "test_seen")
    asserted = [ast.unparse(node) for node in ast.walk(seen) if isinstance(node, ast.Assert)]
    return None if any("SHOWN_BY_FAULT" in text for text in asserted) else "test_seen does not compare the rules"


def _of_a_bug(rule: str, name: str) -> str | None:
    """``tests/regressions`` accepts any of its signatures, so all of them must be of the rule."""
    bug = BUGS.get(name)
    if bug is None:
        return f"there is no known bug {name}"
    if not bug.is_open_in(RELEASES[-1]):
        return f"SGLang {RELEASES[-1]}, which is what the tests play, does not have it"
    others = [one for one in bug.shown_in(RELEASES[-1]) if ":".join(one.split(":")[:2]) != rule]
    return f"its script may show {others[0]}" if others else None


def _of_a_test(rule: str, test: str) -> str | None:
    path, _, name = test.partition("::")
    function = _function(ROOT / path, name)
    if function is None:
        return f"there is no {test}"
    asserted = [node.test for node in ast.walk(function) if isinstance(node, ast.Assert)]
    return None if any(_equals(node, rule) for node in asserted) else f"{test} has no assertion that it is {rule}"


def _equals(node: ast.expr, rule: str) -> bool:
    match node:
        case ast.Compare(ops=[ast.Eq()], comparators=[ast.Constant(value=value)]):
            return value == rule
    return False


def _function(path: Path, name: str) -> ast.FunctionDef | None:
    nodes = ast.parse(path.read_text()).body if path.exists() else []
    return next((node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name), None)


@pytest.mark.parametrize(
    ("rule", "proof", "told"),
    [
        ("kv_pages:leaked", Seeded("no_such_fault"), "no fault"),
        ("kv_pages:leaked", Seeded("double_free"), "is expected to show kv_pages:double_free"),
        ("kv_pages:leaked", Seeded("window_freed_early"), "is expected to show kv_pages:window_gone"),
        ("kv_pages:leaked", Seeded("closed_under_turn"), "is expected to show None"),
        ("kv_pages:leaked", Known("no_such_bug"), "no known bug"),
        ("kv_pages:leaked", Known("kv_pages_leaked_90d5e3"), "does not have it"),
        ("kv_pages:owned_twice", Known("kv_pages_owned_twice_8f1dd5"), "may show sessions:two_turns_at_once"),
        ("kv_pages:leaked", Broken("kv_pages:foreign_page"), "does not break it"),
        ("kv_pages:leaked", Broken("kv_pages:leaked"), "does not break it"),
        ("kv_pages:leaked", Asserted("tests/unit/test_absent.py::test_it"), "there is no"),
        ("kv_pages:leaked", Asserted("tests/unit/test_every_rule.py::test_absent"), "there is no"),
        ("kv_pages:leaked", Asserted("tests/unit/test_http_answers.py::test_a_client_that_waits_for_ever"), "has no"),
    ],
)
def test_what_proves_nothing_is_told(rule: str, proof: Proof, told: str):
    assert told in (complaint(rule, proof) or "")


def test_a_fault_proves_one_rule():
    faults = [proof.fault for proofs in PROOFS.values() for proof in proofs if isinstance(proof, Seeded)]
    assert sorted(faults) == sorted(set(faults)) == sorted(SHOWN_BY_FAULT)
    for fault, rule in SHOWN_BY_FAULT.items():
        assert rule.partition(":")[0] in FAULTS[fault].expected


# -- reading the rules from the sources ------------------------------------------------------------------------


def names(source: str, name: str = "invariants/load.py") -> list[str]:
    return [site.rule for site in sites_of(source, name)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('def f():\n    return Problem("a", "")', ["a"]),
        ('def f():\n    return Problem("a" if x else "b", "")', ["a", "b"]),
        ('def f(x):\n    rule = "a" if x else "b"\n    return Problem(rule, "")', ["a", "b"]),
        ('def f():\n    for rule, other in (("a", 1), ("b", 2)):\n        return Problem(rule, "")', ["a", "b"]),
        ('def f():\n    all = {"a": 1, "b": 2}\n    for k, v in all.items():\n        return Problem(f"x_{k}", "")',
         ["x_a", "x_b"]),
        ('def f(rule):\n    return Problem(rule, "")\nf("a")\nf(rule="b")', ["a", "b"]),
        ('def f(one, rule):\n    return Problem(f"{rule}x", "")\ndef g(p):\n    f(1, p)\ng("a")', ["ax"]),
        ('def f(one, two, rule):\n    return Problem(rule, "")\nf(*both, "a")', ["a"]),
        ('class C:\n    def f(self, rule):\n        return Problem(rule, "")\n    def g(self):\n        self.f("a")',
         ["a"]),
    ],
)  # fmt: skip
def test_the_names_are_read_from_the_source(source: str, found: list[str]):
    assert names(source) == [f"load:{rule}" for rule in found]


def test_a_violation_names_its_invariant_itself():
    source = 'NAME = "mine"\ndef f():\n    return Violation(NAME, "a", "m", 1), Violation(invariant="b", rule="c")'
    with pytest.raises(KeyError):
        names(source, "sr_fuzz/play/own.py")
    source = source.replace('rule="c"', 'rule="c", message="m"')
    assert names(source, "sr_fuzz/play/own.py") == ["mine:a", "b:c"]


def test_a_rule_of_a_base_class_is_one_of_each_class():
    assert names('def f():\n    return Problem("a", "")', "invariants/tree_locks.py") == [
        "tree_locks:a", "window_locks:a", "state_locks:a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        'def f(x):\n    return Problem(x, "")',
        'def f(x):\n    return Problem(str(x), "")',
        'def f(x):\n    return Problem(f"a_{x.y}", "")',
        'def f(x):\n    return Problem(x, "")\nf(g())',
    ],
)
def test_a_name_that_the_source_does_not_tell_is_an_error(source: str):
    with pytest.raises(Unreadable, match=r"invariants/load\.py:2"):
        names(source)


@pytest.mark.parametrize(("file", "function"), BY_HAND)
def test_what_is_listed_by_hand_cannot_be_read(file: str, function: str):
    own = ast.unparse(_named(ast.parse((ROOT / file).read_text()), function))
    with pytest.raises(Unreadable):
        list(sites_of(own, file, by_hand={}))


def _named(tree: ast.Module, name: str) -> ast.FunctionDef:
    """The last function of that name that reports something."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    return next(node for node in functions if "Violation(" in ast.unparse(node) or "Problem(" in ast.unparse(node))


def test_problem_and_violation_have_no_other_names():
    for path in (*ROOT.glob("invariants/*.py"), *ROOT.glob("sr_fuzz/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                renamed = [alias.name for alias in node.names if alias.asname not in (None, alias.name)]
                assert not {"Problem", "Violation"} & set(renamed), f"{path}: the list of rules would miss them"


def test_known_signatures_are_of_rules_that_are_there():
    for bug in BUGS.values():
        for signature in bug.signatures:
            rule = ":".join(signature.split(":")[:2])
            assert any(fnmatchcase(rule, known) for known in rules()), signature


# -- the page --------------------------------------------------------------------------------------------------


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/rules.md").read_text() == page.text(), "python -m bench.rules --markdown docs/rules.md"
