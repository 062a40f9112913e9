"""In a project that has its own ``strategies`` and ``invariants`` nothing collides, and all of our modules are found.

Each way to install goes into a virtual environment of its own, which sees the other packages of this environment.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.outcome import Finding, Violation
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq
from tests.packaging.environments import install, make_environment, run

ROOT = Path(__file__).parents[2]

PROJECT = {
    # Few scripts: what is tried is the way to them.
    "conftest.py": """
        from hypothesis import settings

        settings.register_profile("few", max_examples=3, derandomize=True, deadline=None)
    """,
    "strategies/__init__.py": "WHOSE = 'the project'\n",
    "invariants/__init__.py": "WHOSE = 'the project'\n",
    "test_own.py": """
        import invariants
        import strategies

        from sr_fuzz.script import EngineConfig
        from sr_fuzz.strategies.scripts import scripts


        def test_own_packages():
            assert strategies.WHOSE == invariants.WHOSE == "the project"


        def test_property(sr_check):
            sr_check(scripts([EngineConfig()]), invariants=["memory"])
    """,
    # As the last version wrote it, MENDED_BY included.
    "test_emitted.py": """
        import pytest

        from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

        SIGNATURE = "liveness:stuck_waiting:radix+overlap+swa"

        MENDED_BY = "tests.mends.admission:refused_at_the_door"

        SCRIPT = Script(
            config=EngineConfig(model="swa", swa_full_tokens_ratio=0.75, max_total_tokens=96, chunked_prefill_size=-1),
            actions=(StartReq("r0", prompt=Prompt(length=72), max_new_tokens=4),),
        )


        @pytest.mark.xfail(strict=True, reason="never admitted")
        def test_liveness_stuck_waiting_5b2ee8(sr_engine):
            outcome = sr_engine.run(SCRIPT)
            assert outcome.ok, outcome.report()
    """,
}

# The same bug as this version writes it.
FINDING = Finding(
    "liveness:stuck_waiting:radix+overlap+swa",
    Script(
        EngineConfig(model="swa", swa_full_tokens_ratio=0.75, max_total_tokens=96, chunked_prefill_size=-1),
        (StartReq("r0", prompt=Prompt(length=72), max_new_tokens=4),),
    ),
    Violation("liveness", "stuck_waiting", "r0 waits", 200, "end"),
    "0.5.23",
)


@pytest.fixture(scope="module", params=["wheel", "editable"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which sr_fuzz is installed in the given way."""
    folder = tmp_path_factory.mktemp(request.param)
    source = ROOT
    if request.param == "wheel":
        # Installed from a copy, since a build writes into the tree.
        source = folder / "source"
        files = ["git", "ls-files", "-co", "--exclude-standard"]
        tracked = subprocess.run(files, cwd=ROOT, capture_output=True, text=True)
        for name in filter(lambda name: (ROOT / name).is_file(), tracked.stdout.splitlines()):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    interpreter = make_environment(folder / "venv")
    install(interpreter, source, editable=request.param == "editable")
    return interpreter


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in PROJECT.items():
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(line[indent:] + "\n" for line in lines))
    emit(FINDING, folder, known_cause="never admitted")
    return folder


def test_pytest_runs_there(python: Path, project: Path):
    """The project's own tests, a property test of ours, and a repro each of the previous version and of this one."""
    ran = run(python, project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=few")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed, 2 xfailed" in ran.stdout


def test_a_campaign_there_knows_the_known_bugs(python: Path, project: Path):
    """It counts them at its start; a folder of emitted tests adds to them."""
    ran = run(python, project, "-m", "sr_fuzz", "run", "--max-scripts", "1", "--no-canary", "--seed", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    count = re.search(r"(\d+) known findings", ran.stdout)
    assert count is not None and int(count[1]) > 50, ran.stdout


@pytest.mark.parametrize("python", ["wheel"], indirect=True)
def test_the_built_in_faults_are_there(python: Path, project: Path):
    ran = run(python, project, "-m", "sr_fuzz", "sensitivity", "--fault", "unfreed_row", "--scripts", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "unfreed_row" in ran.stdout
