"""Writes the contract with SGLang as a page, with the releases that have each name.

    python -m bench.contract [--markdown docs/sglang-contract.md]

Whether a release has a name is read from its source; each release is fetched once into a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sr_fuzz.faults.names import fault_rows
from sr_fuzz.sglang_api.contract_table import CONTRACT, Name
from sr_fuzz.sglang_api.patches import PATCHES
from sr_fuzz.sglang_api.source_names import SourceNames
from sr_fuzz.sglang_api.sources import sglang_folder
from sr_fuzz.sglang_api.versions import RELEASES

_HEAD = """# The contract with SGLang

Written by `python -m bench.contract --markdown docs/sglang-contract.md` from `sr_fuzz/sglang_api/contract.py`, from
what faults and fixes patch, and from `sr_fuzz/sglang_api/patches.py`. Which release has a name was read from its
source. `sr-fuzz doctor --sglang SOURCE` compares any other release or source tree.

A *seam* is a name without which nothing can be played or nothing of it seen: an engine refuses to start, in one line.
Any other name that is missing costs what the last column says, and nothing else. Modules are below `sglang`.
"""


def spans(row: Name, sources: Sequence[SourceNames]) -> tuple[str, str]:
    """Since and until: the first and the last release that have it; empty for the oldest and the newest release."""
    has = [release for release, source in zip(RELEASES, sources, strict=True) if row.is_in(source)]
    if not has:
        return "never", ""
    return (has[0] if has[0] != RELEASES[0] else ""), (has[-1] if has[-1] != RELEASES[-1] else "")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _row(row: Name, sources: Sequence[SourceNames]) -> str:
    names = " or ".join(f"`{name}`" for name in row.names if name) or "the module"
    cost = "**seam**" if row.seam else row.cost or "nothing: it is not needed there"
    return _line(names, f"`{row.module}`", *spans(row, sources), row.read_by, cost)


def page(sources: Sequence[SourceNames]) -> Iterator[str]:
    """The lines of the page."""
    yield from _HEAD.splitlines()
    header = _line("name", "module", "since", "until", "read by", "without it"), "|---|---|---|---|---|---|"
    yield from ("", "## Names that engines, invariants and actions need", "", *header)
    yield from (_row(row, sources) for row in CONTRACT)
    yield from ("", "## Names that seeded faults and fixes patch", "", *header)
    yield from (_row(row, sources) for row in sorted(fault_rows(), key=lambda row: (row.module, row.names)))
    yield from ("", "## What is patched", "")
    yield "Nothing of the scheduler's logic. Each name here gets another value in an engine's processes:"
    yield from ("", _line("name", "why", "where", "done in"), "|---|---|---|---|")
    yield from (_line(f"`{one.names}`", one.why, one.where, f"`sr_fuzz/{one.file}.py`") for one in PATCHES)


def main(
    markdown: Annotated[Path | None, typer.Option(help="Write the page there.")] = None,
) -> None:
    """Print the page, or write it."""
    sources = [SourceNames(sglang_folder(release) / "sglang") for release in RELEASES]
    text = "\n".join(page(sources)) + "\n"
    if markdown is None:
        print(text, end="")
    else:
        markdown.write_text(text)


if __name__ == "__main__":
    typer.run(main)
