"""The signature: what makes two violations the same finding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sr_fuzz.outcome.violation import Violation
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.traits import traits


def signature(violation: Violation, config: EngineConfig) -> str:
    """What makes two violations the same finding: invariant, rule, functions of SGLang, engine traits.

    No address, request name, page number or count goes in, and no source line either, which any edit of it would
    change: the two innermost functions, with their files. The traits are those of `sr_fuzz.script.traits`.
    """
    # Where a hang was interrupted is chance: a loop has many lines.
    places = () if violation.invariant == "hang" else violation.location[:2]
    parts = [violation.invariant, violation.rule, "+".join(traits(config))]
    return ":".join([*parts, _digest(map(_function, places))] if places else parts)


def renewed(signature: str, violation: Violation | None) -> str:
    """A signature, or a pattern of one, that a file holds beside the violation it stands for.

    The last version put the source lines of the functions into the digest; such a one is replaced by today's.
    """
    places = violation.location[:2] if violation is not None else ()
    rest, _, digest = signature.rpartition(":")
    return f"{rest}:{_digest(map(_function, places))}" if places and digest == _digest(places) else signature


def _function(place: str) -> str:
    """``file:function`` of a location ``file:function: source line``."""
    return place.partition(": ")[0]


def _digest(places: Iterable[str]) -> str:
    return hashlib.sha256("|".join(places).encode()).hexdigest()[:6]
