"""The oracle with LoRA adapters: the KV of a token contains the number of the adapter that SGLang applied to it.

The model has one linear layer, which SGLang wraps for LoRA as in any model. The layer itself returns zeros; an
adapter's weights (`sr_fuzz.oracle.adapter_weights`) return its number. So the number of a token depends on the whole
path: on the slot of the memory pool that the adapter has at that moment, and on the ranks, scalings and segments that
SGLang computed for the batch. It is written beside the token into the key buffer and read back with the history. An
adapter that was evicted too early, a row that was computed with another adapter's weights, or a prefix of another
adapter changes the output.
"""

from __future__ import annotations

import torch
from sglang.srt.layers.linear import RowParallelLinear
from torch import nn

from sr_fuzz.oracle.function import MODULUS
from sr_fuzz.oracle.models.oracle_hybrid import SrFuzzOracleSwaForCausalLM
from sr_fuzz.oracle.models.oracle_model import SrFuzzOracleForCausalLM
from sr_fuzz.script import VOCAB_SIZE

# Column of a key row, after token and position.
_ADAPTER = 2


class _WithAdapters:
    """A mixin that adds adapters to a model of any kind of cache; it comes before the model in the bases."""

    def __init__(self, config, quant_config=None, prefix: str = "") -> None:
        super().__init__(config, quant_config, prefix)
        layers = [_Layer(config.hidden_size, at) for at in range(config.num_hidden_layers)]
        # SGLang identifies a layer by the number in its name.
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(layers)

    def bind(self, req_to_token_pool, token_to_kv_pool) -> None:
        super().bind(req_to_token_pool, token_to_kv_pool)
        for parameter in self.parameters():
            # The dummy loader has filled the parameter with noise.
            parameter.data.zero_()

    def read_adapters(self, slots: torch.Tensor) -> torch.Tensor:
        """Return the adapter numbers with which the tokens in ``slots`` (int64, [n]) were computed; int64, [n]."""
        return self._pool[slots.long(), 0, _ADAPTER].to(torch.int64)

    def _write(self, input_ids, positions, slots) -> None:
        super()._write(input_ids, positions, slots)
        self._pool[slots.long(), 0, _ADAPTER] = self._applied(len(input_ids)).to(self._pool.dtype)

    def _applied(self, count: int) -> torch.Tensor:
        """Return the number of the adapter that SGLang applies to each input row; float, shape [count]."""
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
        # Each rank gets its part of the input; the outputs are summed.
        name = f"model.layers.{at}.self_attn.o_proj"
        self.self_attn.o_proj = RowParallelLinear(size, size, bias=False, input_is_parallel=False, prefix=name)


class SrFuzzOracleLoraForCausalLM(_WithAdapters, SrFuzzOracleForCausalLM):
    """The dense oracle with adapters; its output is that of `sr_fuzz.oracle.function` with the request's adapter."""


class SrFuzzOracleSwaLoraForCausalLM(_WithAdapters, SrFuzzOracleSwaForCausalLM):
    """The same with a sliding window besides full attention; the window's pool stores no adapter numbers."""


EntryClass = [SrFuzzOracleLoraForCausalLM, SrFuzzOracleSwaLoraForCausalLM]
