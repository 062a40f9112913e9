"""Beginnings that several motifs share."""

from __future__ import annotations

from sr_fuzz.strategies.actions import ScriptBuilder
from sr_fuzz.strategies.profiles import burst, settle
from sr_fuzz.strategies.requests import sizes_of


def keep_busy(builder: ScriptBuilder) -> None:
    """Start a burst, or one or two requests, when the engine is probably idle."""
    if builder.work > builder.busy:
        return
    (few,) = builder.digits(3)
    if few == 0 and builder.busy:
        burst(builder)
        return
    for _ in range(max(1, few)):
        builder.start(max_new_tokens=sizes_of(builder.config).pool // 4)
    builder.step()


def make_room(builder: ScriptBuilder) -> None:
    """In two of three cases let the engine become idle first, so that the next request is served at once."""
    (still_busy,) = builder.digits(3)
    if still_busy:
        settle(builder)
