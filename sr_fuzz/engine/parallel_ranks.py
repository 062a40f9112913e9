"""Several ranks on one machine: their options, and the configurations that are refused."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.ranks import SIZES


class Ranks(NamedTuple):
    """Number of tensor, pipeline and data parallel ranks, in that order; 1 leaves a configuration unchanged."""

    tp: int = 1
    pp: int = 1
    dp: int = 1

    @property
    def several(self) -> bool:
        return max(self) > 1

    @property
    def fields(self) -> dict[str, int]:
        """The sizes above 1, as fields of `EngineConfig` and of SGLang's ``ServerArgs``."""
        return {f"{name}_size": count for name, count in zip(self._fields, self) if count > 1}

    def in_config(self, config: EngineConfig) -> EngineConfig:
        return replace(config, **self.fields)

    def in_script(self, script: Script) -> Script:
        return replace(script, config=self.in_config(script.config)) if self.several else script


def refuse_ranks(config: EngineConfig) -> None:
    """Raise `EngineError` if the configuration asks for several ranks; for an engine with one scheduler process."""
    if config.world_size > 1:
        ranks = ", ".join(f"{name}={getattr(config, name)}" for name in SIZES if getattr(config, name) > 1)
        raise EngineError(f"{ranks}: several ranks need the server engine, which starts a process for each")
