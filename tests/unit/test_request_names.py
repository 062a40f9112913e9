"""The script's name for a request id, whichever engine made the id."""

from __future__ import annotations

import pytest

from sr_fuzz.view.snapshot import name_of


@pytest.mark.parametrize(
    ("rid", "name"),
    [
        ("r0.", "r0"),
        ("r0.17.", "r0"),
        ("r24.p.", "r24.p"),
        ("r24.2.p.", "r24.p"),
        ("r24.c0.", "r24.c0"),
        ("r24.3.c10.", "r24.c10"),
        ("scripted-000001.4.", "scripted-000001"),
        ("HEALTH_CHECK_1.5", "HEALTH_CHECK_1.5"),
    ],
)
def test_a_name_is_the_same_in_every_run(rid: str, name: str):
    assert name_of(rid) == name
