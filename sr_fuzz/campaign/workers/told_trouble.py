"""Trouble in a process of a campaign: the campaign itself counts it and writes it to the disk."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from sr_fuzz.campaign.trouble import first_line
from sr_fuzz.campaign.workers.messages import Met
from sr_fuzz.script import Script


class ToldTrouble:
    """Takes trouble like `sr_fuzz.campaign.trouble.TroubleLog`, and passes it on."""

    def __init__(self, send: Callable[[Met], None]) -> None:
        self._send = send
        self.total = 0

    def keep(self, script: Script | None, error: BaseException, doing: str) -> None:
        """Pass an error on, with the script that met it."""
        self.total += 1
        self._send(Met(script, first_line(error), "".join(traceback.format_exception(error)), doing))
