"""What shows that each rule can be broken, and says so: a rule that was never red is not known to work.

`PROOFS` has an entry for each rule that ``bench.rules_in_code`` finds in the sources. ``tests/unit/test_every_rule.py``
fails for a rule without a proof, for a proof of a rule that is no more, and for a proof that does not assert its rule.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from sr_fuzz.outcome import Outcome
from tests.breakages import BREAKAGES


class Seeded(NamedTuple):
    """A seeded fault of the catalogue; ``tests/faults/test_faults.py`` asserts the rule."""

    fault: str


class Known(NamedTuple):
    """A known bug of SGLang, of which all signatures have the rule; ``tests/regressions`` asserts them."""

    bug: str


class Broken(NamedTuple):
    """A breakage of `tests.breakages`, on a real engine; ``tests/engine/test_breakages.py`` asserts the rule."""

    key: str


class Asserted(NamedTuple):
    """A test with an assertion that names the rule."""

    test: str
    """``path::function``."""
    fake: str = ""
    """Why it plays nothing on a real engine, where it does not."""


Proof = Seeded | Known | Broken | Asserted

_FAULTS = {
    "kv_pages:leaked": "dropped_free",
    "kv_pages:double_free": "double_free",
    "kv_pages:use_after_free": "freed_too_early",
    "kv_pages:owned_twice": "samples_on_one_page",
    "kv_pages:window_leaked": "window_leaked",
    "kv_pages:window_gone": "window_freed_early",
    "request_rows:leaked": "unfreed_row",
    "mamba_slots:leaked": "state_leaked",
    "mamba_slots:double_free": "state_freed_twice",
    "tree_locks:lock_without_holder": "skipped_unlock",
    "tree_locks:holder_without_lock": "unlocked_prefix",
    "window_locks:holder_without_lock": "window_lock_lost",
    "sessions:slot_without_session": "unclosed_slot",
    "sessions:refused_without_cause": "dead_session",
    "lora:wrong_weights": "slot_not_written",
    "lora:kv_of_another_adapter": "prefix_without_adapter",
    "kv_content:wrong_content": "corrupted_page",
    "mamba_content:wrong_state": "state_not_copied",
    "paused_frozen:not_as_asked": "unpaused_by_abort",
    "paused_frozen:forward_while_paused": "ran_while_paused",
    "paused_frozen:output_moved": "advanced_while_paused",
    "nobody_lost:lost": "lost_request",
    "retraction:output_lost": "lost_output",
    "chunks:rest_forgotten": "forgotten_rest",
    "chunks:wrong_committed": "miscounted_chunk",
    "oracle_output:wrong_token": "accepted_too_many",
    "oracle_output:stop_passed_over": "missed_stop",
    "embeddings:wrong_vector": "swapped_vectors",
    "streams:stream_differs": "streamed_twice",
    "streams:malformed_message": "short_finish_reasons",
    "streams:logprobs_missing": "lost_logprob",
    "streams:finished_twice": "finish_sent_twice",
    "usage:wrong_prompt_tokens": "counted_in_prompt",
    "usage:wrong_cached_tokens": "cached_twice",
    "usage:wrong_input_logprobs": "input_logprobs_twice",
    "control_replies:unanswered": "silent_refusal",
    "aborts:too_many_tokens": "ignored_abort",
    "aborts:uncalled_for": "wrong_victim",
    "priority:preempted_without_cause": "needless_preemption",
    "priority:lower_priority_first": "inverted_priority",
    "priority:overtaken": "overtaking",
    "liveness:stuck_*": "drains_for_ever",
    "admission:waits_though_room": "starved_request",
    "load:wrong_num_used_tokens": "gauge_that_only_rises",
    "determinism:other_trace": "shuffled_queue",
    "schedule_dependent_output:differs_from_alone": "shared_limit",
    "crash:*": "dead_on_abort",
    "hang:timeout": "endless_retraction",
    "exception:*": "missed_retraction",
    "sglang_idle_check:failed": "timed_out_keeps_all",
}

_BUGS = {
    "streams:empty_after_finish": "streams_empty_after_finish_00b8ad",
    "aborts:aborted_though_room": "aborts_aborted_though_room_8a8738",
    "http_answers:control_stuck": "http_answers_control_stuck_1b7970",
}

_SERVER = "tests/engine/test_server.py::test_what_is_lost_between_scheduler_and_client_is_found"
_TWO_RUNS = "tests/unit/test_differential.py"
_FAKE_RUNS = "what differs between two runs of one scheduler lies outside of both"

PROOFS: dict[str, tuple[Proof, ...]] = {
    **{rule: (Seeded(fault),) for rule, fault in _FAULTS.items()},
    **{rule: (Known(bug),) for rule, bug in _BUGS.items()},
    **{f"http_answers:{rule}": (Asserted(_SERVER),) for rule in ("other_tokens", "other_end", "failed", "no_end")},
    "http_answers:not_passed_on": (
        Asserted("tests/engine/test_server.py::test_what_the_server_does_not_pass_on_is_found_within_seconds"),
    ),
    "http_answers:unanswered": (
        Asserted(
            "tests/unit/test_http_answers.py::test_a_client_that_waits_for_ever",
            fake="a real client is waited for ten seconds",
        ),
    ),
    "determinism:other_violation": (
        Asserted(f"{_TWO_RUNS}::test_a_violation_that_only_the_second_run_shows_is_one_of_determinism", _FAKE_RUNS),
    ),
    "determinism:other_output": (
        Asserted(f"{_TWO_RUNS}::test_another_output_in_the_same_steps_is_a_violation", _FAKE_RUNS),
    ),
}
for _key, _breakage in BREAKAGES.items():
    PROOFS[_breakage.rule] = (*PROOFS.get(_breakage.rule, ()), Broken(_key))

SHOWN_BY_FAULT: dict[str, str] = {fault: rule for rule, fault in _FAULTS.items()}
"""The rule that a seeded fault must show with the script that triggers it."""


def rule_of(outcome: Outcome) -> str | None:
    """The rule that a run broke, ``invariant:rule``; None if none."""
    found = outcome.violation
    return None if found is None else f"{found.invariant}:{found.rule}"


def is_rule(outcome: Outcome, rule: str) -> bool:
    """Whether a run broke that rule, in which ``*`` stands for anything."""
    return fnmatchcase(rule_of(outcome) or "", rule)
