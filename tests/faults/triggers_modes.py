"""Short scripts that make the faults of `sr_fuzz.faults.catalogue.modes` strike deterministically."""

from __future__ import annotations

from sr_fuzz.strategies.configs import find_configs

from sr_fuzz.script import AdvanceClock, EvictRadix, Prompt, Script, StartReq, Step, StepUntil


def _script(config: str, *actions) -> Script:
    return Script(find_configs([config])[config], actions)


SCRIPTS = {
    "timed_out_keeps_all": _script(
        "timeouts-chunk16",
        StartReq("r0", max_new_tokens=30), StepUntil("r0", "mid_decode"), AdvanceClock(61.0), Step(4),
    ),
    "loaded_in_wrong_order": _script(
        "hicache-through",
        StartReq("r0", Prompt(length=40), 2), StepUntil("r0", "finished"), Step(2), EvictRadix(), Step(1),
        StartReq("r1", Prompt(length=40, unique_tail=4), 4), Step(4),
    ),
    "lost_in_transfer": _script(
        "prefill-chunk16",
        StartReq("r0", Prompt(length=6)), StartReq("r1", Prompt(family=1, length=6)), Step(3),
    ),
}  # fmt: skip
