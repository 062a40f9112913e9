"""Random numbers of the scheduler's process: the same ones for every run of a script.

SGLang seeds them once, when it starts; but CPython seeds ``random`` anew in each forked child, and a scheduler that
plays one script after the other goes on from where the last one stopped. ``schedule_policy=random`` shuffles its queue
with them.
"""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch

from sr_fuzz.sglang_api.server_args import is_alone

# Any number will do; it is the same for every script, so that one that is played in another place goes the same way.
_SEED = 20


def begin_script(scheduler: Any) -> None:
    """Seed Python's, numpy's and torch's generators. Of several ranks none: all draw the same numbers, and must."""
    if is_alone(scheduler.server_args):
        random.seed(_SEED)
        numpy.random.seed(_SEED)
        torch.manual_seed(_SEED)
