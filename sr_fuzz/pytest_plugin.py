"""The pytest plugin: Hypothesis profiles, the engine as a fixture, options.

Profiles are registered here, not in a ``conftest.py`` of a sub-folder, which is loaded too late for
``--hypothesis-profile``; and each with an explicit parent and all its values, because Hypothesis takes the values of
its own ``ci`` profile (derandomised, no database) for defaults as soon as a ``CI`` variable is set.

The plugin changes nothing for projects that merely have it installed: a profile is only loaded where an ini file
says ``sr_profile`` or the command line names one, and no engine starts before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from strategies.fresh import BACKEND

# Without Phase.shrink Hypothesis stops at the first failure after one replay: the minimiser takes over. No database: a
# saved failing example would be the first and, without shrinking, the last thing that later runs look at; what keeps a
# finding is its emitted test.
_COMMON: dict[str, Any] = {
    "backend": BACKEND,
    "phases": (Phase.explicit, Phase.generate),
    "database": None,
    "deadline": None,
    "print_blob": False,
    "report_multiple_bugs": False,
    # One example runs a scheduler for a while; that is not what these checks are about.
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}

PROFILES: dict[str, dict[str, Any]] = {
    # What a developer runs between two edits: other scripts each time.
    "cpu": {"max_examples": 25, "derandomize": False},
    # What decides whether a change lands: the same scripts each time, so that red means the change.
    "ci": {"max_examples": 25, "derandomize": True},
    "nightly": {"max_examples": 2000, "derandomize": False},
    "gpu": {"max_examples": 25, "derandomize": False},
}

ENGINE_KEY: pytest.StashKey[Any] = pytest.StashKey()


def register_profiles() -> None:
    """Register the profiles with Hypothesis."""
    for name, values in PROFILES.items():
        settings.register_profile(name, parent=settings.get_profile("default"), **{**_COMMON, **values})


register_profiles()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sr_fuzz", "sr_fuzz: fuzzing SGLang's scheduler")
    group.addoption("--sr-emit", metavar="DIR", type=Path, help="write new findings to DIR as tests")
    group.addoption(
        "--sr-fault",
        metavar="MODULE:FUNCTION",
        action="append",
        default=[],
        help="seed a fault into SGLang (a context manager, see sr_fuzz.faults); may be given several times",
    )
    group.addoption(
        "--sr-known",
        metavar="DIR",
        type=Path,
        help="folder of known findings (default: tests/regressions below the root directory)",
    )
    parser.addini("sr_profile", "Hypothesis profile of sr_fuzz to load when the command line names none", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA GPU; skipped, with the reason, where there is none")
    profile = config.getini("sr_profile")
    if profile and profile not in PROFILES:
        raise pytest.UsageError(f"ini option sr_profile: {profile!r} is none of {', '.join(PROFILES)}")
    if profile and not _profile_option(config):
        settings.load_profile(profile)
    for path in config.getoption("--sr-fault"):
        if path.count(":") != 1:
            raise pytest.UsageError(f"--sr-fault {path}: expected package.module:function")


def pytest_report_header(config: pytest.Config) -> str | None:
    profile = _profile_option(config) or config.getini("sr_profile")
    return f"sr_fuzz profile: {profile}" if profile in PROFILES else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and (reason := _no_gpu()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def sr_engine(pytestconfig: pytest.Config) -> Iterator[Any]:
    """A `LocalEngine` for the whole session, with the faults of ``--sr-fault``."""
    if _profile_option(pytestconfig) == "gpu":
        pytest.skip(_no_gpu() or "the gpu profile needs the server engine, which this version of sr_fuzz lacks")
    from sr_fuzz.engine.local import LocalEngine
    from sr_fuzz.errors import EngineError

    with LocalEngine(faults=pytestconfig.getoption("--sr-fault"), sys_path=[str(pytestconfig.rootpath)]) as engine:
        try:
            engine.sglang_version
        except EngineError as error:
            pytest.fail(f"the engine does not start: {error}", pytrace=False)
        yield engine


@pytest.fixture(scope="session")
def sr_check(sr_engine: Any, pytestconfig: pytest.Config) -> Any:
    """A `PropertyChecker` on the session's engine: ``sr_check(scripts(configs), invariants=[...])``."""
    from sr_fuzz.campaign.known import known_signatures
    from sr_fuzz.properties import PropertyChecker

    folder = pytestconfig.getoption("--sr-known") or pytestconfig.rootpath / "tests" / "regressions"
    return PropertyChecker(sr_engine, known_signatures(folder), pytestconfig.getoption("--sr-emit"))


def _profile_option(config: pytest.Config) -> str | None:
    """The profile the command line names; the option belongs to Hypothesis's own plugin."""
    return config.getoption("--hypothesis-profile", default=None)


def _no_gpu() -> str | None:
    """Why nothing can run on a GPU here; None when there is one."""
    import torch

    return None if torch.cuda.is_available() else "no CUDA GPU here (torch.cuda.is_available() is false)"
