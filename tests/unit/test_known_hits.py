"""A hit of a known signature is known when the fix of its bug makes it go away; otherwise it is a suspect."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import msgspec
import pytest
from fake_engine import FakeEngine, leak, trace_of
from hypothesis import strategies as st
from rich.console import Console
from sr_fuzz.strategies import draw

from sr_fuzz.bugs.known import Known, known_signatures
from sr_fuzz.campaign.events import Summary
from sr_fuzz.campaign.known_hits import FIRST_HITS, SAMPLE, KnownHits, face
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.outcome import Finding, Outcome, StepRecord, Violation, signature
from sr_fuzz.report.summary import summary as shown
from sr_fuzz.report.terminal import Terminal
from sr_fuzz.script import Abort, EngineConfig, Pause, Script, StartReq, Step
from sr_fuzz.script.errors import ConfigNotBooted, EngineError, NotPlayed

FIX = "sr_fuzz.faults.fixes.output:embedding_once"
BUG = Path("known_bug.json")

SCRIPTS = st.lists(st.sampled_from([Step(1), Step(2), Abort("r0"), Pause("retract")]), min_size=4, max_size=12).map(
    lambda steps: Script(EngineConfig(), (StartReq("r0"), *steps))
)

FOUND = signature(leak(), EngineConfig())


def aborts(script: Script) -> bool:
    return any(isinstance(action, Abort) for action in script.actions)


def pauses(script: Script) -> bool:
    return any(isinstance(action, Pause) for action in script.actions)


def campaign(engine: FakeEngine, out: Path) -> Summary:
    return run_campaign(
        engine, scripts=SCRIPTS, time_s=600, seed=1, out=out, known={FOUND: (BUG, "the known cause")},
        on_event=lambda _: None, max_scripts=60, triage=Triage(engine, {BUG: (FIX,)}),
    )  # fmt: skip


def text(done: Summary) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(shown(done))
    return capture.get()


def test_hits_that_go_away_with_the_fix_are_known_and_verified(tmp_path: Path):
    engine = FakeEngine(lambda script: leak() if aborts(script) else None, {FIX: lambda script: None})
    engine.unseen = {FIX}
    done = campaign(engine, tmp_path)
    (tally,) = done.findings.values()
    assert tally.status == "known" and 0 < tally.verified == tally.asked < tally.count
    assert f"cause verified {tally.verified} of {tally.asked}" in text(done)
    assert not list(tmp_path.glob("test_*"))


def test_another_bug_behind_the_same_signature_is_a_suspect_with_its_own_script(tmp_path: Path):
    """The known bug strikes at an abort, the other one at a pause; both leak a page."""
    engine = FakeEngine(
        lambda script: leak() if aborts(script) or pauses(script) else None,
        {FIX: lambda script: leak() if pauses(script) else None},
    )
    engine.unseen = {FIX}
    done = campaign(engine, tmp_path)
    known, suspect = done.findings[FOUND], done.findings[f"{FOUND} (suspect)"]
    assert known.status == "known" and 0 < known.verified == known.asked, "a suspect is none of its hits"
    assert suspect.status == "suspect" and suspect.finding is not None
    assert suspect.finding.faults == (FIX,) and suspect.finding.reliability == "5 of 5 fresh runs"
    assert pauses(suspect.finding.script) and not aborts(suspect.finding.script)
    assert suspect.path is not None and suspect.path.is_file()
    told = text(done)
    assert "1 known, 1 suspect" in told and "suspect  kv_pages: leaked, seen" in told
    assert f"possibly another bug than those of {BUG.name}: it shows although those that have a fix are fixed" in told


def test_the_terminal_says_of_a_suspect_that_it_is_one(tmp_path: Path):
    engine = FakeEngine(lambda script: leak() if pauses(script) else None, {FIX: lambda script: leak()})
    console = Console(width=200, file=io.StringIO())
    with Terminal(console, clock=itertools.count(0, 11.0).__next__) as terminal:
        run_campaign(
            engine, scripts=SCRIPTS, time_s=6000, seed=1, out=tmp_path, known={FOUND: (BUG, "the known cause")},
            on_event=terminal, max_scripts=40, triage=Triage(engine, {BUG: (FIX,)}),
            clock=itertools.count(0, 2.0).__next__,
        )  # fmt: skip
    said = console.file.getvalue()
    assert "suspect kv_pages: leaked, on" in said and "new finding" not in said
    assert "findings: 0 new, 1 known, 1 suspect" in said


def test_a_fix_that_did_not_act_verifies_nothing(tmp_path: Path):
    engine = FakeEngine(lambda script: leak() if aborts(script) else None, {FIX: lambda script: None})
    (tally,) = campaign(engine, tmp_path).findings.values()
    assert tally.status == "known" and tally.asked > 0 and tally.verified == 0


def test_a_fix_that_does_not_boot_is_named_and_the_hits_stay_known(tmp_path: Path):
    done = campaign(FakeEngine(lambda script: leak() if aborts(script) else None), tmp_path)
    (tally,) = done.findings.values()
    assert tally.status == "known" and tally.asked == 0 and done.scripts == 60
    assert not done.troubles and "no such function" in done.unplayed_fixes[FIX]


def test_trouble_while_a_suspect_is_followed_up_costs_one_stage_alone(tmp_path: Path):
    """The engine with the fix is ended by the restart, and another one confirms the suspect."""
    made: list[FakeEngine] = []

    class Fixable(FakeEngine):
        def with_faults(self, *paths: str) -> FakeEngine:
            made.append(Once(lambda script: leak() if pauses(script) else None))
            made[-1].faults = paths
            return made[-1]

    class Once(FakeEngine):
        """Fails in its second run where it is the first of its kind, and is no good once it is closed."""

        closed = False

        def run(self, script: Script, **options: object) -> Outcome:
            if self.closed or (self is made[0] and len(self.played) == 1):
                raise KeyError("closed" if self.closed else "broken")
            return super().run(script)

        def close(self) -> None:
            self.closed = True

    done = campaign(Fixable(lambda script: leak() if aborts(script) or pauses(script) else None), tmp_path)
    suspect = done.findings[f"{FOUND} (suspect)"]
    assert suspect.finding is not None and suspect.finding.reliability == "5 of 5 fresh runs"
    assert [(trouble.what, trouble.doing) for trouble in done.troubles] == [("KeyError: 'broken'", "minimising")]


@pytest.mark.parametrize(("isolation", "kept"), [("fresh", 3), ("shared", 1)])
def test_a_live_engine_has_one_scheduler_beside_it_for_all_fixes(isolation: str, kept: int):
    open_engines: list[FakeEngine] = []

    class Counted(FakeEngine):
        def with_faults(self, *paths: str) -> FakeEngine:
            open_engines.append(made := Counted(lambda script: None))
            return made

        def close(self) -> None:
            open_engines.remove(self)

    engine = Counted(lambda script: leak())
    engine.isolation = isolation
    bugs = {Path(f"{number}.json"): (f"{FIX}{number}",) for number in range(5)}
    hits = KnownHits(engine, bugs)
    for bug in bugs:
        hits.look(FOUND, [bug], OWN, outcome())
    assert len(open_engines) == kept
    hits.close()
    assert not open_engines


def outcome(*records: StepRecord) -> Outcome:
    return Outcome("", "0.5.23", leak(), trace=records)


def test_the_first_hits_of_each_face_are_verified_and_then_a_sample():
    hits = KnownHits(FakeEngine(lambda script: None, {FIX: lambda script: None}), {BUG: (FIX,)})
    one, other = outcome(StepRecord(1, ("step(1)",), "decode")), outcome(StepRecord(1, ("abort(r0)",), "decode"))

    def looked(hit: Outcome) -> bool:
        if not hits.count_hit(FOUND, hit):
            return False
        hits.look(FOUND, [BUG], OWN, hit)
        return True

    due = [looked(one) for _ in range(2 * SAMPLE)]
    assert [at for at, is_due in enumerate(due, 1) if is_due] == [*range(1, FIRST_HITS + 1), SAMPLE, 2 * SAMPLE]
    assert looked(other), "another face"


def test_a_look_that_was_not_taken_is_owed_at_the_next_hit():
    """The time was up, or the engine with the fix broke."""
    hits = KnownHits(FakeEngine(lambda script: None, {FIX: lambda script: None}), {BUG: (FIX,)})
    hit = outcome(StepRecord(1, ("step(1)",), "decode"))
    for _ in range(FIRST_HITS + 1):
        assert hits.count_hit(FOUND, hit)
    for _ in range(FIRST_HITS):
        hits.look(FOUND, [BUG], OWN, hit)
    assert not hits.count_hit(FOUND, hit)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((), "no step"),
        ((StepRecord(1, ("r0 = start_req(0:8, new=8)", "abort(r0)"), "extend"),), "extend after abort start_req"),
        ((StepRecord(1, (), None, paused=True),), "paused after nothing"),
        ((StepRecord(1, (), "decode", chunked="r1"), StepRecord(2)), "idle after nothing"),
    ],
)
def test_a_face_is_the_batch_and_the_last_kinds_of_action(records: tuple[StepRecord, ...], expected: str):
    assert face(outcome(*records)) == expected


def test_traces_of_the_fake_engine_have_faces():
    assert face(outcome(*trace_of(Script(EngineConfig(), (StartReq("r0"), Step(1))), leak())))


OTHER_FIX, OTHER_BUG = "sr_fuzz.faults.fixes.output:nothing_after_the_end", Path("other_bug.json")


def test_each_of_several_bugs_with_one_signature_explains_its_own_hits(tmp_path: Path):
    """One known bug leaks at an abort, another at a pause: with both fixed nothing leaks, and the one that acted is the
    cause."""

    class Both(FakeEngine):
        def with_faults(self, *paths: str) -> FakeEngine:
            assert paths == (FIX, OTHER_FIX), "all known bugs of the signature are fixed at once"
            made = super().with_faults(*paths)
            made.acts = lambda path, script: aborts(script) == (path == FIX)
            return made

    engine = Both(
        lambda script: leak() if aborts(script) or pauses(script) else None,
        {f"{FIX},{OTHER_FIX}": lambda script: None},
    )
    known = Known([(FOUND, (BUG, "at an abort")), ("kv_pages:*", (OTHER_BUG, "at a pause"))])
    done = run_campaign(
        engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known=known, on_event=lambda _: None,
        max_scripts=60, triage=Triage(engine, {BUG: (FIX,), OTHER_BUG: (OTHER_FIX,)}),
    )  # fmt: skip
    (tally,) = done.findings.values()
    assert tally.status == "known" and tally.verified == tally.asked > 0
    assert set(tally.causes) == {"at an abort", "at a pause"} and sum(tally.causes.values()) == tally.verified
    assert f"{tally.causes['at a pause']} by: at a pause" in text(done)


def test_what_a_known_bug_hides_is_news(tmp_path: Path):
    """With the known bug fixed the script goes on, and breaks another invariant."""
    hidden = Violation("streams", "wrong_count", "r0 got a token too many", 5)
    engine = FakeEngine(lambda script: leak() if aborts(script) else None, {FIX: lambda script: hidden})
    engine.unseen = {FIX}
    done = campaign(engine, tmp_path)
    behind = done.findings[signature(hidden, EngineConfig())]
    assert done.findings[FOUND].status == "known" and done.findings[FOUND].verified > 0
    assert behind.status == "new" and behind.finding is not None and behind.finding.faults == (FIX,)
    assert behind.path is not None and behind.path.is_file()


class Faces(FakeEngine):
    """Leaks in a batch of the given mode."""

    def __init__(self, rule, mode) -> None:  # noqa: ANN001
        super().__init__(rule)
        self.mode = mode

    def run(self, script: Script, **options: object) -> Outcome:
        played = super().run(script, **options)
        return msgspec.structs.replace(played, trace=(StepRecord(1, (), self.mode(script)),))


OWN = Script(EngineConfig(), (StartReq("r0"), Abort("r0")))


def looked_at(engine: FakeEngine, script: Script) -> str:
    hits = KnownHits(engine, {}, {BUG: OWN}.get)
    return hits.look(FOUND, [BUG], script, engine.run(script)).verdict


def test_where_a_bug_has_no_fix_its_face_is_compared():
    engine = Faces(lambda script: leak(), lambda script: "decode" if aborts(script) else "extend")
    assert looked_at(engine, Script(EngineConfig(), (StartReq("r0"), Step(2), Abort("r0")))) == "fits"
    assert looked_at(engine, Script(EngineConfig(), (StartReq("r0"), Step(2)))) == "suspect"


def test_a_bug_that_this_engine_does_not_show_has_no_face_to_compare():
    engine = Faces(lambda script: None if aborts(script) else leak(), lambda script: "extend")
    assert looked_at(engine, Script(EngineConfig(), (StartReq("r0"), Step(2)))) == "unverified"


def test_a_suspect_whose_minimal_script_has_the_known_face_is_known(tmp_path: Path):
    """The batch of a long script is another one than that of the bug's own script; the minimal script has its batch."""
    engine = Faces(
        lambda script: leak() if aborts(script) else None,
        lambda script: "decode" if len(script.actions) < 4 else "extend",
    )
    done = run_campaign(
        engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={FOUND: (BUG, "the known cause")},
        on_event=lambda _: None, max_scripts=60, triage=Triage(engine, {}), script_of={BUG: OWN}.get,
    )  # fmt: skip
    tally = done.findings[f"{FOUND} (suspect)"]
    assert tally.status == "known" and "has the face of the bug of known_bug.json" in tally.reason
    assert not done.suspects and not done.new


def test_a_signature_that_a_known_bug_explains_is_asked_again_at_later_hits(tmp_path: Path):
    """Nothing with that signature is on the list; the first finding is a face of the known bug, a later hit is not."""
    engine = FakeEngine(
        lambda script: leak() if aborts(script) or pauses(script) else None,
        {FIX: lambda script: leak() if pauses(script) else None},
    )
    engine.unseen = {FIX}
    first = next(script for script in draw.first(SCRIPTS, seed=1, count=60) if aborts(script) and not pauses(script))
    done = run_campaign(
        engine, scripts=[st.just(first), SCRIPTS], time_s=6000, seed=1, out=tmp_path, known={},
        on_event=lambda _: None, max_scripts=40, triage=Triage(engine, {BUG: (FIX,)}),
        clock=itertools.count(0, 5.0).__next__,
    )  # fmt: skip
    assert done.findings[FOUND].status == "known" and "another face of the bug" in done.findings[FOUND].reason
    suspect = done.findings[f"{FOUND} (suspect)"]
    assert suspect.status == "suspect" and suspect.finding is not None and pauses(suspect.finding.script)


def test_what_is_left_with_the_fixes_on_is_compared_and_not_the_hit():
    """One known bug has a fix and another has none: of the other the violation that is left must have the face."""
    engine = Faces(lambda script: leak(), lambda script: "decode" if aborts(script) else "extend")
    other = Faces(lambda script: leak(), lambda script: "mixed")
    engine.with_faults = lambda *paths: other
    hits = KnownHits(engine, {OTHER_BUG: (FIX,)}, {BUG: OWN}.get)
    hit = Script(EngineConfig(), (StartReq("r0"), Step(2), Abort("r0")))
    assert hits.look(FOUND, [BUG, OTHER_BUG], hit, engine.run(hit)).verdict == "suspect"


def test_an_own_script_that_breaks_another_rule_has_no_face_to_compare():
    """Under a seeded fault, for instance, whose violation is not that of the known bug."""
    wrong = Violation("streams", "wrong_count", "r0 got a token too many", 5)
    engine = Faces(lambda script: wrong if aborts(script) else leak(), lambda script: "extend")
    assert looked_at(engine, Script(EngineConfig(), (StartReq("r0"), Step(2)))) == "unverified"


def test_an_engine_that_fails_is_asked_again_for_the_face():
    failures = iter([EngineError("the zygote process is gone")])

    class Fails(Faces):
        def run(self, script: Script, **options: object) -> Outcome:
            if script == OWN and (error := next(failures, None)) is not None:
                raise error
            return super().run(script, **options)

    engine = Fails(lambda script: leak(), lambda script: "extend")
    hits, script = KnownHits(engine, {}, {BUG: OWN}.get), Script(EngineConfig(), (StartReq("r0"), Step(2)))
    with pytest.raises(EngineError, match="zygote"):
        hits.look(FOUND, [BUG], script, engine.run(script))
    assert hits.look(FOUND, [BUG], script, engine.run(script)).verdict == "fits"


def test_of_two_fixes_that_act_the_one_that_suffices_is_the_cause():
    engine = FakeEngine(
        lambda script: leak(), {f"{FIX},{OTHER_FIX}": lambda s: None, FIX: lambda s: leak(), OTHER_FIX: lambda s: None}
    )
    engine.unseen = {FIX, OTHER_FIX}
    hits = KnownHits(engine, {BUG: (FIX,), OTHER_BUG: (OTHER_FIX,)})
    look = hits.look(FOUND, [BUG, OTHER_BUG], OWN, engine.run(OWN))
    assert look.verdict == "verified" and look.path == OTHER_BUG


def test_a_suspect_is_not_written_over_the_known_test_of_its_signature(tmp_path: Path):
    """The known tests may lie in the folder of the campaign: an earlier one wrote them, and a person marked them."""
    finding = Finding(FOUND, OWN, leak(), "0.0.fake")
    path = emit(finding, tmp_path, known_cause="the known cause")
    before = path.read_bytes()
    engine = FakeEngine(
        lambda script: leak() if aborts(script) or pauses(script) else None,
        {FIX: lambda script: leak() if pauses(script) else None},
    )
    engine.unseen = {FIX}

    def run() -> Summary:
        done = run_campaign(
            engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known=known_signatures(tmp_path),
            on_event=lambda _: None, max_scripts=60, triage=Triage(engine, {path: (FIX,)}),
        )  # fmt: skip
        assert path.read_bytes() == before
        return done

    written = run().findings[f"{FOUND} (suspect)"].path
    assert written is not None and written.name == f"{path.stem}_suspect.py"
    mark = "import pytest\n\n@pytest.mark.xfail(reason='another')\ndef test_"
    written.write_text(marked := written.read_text().replace("def test_", mark, 1))
    again = run()
    assert not again.suspects and again.findings[FOUND].fitted > 0, "it is known now, and has no fix"
    assert written.read_text() == marked


@pytest.mark.parametrize("error", [ConfigNotBooted("no such function"), NotPlayed("ValueError('fix broken')")])
def test_a_fix_that_fails_stands_in_the_way_of_no_other(error: EngineError):
    """One of two fixes cannot be played: the other one verifies its hits, and explains new findings."""

    class Fails(FakeEngine):
        def with_faults(self, *paths: str) -> FakeEngine:
            made = FakeEngine(self.fails if OTHER_FIX in paths else lambda script: None)
            made.faults, made.unseen = paths, {FIX}
            return made

        def fails(self, script: Script) -> Violation | None:
            raise error

    engine = Fails(lambda script: leak())
    hits = KnownHits(engine, {OTHER_BUG: (OTHER_FIX,), BUG: (FIX,)})
    look = hits.look(FOUND, [OTHER_BUG, BUG], OWN, engine.run(OWN))
    assert (look.verdict, look.path) == ("verified", BUG) and OTHER_FIX in hits.unplayed
    triage = Triage(engine, {OTHER_BUG: (OTHER_FIX,), BUG: (FIX,)})
    finding = Finding(FOUND, OWN, leak(), "0.0.fake", reproduced=5, tried=5)
    assert triage.explain(finding) == (BUG,) and OTHER_FIX in triage.unplayed


def test_each_hit_of_a_face_that_was_suspect_is_looked_at():
    hits = KnownHits(FakeEngine(lambda script: leak(), {FIX: lambda script: leak()}), {BUG: (FIX,)})
    hit = outcome(StepRecord(1, ("step(1)",), "decode"))
    for _ in range(FIRST_HITS + 3):
        assert hits.count_hit(FOUND, hit)
        assert hits.look(FOUND, [BUG], OWN, hit).verdict == "suspect"


def test_trouble_while_a_hit_is_verified_starts_all_engines_anew(tmp_path: Path):
    """What broke may be what they share: the next script is not to meet it as well."""
    broken = iter([EngineError("the configuration process died")])

    class Dies(FakeEngine):
        def with_faults(self, *paths: str) -> FakeEngine:
            def rule(script: Script) -> Violation | None:
                if (error := next(broken, None)) is not None:
                    raise error
                return None

            made = FakeEngine(rule)
            made.faults, made.unseen = paths, {FIX}
            return made

    engine = Dies(lambda script: leak() if aborts(script) else None)
    done = campaign(engine, tmp_path)
    assert [trouble.doing for trouble in done.troubles] == ["verifying"] and engine.restarts == 1
    assert done.findings[FOUND].verified > 0
