"""Every engine implements `engine.contract`, and the code that uses an engine needs nothing else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from fake_engine import FakeEngine

import sr_fuzz
from sr_fuzz.engine.around.differential import DifferentialEngine
from sr_fuzz.engine.around.independence import AloneEngine
from sr_fuzz.engine.around.ranks import RankedEngine
from sr_fuzz.engine.around.resumed import ResumedEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.live.fresh_runs import FreshRuns
from sr_fuzz.engine.live.persistent import PersistentEngine
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.engine.parallel_ranks import Ranks
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.script import EngineConfig, Script, StartReq
from sr_fuzz.shrink.confirm import confirm

MEMBERS = sorted(name for name in vars(Engine) if not name.startswith("_") or name in ("__enter__", "__exit__"))
ENGINES = [LocalEngine, PersistentEngine, ServerEngine, FakeEngine]
WRAPPED = [WrappedEngine, DifferentialEngine, AloneEngine, RankedEngine, ResumedEngine, FreshRuns]
SCRIPT = Script(EngineConfig(), (StartReq("r0"),))


def test_the_contract_has_the_members_that_this_test_goes_by():
    assert {"run", "execute", "with_faults", "start", "close", "isolation", "fresh", "keep"} <= set(MEMBERS)


@pytest.mark.parametrize("engine", [*ENGINES, *WRAPPED], ids=lambda kind: kind.__name__)
def test_an_engine_has_every_member_with_the_contracts_parameters(engine: type):
    for member in MEMBERS:
        promised = getattr(Engine, member)
        if not inspect.isfunction(promised):
            # An attribute that `__init__` sets exists on the instance only.
            assert hasattr(engine, member) or hasattr(engine(**_fake(engine)), member), f"no {member}"
            continue
        offered = inspect.signature(getattr(engine, member)).parameters
        kinds = {parameter.kind for parameter in offered.values()}
        for name, parameter in inspect.signature(promised).parameters.items():
            by_rest = inspect.Parameter.VAR_KEYWORD if parameter.kind is parameter.KEYWORD_ONLY else parameter.kind
            taken = name in offered or (by_rest in kinds and by_rest is not parameter.POSITIONAL_OR_KEYWORD)
            assert taken or inspect.Parameter.VAR_POSITIONAL in kinds, f"{engine.__name__}.{member} lacks {name}"


def _fake(engine: type) -> dict[str, object]:
    return {"rule": lambda script: None} if engine is FakeEngine else {}


def test_the_seam_is_typed():
    """No parameter or field called ``engine`` is ``Any``, and no code uses ``hasattr`` to ask what an engine can do."""
    loose = []
    for path in Path(sr_fuzz.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg | ast.AnnAssign) and _name(node) in ("engine", "healthy", "faulty"):
                loose += [f"{path}:{node.lineno}"] * (node.annotation is None or "Any" in ast.unparse(node.annotation))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
                asked = ast.unparse(node.args[0]).rpartition(".")[2].lstrip("_")
                loose += [f"{path}:{node.lineno}"] * (asked in ("engine", "healthy", "faulty"))
    assert not loose


def _name(node: ast.arg | ast.AnnAssign) -> str:
    return (node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)).rpartition(".")[2].lstrip("_")


class Shared(FakeEngine):
    """Its scheduler is started by `fresh` only; ``starts`` counts the starts."""

    isolation = "shared"
    starts = 0

    def fresh(self) -> FreshRuns:
        return FreshRuns(self, self._start_anew)

    def _start_anew(self, config: EngineConfig) -> None:
        self.starts += 1


@pytest.mark.parametrize("around", [WrappedEngine, AloneEngine, lambda e: RankedEngine(e, Ranks(tp=2))])
def test_an_engine_around_another_confirms_on_fresh_schedulers(around):
    shared = Shared(lambda script: None)
    engine = around(shared)
    assert engine.isolation == "shared"
    assert confirm(SCRIPT, "kv_pages:leaked:radix+overlap", engine.fresh(), n=3) == (0, 3)
    assert shared.starts >= 3
    assert shared.starts == len(shared.played)


def test_faults_of_an_engine_around_another_are_those_inside():
    engine = WrappedEngine(FakeEngine(lambda script: None)).with_faults("tests.faulty:leak")
    assert isinstance(engine, WrappedEngine)
    assert engine.faults == ("tests.faulty:leak",)
