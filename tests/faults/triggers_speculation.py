"""Short scripts that make the faults of `sr_fuzz.faults.catalogue.speculation` strike deterministically."""

from __future__ import annotations

from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.script import Action, Continue, Pause, Prompt, Script, StartReq, Step, StepUntil

TREE, PAGED = CONFIG_SETS["ngram"]["ngram-chunk16"], CONFIG_SETS["ngram"]["ngram-paged4-chunk16"]

RETRACTED: tuple[Action, ...] = (
    StartReq("r0", Prompt(length=10), max_new_tokens=40, ignore_eos=True),
    StepUntil("r0", "mid_decode"),
    Pause("retract"),
    Continue(),
    Step(8),
)

SCRIPTS: dict[str, Script] = {
    "kept_draft_room": Script(PAGED, RETRACTED),
    "accepted_too_many": Script(TREE, RETRACTED),
    "unmoved_draft": Script(
        TREE,
        (
            StartReq("r0", Prompt(0, 10), max_new_tokens=24, ignore_eos=True),
            StartReq("r1", Prompt(1, 12), max_new_tokens=24, ignore_eos=True),
            Step(16),
        ),
    ),
}
