"""The texts for issues of SGLang, one for each known bug that is open in the installed release.

    python -m bench.issues [--out docs/findings/issues]

Each bug is played on the local engine; where SGLang's scripted runtime can show it, the text holds a test for that.
Bugs that only a whole server shows are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sr_fuzz.bugs.catalogue import KnownBug, shipped
from sr_fuzz.cli.sglang_own import write_issue
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.outcome.files import load


def wanted(sglang_version: str) -> dict[Path, KnownBug]:
    """Return the known bugs that get a text."""
    return {path: bug for path, bug in shipped().items() if bug.engine == "local" and bug.is_open_in(sglang_version)}


def main(out: Annotated[Path, typer.Option(help="Where the texts go.")] = Path("docs/findings/issues")) -> None:
    """Write them all."""
    out.mkdir(parents=True, exist_ok=True)
    with LocalEngine(sys_path=[str(Path.cwd())]) as engine:
        for path in wanted(engine.sglang_version):
            written = write_issue(engine, load(path), out, None)
            print(written.rename(out / f"{path.stem}.md"))


if __name__ == "__main__":
    typer.run(main)
