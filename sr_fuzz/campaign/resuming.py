"""What an earlier campaign has seen and not followed up to its end is played again, before anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sr_fuzz.campaign.events import Listener, Resumed
from sr_fuzz.campaign.out_folder import OutFolder, Unfinished
from sr_fuzz.campaign.search import Leave, Search
from sr_fuzz.campaign.sightings import Sightings
from sr_fuzz.campaign.trouble import Troubles
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import Script, script_hash
from sr_fuzz.shrink.confirm import CONFIRM_RUNS


class Resuming:
    """Completes the findings of earlier campaigns."""

    def __init__(
        self,
        search: Search,
        sightings: Sightings,
        out: OutFolder,
        *,
        troubles: Troubles,
        restart: Callable[[], None],
        on_event: Listener,
        on_next: Callable[[Unfinished], None] = lambda each: None,
        on_shown: Callable[[Script, Outcome, str], None] = lambda script, outcome, found: None,
    ) -> None:
        """``on_next`` is called with each before it is played; ``on_shown`` with what was played on the engine under
        test and shows its finding."""
        self._search = search
        self._sightings = sightings
        self._out = out
        self._troubles = troubles
        self._restart = restart
        self._on_event = on_event
        self._on_next = on_next
        self._on_shown = on_shown

    def resume(self, unfinished: Sequence[Unfinished], may_go_on: Callable[[], bool]) -> None:
        """Play the scripts of unfinished findings, as long as that may go on.

        One that cannot be played, and one whose follow-up meets trouble, stays unfinished.
        """
        for each in unfinished:
            if not may_go_on():
                return
            self._on_next(each)
            before = self._troubles.total
            try:
                shows = self._shows_again(each)
            except Leave:
                return  # no script can be played
            if shows is None or self._troubles.total > before:
                continue
            try:
                self._out.close(each.case, shows=shows)
            except OSError as error:
                self._troubles.keep(None, error, "writing")
            if not shows:
                self._on_event(Resumed(each.case.path, shows))

    def _shows_again(self, unfinished: Unfinished) -> bool | None:
        """Whether a script still shows its finding, in one of a few runs; then it is followed up.

        None where that is not known: it cannot be played, or is a hit of a known signature that is not verified.
        """
        case, fixes = unfinished
        for _ in range(CONFIRM_RUNS):
            outcome = self._run_fixed(case.script, fixes) if fixes else self._search.run(case.script)
            if outcome is None:
                return None
            if outcome.violation is not None and signature(outcome.violation, case.script.config) == case.signature:
                if not fixes:
                    self._search.played.add(script_hash(case.script))
                    self._on_shown(case.script, outcome, case.signature)
                self._on_event(Resumed(case.path, True))
                return True if self._sightings.resume(unfinished, outcome) else None
        return False

    def _run_fixed(self, script: Script, fixes: tuple[str, ...]) -> Outcome | None:
        """Play a script with known bugs fixed; None where it could not be played.

        That the configuration does not boot there says nothing about the engine under test.
        """
        try:
            return self._sightings.engine_with(fixes).run(script)
        except Exception as error:
            self._troubles.keep(script, error, "verifying")
            self._restart()
            return None
