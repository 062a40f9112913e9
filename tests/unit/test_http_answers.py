"""What a client gets, where a real client would have to be waited for: on a fake view. See tests/engine/test_server.py
for the others."""

from __future__ import annotations

from types import SimpleNamespace

from sr_fuzz.invariants.http_answers import HttpAnswers

from sr_fuzz.runtime.recorder import Stream
from sr_fuzz.sglang_api.outputs import Delta

ANSWERED = Stream("r0.", [Delta(3, [40], {"type": "length"})])


def found(*, done: bool, stream: Stream) -> str | None:
    """The rule that breaks at the end, if the client of a request is, or is not, done."""
    exchange = SimpleNamespace(done=done, problem=None, events=[], body=ANSWER)
    view = SimpleNamespace(clients={"r0.": exchange}, stream_of={"r0.": stream}.get)
    problem = HttpAnswers().check_end(view)
    return None if problem is None else f"{HttpAnswers.name}:{problem.rule}"


ANSWER = {"output_ids": [40], "meta_info": {"finish_reason": {"type": "length"}}}


def test_a_client_that_waits_for_ever():
    assert found(done=False, stream=ANSWERED) == "http_answers:unanswered"


def test_nobody_waits_in_vain_for_what_the_scheduler_did_not_answer():
    assert found(done=False, stream=Stream("r0.")) is None
    assert found(done=True, stream=ANSWERED) is None
