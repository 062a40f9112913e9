"""Short scripts that make the faults of `sr_fuzz.faults.catalogue.adapters` strike deterministically."""

from __future__ import annotations

from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.script import AdvanceClock, Prompt, Script, StartReq, Step, StepUntil

# -- the scripts that trigger them -----------------------------------------------------------------------------


def _script(config: str, *actions) -> Script:
    return Script(CONFIG_SETS["lora"][config], actions)


def _one(name: str, adapter: str, length: int = 8, new: int = 4) -> StartReq:
    return StartReq(name, Prompt(length=length), max_new_tokens=new, lora_path=adapter)


SCRIPTS: dict[str, Script] = {
    "prefix_without_adapter": _script(
        "lora-chunk16", _one("cached", "l0"), StepUntil("cached", "finished"), _one("r0", "l1")
    ),
    "one_adapter_too_many": _script(
        "lora-chunk16", _one("r0", "l0", new=12), _one("r1", "l1", new=12), Step(3), _one("r2", "l2")
    ),
    "running_adapter_evicted": _script(
        "lora-loading-chunk16", _one("r0", "l0", new=12), StepUntil("r0", "first_decode"), _one("r1", "l1")
    ),
    "slot_not_written": _script(
        "lora-chunk16",
        *(action for i in range(4) for action in (_one(f"r{i}", f"l{i % 3}"), StepUntil(f"r{i}", "finished"))),
    ),
    "adapter_of_neighbour": _script(
        "lora-mixed-paged4", _one("r0", "l0", new=12), StepUntil("r0", "first_decode"), _one("r1", "l1", length=24)
    ),
    "drains_for_ever": _script(
        "lora-drain-chunk8",
        _one("r0", "l0", new=16), _one("r1", "l1", new=16), Step(4), _one("r2", "l2"), Step(2), AdvanceClock(11.0),
        Step(40), _one("r3", "l0"), _one("r4", "l1"),
    ),
}  # fmt: skip
