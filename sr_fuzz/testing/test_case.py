"""Test cases that own a server: SGLang's ``ScriptedTestCase``, name by name, on our ``ScriptedHttpServer``."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from sr_fuzz.engine.live.server import ScriptedHttpServer


class CustomTestCase(unittest.TestCase):
    """Stands for the base of SGLang's tests, whose module cannot be imported without SGLang's test dependencies.

    It never runs a failed test again: what fails one time in two is a finding.
    """


class ScriptedTestCase(CustomTestCase):
    """A test case whose tests share one server: ``self.server.execute_script(self._script)``.

    ``ENGINE_KWARGS`` are the server's arguments, fields of SGLang's ``ServerArgs``. The class that sets none fails.
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
        # Here, not above: the scheduler's process imports test files too, and starts no server.
        from sr_fuzz.engine.live.server import ScriptedHttpServer

        cls.server = ScriptedHttpServer.start(**cls.ENGINE_KWARGS)
        # unittest calls no tearDownClass when a subclass's setUpClass fails after this; the clean-up runs all the same.
        cls.addClassCleanup(cls.server.shutdown)

    @classmethod
    def tearDownClass(cls) -> None:
        try:
            cls.server.shutdown()
        finally:
            super().tearDownClass()
