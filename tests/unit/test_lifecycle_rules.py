"""Rules of `nobody_lost` and `retraction` that no seeded fault breaks, each on the smallest state that does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sr_fuzz.invariants.nobody_lost import NobodyLost
from sr_fuzz.invariants.retraction import Retraction

from sr_fuzz.sglang_api.missing import MissingNames
from sr_fuzz.sglang_api.request_state import KvState


class FakeRequest(SimpleNamespace):
    __hash__ = object.__hash__


def request(name: str = "r0.", **fields: object) -> FakeRequest:
    usual = dict(
        rid=name, is_finished=False, kv=KvState(1, 0, 4, 4), retraction_count=0, output_ids=[7, 8], session_id=None,
        has_input_embeds=False, finish=None,
    )  # fmt: skip
    return FakeRequest(**(usual | fields))


class View(SimpleNamespace):
    def __init__(self, **fields: object) -> None:
        super().__init__(missing=MissingNames(), waiting=[], running=[], requests=[], launched=[], lost=[])
        self.now = SimpleNamespace(placed={})
        self.__dict__.update(fields)

    def unanswered(self) -> list[str]:
        return self.lost

    def answered(self, rid: str) -> bool:
        return False


def test_a_running_request_holds_kv_until_it_has_finished():
    assert NobodyLost().check(View(running=[request(), request("r1.", is_finished=True, kv=None)])) is None
    found = NobodyLost().check(View(running=[request(), request("r1.", kv=None)]))
    assert found is not None and found.rule == "runs_without_memory" and "r1" in found.message


def test_a_request_that_is_nowhere_is_lost():
    found = NobodyLost().check(View(lost=["r0."]))
    assert found is not None and found.rule == "lost"


@pytest.mark.parametrize(
    ("waiting", "rule"),
    [
        ([request(kv=None, is_finished=True)], "waits_though_finished"),
        ([request()], "waits_with_memory"),
        ([request(kv=None)] * 2, "queued_twice"),
    ],
)
def test_what_may_not_wait(waiting: list[FakeRequest], rule: str):
    found = Retraction().check(View(waiting=waiting))
    assert found is not None and found.rule == rule


@pytest.mark.parametrize(
    ("now", "rule"), [([7, 8, 9], None), ([7], "output_lost"), ([7, 9, 9], "output_changed"), ([7, 8], None)]
)
def test_output_grows_at_its_end_alone(now: list[int], rule: str | None):
    req, retraction = request(), Retraction()
    assert retraction.check(View(requests=[req])) is None
    req.output_ids = now
    found = retraction.check(View(requests=[req]))
    assert (found.rule if found is not None else None) == rule
