"""The output of a request is the oracle's, whatever the schedule was."""

from __future__ import annotations

from collections.abc import Iterator

from sr_fuzz.invariants.base import Invariant, Problem

from sr_fuzz.oracle.function import continuation
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of


def _refused(req: Request, prompt: list[int]) -> bool:
    """Whether SGLang replaced the prompt when it refused the request (``Req.set_finish_with_abort``)."""
    ending = req.finish or req.finish_to_come or {}
    return ending.get("type") == "abort" and list(req.origin_input_ids) == [0] != prompt


def _goes_on_in_it(req: Request, prompt: list[int]) -> bool:
    """Whether the request has ended and the next turn of its session has taken over its prompt's array."""
    return req.is_finished and req.is_streaming_turn and list(req.origin_input_ids)[: len(prompt)] == prompt


class OracleOutput(Invariant):
    """Each request's ``output_ids`` equal the reference, and the request stops where it should.

    Formula: ``output_ids`` is a prefix of `sr_fuzz.oracle.function.continuation` of the prompt that was sent, over all
    positions or, where the model sees nothing but a sliding window, over that window. A finish by length comes at
    exactly ``max_new_tokens`` (as clipped by SGLang); a finish by a stop comes at the first token that is EOS or one of
    ``stop_token_ids``, and only without ``ignore_eos``; no such token is passed over.

    Source: ``Req.update_finish_state``; clipping in ``Scheduler.init_req_max_new_tokens``.
    Covers: engines that run the oracle model.

    Known false alarms: ``ignore_eos`` also ignores ``stop_token_ids``. A request that SGLang refuses on arrival runs a
    prefill of one dummy token and ends as aborted; its output is not compared. With ``max_new_tokens=0`` the prefill
    does not sample and a placeholder stands for the token (``Req.is_prefill_only``). The prefill server of a
    disaggregated pair ends each request after its first token, whatever limit was asked for. The next turn of a
    streaming session goes on in the prompt array of the turn that has ended (``Session._share_token_arrays``), possibly
    in the step in which that turn ends; it first cuts off what a turn has added that was aborted in the queue.
    """

    name = "oracle_output"
    family = "output"

    def __init__(self) -> None:
        self._reference: dict[Request, Iterator[int]] = {}
        self._expected: dict[Request, list[int]] = {}
        self._done: set[Request] = set()

    def not_covered(self, view: SchedulerView) -> str | None:
        if view.half == "decode":
            return "the fake transfer writes no KV: no prompt is computed"
        return None if hasattr(view.model, "read_back") else "the model is not the oracle"

    def check(self, view: SchedulerView) -> Problem | None:
        for req in view.requests:
            if req in self._done:
                continue
            problem = self._compare(view, req)
            if problem is None and req.is_finished:
                self._done.add(req)
                problem = self._stop(req) if view.half is None else None
            if problem is not None:
                return problem
        return None

    def _compare(self, view: SchedulerView, req: Request) -> Problem | None:
        output = req.output_ids
        prompt = view.prompts.get(req.rid)
        if prompt is None or not output or req.max_new_tokens == 0:
            return None
        if list(req.origin_input_ids) != prompt:
            aborted_in_queue = req.is_streaming_turn and view.answered(req.rid) and not req.is_finished
            if _refused(req, prompt) or _goes_on_in_it(req, prompt) or aborted_in_queue:
                return None
            return Problem("prompt_changed", f"{name_of(req.rid)}: the prompt it runs is not the one that was sent")
        expected = self._expected.setdefault(req, [])
        if len(expected) > len(output):
            return None
        if len(output) > len(expected):
            source = self._reference.get(req)
            if source is None:
                source = self._reference[req] = continuation(prompt, view.model.window, view.adapter_of(req.rid))
            first = len(expected)
            while len(expected) < len(output):
                expected.append(next(source))
            for at in range(first, len(output)):
                if output[at] != expected[at]:
                    return Problem(
                        "wrong_token",
                        f"{name_of(req.rid)}: output token {at} is {output[at]}, the oracle says {expected[at]} "
                        f"(prompt of {len(prompt)} tokens, retracted {req.retraction_count} times)",
                    )
        return None

    @staticmethod
    def _stop(req: Request) -> Problem | None:
        reason = (req.finish or {}).get("type")
        output = list(req.output_ids_through_stop)
        stops = req.stop_tokens
        passed = [at for at, token in enumerate(output[:-1]) if token in stops]
        if passed:
            return Problem(
                "stop_passed_over",
                f"{name_of(req.rid)}: output token {passed[0]} ({output[passed[0]]}) is a stop token, but "
                f"{len(output)} tokens came out",
            )
        # With max_new_tokens=0 the prefill still yields a token; whether it counts as output differs by release.
        allowed = {req.max_new_tokens} if req.max_new_tokens else {0, 1}
        if reason == "length" and len(output) not in allowed:
            return Problem(
                "wrong_length",
                f"{name_of(req.rid)} finished by length with {len(output)} tokens, max_new_tokens is "
                f"{req.max_new_tokens}",
            )
        if reason == "stop" and (not output or output[-1] not in stops):
            return Problem("stop_without_cause", f"{name_of(req.rid)} stopped at {output[-1:]}, no stop token")
        return None
