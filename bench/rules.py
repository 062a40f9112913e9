"""Writes the rules of the invariants as a page, each with what shows that it works.

    python -m bench.rules [--markdown docs/rules.md]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from sr_fuzz.invariants import ALL

from bench.rules_in_code import rules
from sr_fuzz.faults.catalogue import FAULTS
from tests.breakages import BREAKAGES
from tests.rules import PROOFS, Asserted, Broken, Known, Proof, Seeded

_HEAD = """# Rules, and what shows that they work

Written by `python -m bench.rules --markdown docs/rules.md` from the sources of the invariants and from
`tests/rules.py`. A finding names an invariant and the rule of it that broke. A rule that was never seen to break is not
known to work, so each one has a proof, and a test fails for a rule without one. There are four kinds:

* a seeded **fault** ([faults.md](faults.md)): `tests/faults` plays its script, and expects this rule;
* a **known bug** of SGLang ([findings](findings/README.md)): `tests/regressions` plays its script, and expects a
  signature with this rule;
* a **breakage** (`tests/breakages`): a small change of SGLang that stands for no bug, on a real scheduler.
  `tests/engine/test_breakages.py` plays its script with and without it. Where another invariant would speak first,
  which is said here, only the one in question is switched on;
* a **test** that names the rule in an assertion; where it plays nothing on a real engine, the reason is given.

An ellipsis stands for a value, `*` in the name of a rule for what is known when it breaks only.
"""

_OTHERS = {
    "determinism": "Two runs of a script are the same (`--differential`).",
    "schedule_dependent_output": "The output of a request is that of the request alone (`--differential`).",
    "crash": "The scheduler's process stays alive.",
    "hang": "A script ends.",
    "exception": "SGLang raises nothing.",
    "sglang_idle_check": "SGLang's own check of an idle scheduler passes.",
}
"""What the rules say that are reported elsewhere than in an invariant."""


def _says(invariant: str) -> str:
    docs = {cls.name: (cls.__doc__ or "").partition("\n")[0] for cls in ALL}
    return docs.get(invariant) or _OTHERS[invariant]


def _proof(proof: Proof) -> str:
    match proof:
        case Seeded(name):
            return f"fault `{name}`: {FAULTS[name].stands_for}"
        case Known(name):
            return f"known bug `{name}`"
        case Broken(key):
            breakage = BREAKAGES[key]
            does = breakage.does.rstrip(".")
            return f"breakage: {does} (alone; {breakage.alone})" if breakage.alone else f"breakage: {does}"
        case Asserted(test, fake):
            return f"test `{test}`" + (f" (fake: {fake})" if fake else "")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def lines() -> Iterator[str]:
    """The lines of the page."""
    yield from _HEAD.splitlines()
    for invariant, group in itertools.groupby(rules().items(), key=lambda item: item[0].partition(":")[0]):
        yield from ("", f"## {invariant}", "", _says(invariant), "")
        yield from (_row("rule", "says", "shown by"), "|---|---|---|")
        for rule, places in group:
            says = "; ".join(dict.fromkeys(place.says for place in places if place.says)) or "what ended it"
            yield _row(f"`{rule.partition(':')[2]}`", says, "; ".join(_proof(proof) for proof in PROOFS[rule]))


def text() -> str:
    return "\n".join(lines()) + "\n"


def main(
    markdown: Annotated[Path | None, typer.Option(help="Write the page there.")] = None,
) -> None:
    """Print the page, or write it."""
    if markdown is None:
        print(text(), end="")
    else:
        markdown.write_text(text())


if __name__ == "__main__":
    typer.run(main)
