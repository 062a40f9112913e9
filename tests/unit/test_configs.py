"""The engine configurations and their lookup."""

from __future__ import annotations

import re

import msgspec
import pytest
from sampling import CONFIGS, DEFAULT
from sr_fuzz.strategies.configs import CONFIG_SETS, find_configs

from sr_fuzz.script import (
    EngineConfig,
    Script,
    validate,
)  # fmt: skip


def test_the_default_set_is_valid_small_and_has_no_doubles() -> None:
    assert 10 <= len(DEFAULT) <= 14
    assert len(set(CONFIGS)) == len(DEFAULT)
    for config in CONFIGS:
        validate(Script(config, ()))


def test_the_default_set_takes_every_path() -> None:
    seen = {field: {getattr(config, field) for config in CONFIGS} for field in EngineConfig.__struct_fields__}
    assert seen["page_size"] == {1}
    assert seen["chunked_prefill_size"] == {8, 16, -1}
    for switch in ("disable_overlap_schedule", "enable_mixed_chunk", "disable_radix_cache",
                   "enable_priority_scheduling", "schedule_low_priority_values_first"):  # fmt: skip
        assert seen[switch] == {True, False}, switch
    assert seen["schedule_policy"] == {"fcfs", "lpm", "dfs-weight", "lof", "random"}
    assert {None} < seen["max_queued_requests"]
    assert max(seen["stream_interval"]) > 1
    assert max(seen["max_total_tokens"]) <= 128


def test_priority_scheduling_goes_only_with_policies_that_sglang_allows() -> None:
    for config in CONFIGS:
        assert not config.enable_priority_scheduling or config.schedule_policy in ("fcfs", "lof")


def test_a_configuration_name_means_the_same_in_every_set() -> None:
    for members in CONFIG_SETS.values():
        for name, config in members.items():
            assert re.fullmatch(r"[a-z0-9-]+", name)
            assert name not in CONFIG_SETS
            assert find_configs([name]) == {name: config}


def test_configurations_are_found_by_set_and_by_name() -> None:
    assert find_configs(["default"]) == DEFAULT
    assert list(find_configs(["lpm-chunk16", "normal-chunk8", "lpm-chunk16"])) == ["lpm-chunk16", "normal-chunk8"]
    assert list(find_configs(["normal-chunk8", "default"]))[0] == "normal-chunk8"
    assert find_configs(["normal-chunk8", "default"]) == DEFAULT


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["overlap-chunk17"], "no engine configuration 'overlap-chunk17'; did you mean overlap-chunk16 or "),
        (["default", ""], "no engine configuration ''; `sr-fuzz configs` lists them"),
        (["x" * 100_000], "xxx'; `sr-fuzz configs` lists them"),
        (["a\nb"], r"no engine configuration 'a\nb'; "),
        ([], "no engine configuration given; `sr-fuzz configs` lists them"),
    ],
)
def test_an_unknown_configuration_is_one_clear_line(names: list[str], says: str) -> None:
    with pytest.raises(ValueError) as error:
        find_configs(names)
    message = str(error.value)
    assert says in message and message.isprintable() and len(message) < 200


def test_configurations_travel_as_json() -> None:
    for config in CONFIGS:
        assert msgspec.json.decode(msgspec.json.encode(config), type=EngineConfig) == config
