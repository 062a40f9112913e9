"""``sr-fuzz doctor``."""

from __future__ import annotations

from sr_fuzz.cli.engines import search_path
from sr_fuzz.cli.options import SglangOption


def doctor(sglang: SglangOption = None) -> int:
    """Say what is installed, what will work here, and how to get what is missing.

    SGLang is the one that a run from this folder would import, also where that is not the installed one.

    The exit status is 0 when fuzzing on the CPU will work, else 2.
    """
    from rich.markup import escape
    from rich.table import Table

    from sr_fuzz.doctor.installation import checks
    from sr_fuzz.report.terminal import make_console

    results = checks(search_path(sglang))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "needed"):
        table.add_column(column, overflow="fold")
    for check in results:
        mark = "[green]ok[/]" if check.ok else "[red]missing[/]" if check.required else "[yellow]optional[/]"
        table.add_row(mark, check.name, escape(check.found), escape(check.needed))
    console = make_console()
    console.print(table)
    for check in results:
        if not check.ok and check.how:
            for line in check.how.splitlines():
                console.print(f"{check.name}: {line}", markup=False, soft_wrap=True)
    works = all(check.ok for check in results if check.required)
    console.print("Fuzzing on the CPU will work here." if works else "Fuzzing on the CPU will not work here yet.")
    return 0 if works else 2
