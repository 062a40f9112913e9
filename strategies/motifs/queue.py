"""Motifs about who is served first: preemption by priority, and a queue with a limit."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, Draft, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import make_room
from sr_fuzz.strategies.requests import FAMILIES, sizes_of

from sr_fuzz.script import Abort, Prompt, Step


@motif("step_until", "preemption", weight=2)
def preempted_victim(draft: Draft) -> None:
    """A request has given its row to a higher priority, is back in the queue with what it has sent, and is struck
    there, or by a still higher one: its output is repeated, or its KV freed twice."""
    config, sizes = draft.config, sizes_of(draft.config)
    direction = -1 if config.schedule_low_priority_values_first else 1
    make_room(draft)
    first, new, urgent, again = draft.digits(3, 4, 3, 3)
    rows = min(config.max_running_requests, 6)
    low = [
        draft.start(
            prompt=Prompt(index % FAMILIES, max(1, sizes.chunk // 2)), max_new_tokens=sizes.pool // rows, priority=0
        )
        for index in range(rows)
    ]
    until(draft, low[-1], "first_decode")
    draft.add(Step(1 + first))
    for index in range(1 + urgent):
        above = min(config.priority_scheduling_preemption_threshold + 1 + index, 1000)
        draft.start(max_new_tokens=2 + 2 * new, priority=above * direction)
    # The least urgent that came last goes first.
    until(draft, low[-1], "retracted")
    strike(draft, low[-1])
    if again:
        above = min(2 * config.priority_scheduling_preemption_threshold + 5, 1000)
        draft.start(max_new_tokens=2, priority=above * direction)
        draft.step()


@motif("priority")
def preempt(draft: Draft) -> None:
    """Urgent requests arrive while less urgent ones hold every row, and something strikes in that step: a preempted
    request is in no queue for a moment."""
    config = draft.config
    direction = -1 if config.schedule_low_priority_values_first else 1
    first, urgent, new, victim, struck = draft.digits(4, 2, 4, 4, 2)
    low = [
        draft.start(max_new_tokens=8 + 4 * new, priority=0 if index else None)
        for index in range(min(config.max_running_requests, 6))
    ]
    draft.add(Step(2 + 2 * first))
    for index in range(1 + urgent):
        above = config.priority_scheduling_preemption_threshold + index
        draft.start(max_new_tokens=4, priority=min(above + 1, 1000) * direction)
    if struck:
        draft.add(Step(1))
    strike(draft, low[victim % len(low)])


@motif("queue_limit", weight=1)
def queue_full(draft: Draft) -> None:
    """More requests than rows and queue together, with room made in between: one refused twice, or refused and
    still run."""
    config = draft.config
    over, room, steps = draft.digits(3, 4, 8)
    total = min(config.max_running_requests + (config.max_queued_requests or 0), 12) + 1 + over
    for index in range(total):
        draft.start()
        # Without a step in between nothing leaves the queue for a row, and the limit is met early.
        if index == config.max_running_requests - 1 and room:
            draft.add(Step(1 + room))
    if draft.has("abort") and room > 1:
        draft.add(Abort(draft.victim()))
    draft.start()
    draft.add(Step(STEPS[steps]))
