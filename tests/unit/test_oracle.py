"""The oracle's reference: over the whole history, or over a sliding window."""

from __future__ import annotations

from itertools import islice

import pytest

from sr_fuzz.oracle.function import continuation, digest_of, next_token

PROMPT = [7, 9, 40, 3, 12, 5, 60, 33, 21, 8, 14]


@pytest.mark.parametrize("window", [None, 1, 4, 9, len(PROMPT), 100])
def test_a_continuation_is_the_next_token_over_and_over(window):
    history = list(PROMPT)
    for token in islice(continuation(PROMPT, window), 20):
        assert token == next_token(history, window)
        history.append(token)


def test_what_left_the_window_does_not_matter_and_what_is_in_it_does():
    outside, inside = [1, *PROMPT[1:]], [*PROMPT[:-4], 1, *PROMPT[-3:]]
    assert digest_of(outside, 4) == digest_of(PROMPT, 4) != digest_of(inside, 4)
    assert digest_of(outside) != digest_of(PROMPT)


def test_the_same_tokens_at_other_positions_are_another_history():
    assert digest_of([5, *PROMPT], 4) != digest_of(PROMPT, 4)
