"""The output is the oracle's, whatever the schedule was."""

from __future__ import annotations

from collections.abc import Iterator

from invariants.base import Invariant, Problem
from sr_fuzz.cpu.oracle import continuation
from sr_fuzz.view.view import SchedulerView, name_of


class OracleOutput(Invariant):
    """Each request's ``output_ids`` equal the reference, and it stops where it should.

    Formula: ``output_ids`` is a prefix of `sr_fuzz.cpu.oracle.continuation` of the prompt that was sent. A finish by
    length comes at exactly ``max_new_tokens`` (as clipped by SGLang); a finish by a stop comes at the first token
    that is EOS or one of ``stop_token_ids``, and only without ``ignore_eos``; no such token is passed over.

    Source: ``Req.update_finish_state``; clipping in ``Scheduler.init_req_max_new_tokens``.
    Covers: engines that run the oracle model.

    Known false alarms: ``ignore_eos`` also ignores ``stop_token_ids``. A request refused at the door has a prompt of
    one dummy token, so the prompt is taken from what was sent, and refused ones have no output to compare.
    """

    name = "oracle_output"
    family = "output"

    def __init__(self) -> None:
        self._reference: dict[int, Iterator[int]] = {}
        self._expected: dict[int, list[int]] = {}
        self._done: set[int] = set()

    def not_covered(self, view: SchedulerView) -> str | None:
        return None if hasattr(view.model, "read_back") else "the model is not the oracle"

    def check(self, view: SchedulerView) -> Problem | None:
        for req in view.requests:
            if id(req) in self._done:
                continue
            problem = self._compare(req)
            if problem is None and req.finished():
                self._done.add(id(req))
                problem = self._stop(req)
            if problem is not None:
                return problem
        return None

    def _compare(self, req) -> Problem | None:
        output = req.output_ids
        expected = self._expected.setdefault(id(req), [])
        if len(expected) > len(output):
            return None
        if len(output) > len(expected):
            source = self._reference.get(id(req))
            if source is None:
                source = self._reference[id(req)] = continuation(list(req.origin_input_ids))
            first = len(expected)
            while len(expected) < len(output):
                expected.append(next(source))
            for at in range(first, len(output)):
                if output[at] != expected[at]:
                    return Problem(
                        "wrong_token",
                        f"{name_of(req.rid)}: output token {at} is {output[at]}, the oracle says {expected[at]} "
                        f"(prompt of {len(req.origin_input_ids)} tokens, retracted {req.retraction_count} times)",
                    )
        return None

    @staticmethod
    def _stop(req) -> Problem | None:
        reason = req.finished_reason.to_json().get("type")
        output = list(req.output_ids_through_stop)
        params = req.sampling_params
        stops = set() if params.ignore_eos else {*(params.stop_token_ids or ()), *(req.eos_token_ids or ())}
        passed = [at for at, token in enumerate(output[:-1]) if token in stops]
        if passed:
            return Problem(
                "stop_passed_over",
                f"{name_of(req.rid)}: output token {passed[0]} ({output[passed[0]]}) is a stop token, but "
                f"{len(output)} tokens came out",
            )
        if reason == "length" and len(output) != max(1, params.max_new_tokens):
            return Problem(
                "wrong_length",
                f"{name_of(req.rid)} finished by length with {len(output)} tokens, max_new_tokens is "
                f"{params.max_new_tokens}",
            )
        if reason == "stop" and (not output or output[-1] not in stops):
            return Problem("stop_without_cause", f"{name_of(req.rid)} stopped at {output[-1:]}, no stop token")
        return None
