"""The time of a script: waiting for a processor does not count."""

from __future__ import annotations

import os
import time

from sr_fuzz.engine.local.config_process import _kept_waiting_s, _read_until


def test_a_deadline_that_moves_on_is_asked_for_again():
    read_end, write_end = os.pipe()
    asked = []

    def deadline() -> float:
        asked.append(None)
        if len(asked) == 1:
            return time.monotonic() + 0.001
        if len(asked) == 2:
            os.write(write_end, b"late")
            os.close(write_end)
        return time.monotonic() + 60.0

    assert _read_until(read_end, deadline) == (b"late", False)
    os.close(read_end)


def test_a_deadline_that_has_passed_ends_the_reading():
    read_end, write_end = os.pipe()
    assert _read_until(read_end, lambda: time.monotonic()) == (b"", True)
    os.close(read_end)
    os.close(write_end)


def test_a_process_that_is_gone_has_not_waited():
    assert _kept_waiting_s(os.getpid()) >= 0.0
    assert _kept_waiting_s(2**22 + 1) == 0.0
