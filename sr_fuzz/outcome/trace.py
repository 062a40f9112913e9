"""The trace: what was seen, step by step."""

from __future__ import annotations

import msgspec

NOT_TOLD = -1
"""Stands for a number that an SGLang does not tell."""


class StepRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the event loop, as seen at the head of the next one. Sizes in tokens unless they say pages."""

    step: int
    actions: tuple[str, ...] = ()
    """Text of the actions that were sent before this step."""
    mode: str | None = None
    """Forward mode of the batch that ran (``extend``, ``decode``, ``mixed``), None when none ran."""
    batch: tuple[str, ...] = ()
    """Names of the requests in that batch."""
    chunked: str | None = None
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    free_pages: int = 0
    """`NOT_TOLD` where SGLang lacks what it is read from; rows alike."""
    free_rows: int = 0
    paused: bool = False
    sent: tuple[str, ...] = ()
    """What the engine answered in this step, e.g. ``r0 +2``, ``r1 +1 finish:length``, ``r2 abort``."""

    @property
    def line(self) -> str:
        """One line for a report."""
        ran = f"{self.mode}[{' '.join(self.batch)}]" if self.mode else ("paused" if self.paused else "-")
        parts = [f"{self.step:4d}  {ran:<28}"]
        pages, rows = ("?" if free == NOT_TOLD else free for free in (self.free_pages, self.free_rows))
        parts.append(f"free {pages:>3}p {rows:>2}r")
        if self.waiting:
            parts.append(f"wait {' '.join(self.waiting)}")
        if self.chunked:
            parts.append(f"chunk {self.chunked}")
        if self.sent:
            parts.append("-> " + ", ".join(self.sent))
        head = "".join(f"      | {action}\n" for action in self.actions)
        return head + "  ".join(parts)
