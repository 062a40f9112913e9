"""Motifs about the order of service: preemption by priority, and a queue with a limit."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import make_room
from sr_fuzz.strategies.requests import FAMILIES, sizes_of

from sr_fuzz.script import Abort, Prompt, Step


@motif("step_until", "preemption", weight=2)
def preempted_victim(builder: ScriptBuilder) -> None:
    """A request has lost its row to a request of higher priority, is back in the queue with the output it has sent, and
    is struck there, or a request of still higher priority arrives: its output is repeated, or its KV is freed twice."""
    config, sizes = builder.config, sizes_of(builder.config)
    direction = -1 if config.schedule_low_priority_values_first else 1
    make_room(builder)
    first, new, urgent, again = builder.digits(3, 4, 3, 3)
    rows = min(config.max_running_requests, 6)
    low = [
        builder.start(
            prompt=Prompt(index % FAMILIES, max(1, sizes.chunk // 2)), max_new_tokens=sizes.pool // rows, priority=0
        )
        for index in range(rows)
    ]
    until(builder, low[-1], "first_decode")
    builder.add(Step(1 + first))
    for index in range(1 + urgent):
        above = min(config.priority_scheduling_preemption_threshold + 1 + index, 1000)
        builder.start(max_new_tokens=2 + 2 * new, priority=above * direction)
    # Of the least urgent requests the one that arrived last is preempted first.
    until(builder, low[-1], "retracted")
    strike(builder, low[-1])
    if again:
        above = min(2 * config.priority_scheduling_preemption_threshold + 5, 1000)
        builder.start(max_new_tokens=2, priority=above * direction)
        builder.step()


@motif("priority")
def preempt(builder: ScriptBuilder) -> None:
    """Urgent requests arrive while less urgent ones hold every row, and a strike comes in that step: a preempted
    request is in no queue for a moment."""
    config = builder.config
    direction = -1 if config.schedule_low_priority_values_first else 1
    first, urgent, new, victim, struck = builder.digits(4, 2, 4, 4, 2)
    low = [
        builder.start(max_new_tokens=8 + 4 * new, priority=0 if index else None)
        for index in range(min(config.max_running_requests, 6))
    ]
    builder.add(Step(2 + 2 * first))
    for index in range(1 + urgent):
        above = config.priority_scheduling_preemption_threshold + index
        builder.start(max_new_tokens=4, priority=min(above + 1, 1000) * direction)
    if struck:
        builder.add(Step(1))
    strike(builder, low[victim % len(low)])


@motif("queue_limit", weight=1)
def queue_full(builder: ScriptBuilder) -> None:
    """More requests than rows and queue hold together, with room made in between: a request is refused twice, or
    refused and still run."""
    config = builder.config
    over, room, steps = builder.digits(3, 4, 8)
    total = min(config.max_running_requests + (config.max_queued_requests or 0), 12) + 1 + over
    for index in range(total):
        builder.start()
        # Without a step in between no request leaves the queue for a row, and the limit is reached early.
        if index == config.max_running_requests - 1 and room:
            builder.add(Step(1 + room))
    if builder.has("abort") and room > 1:
        builder.add(Abort(builder.victim()))
    builder.start()
    builder.add(Step(STEPS[steps]))
