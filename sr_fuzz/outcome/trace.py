"""The trace: one record for each step."""

from __future__ import annotations

import msgspec

NOT_TOLD = -1
"""Value of a number that cannot be read from this SGLang."""


class StepRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the event loop, as observed at the start of the next one. Sizes are in tokens unless named pages."""

    step: int
    actions: tuple[str, ...] = ()
    """Text of the actions that were played before this step."""
    mode: str | None = None
    """Forward mode of the batch that ran (``extend``, ``decode``, ``mixed``); None when no batch ran."""
    batch: tuple[str, ...] = ()
    """Names of the requests in that batch."""
    chunked: str | None = None
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    free_pages: int = 0
    """`NOT_TOLD` where this SGLang lacks the name that it is read from; the same holds for rows."""
    free_rows: int = 0
    paused: bool = False
    sent: tuple[str, ...] = ()
    """The answers that the engine sent in this step, e.g. ``r0 +2``, ``r1 +1 finish:length``, ``r2 abort``."""

    @property
    def line(self) -> str:
        """The step as one line of a report."""
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
