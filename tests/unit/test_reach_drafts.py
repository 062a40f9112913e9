"""Drafts are counted once, step by step, from the histograms that SGLang keeps."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from sr_fuzz.play import reach_drafts
from sr_fuzz.play.reach_kinds import KINDS, applies
from sr_fuzz.script import EngineConfig
from sr_fuzz.sglang_api.requests import Request


def test_each_step_is_seen_once():
    counts = reach_drafts.DraftCounts()
    raws = one, other = [SimpleNamespace(spec_correct_drafts_histogram=histogram) for histogram in ([], [1])]
    requests = [Request(raw) for raw in raws]
    assert list(counts.new(requests)) == [0]
    one.spec_correct_drafts_histogram += [0, 0, 2]
    other.spec_correct_drafts_histogram = [2, 1]
    assert sorted(counts.new(requests)) == [0, 1, 2, 2]
    assert list(counts.new(requests)) == []


def test_a_request_of_a_release_without_histograms_counts_nothing():
    assert list(reach_drafts.DraftCounts().new([Request(SimpleNamespace())])) == []


def test_steps_with_and_without_accepted_drafts_are_told_apart():
    counts: Counter[str] = Counter()
    for accepted in (0, 2, 0, 1):
        reach_drafts.add(counts, accepted)
    assert counts == {"draft.none": 2, "draft.some": 2, "draft.accepted": 3}


def test_only_a_configuration_that_speculates_can_reach_them():
    kinds = [kind for kind in KINDS if "draft" in kind]
    assert len(kinds) == 4
    assert all(applies(kind, EngineConfig(speculative_algorithm="NGRAM")) for kind in kinds)
    assert not any(applies(kind, EngineConfig()) for kind in kinds)
