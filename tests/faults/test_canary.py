"""The canary strikes and is found on a real scheduler, whatever the configuration."""

from __future__ import annotations

import pytest
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.faults.canary import canary
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq
from tests.faults.triggers import CONFIG

STRUCK = Script(CONFIG, (StartReq("r0", Prompt(length=6), max_new_tokens=4),))
SPARED = Script(CONFIG, (StartReq("r0", Prompt(length=6), max_new_tokens=5),))


@pytest.mark.parametrize("config", [CONFIG, CONFIG_SETS["paged"]["paged4-chunk16"]], ids=["plain", "paged"])
def test_it_is_seen_where_it_strikes_and_only_there(sr_engine, config: EngineConfig):
    with sr_engine.with_faults(canary.path) as engine:
        struck, spared = (engine.run(Script(config, script.actions)) for script in (STRUCK, SPARED))
    assert struck.violation is not None and struck.violation.invariant in canary.expected, struck.report()
    assert struck.faults == {"canary": (1, 1)}
    assert spared.ok and spared.faults == {"canary": (1, 0)}


def test_a_campaign_finds_it(sr_engine, tmp_path):
    summary = run_campaign(
        sr_engine,
        scripts=scripts([CONFIG]),
        time_s=60,
        seed=0,
        out=tmp_path,
        known={},
        max_scripts=10,
        on_event=lambda event: None,
        canary=lambda: sr_engine.with_faults(canary.path),
    )
    assert [tally.verdict for tally in summary.canary.values()] == ["found"]
    assert not summary.findings
