"""Motifs about logprobs: beside requests without logprobs, and across a retraction."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STEPS, ScriptBuilder, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.motifs.common import make_room
from sr_fuzz.strategies.profiles import overflow
from sr_fuzz.strategies.requests import draw_prompt

from sr_fuzz.script import Continue, Pause, Step


@motif("logprobs")
def logprob_mates(builder: ScriptBuilder) -> None:
    """A request with logprobs from inside a cached prefix runs beside a request without: logprobs are cut at the wrong
    place after a retraction, or shifted by the neighbour."""
    start, top, steps, struck = builder.digits(4, 3, 8, 2)
    prompt = draw_prompt(builder.draw, builder.config)
    builder.start(prompt=prompt)
    builder.add(Step(STEPS[steps]))
    first = (0, prompt.length // 2, prompt.length - 1, -1)[start]
    name = builder.start(prompt=prompt, return_logprob=True, logprob_start_len=first, top_logprobs_num=(0, 1, 4)[top])
    builder.start()
    builder.add(Step(1))
    if struck:
        strike(builder, name)


@motif("logprobs", "step_until")
def logprobs_retracted(builder: ScriptBuilder) -> None:
    """A request with logprobs is retracted, by a pause or for lack of memory, and prefilled again with what it has
    generated: logprobs of the prompt are sent twice, or those of the output are cut or shifted."""
    make_room(builder)
    start, top, by_pause, new, steps = builder.digits(4, 3, 2, 4, 8)
    prompt = draw_prompt(builder.draw, builder.config)
    first = (0, prompt.length // 2, prompt.length - 1, -1)[start]
    name = builder.start(
        prompt=prompt, max_new_tokens=6 + 4 * new, return_logprob=True, logprob_start_len=first,
        top_logprobs_num=(0, 1, 4)[top], ignore_eos=False,
    )  # fmt: skip
    if by_pause and builder.has("pause"):
        until(builder, name, "mid_decode")
        builder.add(Pause("retract"), Step(1), Continue())
    else:
        overflow(builder)
        until(builder, name, "retracted")
    builder.add(Step(STEPS[steps]))
