"""Counts the drafts that were accepted, from what SGLang itself keeps for each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from sr_fuzz.script import EngineConfig
from sr_fuzz.sglang_api.requests import Request


def _speculating(config: EngineConfig) -> bool:
    return config.speculative_algorithm is not None


KINDS = {
    "draft.none": ("steps of a request in which no draft was accepted", _speculating),
    "draft.some": ("steps of a request in which drafts were accepted", _speculating),
    "draft.accepted": ("drafts that were accepted", _speculating),
}
"""Kinds of `sr_fuzz.play.reach_kinds`, with what each counts and where it can occur."""

MOST = {"max.drafts": ("drafts of one step that were accepted", _speculating)}


class DraftCounts:
    """Remembers for each request how many of its steps had how many accepted drafts."""

    def __init__(self) -> None:
        self._seen: dict[Request, list[int]] = {}

    def new(self, requests: Iterable[Request]) -> Iterator[int]:
        """The number of accepted drafts of each step, of any request, that was processed since the last call."""
        for req in requests:
            histogram, before = req.accepted_drafts, self._seen.get(req, [])
            if histogram == before:
                continue
            self._seen[req] = list(histogram)
            for accepted, steps in enumerate(histogram):
                known = before[accepted] if accepted < len(before) else 0
                yield from [accepted] * (steps - known)


def add(counts: Counter[str], accepted: int) -> None:
    """Count one step of a request, in which ``accepted`` drafts were accepted."""
    counts["draft.some" if accepted else "draft.none"] += 1
    counts["draft.accepted"] += accepted
