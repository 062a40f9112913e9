"""What several motifs begin with."""

from __future__ import annotations

from sr_fuzz.strategies.actions import Draft
from sr_fuzz.strategies.profiles import burst, settle
from sr_fuzz.strategies.requests import sizes_of


def keep_busy(draft: Draft) -> None:
    """Start something when the engine has probably run dry: a burst, or one or two requests."""
    if draft.work > draft.busy:
        return
    (few,) = draft.digits(3)
    if few == 0 and draft.busy:
        burst(draft)
        return
    for _ in range(max(1, few)):
        draft.start(max_new_tokens=sizes_of(draft.config).pool // 4)
    draft.step()


def make_room(draft: Draft) -> None:
    """Let the engine come to rest, so that what starts now is served now; not always, since it is not always so."""
    (still_busy,) = draft.digits(3)
    if still_busy:
        settle(draft)
