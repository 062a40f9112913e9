"""Short scripts that make the faults of `sr_fuzz.faults.catalogue.requests` strike deterministically."""

from __future__ import annotations

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SCRIPTS: dict[str, Script] = {
    "swapped_vectors": Script(
        EngineConfig(max_total_tokens=64, max_running_requests=4, is_embedding=True),
        (StartReq("r0", Prompt(length=6)), StartReq("r1", Prompt(1, 8)), Step(2)),
    ),
    "samples_on_one_page": Script(
        EngineConfig(max_total_tokens=64, max_running_requests=4, schedule_conservativeness=0.05),
        (StartReq("r0", Prompt(length=8), n=2), Step(5)),
    ),
}
"""For each fault, a script that creates the condition under which it strikes."""
