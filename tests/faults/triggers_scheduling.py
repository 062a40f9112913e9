"""Short scripts that make the faults of `sr_fuzz.faults.catalogue.scheduling` strike deterministically."""

from __future__ import annotations

from sr_fuzz.script import Action, Continue, EngineConfig, FlushCache, Pause, Prompt, Script, StartReq, Step, StepUntil

# The configuration of the other triggers, so that it is booted once.
PLAIN = EngineConfig(max_total_tokens=64, max_running_requests=4, schedule_conservativeness=0.05)

PRIORITY = EngineConfig(
    max_total_tokens=96, max_running_requests=2, enable_priority_scheduling=True,
    priority_scheduling_preemption_threshold=5,
)  # fmt: skip

# There is no rule about the order of requests.
RANDOM_ORDER = EngineConfig(max_total_tokens=64, max_running_requests=4, schedule_policy="lof")

RETRACT: tuple[Action, ...] = (StepUntil("r0", "mid_decode"), Pause("retract"), Continue())

# Together these requests do not fit until they end, so one of them is retracted for lack of memory.
CROWD: tuple[Action, ...] = tuple(StartReq(f"r{i}", Prompt(length=1), max_new_tokens=24) for i in range(3))

TOGETHER: tuple[Action, ...] = (
    StartReq("r0", Prompt(length=4)),
    StartReq("r1", Prompt(family=1, length=30), max_new_tokens=4),
    Step(4),
)

_ONE_BY_ONE = tuple(StartReq(f"w{i}", Prompt(family=i, length=12), max_new_tokens=2) for i in range(1, 4))

ACTIONS: dict[str, tuple[Action, ...]] = {
    "forgotten_rest": TOGETHER,
    "miscounted_chunk": TOGETHER,
    "late_requeue": CROWD,
    "lost_output": (StartReq("r0"), *RETRACT),
    "wrong_length": (StartReq("r0"), *RETRACT),
    "overtaking": (StartReq("r0", Prompt(length=12)), *_ONE_BY_ONE, Step(8)),
    "cached_twice": (StartReq("r0"), *RETRACT),
    "counted_in_prompt": (StartReq("r0"), *RETRACT),
    "input_logprobs_twice": (StartReq("r0", return_logprob=True, logprob_start_len=2, top_logprobs_num=2), *RETRACT),
    "silent_refusal": (StartReq("r0"), StepUntil("r0", "mid_decode"), FlushCache(), Step(2)),
    "gauge_that_only_rises": (StartReq("r0", max_new_tokens=2),),
    "flush_while_busy": (StartReq("r0"), StepUntil("r0", "mid_decode"), FlushCache(), Step(2)),
}

# These show in two runs, not in one.
COMPARED_ACTIONS: dict[str, tuple[Action, ...]] = {
    "shuffled_queue": tuple(StartReq(f"r{i}", Prompt(family=i, length=5)) for i in range(8)),
    "shared_limit": (StartReq("r0", max_new_tokens=3), StartReq("r1", Prompt(family=1), max_new_tokens=6), Step(4)),
}

PRIORITY_ACTIONS: dict[str, tuple[Action, ...]] = {
    # There are two rows, and a third request that is not urgent enough to take one.
    "needless_preemption": (
        StartReq("r0", max_new_tokens=20, priority=1),
        StartReq("r1", Prompt(family=1), max_new_tokens=20, priority=1),
        StepUntil("r1", "first_decode"),
        StartReq("r2", Prompt(family=2), priority=3),
        Step(4),
    ),
    "inverted_priority": (
        StartReq("r0", max_new_tokens=20, priority=1),
        StartReq("r1", Prompt(family=1), max_new_tokens=20, priority=2),
        StepUntil("r1", "first_decode"),
        Pause("retract"),
        StartReq("r2", Prompt(family=2), priority=4),
        Step(),
        Continue(),
        Step(4),
    ),
    # The urgent request ends soon; its row is free, and there is room for the request that it has preempted.
    "slow_admission": (
        StartReq("r0", max_new_tokens=40, priority=9),
        StartReq("r1", Prompt(family=1), priority=1),
        StepUntil("r1", "first_decode"),
        StartReq("r2", Prompt(family=2), max_new_tokens=3, priority=20),
        Step(20),
    ),
}

SCRIPTS: dict[str, Script] = {
    "perturbed_page_table": Script(PLAIN, (StartReq("r0"), Step(6))),
    **{name: Script(PLAIN, actions) for name, actions in ACTIONS.items()},
    **{name: Script(PRIORITY, actions) for name, actions in PRIORITY_ACTIONS.items()},
    **{name: Script(RANDOM_ORDER, actions) for name, actions in COMPARED_ACTIONS.items()},
}
