"""For each seeded fault, a short script that deterministically creates the condition under which the fault strikes.

A fault that needs another configuration than `CONFIG` has its script in the ``triggers_*.py`` of its module.
"""

from __future__ import annotations

from sr_fuzz.script import (
    Abort,
    AbortAll,
    Action,
    Continue,
    EngineConfig,
    Pause,
    Prompt,
    Script,
    StartReq,
    Step,
    StepUntil,
)  # fmt: skip
from tests.faults import (
    triggers_adapters,
    triggers_hybrid_caches,
    triggers_modes,
    triggers_requests,
    triggers_scheduling,
    triggers_sessions,
    triggers_speculation,
)

# One configuration for all faults, since every other one costs a boot: overlap, chunks, a prefix tree, and a pool so
# small that three requests that grow to 25 tokens are admitted together but cannot end together.
CONFIG = EngineConfig(max_total_tokens=64, max_running_requests=4, schedule_conservativeness=0.05)

RETRACT: tuple[Action, ...] = (StepUntil("r0", "mid_decode"), Pause("retract"), Continue())

CROWD: tuple[Action, ...] = tuple(StartReq(f"r{i}", Prompt(length=1), max_new_tokens=24) for i in range(3))

BETWEEN_CHUNKS: tuple[Action, ...] = (StartReq("r0", Prompt(length=40)), StepUntil("r0", "first_chunk"))

# The oracle's output is 56, 44, 45, 33, 59, 54 …: the stop token comes after the retraction.
STOPS = StartReq("r0", Prompt(family=0, length=8), max_new_tokens=12, stop_token_ids=(54,))

TWO_RUNNING: tuple[Action, ...] = (
    StartReq("r0", max_new_tokens=20),
    StartReq("r1", Prompt(family=1), max_new_tokens=20),
    StepUntil("r0", "mid_decode"),
)

ACTIONS: dict[str, tuple[Action, ...]] = {
    "dropped_free": (*BETWEEN_CHUNKS, Abort("r0"), Step(2)),
    "double_free": (
        StartReq("cached", Prompt(length=12), max_new_tokens=1),
        StepUntil("cached", "finished"),
        StartReq("r0", Prompt(length=14, unique_tail=2)),
        *RETRACT,
    ),
    "freed_too_early": (StartReq("r0"), *RETRACT),
    "unfreed_row": (StartReq("r0", max_new_tokens=1),),
    "skipped_unlock": (StartReq("r0"), StepUntil("r0", "mid_decode"), Abort("r0"), Step(3)),
    "unlocked_prefix": (StartReq("r0"), *RETRACT, Step(3)),
    "corrupted_page": (StartReq("r0"), StartReq("r1", Prompt(family=1)), *RETRACT, Step(4)),
    "wrong_page": (
        StartReq("cached", Prompt(length=16), max_new_tokens=1),
        StepUntil("cached", "finished"),
        StartReq("r0", Prompt(length=8, unique_tail=2)),
        StartReq("r1", Prompt(length=14, unique_tail=2)),
        Step(2),
    ),
    "advanced_while_paused": (StartReq("r0"), StepUntil("r0", "mid_decode"), Pause("in_place"), Step(2)),
    "ran_while_paused": (StartReq("r0"), StepUntil("r0", "mid_decode"), Pause("retract"), Step(2)),
    "unpaused_by_abort": (*TWO_RUNNING, Pause("in_place"), Step(2), Abort("r0"), Step(3)),
    "lost_request": (*BETWEEN_CHUNKS, Pause("retract"), Step(1)),
    "starved_request": (StartReq("r0", max_new_tokens=20), *RETRACT, Step(4), *RETRACT),
    "unlucky_length": (StartReq("r0", Prompt(length=12)), Step(2)),
    "ignored_abort": (StartReq("r0", max_new_tokens=20), Step(1), Abort("r0")),
    "wrong_victim": (*TWO_RUNNING, Abort("r0"), Step(3)),
    "late_abort": (StartReq("r0", max_new_tokens=20), StepUntil("r0", "first_decode"), Abort("r0")),
    "streamed_twice": (StartReq("r0"), *RETRACT),
    "short_finish_reasons": (StartReq("r0"), *RETRACT),
    "lost_logprob": (StartReq("r0", return_logprob=True), *RETRACT),
    "finish_sent_twice": (StartReq("r0"), StepUntil("r0", "mid_decode"), Abort("r0"), Step(3)),
    "missed_stop": (STOPS, StepUntil("r0", "first_decode"), Pause("retract"), Continue()),
    "missed_retraction": CROWD,
    "endless_retraction": CROWD,
    "dead_on_abort": (*BETWEEN_CHUNKS, AbortAll()),
}

SCRIPTS: dict[str, Script] = {name: Script(CONFIG, actions) for name, actions in ACTIONS.items()}
for _module in (
    triggers_adapters,
    triggers_hybrid_caches,
    triggers_modes,
    triggers_requests,
    triggers_scheduling,
    triggers_sessions,
    triggers_speculation,
):
    SCRIPTS |= _module.SCRIPTS
