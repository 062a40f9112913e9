"""The oracle with LoRA adapters: what it keeps of a token names the adapter that SGLang applied to it.

It has one linear layer, which SGLang wraps for LoRA as it does those of any model. The layer itself gives zeros, an
adapter's weights (`sr_fuzz.oracle.adapter_weights`) its number. So the number that a token gets has come the whole way:
from the slot of the memory pool that the adapter has at that moment, through the ranks, scalings and segments that
SGLang made of the batch. It is written beside the token into the key buffer and read back with the history; an adapter
that was evicted too early, a row that was computed with another's weights, or a prefix that another adapter has left
show in the output.
"""

from __future__ import annotations

import torch
from sglang.srt.layers.linear import RowParallelLinear
from torch import nn

from sr_fuzz.oracle.function import MODULUS
from sr_fuzz.oracle.models.oracle_hybrid import SrFuzzOracleSwaForCausalLM
from sr_fuzz.oracle.models.oracle_model import SrFuzzOracleForCausalLM
from sr_fuzz.script import VOCAB_SIZE

# Column of a key row, behind token and position.
_ADAPTER = 2


class _WithAdapters:
    """What a model of any kind of cache becomes with adapters; its part goes before the model's own."""

    def __init__(self, config, quant_config=None, prefix: str = "") -> None:
        super().__init__(config, quant_config, prefix)
        layers = [_Layer(config.hidden_size, at) for at in range(config.num_hidden_layers)]
        # SGLang finds a layer by its number in the name.
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(layers)

    def bind(self, req_to_token_pool, token_to_kv_pool) -> None:
        super().bind(req_to_token_pool, token_to_kv_pool)
        for parameter in self.parameters():
            # The dummy loader has filled it with noise.
            parameter.data.zero_()

    def read_adapters(self, slots: torch.Tensor) -> torch.Tensor:
        """Numbers of the adapters with which the tokens in ``slots`` (int64, shape [n]) were computed; int64, [n]."""
        return self._pool[slots.long(), 0, _ADAPTER].to(torch.int64)

    def _write(self, input_ids, positions, slots) -> None:
        super()._write(input_ids, positions, slots)
        self._pool[slots.long(), 0, _ADAPTER] = self._applied(len(input_ids)).to(self._pool.dtype)

    def _applied(self, count: int) -> torch.Tensor:
        """The number of the adapter that SGLang applies to each input row; float, shape [count]."""
        ones = torch.zeros((count, self.config.hidden_size), device=self._pool.device)
        ones[:, 0] = 1.0
        output, _ = self.model.layers[self._readable_layer].self_attn.o_proj(ones)
        return output[:, 0].round()

    def _digests(self, row: int, length: int, count: int) -> torch.Tensor:
        slots = self._req_to_token[row, :length]
        history, _ = self.read_back(slots)
        counted = history + 1 + VOCAB_SIZE * self.read_adapters(slots)
        return (torch.cumsum(self._weights[:length] * counted, 0) % MODULUS)[length - count :]


class _Layer(nn.Module):
    def __init__(self, size: int, at: int) -> None:
        super().__init__()
        self.self_attn = nn.Module()
        # Each rank gets its part of the one input; the outputs are added up.
        name = f"model.layers.{at}.self_attn.o_proj"
        self.self_attn.o_proj = RowParallelLinear(size, size, bias=False, input_is_parallel=False, prefix=name)


class SrFuzzOracleLoraForCausalLM(_WithAdapters, SrFuzzOracleForCausalLM):
    """Its output is that of `sr_fuzz.oracle.function` with the adapter of the request."""


class SrFuzzOracleSwaLoraForCausalLM(_WithAdapters, SrFuzzOracleSwaForCausalLM):
    """The same with a sliding window beside full attention, whose pool keeps tokens alone."""


EntryClass = [SrFuzzOracleLoraForCausalLM, SrFuzzOracleSwaLoraForCausalLM]
