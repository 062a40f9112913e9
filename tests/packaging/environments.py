"""Virtual environments for tests, which see the packages of the environment that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def make_environment(folder: Path, *, without: str | None = None) -> Path:
    """Create an environment in that folder; returns its interpreter. ``without``: a package that it does not see."""
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    inner = subprocess.run(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    # A path file, so that the folder's own path files, and with them an editable install, are not read a second time.
    outer = Path(sysconfig.get_path("purelib"))
    lines = [str(outer if without is None else _links(outer, folder / "others", without)), *_path_files(outer)]
    (Path(inner.stdout.strip()) / "base.pth").write_text("\n".join(lines) + "\n")
    return interpreter


def _links(site: Path, folder: Path, without: str) -> Path:
    folder.mkdir()
    for entry in site.iterdir():
        if entry.name != without and not entry.name.startswith(f"{without}-"):
            (folder / entry.name).symlink_to(entry)
    return folder


def _path_files(site: Path) -> list[str]:
    """Folders that plain path files of the outer environment name: through these it sees packages of another one
    itself."""
    found = [line for file in site.glob("*.pth") if not file.name.startswith("__editable__")
             for line in file.read_text().splitlines()]  # fmt: skip
    return [line for line in found if line.startswith("/")]


def install(interpreter: Path, source: Path, *, editable: bool) -> None:
    """Install a project there, without its dependencies."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(interpreter), "--disable-pip-version-check", "-q", "install",
         "--no-deps", "--no-build-isolation", *(["-e"] if editable else []), str(source)],
        check=True,
    )  # fmt: skip


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run that interpreter in that folder, as a user would."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
