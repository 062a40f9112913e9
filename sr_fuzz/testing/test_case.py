"""Test cases that own a server: SGLang's ``ScriptedTestCase``, with the same names, on our ``ScriptedHttpServer``."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from sr_fuzz.script.errors import EngineError

if TYPE_CHECKING:
    from sr_fuzz.engine.live.server import ScriptedHttpServer


class CustomTestCase(unittest.TestCase):
    """Replaces the base of SGLang's tests, whose module cannot be imported without SGLang's test dependencies.

    It never runs a failed test again: a test that fails half of the time is a finding. An engine that breaks is an
    error of a test that is marked ``unittest.expectedFailure`` too.
    """

    def _callTestMethod(self, method: Callable[[], object]) -> None:
        # unittest offers no public way to tell one failure from another: whatever the method raises is expected.
        try:
            super()._callTestMethod(method)  # type: ignore[misc]
        except EngineError:
            self._outcome.expecting_failure = False  # type: ignore[attr-defined]
            raise


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
