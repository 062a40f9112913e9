"""The pytest plugin: Hypothesis profiles, fixtures for engine and server, and options.

Profiles are registered here, because a ``conftest.py`` of a subfolder is loaded too late for ``--hypothesis-profile``.
Each one has an explicit parent and all its values, because Hypothesis uses the values of its own ``ci`` profile
(derandomised, no database) as defaults when the variable ``CI`` is set.

The plugin has no effect on projects that merely have it installed: a profile is loaded only if an ini file sets
``sr_profile`` or the command line names one, and no engine starts before a test asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from sr_fuzz.engine.options import KINDS, EngineOptions, choose, make_engine, start
from sr_fuzz.engine.parallel_ranks import Ranks
from sr_fuzz.outcome import old_addresses
from sr_fuzz.sglang_api.versions import is_among
from sr_fuzz.strategies.fresh import BACKEND
from sr_fuzz.testing.expected_failures import TROUBLE, NotStarted, judge, uses_engine

if TYPE_CHECKING:
    from sr_fuzz.engine.contract import Engine
    from sr_fuzz.engine.live.server import ScriptedHttpServer
    from sr_fuzz.testing.properties import PropertyChecker

# Without Phase.shrink Hypothesis stops at the first failure after one replay, and the minimiser takes over. There is no
# database: a saved failing example would be the first and, without shrinking, the only example of later runs. A finding
# is kept as its emitted test.
_COMMON: dict[str, Any] = {
    "backend": BACKEND,
    "phases": (Phase.explicit, Phase.generate),
    "database": None,
    "deadline": None,
    "print_blob": False,
    "report_multiple_bugs": False,
    # One example runs a scheduler for some time, which these health checks would report.
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}

PROFILES: dict[str, dict[str, Any]] = {
    # For a developer between two edits: other scripts each time.
    "cpu": {"max_examples": 25, "derandomize": False},
    # For CI: the same scripts each time, so that a failure is caused by the change.
    "ci": {"max_examples": 30, "derandomize": True},
    "nightly": {"max_examples": 2000, "derandomize": False},
    "gpu": {"max_examples": 25, "derandomize": False},
}

# The sizes of `sr_server`: a prompt of a test has several chunks, and a test can exhaust the pool and the rows.
_SERVER_SIZES = {"chunked_prefill_size": 16, "page_size": 1, "max_total_tokens": 2048, "max_running_requests": 8}

_OPTIONS: pytest.StashKey[EngineOptions] = pytest.StashKey()


def register_profile(name: str) -> None:
    """Register one of `PROFILES` with Hypothesis."""
    settings.register_profile(name, parent=settings.get_profile("default"), **{**_COMMON, **PROFILES[name]})


for _name in PROFILES:
    # Hypothesis has a profile of that name, which is active where the variable CI is set: to register it again would
    # change the tests of every project that merely has this plugin installed.
    if _name != "ci":
        register_profile(_name)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sr_fuzz", "sr_fuzz: fuzzing SGLang's scheduler")
    group.addoption(
        "--sr-engine",
        choices=KINDS,
        help="engine of sr_engine and sr_check (default: local; with the gpu profile persistent, or server for "
        "several ranks)",
    )
    group.addoption("--sr-model", metavar="PATH_OR_NAME", help="run a real model instead of the oracle model")
    for name, kind in (("tp", "tensor"), ("pp", "pipeline"), ("dp", "data")):
        group.addoption(f"--sr-{name}", metavar="N", type=int, default=1, help=f"{kind} parallel ranks")
    group.addoption(
        "--sr-sglang", metavar="SOURCE", help="another SGLang than the installed one: version, source tree or wheel"
    )
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
        help="folder of known findings beside the bugs that sr_fuzz knows",
    )
    parser.addini("sr_profile", "Hypothesis profile of sr_fuzz to load when the command line names none", default="")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis's own plugin loads the profile that the command line names
def pytest_configure(config: pytest.Config) -> None:
    old_addresses.install()
    config.addinivalue_line("markers", "gpu: needs a CUDA GPU; skipped, with the reason, where there is none")
    config.addinivalue_line(
        "markers",
        "sglang_bug(releases, reason): a bug of the releases of SGLang that a version specifier names; an expected "
        "failure there, strict, and an ordinary test on any other",
    )
    profile = config.getini("sr_profile")
    if profile and profile not in PROFILES:
        raise pytest.UsageError(f"ini option sr_profile: {profile!r} is none of {', '.join(PROFILES)}")
    if profile:
        register_profile("ci")
        if not _profile_option(config):
            settings.load_profile(profile)
    ranks = Ranks(*(config.getoption(f"--sr-{name}") for name in Ranks._fields))
    try:
        config.stash[_OPTIONS] = choose(
            config.getoption("--sr-engine"), model=config.getoption("--sr-model"), ranks=ranks, gpu=_on_gpu(config)
        )
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    _source(config)
    for path in config.getoption("--sr-fault"):
        if path.count(":") != 1:
            raise pytest.UsageError(f"--sr-fault {path}: expected package.module:function")


def pytest_report_header(config: pytest.Config) -> list[str]:
    profile = _profile_option(config) or config.getini("sr_profile")
    lines = [f"sr_fuzz profile: {profile}"] if profile in PROFILES else []
    if config.stash[_OPTIONS] != choose():
        lines.append(f"sr_fuzz engine: {config.stash[_OPTIONS].line}")
    if (source := config.getoption("--sr-sglang")) is not None:
        lines.append(f"sr_fuzz on another SGLang: {source}")
    return lines


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = bool(config.getini("sr_profile"))  # a mark of that name may mean something else in another project
    marked = [item for item in items if item.get_closest_marker("gpu") and (ours or uses_engine(item))]
    if marked and (reason := _no_gpu()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Judges after pytest's own evaluation of ``xfail``, for which the wrapper must be the outermost one."""
    report = yield
    return judge(item, call, report)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    """An engine that breaks while the test runs is an error, as one that does not start is."""
    return ("error", "E", "ERROR") if report.failed and hasattr(report, TROUBLE) else None


@pytest.fixture(scope="session")
def _sr_engine_as_chosen(pytestconfig: pytest.Config) -> Iterator[Engine]:
    """The session's engine, started; configurations run on it with their own ranks."""
    options = pytestconfig.stash[_OPTIONS]
    _skip_without_gpu(pytestconfig)
    from sr_fuzz.engine.around.independence import AloneEngine
    from sr_fuzz.script.errors import EngineError

    _tell_sglang_about_model(options)
    with make_engine(options, **_faults_and_path(pytestconfig)) as engine:
        problem = None
        try:
            start(engine, options)
        except EngineError as error:
            problem = str(error)
        if problem is not None:  # outside of the handler, so that pytest does not show the error twice
            raise NotStarted(f"the engine does not start: {problem}", pytrace=False)
        yield engine if options.model is None else AloneEngine(engine)


@pytest.fixture(scope="session")
def sr_engine(_sr_engine_as_chosen: Engine, pytestconfig: pytest.Config) -> Engine:
    """The session's engine, by default a `LocalEngine`, with the faults of ``--sr-fault``.

    With ``--sr-tp``, ``--sr-pp``, ``--sr-dp`` every configuration gets these ranks. With ``--sr-model`` the output of
    each request is also compared with its output alone, as `AloneEngine` does.
    """
    from sr_fuzz.engine.around.ranks import RankedEngine

    ranks = pytestconfig.stash[_OPTIONS].ranks
    return RankedEngine(_sr_engine_as_chosen, ranks) if ranks.several else _sr_engine_as_chosen


@pytest.fixture(autouse=True)
def _sr_expected_failure(request: pytest.FixtureRequest) -> None:
    """Turns ``sglang_bug`` into a strict ``xfail`` on the releases that it names; the engine gives the release."""
    mark = request.node.get_closest_marker("sglang_bug")
    if mark is None:
        return
    name = next((name for name in ("sr_engine", "sr_server_engine") if name in request.fixturenames), None)
    if name is None or len(mark.args) != 1 or "reason" not in mark.kwargs:
        pytest.fail("sglang_bug: expected sglang_bug(releases, reason=...) on a test with an engine", pytrace=False)
    has_it = is_among(request.getfixturevalue(name).sglang_version, mark.args[0])
    if has_it is not False:
        # A tree of an unknown version may or may not have the bug, so the mark is not strict there.
        request.applymarker(pytest.mark.xfail(strict=bool(has_it), raises=AssertionError, reason=mark.kwargs["reason"]))


@pytest.fixture(scope="session")
def sr_check(_sr_engine_as_chosen: Engine, pytestconfig: pytest.Config) -> PropertyChecker:
    """A `PropertyChecker` on the session's engine: ``sr_check(scripts(configs), invariants=[...])``."""
    from sr_fuzz.bugs.known import all_known
    from sr_fuzz.testing.properties import PropertyChecker

    emit_to, ranks = pytestconfig.getoption("--sr-emit"), pytestconfig.stash[_OPTIONS].ranks
    known = all_known(pytestconfig.getoption("--sr-known"), _sr_engine_as_chosen.sglang_version)
    # `sr_engine` is not used, because it would set the ranks again in a script from which the minimiser removed them.
    return PropertyChecker(_sr_engine_as_chosen, known, emit_to, ranks)


@pytest.fixture(scope="session")
def sr_server_engine(pytestconfig: pytest.Config) -> Iterator[Engine]:
    """A `ServerEngine`, for tests that need a whole server; device, model and faults are those of `sr_engine`."""
    options = pytestconfig.stash[_OPTIONS]
    _skip_without_gpu(pytestconfig)
    _tell_sglang_about_model(options)
    with make_engine(options._replace(kind="server"), **_faults_and_path(pytestconfig)) as engine:
        yield engine


@pytest.fixture(scope="session")
def sr_server(pytestconfig: pytest.Config) -> Iterator[ScriptedHttpServer]:
    """A started `ScriptedHttpServer` with a small pool and small chunks, for script functions.

    Device, model, ranks and faults are those of `sr_engine`, whatever its kind is.
    """
    options = pytestconfig.stash[_OPTIONS]
    _skip_without_gpu(pytestconfig)
    from sr_fuzz.engine.live.persistent import default_device
    from sr_fuzz.engine.live.server import ScriptedHttpServer
    from sr_fuzz.engine.settings import model_settings
    from sr_fuzz.script.errors import EngineError

    device = options.device or default_device()
    kwargs = {"device": device} if options.model is None else model_settings(options.model, device)
    kwargs |= _SERVER_SIZES | options.ranks.fields
    _tell_sglang_about_model(options)
    server, problem = None, ""
    try:
        server = ScriptedHttpServer.start(**_faults_and_path(pytestconfig), **kwargs)
    except EngineError as error:
        problem = str(error)
    if server is None:
        raise NotStarted(f"the server does not start: {problem}", pytrace=False)
    with server:
        yield server


def _faults_and_path(config: pytest.Config) -> dict[str, list[str]]:
    return {"faults": config.getoption("--sr-fault"), "sys_path": [*_source(config), str(config.rootpath)]}


def _source(config: pytest.Config) -> list[str]:
    """Return the folder of the SGLang that ``--sr-sglang`` names."""
    source = config.getoption("--sr-sglang")
    if source is None:
        return []
    from sr_fuzz.script.errors import EngineError
    from sr_fuzz.sglang_api.sources import sglang_folder

    try:
        return [str(sglang_folder(source))]
    except EngineError as error:
        raise pytest.UsageError(f"--sr-sglang: {error}") from None


def _tell_sglang_about_model(options: EngineOptions) -> None:
    """Set SGLang's truncation alignment for a real model.

    Up to 0.5.21 a deterministic SGLang truncates prompts at multiples of 4096 tokens, and would admit no longer prompt.
    """
    if options.model is not None:
        os.environ.setdefault("SGLANG_TRITON_PREFILL_TRUNCATION_ALIGN_SIZE", "1")


def _profile_option(config: pytest.Config) -> str | None:
    """Return the profile that the command line names; the option belongs to Hypothesis's own plugin."""
    return config.getoption("--hypothesis-profile", default=None)


def _on_gpu(config: pytest.Config) -> bool:
    return (_profile_option(config) or config.getini("sr_profile")) == "gpu"


def _skip_without_gpu(config: pytest.Config) -> None:
    if _on_gpu(config) and (reason := _no_gpu()):
        pytest.skip(reason)


def _no_gpu() -> str | None:
    """Return why no GPU can be used here; None when there is one."""
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported: {error}"
    return None if torch.cuda.is_available() else "no CUDA GPU here (torch.cuda.is_available() is false)"
