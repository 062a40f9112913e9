"""Fixtures of the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import SCRIPT, leak_on_abort
from fake_engine import FakeEngine, leak

from sr_fuzz.cli import engines
from sr_fuzz.cli.options import EngineKind
from sr_fuzz.faults.canary import canary
from sr_fuzz.script import to_json
from sr_fuzz.script.errors import EngineError


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that the commands run on, in place of a real one. Records the faults it was started with."""
    fake = FakeEngine(leak_on_abort, {canary.path: lambda script: leak(message="the canary's page")})
    fake.kinds = []

    @contextmanager
    def start(
        faults: Sequence[str] | None,
        kind: EngineKind = EngineKind.LOCAL,
        sglang: str | None = None,
        *,
        keep: int | None = None,
        limit_s: float | None = None,
    ) -> Iterator[FakeEngine]:
        fake.kinds.append((kind.value, keep))
        fake.limit_s = limit_s
        if faults == ["no.such:fault"]:
            raise EngineError("the process that imports SGLang died\nTraceback\n  ...\nImportError: libcuda.so")
        yield fake

    monkeypatch.setattr(engines, "start", start)
    return fake


@pytest.fixture
def script_file(tmp_path: Path) -> Path:
    path = tmp_path / "script.json"
    path.write_bytes(to_json(SCRIPT, indent=2))
    return path
