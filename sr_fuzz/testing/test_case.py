"""Test cases that own a server: SGLang's ``ScriptedTestCase``, with the same names, on our ``ScriptedHttpServer``."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any, ClassVar

from sr_fuzz.script.errors import EngineError

if TYPE_CHECKING:
    from sr_fuzz.engine.live.server import ScriptedHttpServer


class CustomTestCase(unittest.TestCase):
    """Replaces the base of SGLang's tests, whose module cannot be imported without SGLang's test dependencies.

    It never runs a failed test again: a test that fails half of the time is a finding. An engine that breaks is an
    error of a test that is marked ``unittest.expectedFailure`` too.
    """

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        return super().run(result if result is None else _Strict(result))  # type: ignore[arg-type]


class _Strict:
    """A result to which an engine that breaks is no expected failure; all else goes to the other result."""

    def __init__(self, result: unittest.TestResult) -> None:
        self._result = result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._result, name)

    def addExpectedFailure(self, test: unittest.TestCase, error: Any) -> None:
        broken = isinstance(error[1], EngineError)
        (self._result.addError if broken else self._result.addExpectedFailure)(test, error)


class ScriptedTestCase(CustomTestCase):
    """A test case whose tests share one server: ``self.server.execute_script(self._script)``.

    ``ENGINE_KWARGS`` are the server's arguments, fields of SGLang's ``ServerArgs``. A class that does not set it fails.
    """

    ENGINE_KWARGS: ClassVar[dict[str, Any]] = {}

    server: ClassVar[ScriptedHttpServer]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if not cls.ENGINE_KWARGS:
            raise AssertionError(
                f"{cls.__name__}.ENGINE_KWARGS is empty: set it to the arguments of the server, "
                "e.g. `ENGINE_KWARGS = base_engine_kwargs()`"
            )
        # Imported here because the scheduler's process also imports test files, and starts no server.
        from sr_fuzz.engine.live.server import ScriptedHttpServer

        cls.server = ScriptedHttpServer.start(**cls.ENGINE_KWARGS)
        # unittest does not call tearDownClass if a subclass's setUpClass fails after this; a class clean-up runs
        # anyway.
        cls.addClassCleanup(cls.server.shutdown)

    @classmethod
    def tearDownClass(cls) -> None:
        try:
            cls.server.shutdown()
        finally:
            super().tearDownClass()
