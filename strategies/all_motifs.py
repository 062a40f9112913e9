"""All motifs: importing this module registers those of every subject."""

from __future__ import annotations

from strategies import session_motifs  # noqa: F401
from strategies.motifs import MOTIFS, motif_actions

__all__ = ["MOTIFS", "motif_actions"]
