"""The signature of a finding: two violations with the same signature are the same finding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sr_fuzz.outcome.violation import Violation
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.traits import traits


def signature(violation: Violation, config: EngineConfig) -> str:
    """Return the signature of a violation: invariant, rule, functions of SGLang, engine traits.

    Of the location it contains the two innermost functions, with their files. It contains no address, request name,
    page number or count, and no source line, since any edit of the line would change the signature. The traits are
    those of `sr_fuzz.script.traits`.
    """
    # The line at which a hang is interrupted is random, because a loop has many lines.
    places = () if violation.invariant == "hang" else violation.location[:2]
    parts = [violation.invariant, violation.rule, "+".join(traits(config))]
    return ":".join([*parts, _digest(map(_function, places))] if places else parts)


def renewed(signature: str, violation: Violation | None) -> str:
    """Return a stored signature, or pattern of one, in the current form; ``violation`` is the one stored with it.

    The previous version included the source lines of the functions in the digest; such a signature is replaced.
    """
    places = violation.location[:2] if violation is not None else ()
    rest, _, digest = signature.rpartition(":")
    return f"{rest}:{_digest(map(_function, places))}" if places and digest == _digest(places) else signature


def _function(place: str) -> str:
    """Return ``file:function`` of a location ``file:function: source line``."""
    return place.partition(": ")[0]


def _digest(places: Iterable[str]) -> str:
    return hashlib.sha256("|".join(places).encode()).hexdigest()[:6]
