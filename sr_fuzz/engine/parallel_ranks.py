"""Several ranks on one machine: what they need, and what cannot be."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.ranks import SIZES


class Ranks(NamedTuple):
    """Tensor, pipeline and data parallel ranks, in that order; 1 leaves a configuration as it is."""

    tp: int = 1
    pp: int = 1
    dp: int = 1

    @property
    def several(self) -> bool:
        return max(self) > 1

    @property
    def fields(self) -> dict[str, int]:
        """Those of more than one rank, as fields of `EngineConfig` and of SGLang's ``ServerArgs``."""
        return {f"{name}_size": count for name, count in zip(self._fields, self) if count > 1}

    def in_config(self, config: EngineConfig) -> EngineConfig:
        return replace(config, **self.fields)

    def in_script(self, script: Script) -> Script:
        return replace(script, config=self.in_config(script.config)) if self.several else script


def refuse_ranks(config: EngineConfig) -> None:
    """For an engine of one scheduler process. Raises `EngineError` when the configuration asks for several."""
    if config.world_size > 1:
        ranks = ", ".join(f"{name}={getattr(config, name)}" for name in SIZES if getattr(config, name) > 1)
        raise EngineError(f"{ranks}: several ranks need the server engine, which starts a process for each")
