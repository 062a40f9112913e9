"""Whether a hit of a known signature really is a known bug: its fix must make the hit go away.

Two bugs can have one signature, and several known bugs do. The first hits of each *face* of a signature, and then a
sample, are played once more with all known bugs of the signature fixed. If the violation is still there, another bug
may be behind the signature, and the hit is a suspect. A bug without a fix is compared by its face instead: what was
seen around the hit must be what is seen around the violation of the bug's own script.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sr_fuzz.engine.around.differential import compared
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import Script
from sr_fuzz.script.errors import ConfigNotBooted, EngineError, NotPlayed

FIRST_HITS = 2
"""Hits of each face that are verified: the first, and one more in case that it was a rare coincidence."""

SAMPLE = 16
"""After those, one hit in so many of a face is verified: a bug that hides behind a common one is met now and then."""

_STEPS = 3
"""Steps before the violation that make up a face."""

_KEPT = 3
"""Engines with a fix that are kept: each takes a boot of a second or two for a configuration, and memory."""

UNPLAYABLE = (ConfigNotBooted, NotPlayed)
"""What a fix that this SGLang does not take, or that fails by itself, ends in; the script was played without it."""

Verdict = Literal["verified", "fits", "unverified", "masked", "suspect"]


class Look(NamedTuple):
    """What a second look at a hit has shown."""

    verdict: Verdict
    """``verified``: gone with the fix of ``path``, which acted. ``fits``: still there, with the face of ``path``, a bug
    without a fix. ``unverified``: gone, but no fix has acted, so that it may have gone by itself; or there is nothing
    to compare with. ``masked``: a violation with another signature is there instead. ``suspect``: still there, and the
    face is that of no known bug without a fix."""
    outcome: Outcome
    """Of the run with the fixes; of the hit itself if none of the bugs has one."""
    path: Path | None = None
    """The file of the known bug that explains the hit."""
    fixes: tuple[str, ...] = ()
    """With which the hit was played."""


def face(outcome: Outcome) -> str:
    """What was seen around a violation: the batch, whether the engine was paused, the kinds of the last actions."""
    last = outcome.trace[-_STEPS:]
    kinds = sorted({action.partition("(")[0].rpartition(" ")[2] for record in last for action in record.actions})
    return f"{batch_face(outcome)} after {' '.join(kinds) or 'nothing'}" if last else batch_face(outcome)


def batch_face(outcome: Outcome) -> str:
    """The part of the face that does not depend on what else a script does: the batch, whether the engine was paused.

    Two faces are compared by it, since a random script always has other actions around a violation.
    """
    if not outcome.trace:
        return "no step"
    last = outcome.trace[-1]
    state = "paused" if last.paused else last.mode or "idle"
    return f"{state}{' chunked' if last.chunked is not None else ''}"


class KnownHits:
    """Looks again at hits of known signatures in one campaign."""

    def __init__(
        self,
        engine: Engine,
        fixes: Mapping[Path, tuple[str, ...]],
        script_of: Callable[[Path], Script | None] = lambda path: None,
    ) -> None:
        """``fixes``: by the file of a known bug, the import paths of its fixes. ``script_of``: its own script."""
        self._engine = engine
        self._fixes = dict(fixes)
        self._script_of = script_of
        self._hits: Counter[tuple[str, str]] = Counter()
        self._owed: Counter[tuple[str, str]] = Counter()
        """Looks that are due and have not been taken: the time was up, or the engine broke."""
        self._suspect: set[tuple[str, str]] = set()
        """Faces of which a look was suspect: each of their hits can be one of another bug, so each is looked at."""
        self._fixed: OrderedDict[tuple[str, ...], Engine] = OrderedDict()
        self._faces: dict[Path, Outcome | None] = {}
        self.unplayed: dict[str, str] = {}
        """Why fixes could not be played, by their import paths. Their bugs are compared by face."""

    def count_hit(self, found: str, outcome: Outcome) -> bool:
        """Count the hit, and say whether it is due for a second look, or an earlier one of its face still is."""
        key = found, face(outcome)
        self._hits[key] += 1
        self._owed[key] += self._hits[key] <= FIRST_HITS or self._hits[key] % SAMPLE == 0
        return self._owed[key] > 0 or key in self._suspect

    def look(self, found: str, bugs: Sequence[Path], script: Script, outcome: Outcome) -> Look:
        """Look again at a hit of ``found``, which ``outcome`` shows; ``bugs`` are the known ones of that signature.

        Raises `EngineError` when that is not possible.
        """
        look, key = self._look(found, bugs, script, outcome), (found, face(outcome))
        self._owed[key] = max(0, self._owed[key] - 1)
        if look.verdict == "suspect":
            self._suspect.add(key)
        return look

    def _look(self, found: str, bugs: Sequence[Path], script: Script, outcome: Outcome) -> Look:
        fixed = [path for path in bugs if path in self._fixes]
        while fixed:
            fixes = tuple(dict.fromkeys(fix for path in fixed for fix in self._fixes[path]))
            try:
                with_fixes = compared(self.engine_with(fixes), found).run(script)
            except UNPLAYABLE as error:
                fixed = self._playable(fixed, script, error)
                continue
            return self._judge(found, bugs, script, with_fixes, fixes)
        return self._by_face(found, bugs, outcome, ())

    def _judge(
        self, found: str, bugs: Sequence[Path], script: Script, played: Outcome, fixes: tuple[str, ...]
    ) -> Look:
        violation = played.violation
        if violation is not None and signature(violation, script.config) == found:
            return self._by_face(found, bugs, played, fixes)
        path = self._cause(found, bugs, script, played)
        if violation is not None:
            return Look("masked", played, path, fixes)
        return Look("verified" if path is not None else "unverified", played, path, fixes)

    def _cause(self, found: str, bugs: Sequence[Path], script: Script, played: Outcome) -> Path | None:
        """The bug of which a fix has acted. Of several, the first that suffices; None if only all of them do."""
        names = {name for name, (_, times) in played.faults.items() if times > 0}
        acted = [path for path in bugs if names & {fix.rpartition(":")[2] for fix in self._fixes.get(path, ())}]
        if len(acted) < 2:
            return next(iter(acted), None)
        for path in acted:
            violation = compared(self.engine_with(self._fixes[path]), found).run(script).violation
            if violation is None or signature(violation, script.config) != found:
                return path
        return None

    def _by_face(self, found: str, bugs: Sequence[Path], seen: Outcome, fixes: tuple[str, ...]) -> Look:
        """Compare a violation, which is there with those fixes, with those of the bugs that have no fix."""
        unfixed = [path for path in bugs if path not in self._fixes]
        faces = {path: self._own(found, path) for path in unfixed}
        for path, own in faces.items():
            if own is not None and batch_face(own) == batch_face(seen):
                return Look("fits", seen, path, fixes)
        if None in faces.values() or not (fixes or faces):
            return Look("unverified", seen, None, fixes)
        return Look("suspect", seen, None, fixes)

    def same_face(self, found: str, bugs: Sequence[Path], outcome: Outcome) -> Path | None:
        """Which of the bugs without a fix has the whole face of the violation of a minimal script."""
        for path in bugs:
            own = self._own(found, path) if path not in self._fixes else None
            if own is not None and face(own) == face(outcome):
                return path
        return None

    def _own(self, found: str, path: Path) -> Outcome | None:
        """What the bug's own script shows on this engine; None if that is not the rule of ``found``.

        Raises `EngineError` when the engine fails.
        """
        if path not in self._faces:
            self._faces[path] = self._play_own(path)
        own = self._faces[path]
        if own is None or own.violation is None:
            return None
        return own if found.startswith(f"{own.violation.invariant}:{own.violation.rule}:") else None

    def _play_own(self, path: Path) -> Outcome | None:
        script = self._script_of(path)
        if script is None:
            return None
        try:
            self._engine.refuse(script.config)
        except EngineError:
            return None  # it is for another kind of engine
        try:
            return self._engine.run(script)
        except ConfigNotBooted:
            return None

    def _playable(self, bugs: list[Path], script: Script, error: EngineError) -> list[Path]:
        """Return the bugs whose fixes can be played; the others are compared by face from now on."""
        left = []
        for path in bugs:
            try:
                if len(bugs) == 1:
                    raise error
                self.engine_with(self._fixes[path]).run(script)
                left.append(path)
            except UNPLAYABLE as own:
                self.unplayed[", ".join(self._fixes.pop(path))] = str(own).partition("\n")[0]
        if len(left) == len(bugs):
            raise error  # each can be played, and all of them together cannot
        return left

    def engine_with(self, fixes: tuple[str, ...]) -> Engine:
        """The engine under test, its own faults included, with those fixes."""
        if not fixes:
            return self._engine
        engine = self._fixed.pop(fixes, None)
        if engine is None:
            # Of a live engine each one is a whole scheduler or server, in addition to those of the search.
            shared = self._engine.isolation == "shared"
            while len(self._fixed) >= (1 if shared else _KEPT):
                self._fixed.popitem(last=False)[1].close()
            engine = self._engine.with_faults(*self._engine.faults, *fixes)
            if shared:
                engine.keep(1)
        self._fixed[fixes] = engine
        return engine

    def close(self) -> None:
        """End the engines that are kept. Idempotent; a later hit starts others."""
        while self._fixed:
            self._fixed.popitem()[1].close()
