"""The oracle for hybrid caches: a sliding window or a recurrent state besides, or instead of, full attention.

Each model writes its input tokens into both caches and reads both back. The second cache adds zero to the digest while
it agrees with the first one. So the output of a healthy scheduler is that of the plain oracle
(`sr_fuzz.oracle.function`), and a slot of the second cache that was freed too early, shared or not copied changes the
output.
"""

from __future__ import annotations

import torch

from sr_fuzz.oracle.function import MAX_LEN, MODULUS
from sr_fuzz.oracle.models.oracle_model import _POSITION, _TOKEN, SrFuzzOracleForCausalLM
from sr_fuzz.script import VOCAB_SIZE


class SrFuzzOracleSwaForCausalLM(SrFuzzOracleForCausalLM):
    """A full attention layer and a sliding window layer, each with its own pool (``SWAKVPool``).

    For position ``p`` the second layer reads ``p - sliding_window_size … p``, as SGLang counts the window.
    """

    def bind(self, req_to_token_pool, token_to_kv_pool) -> None:
        super().bind(req_to_token_pool, token_to_kv_pool)
        self._window_pool = token_to_kv_pool.get_key_buffer(self.config.hybrid_layer_pattern.index(1))
        self._to_window = token_to_kv_pool.translate_loc_from_full_to_swa

    @property
    def _readable_layer(self) -> int:
        return self.config.hybrid_layer_pattern.index(0)

    def read_back_window(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and positions in the window's pool for slots of the full pool (int64, [n]); both int64, [n]."""
        rows = self._window_pool[self._to_window(slots.long()).long(), 0, :2].to(torch.int64)
        return rows[:, _TOKEN], rows[:, _POSITION]

    def _write(self, input_ids, positions, slots) -> None:
        super()._write(input_ids, positions, slots)
        rows = torch.stack((input_ids, positions), dim=1).to(self._window_pool.dtype)
        self._window_pool[self._to_window(slots.long()).long(), 0, :2] = rows

    def _disturbance(self, forward_batch, index: int, digests: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        size, count, length = self.config.sliding_window_size, len(digests), int(forward_batch.seq_lens[index])
        first = max(0, length - count - size)
        slots = self._req_to_token[forward_batch.req_pool_indices[index], first:length]
        expected, _ = self.read_back(slots)
        tokens, positions = self.read_back_window(slots)
        # One value per position, in which a wrong token and a wrong position cannot cancel each other.
        wrong = tokens - expected + VOCAB_SIZE * (positions - torch.arange(first, length, device=positions.device))
        sums = torch.nn.functional.pad(torch.cumsum(self._weights[first:length] * wrong % MODULUS, 0), (1, 0))
        ends = torch.arange(length - count + 1, length + 1, device=sums.device) - first
        return sums[ends] - sums[(ends - 1 - size).clamp(min=0)]


class SrFuzzOraclePureSwaForCausalLM(SrFuzzOracleForCausalLM):
    """Sliding window layers only (``PureSWATokenToKVPoolAllocator``): the digest covers the window.

    The prompt never leaves the window, as in the one model for which SGLang has this cache
    (``UnlimitedOCRForCausalLM``): otherwise its tree would keep slots that have left the window and are free.
    """

    def is_prefill_aware_swa(self) -> bool:
        """Called by SGLang: whether prefilled tokens never leave the window."""
        return True

    @property
    def window(self) -> int:
        return self.config.sliding_window_size + 1

    def _digests(self, row: int, length: int, count: int) -> torch.Tensor:
        first = max(0, length - count + 1 - self.window)
        history, _ = self.read_back(self._req_to_token[row, first:length])
        sums = torch.nn.functional.pad(torch.cumsum(self._weights[first:length] * (history + 1) % MODULUS, 0), (1, 0))
        ends = torch.arange(length - count + 1, length + 1, device=sums.device) - first
        return (sums[ends] - sums[(ends - self.window).clamp(min=0)]) % MODULUS


# Fields of a state: the digest in two halves, each exact in float32, and the number of consumed tokens.
_HIGH, _LOW, _CONSUMED = 0, 1, 2
_HALF = 1 << 16


class Qwen3NextForCausalLM(SrFuzzOracleForCausalLM):
    """An attention layer and a layer with a recurrent state (``HybridReqToTokenPool``, ``HybridLinearKVPool``).

    The state is the digest of the consumed tokens, and their number; a cleared slot is the state before the first
    token. SGLang copies and clears slots. The layer, here this class, advances them, and keeps a second copy where a
    batch asks for one (``mamba_track_indices``).

    The class name decides which of SGLang's pools and caches it gets.
    """

    def bind(self, req_to_token_pool, token_to_kv_pool) -> None:
        super().bind(req_to_token_pool, token_to_kv_pool)
        self._states_of = req_to_token_pool.get_mamba_indices
        self._states = req_to_token_pool.mamba_pool.mamba_cache.temporal[0].flatten(1)

    @property
    def _readable_layer(self) -> int:
        return self.config.full_attention_layer_ids[0]

    def read_states(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the digests and the numbers of consumed tokens of states (slots int64, [n]); both int64, [n]."""
        states = self._states[slots.long()].to(torch.int64)
        return states[:, _HIGH] * _HALF + states[:, _LOW], states[:, _CONSUMED]

    def _write_state(self, slot: torch.Tensor, digest: torch.Tensor, consumed: int) -> None:
        state = torch.stack((digest // _HALF, digest % _HALF, torch.full_like(digest, consumed)))
        self._states[slot.long(), : len(state)] = state.to(self._states.dtype)

    def _disturbance(self, forward_batch, index: int, digests: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        slot = self._states_of(forward_batch.req_pool_indices)[index]
        before, consumed = (int(part) for part in self.read_states(slot[None]))
        count = len(input_ids)
        # A state that has consumed too many tokens continues from there; a corrupted one must not index beyond the
        # table.
        places = (consumed + torch.arange(count, device=digests.device)).clamp(max=MAX_LEN - 1)
        after = (before + torch.cumsum(self._weights[places] * (input_ids.long() + 1), 0)) % MODULUS
        self._write_state(slot, after[-1], consumed + count)
        self._track(forward_batch, index, before, consumed, after)
        return digests - after

    def _track(self, forward_batch, index: int, before: int, consumed: int, after: torch.Tensor) -> None:
        """Store the state at an extend's last chunk boundary, or after a decode step, where the batch asks for it."""
        mask = forward_batch.mamba_track_mask
        if mask is None or not bool(mask[index]):
            return
        kept = len(after)
        if forward_batch.forward_mode.is_extend():
            wanted = int(forward_batch.mamba_track_seqlens[index]) - int(forward_batch.extend_prefix_lens[index])
            kept = wanted // self.config.mamba_chunk_size * self.config.mamba_chunk_size
        digest = after[kept - 1] if kept else torch.tensor(before, device=after.device)
        self._write_state(forward_batch.mamba_track_indices[index], digest, consumed + kept)


EntryClass = [SrFuzzOracleSwaForCausalLM, SrFuzzOraclePureSwaForCausalLM, Qwen3NextForCausalLM]
