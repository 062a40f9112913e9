"""``sr-fuzz sensitivity``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli import engines
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.options import SglangOption, duration, fault_path
from sr_fuzz.cli.shared import check_target, find_configs
from sr_fuzz.script.wording import did_you_mean, shortened

if TYPE_CHECKING:
    from sr_fuzz.campaign.sensitivity import Report
    from sr_fuzz.faults import Fault
    from sr_fuzz.script import Script

DEFAULT_SCRIPTS = 60


_FaultNames = Annotated[
    list[str] | None, typer.Option("--fault", metavar="NAME", help="Only this built-in fault. Repeatable.")
]
_Load = Annotated[
    list[str] | None,
    typer.Option(
        "--load", parser=fault_path, metavar="MODULE:FUNCTION",
        help="A fault of your own, instead of the built-in ones or beside those that --fault names. Repeatable.",
    ),
]  # fmt: skip
_Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SET", help="Configurations to search on, instead of those a fault asks for."),
]
_Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Draws other scripts.")]
_Scripts = Annotated[int, typer.Option(min=1, metavar="N", help="Most scripts for a fault.")]
_Time = Annotated[
    float, typer.Option("--time", parser=duration, metavar="DURATION", help="Longest search for a fault.")
]
_Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the rows as JSON.")]
_Markdown = Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the table as a page.")]
_Baseline = Annotated[Path | None, typer.Option(metavar="FILE", help="An earlier JSON file to compare with.")]


def sensitivity(
    fault: _FaultNames = None,
    load: _Load = None,
    config_set: _Sets = None,
    seed: _Seed = 0,
    scripts: _Scripts = DEFAULT_SCRIPTS,
    time_s: _Time = "60s",  # type: ignore[assignment]  # parsed like a value from the command line
    json: _Json = None,
    markdown: _Markdown = None,
    baseline: _Baseline = None,
    sglang: SglangOption = None,
) -> int:
    """Measure what the fuzzer would see: put known bugs into SGLang, and look for each of them.

    The exit status is 0, or 1 when a fault that [bold]--baseline[/] says was detected is not detected any more.
    """
    wanted = _faults(fault, load)
    configs = {each.name: tuple(config_set or each.sets) for each in wanted}
    for names in configs.values():
        find_configs(names, option="--set")
    earlier = _baseline(baseline)
    _check_targets(json, markdown)

    from sr_fuzz.campaign.sensitivity import Report, Sensitivity, compare
    from sr_fuzz.outcome.writing import write_whole
    from sr_fuzz.report.sensitivity import comparison, line, table
    from sr_fuzz.report.sensitivity import markdown as page
    from sr_fuzz.report.terminal import make_console

    console = make_console()
    drawn: dict[tuple[str, ...], list[Script]] = {}
    with engines.start(None, sglang=sglang) as engine:
        report = Report(engine.sglang_version, seed, scripts, searches=[])
        measuring = Sensitivity(engine, time_s=time_s)
        for each in wanted:
            names = configs[each.name]
            if names not in drawn:
                drawn[names] = _draw(names, seed, scripts)
            report.searches.append(measuring.measure(each, drawn[names]))
            console.print(line(report.searches[-1]), markup=False, soft_wrap=True)
    report.summarise()
    console.print(table(report))
    if json is not None:
        report.save(json)
    if markdown is not None:
        write_whole(markdown, page(report).encode())
    if earlier is None:
        return 0
    changes = compare(report, earlier)
    console.print(comparison(changes), soft_wrap=True)
    return 1 if changes.lost else 0


def _check_targets(json: Path | None, markdown: Path | None) -> None:
    """Refuse files that could not be written, or that are one file, before the search."""
    for option, path in (("--json", json), ("--markdown", markdown)):
        check_target(option, path)
    if json is not None and markdown is not None and json.absolute() == markdown.absolute():
        raise InputError(f"--json and --markdown: both name {json}; one would overwrite the other")


def _faults(names: Sequence[str] | None, paths: Sequence[str] | None) -> list[Fault]:
    from sr_fuzz.faults import as_fault

    built_in = _catalogue() if names or not paths else {}
    unknown = sorted(set(names or ()) - set(built_in))
    if unknown:
        like = did_you_mean(unknown[0], built_in, otherwise="docs/sensitivity.md lists them")
        raise InputError(f"--fault: no fault {shortened(repr(unknown[0]), 60)}; {like}")
    chosen = [built_in[name] for name in names] if names else list(built_in.values())
    with _importable():
        try:
            chosen += [as_fault(path) for path in paths or ()]
        except ValueError as error:
            raise InputError(f"--load: {error}") from None
    twice = [name for name, times in Counter(each.name for each in chosen).items() if times > 1]
    if twice:
        raise InputError(f"two faults are named {twice[0]!r}")
    return chosen


def _catalogue() -> dict[str, Fault]:
    from sr_fuzz.faults.catalogue import FAULTS

    return FAULTS


@contextmanager
def _importable() -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = engines.search_path(None)
    try:
        yield
    finally:
        sys.path[:] = before


def _baseline(path: Path | None) -> Report | None:
    if path is None:
        return None
    from sr_fuzz.campaign.sensitivity import load_report

    try:
        return load_report(path)
    except ValueError as error:
        raise InputError(f"--baseline: {error}") from None


def _draw(names: Sequence[str], seed: int, count: int) -> list[Script]:
    from sr_fuzz.strategies import draw
    from sr_fuzz.strategies.scripts import scripts

    return draw.first(scripts(list(find_configs(names).values())), seed=seed, count=count)
