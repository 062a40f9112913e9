"""Seeds the random numbers of the scheduler's process: every run of a script gets the same ones.

SGLang seeds the generators once, when it starts; but CPython seeds ``random`` anew in each forked child, and a
scheduler that plays one script after the other goes on from where the last one stopped. ``schedule_policy=random``
shuffles its queue with these numbers.
"""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch

from sr_fuzz.sglang_api.server_args import is_alone

# Any number will do; it is the same for every script, so that a script that is played in another place runs the same
# way.
_SEED = 20


def begin_script(scheduler: Any) -> None:
    """Seed the generators of Python, numpy and torch.

    With several ranks none is seeded: all ranks draw the same numbers, and must.
    """
    if is_alone(scheduler.server_args):
        random.seed(_SEED)
        numpy.random.seed(_SEED)
        torch.manual_seed(_SEED)
