"""The process that runs a test file on SGLang's runtime: ``python -m sr_fuzz.engine.upstream.main FILE VERDICT``.

SGLang starts its processes with multiprocessing's ``spawn``, which imports this module again in each of them, under the
name ``__mp_main__`` and before SGLang. So the patches that SGLang's import needs without a GPU are applied there as
well, and each process ends with its parent.

SGLang's runtime is changed in three points, none of which a script can observe: without a GPU the server gets settings
for the CPU; a dead server is detected at once instead of after minutes; and at the end the server is killed instead of
drained, which takes a minute.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import unittest
from pathlib import Path
from typing import Any

from sr_fuzz.cpu import missing_modules, standins
from sr_fuzz.lifetime.parent_death import die_with_parent

if __name__ in ("__main__", "__mp_main__"):
    die_with_parent(os.getppid())
    missing_modules.install()
    if standins.wanted():
        standins.mend_imports()


def main(path: Path, verdict: Path) -> int:
    """Run the tests in ``path`` and write the result to ``verdict`` as JSON. Returns 0 when there is a verdict."""
    try:
        _check_faults()
        sys.path.insert(0, str(path.parent))
        module = importlib.import_module(path.stem)
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        if suite.countTestCases():
            _adapt_runtime()
    except Exception as error:
        traceback.print_exc()
        line = str(error).strip().partition("\n")[0]
        verdict.write_text(json.dumps({"trouble": f"{path.name}: {type(error).__name__}: {line}"}))
        return 2
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(suite)
    verdict.write_text(json.dumps(_told(result)))
    return 0


def _adapt_runtime() -> None:
    from sr_fuzz.sglang_api import own_runtime

    if not standins.wanted():
        return own_runtime.adapt()
    from sr_fuzz.oracle.settings import oracle_settings
    from sr_fuzz.sglang_api.server_args import device_settings

    own_runtime.adapt(settings={**oracle_settings(), **device_settings("cpu")})


def _told(result: unittest.TestResult) -> dict[str, Any]:
    def texts(pairs: list[tuple[Any, str]]) -> list[list[str]]:
        return [[str(test), text] for test, text in pairs]

    return {
        "tests": result.testsRun,
        "failures": texts(result.failures),
        "errors": texts(result.errors),
        "expected_failures": texts(result.expectedFailures),
        "unexpected_successes": [str(test) for test in result.unexpectedSuccesses],
    }


def _check_faults() -> None:
    """Raise if a fault cannot be activated. SGLang only logs errors of a plugin, so the fault would seem undetected."""
    from sr_fuzz.faults import ENVIRONMENT_VARIABLE, resolve

    for path in filter(None, os.environ.get(ENVIRONMENT_VARIABLE, "").split(",")):
        resolve(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
