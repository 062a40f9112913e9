"""What a campaign keeps of what it has searched."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import leak_on_abort
from night_processes import CONFIGS, night
from sr_fuzz.strategies import draw
from sr_fuzz.strategies.motifs import MOTIFS
from sr_fuzz.strategies.scripts import Drawn, drawn_scripts, scripts

from sr_fuzz.campaign.record import Night, Origin, Record, Yield
from sr_fuzz.campaign.store import Store
from sr_fuzz.script import Script


@pytest.fixture
def record() -> Record:
    record = Record()
    record.begin(Night("now", "0.0.fake", 1))
    return record


def test_a_script_counts_for_its_configuration_and_for_each_of_its_motifs(record: Record):
    record.add_run(Origin("default", ("preempt", "twins")), 30, ["a", "b"], {})
    record.add_run(Origin("small", ("twins",)), 12, ["b", "c"], {})
    state = record.state
    assert state.configs == {"default": Yield(scripts=1, new_cells=2), "small": Yield(scripts=1, new_cells=1)}
    assert state.motifs == {"preempt": Yield(scripts=1, new_cells=2), "twins": Yield(scripts=2, new_cells=3)}
    assert (state.scripts, state.steps, record.night.new_cells) == (2, 42, 3)


def test_a_face_counts_once_and_a_finding_for_what_it_was_seen_with(record: Record):
    origin = Origin("default", ("preempt",))
    assert [record.add_face(origin, "kv_pages: leaked", face) for face in ("x", "x", "y")] == [True, False, True]
    record.add_finding(origin, suspect=False)
    record.add_finding(origin, suspect=True)
    assert record.state.motifs["preempt"] == Yield(new_faces=2, findings=2, suspects=1)


def test_scripts_are_the_same_with_and_without_their_motifs():
    configs = list(CONFIGS.values())
    plain: list[Script] = []
    drawn: list[Drawn] = []
    draw.for_each(scripts(configs), plain.append, seed=3, count=40)
    draw.for_each(drawn_scripts(configs), drawn.append, seed=3, count=40)
    assert [each.script for each in drawn] == plain
    used = {motif for each in drawn for motif in each.motifs}
    assert len(used) > 10 and used <= set(MOTIFS)
    assert all(list(each.motifs) == sorted(set(each.motifs)) for each in drawn)


def test_a_night_tells_what_its_finding_was_made_from(tmp_path: Path):
    summary, _ = night(leak_on_abort, tmp_path, max_scripts=40)
    assert [tally.status for tally in summary.findings.values()] == ["new"]
    store = Store(tmp_path)
    store.close()
    state = store.record.state
    assert sum(own.scripts for own in state.configs.values()) == state.scripts >= 40
    assert sum(own.findings for own in state.configs.values()) == 1
    assert sum(own.scripts for own in state.motifs.values()) > state.scripts
    assert all(own.suspects == 0 for own in (*state.configs.values(), *state.motifs.values()))


def test_without_a_store_there_are_findings_and_nothing_else(tmp_path: Path):
    summary, _ = night(leak_on_abort, tmp_path, max_scripts=40, stored=False)
    (found,) = summary.findings.values()
    assert found.status == "new" and found.path is not None and found.path.parent == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {found.path.name, f"{found.path.stem}.json"}
    again, _ = night(leak_on_abort, tmp_path, max_scripts=40, stored=False, seed=2)
    assert [tally.status for tally in again.findings.values()] == ["known"]
