"""The oracle for caches of two kinds: a sliding window or a recurrent state beside, or instead of, full attention.

Each writes what it consumes into both caches and reads both back. What the second one adds to the digest is zero while
it agrees with the first; so the output of a healthy scheduler is that of the plain oracle (`sr_fuzz.oracle.function`),
and a slot of the second cache that was freed too early, shared or not copied changes it.
"""

from __future__ import annotations

import torch

from sr_fuzz.oracle.function import MAX_LEN, MODULUS
from sr_fuzz.oracle.models.oracle_model import _POSITION, _TOKEN, SrFuzzOracleForCausalLM
from sr_fuzz.script import VOCAB_SIZE


class SrFuzzOracleSwaForCausalLM(SrFuzzOracleForCausalLM):
    """A layer that sees everything and one that sees a window, each with a pool of its own (``SWAKVPool``).

    Of position ``p`` the second layer reads ``p - sliding_window_size … p``, as SGLang counts the window.
    """

    def bind(self, req_to_token_pool, token_to_kv_pool) -> None:
        super().bind(req_to_token_pool, token_to_kv_pool)
        self._window_pool = token_to_kv_pool.get_key_buffer(self.config.hybrid_layer_pattern.index(1))
        self._to_window = token_to_kv_pool.translate_loc_from_full_to_swa

    @property
    def _readable_layer(self) -> int:
        return self.config.hybrid_layer_pattern.index(0)

    def read_back_window(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and positions in the window's pool for slots of the full one (int64, [n]); both int64, [n]."""
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
        # Of one weight a position: neither a wrong token nor a wrong position is hidden by the other.
        wrong = tokens - expected + VOCAB_SIZE * (positions - torch.arange(first, length, device=positions.device))
        sums = torch.nn.functional.pad(torch.cumsum(self._weights[first:length] * wrong % MODULUS, 0), (1, 0))
        ends = torch.arange(length - count + 1, length + 1, device=sums.device) - first
        return sums[ends] - sums[(ends - 1 - size).clamp(min=0)]


class SrFuzzOraclePureSwaForCausalLM(SrFuzzOracleForCausalLM):
    """Nothing but a sliding window (``PureSWATokenToKVPoolAllocator``): the digest is over the window.

    The prompt stays all the same, as in the one model for which SGLang has this cache (``UnlimitedOCRForCausalLM``):
    without that its tree would keep slots that have left the window and are free.
    """

    def is_prefill_aware_swa(self) -> bool:
        """Asked by SGLang: whether what was prefilled never leaves the window."""
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


# Of a state: the digest in two halves, each exact in float32, and how many tokens it has consumed.
_HIGH, _LOW, _CONSUMED = 0, 1, 2
_HALF = 1 << 16


class Qwen3NextForCausalLM(SrFuzzOracleForCausalLM):
    """An attention layer beside one with a recurrent state (``HybridReqToTokenPool``, ``HybridLinearKVPool``).

    The state is the digest of what was consumed, and how much that was; a cleared slot is the state before the first
    token. SGLang copies and clears slots; the layer, and so this class, advances them, and keeps a second copy where a
    batch asks for one (``mamba_track_indices``).

    The name decides which of SGLang's pools and caches it gets.
    """

    def bind(self, req_to_token_pool, token_to_kv_pool) -> None:
        super().bind(req_to_token_pool, token_to_kv_pool)
        self._states_of = req_to_token_pool.get_mamba_indices
        self._states = req_to_token_pool.mamba_pool.mamba_cache.temporal[0].flatten(1)

    @property
    def _readable_layer(self) -> int:
        return self.config.full_attention_layer_ids[0]

    def read_states(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Digests and numbers of consumed tokens of states (slots int64, [n]); both int64, [n]."""
        states = self._states[slots.long()].to(torch.int64)
        return states[:, _HIGH] * _HALF + states[:, _LOW], states[:, _CONSUMED]

    def _write_state(self, slot: torch.Tensor, digest: torch.Tensor, consumed: int) -> None:
        state = torch.stack((digest // _HALF, digest % _HALF, torch.full_like(digest, consumed)))
        self._states[slot.long(), : len(state)] = state.to(self._states.dtype)

    def _disturbance(self, forward_batch, index: int, digests: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        slot = self._states_of(forward_batch.req_pool_indices)[index]
        before, consumed = (int(part) for part in self.read_states(slot[None]))
        count = len(input_ids)
        # A state that has consumed too much counts on from where it is; a broken one must not leave the table.
        places = (consumed + torch.arange(count, device=digests.device)).clamp(max=MAX_LEN - 1)
        after = (before + torch.cumsum(self._weights[places] * (input_ids.long() + 1), 0)) % MODULUS
        self._write_state(slot, after[-1], consumed + count)
        self._track(forward_batch, index, before, consumed, after)
        return digests - after

    def _track(self, forward_batch, index: int, before: int, consumed: int, after: torch.Tensor) -> None:
        """Keep the state at the last chunk boundary of an extend, or after a decode step, where the batch wants it."""
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
