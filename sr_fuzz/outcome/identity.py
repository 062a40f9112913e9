"""The signature: what makes two violations the same finding."""

from __future__ import annotations

import hashlib

from sr_fuzz.outcome.violation import Violation
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.traits import traits


def signature(violation: Violation, config: EngineConfig) -> str:
    """What makes two violations the same finding: invariant, rule, code location in SGLang, engine traits.

    No address, request name, page number or count goes in. The traits are those of `sr_fuzz.script.traits`.
    """
    # Where a hang was interrupted is chance: a loop has many lines.
    where = "" if violation.invariant == "hang" else "|".join(violation.location[:2])
    digest = hashlib.sha256(where.encode()).hexdigest()[:6] if where else ""
    parts = [violation.invariant, violation.rule, "+".join(traits(config))]
    return ":".join(parts + [digest] if digest else parts)
