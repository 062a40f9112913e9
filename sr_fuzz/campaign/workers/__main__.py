"""A process of a campaign: ``python -m sr_fuzz.campaign.workers FD NAME``, where FD is its end of a socket pair.

``NAME`` is for people who look at the processes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from sr_fuzz.campaign.workers.channel import Channel
from sr_fuzz.campaign.workers.process import serve

if __name__ == "__main__":
    # The campaign decides when its processes end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as end:
        serve(Channel(end))
    os._exit(0)  # nothing is left to do, and the interpreter's own end would wait for threads
