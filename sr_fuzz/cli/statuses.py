"""The exit statuses of all commands: one table, shown in the help and compared with the README by a test."""

from __future__ import annotations

OK = 0
REPRODUCED = 1
ERROR = 2
BLIND = 3
TROUBLE = 4
HUNG_UP = 129
INTERRUPTED = 130
TERMINATED = 143

MEANINGS = {
    OK: "done; for `run` whether or not something was found, for `replay` and `confirm`: not reproduced",
    REPRODUCED: "`replay`, `confirm`: reproduced; `sensitivity --baseline`: a fault is not detected any more",
    ERROR: "bad input, an engine that cannot start, an error of sr_fuzz itself: no answer; one line says why",
    BLIND: "`run`, `nightly`: the campaign was blind, it did not see the canary",
    TROUBLE: "`run`, `nightly`: no script could be played, or ended before its time as several in a row could not be",
    HUNG_UP: "stopped by SIGHUP, such as a closed terminal (128 + SIGHUP)",
    INTERRUPTED: "stopped by Ctrl-C (128 + SIGINT); `run` and `nightly` show their summary first",
    TERMINATED: "stopped by SIGTERM (128 + SIGTERM); `run` and `nightly` show their summary first",
}
"""Values from 128 on are those that a shell reports for a program that was ended by a signal."""
