"""Renames each name of the contract in a source tree of its own, plays scripts there, and prints what was not checked.

    python ci/rename_each_name.py [NAME ...]

The runs are made without the table, so that an invariant is left out only where it really reads the name. One that the
table does not say is an error, exit status 1. One that the table says and no script here has needed is only reported:
the scripts are few. A name that SGLang shares with its libraries (``size``) cannot be renamed; the tree then does not
start, which is reported. Each name takes about twenty seconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sr_fuzz.strategies.configs import find_configs
from sr_fuzz.strategies.draw import first
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.contract_table import CONTRACT, Name
from sr_fuzz.sglang_api.versions import installed_package

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.source_trees import renamed_tree  # noqa: E402

# Each configuration covers invariants that do not apply to the others.
CONFIGS = ("overlap-chunk16", "priority-preempt", "paged4-mixed", "swa-chunk16", "mamba-chunk16", "session-chunk16",
           "embedding-chunk16", "lora-chunk16")  # fmt: skip
SCRIPTS = 4

UNDECLARED = "tests.source_trees:undeclared"
"""Takes the table's word from no invariant; see there."""


def turned_off(package: Path) -> dict[str, str]:
    """Invariants that a run on that tree left out because of a missing name, with the reason."""
    found: dict[str, str] = {}
    with LocalEngine(faults=[UNDECLARED], sys_path=[str(package.parent), str(ROOT)]) as engine:
        for config in find_configs(CONFIGS).values():
            for script in first(scripts([config]), seed=7, count=SCRIPTS):
                outcome = engine.run(script)
                reasons = {
                    **outcome.not_checked,
                    **{f"not played: {what}": why for what, why in outcome.not_played.items()},
                    **{f"not counted: {what}": why for what, why in outcome.not_counted.items()},
                }
                found |= {what: why for what, why in reasons.items() if "this SGLang" in why}
                if outcome.violation is not None:
                    found[f"VIOLATION {outcome.violation.invariant}.{outcome.violation.rule}"] = ""
    return found


def _words(row: Name) -> set[str]:
    return {name.rpartition(".")[2] for name in row.names}


def compare(row: Name, usual: set[str]) -> str:
    """One line for a row. ``usual``: what is found on the installed tree as well."""
    words = _words(row)
    with tempfile.TemporaryDirectory() as folder:
        package = renamed_tree(Path(folder), *words)
        try:
            found = turned_off(package)
        except EngineError as error:
            return f"cannot be played: {str(error).splitlines()[0][:160]}"
    # Several rows may have the same word as a name.
    told = {name for other in CONTRACT if words & _words(other) for name in other.unchecked}
    off = {what for what in found if " " not in what}
    notes = [what for what in found if " " in what and what not in usual]
    more, unread = sorted(off - told), sorted(told - off)
    verdict = f"more than the table says: {more}" if more else "ok"
    return " ".join([verdict, *([f"not read here: {unread}"] if unread else []), *map(str, notes)])


def main(wanted: list[str]) -> int:
    usual, wrong = set(turned_off(installed_package())), 0
    for row in CONTRACT:
        if not row.seam and any(row.names) and (not wanted or set(wanted) & set(row.names)):
            told = compare(row, usual)
            print(f"{row.shown}: {told}", flush=True)
            wrong += not told.startswith(("ok", "cannot be played"))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
