"""Short scripts that make the faults of `sr_fuzz.faults.catalogue.hybrid_caches` strike deterministically."""

from __future__ import annotations

from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.script import Abort, Action, Continue, Pause, Prompt, Script, StartReq, Step, StepUntil

WINDOW, STATES = CONFIG_SETS["swa"]["swa-chunk16"], CONFIG_SETS["mamba"]["mamba-chunk16"]

RETRACTED: tuple[Action, ...] = (
    StartReq("r0", Prompt(length=20), max_new_tokens=24, ignore_eos=True),
    StepUntil("r0", "mid_decode"),
    Pause("retract"),
    Continue(),
    Step(4),
)

SCRIPTS: dict[str, Script] = {
    "window_leaked": Script(WINDOW, RETRACTED),
    "window_freed_early": Script(WINDOW, (StartReq("r0", Prompt(length=20), max_new_tokens=24, ignore_eos=True),)),
    "window_lock_lost": Script(WINDOW, RETRACTED),
    "state_leaked": Script(
        STATES,
        (
            StartReq("r0", Prompt(length=20), max_new_tokens=24, ignore_eos=True),
            StepUntil("r0", "mid_decode"),
            Abort("r0"),
            Step(3),
        ),
    ),
    "state_freed_twice": Script(STATES, RETRACTED),
    "state_not_copied": Script(
        STATES,
        (
            StartReq("cached", Prompt(length=16), max_new_tokens=1),
            StepUntil("cached", "finished"),
            StartReq("r0", Prompt(length=24, unique_tail=8), max_new_tokens=4),
        ),
    ),
    "state_not_cleared": Script(
        STATES,
        tuple(
            action
            for i in range(10)
            for action in (StartReq(f"r{i}", Prompt(i, 12), max_new_tokens=2), StepUntil(f"r{i}", "finished"))
        ),
    ),
}
