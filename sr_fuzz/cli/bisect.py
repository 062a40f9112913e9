"""``sr-fuzz bisect``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli import engines
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.options import EngineKind, EngineOption, FaultOption, FileArgument
from sr_fuzz.cli.shared import check_target, mention_origin

if TYPE_CHECKING:
    from sr_fuzz.campaign.bisecting import OpenEngine
    from sr_fuzz.campaign.bisection import Bisection, OnEvent
    from sr_fuzz.campaign.showing import Wanted
    from sr_fuzz.engine.contract import Engine
    from sr_fuzz.sglang_api.commits import Commits

_From = Annotated[
    str | None, typer.Option("--from", metavar="VERSION", help="The oldest release; if not given, the oldest tested.")
]
_To = Annotated[
    str | None, typer.Option("--to", metavar="VERSION", help="The newest release; if not given, the newest tested.")
]
_Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Do not play every release: halve where the oldest and the newest differ. A bug that went and "
        "came back may be missed."
    ),
]  # fmt: skip
_Repo = Annotated[
    Path | None, typer.Option(metavar="PATH", help="A git repository of SGLang: look at its commits, not at releases.")
]
_Good = Annotated[str | None, typer.Option(metavar="REV", help="With --repo: a commit without the finding.")]
_Bad = Annotated[
    str | None,
    typer.Option(
        metavar="REV", help="With --repo: a commit that has it. If it is older than the good one, the commit that "
        "mended it is looked for."
    ),
]  # fmt: skip
_Runs = Annotated[
    int | None,
    typer.Option(
        "-n", min=1, metavar="N", help="Runs without it that say that it does not show; if not given, one, and more "
        "for a finding that reproduces only now and then."
    ),
]  # fmt: skip
_Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write verdicts and answers there too.")]


def bisect(
    file: FileArgument,
    first: _From = None,
    last: _To = None,
    is_quick: _Quick = False,
    repo: _Repo = None,
    good: _Good = None,
    bad: _Bad = None,
    runs: _Runs = None,
    json: _Json = None,
    engine_kind: EngineOption = EngineKind.LOCAL,
    fault: FaultOption = None,
) -> int:
    """Find the release, or the commit, with which a finding came, the last without it, and the one that mended it.

    Each release takes about a quarter of a minute; one that is missing is fetched once. Of commits only those are
    played that halving asks for; nothing is built, and the repository is only read. What cannot tell is not counted as
    free of the finding. The exit status is 0 whatever was found, and 2 when nothing could tell or an end is not as it
    was said to be.
    """
    from sr_fuzz.campaign.showing import wanted_in
    from sr_fuzz.outcome.files import load

    case = load(file)
    wanted = wanted_in(case, runs)
    check_target("--json", json)
    releases = _releases(first, last, is_quick, repo)
    commits = _commits(repo, good, bad)
    mention_origin(case, fault, sglang="")  # which SGLang it was found in does not matter here
    open_engine = partial(opened, kind=engine_kind, faults=fault or ())
    _check_engine(wanted, engine_kind, open_engine)

    from sr_fuzz.report.bisection import BisectionOutput, answers
    from sr_fuzz.report.terminal import make_console

    console = make_console()
    with BisectionOutput(console, make_console(stderr=True)) as output:
        found = _bisected(wanted, releases, is_quick, commits, open_engine, output)
    for line in answers(found):
        console.print(line, markup=False, soft_wrap=True)
    if json is not None:
        _write(json, found)
    if not found.is_decided:
        raise InputError(f"{file}: whether it shows could not be told anywhere")
    return 0


def opened(folder: Path | None, kind: EngineKind, faults: Sequence[str]) -> Engine:
    """Return an engine with ``folder`` first on its path; it starts when it is first used."""
    from sr_fuzz.engine.options import choose, make_engine

    path = [*([str(folder)] if folder is not None else []), *engines.search_path(None)]
    return make_engine(choose(kind.value), faults=tuple(faults), sys_path=path)


def _check_engine(wanted: Wanted, kind: EngineKind, open_engine: OpenEngine) -> None:
    """Refuse a finding that this kind of engine cannot show, whatever the SGLang."""
    needs_server = wanted.bug.engine == "server" if wanted.bug else wanted.signature.startswith("http_answers:")
    if needs_server and kind is not EngineKind.SERVER:
        raise InputError(f"--engine {kind.value}: {wanted.rule} shows on a server alone; try --engine server")
    with open_engine(None) as engine:
        engine.refuse(wanted.script.config)


def _releases(first: str | None, last: str | None, is_quick: bool, repo: Path | None) -> tuple[str, ...]:
    from sr_fuzz.sglang_api.releases import release_folder
    from sr_fuzz.sglang_api.versions import RELEASES, releases_between

    if repo is not None:
        given = {"--from": first is not None, "--to": last is not None, "--quick": is_quick}
        if wrong := [option for option, is_given in given.items() if is_given]:
            raise InputError(f"{wrong[0]}: is about releases; --repo looks at commits, from --good to --bad")
        return ()
    try:
        releases = releases_between(first, last)
    except ValueError as error:
        raise InputError(f"--from, --to: {error}") from None
    for end in (releases[0], releases[-1]):
        if end not in RELEASES:
            release_folder(end)  # one that there is not is refused at once
    return releases


def _commits(repo: Path | None, good: str | None, bad: str | None) -> Commits | None:
    if repo is None:
        if good is not None or bad is not None:
            raise InputError("--good, --bad: name commits; --repo says of which repository")
        return None
    if good is None or bad is None:
        raise InputError("--repo: needs --good and --bad, a commit without the finding and one with it")
    from sr_fuzz.sglang_api.commits import commits_between

    return commits_between(repo.expanduser(), good, bad)


def _bisected(
    wanted: Wanted,
    releases: Sequence[str],
    is_quick: bool,
    commits: Commits | None,
    open_engine: OpenEngine,
    on_event: OnEvent,
) -> Bisection:
    from sr_fuzz.campaign.bisecting import over_commits, over_releases
    from sr_fuzz.campaign.bisection import WrongEnd

    if commits is None:
        return over_releases(wanted, releases, open_engine, on_event, halving=is_quick)
    try:
        return over_commits(wanted, commits, open_engine, on_event, mended=commits.is_reversed)
    except WrongEnd as error:
        option = "--bad" if error.expected == "shows" else "--good"
        raise InputError(f"{option}: {error}") from None


def _write(path: Path, found: Bisection) -> None:
    import msgspec

    from sr_fuzz.outcome.writing import write_whole

    write_whole(path, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
