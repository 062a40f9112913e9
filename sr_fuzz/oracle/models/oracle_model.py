"""The oracle model: its next token is a function of the tokens that it reads back from the KV cache.

On every forward it writes the id and position of each input token into the key buffer at the slots that SGLang
assigned, then reads each request's whole history back through the request's own page table and returns
`oracle.token_of` of that history. So the output is a pure function of the prompt, independent of the schedule; a page
that was freed too early, wrongly shared or overwritten changes the output. `read_back` gives the same data to the
invariants.

Hidden states are one-hot rows and the head is a scaled identity, so logprobs are computed by SGLang's own
``LogitsProcessor``, and sampling at any temperature picks the same token. When it serves embeddings, the result is the
row of the prompt's last token, from SGLang's own ``Pooler``: it encodes the token that would come next.

It also runs on CUDA. Reading back waits for the device, so the data that a forward has written is complete when it
returns, even under overlap scheduling. Therefore races between CUDA streams cannot be detected.
"""

from __future__ import annotations

import torch
from sglang.srt.distributed.parallel_state import get_pp_group
from sglang.srt.distributed.utils import get_pp_indices
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.pooler import Pooler, PoolingType
from sglang.srt.model_executor.forward_batch_info import PPProxyTensors
from torch import nn

from sr_fuzz.oracle.draft_trees import ancestors
from sr_fuzz.oracle.function import MODULUS, WEIGHTS, token_of

# Large enough that softmax leaves no probability to the other 63 tokens at temperature 1 (1 + exp(-100) is 1 in
# float32), small enough that logprobs stay finite.
_LOGIT_SCALE = 100.0

# Columns of a key row. float32 holds both exactly, since token ids and positions are far below 2**24.
_TOKEN, _POSITION = 0, 1


class SrFuzzOracleForCausalLM(nn.Module):
    """A causal LM without weights. `bind` sets its pools; before that its hidden states are zeros."""

    def __init__(self, config, quant_config=None, prefix: str = "") -> None:
        super().__init__()
        self.config = config
        self.logits_processor = LogitsProcessor(config)
        self.pooler = Pooler(pooling_type=PoolingType.LAST, normalize=True)
        self.lm_head = nn.Module()
        # A buffer outside the state dict, because the dummy loader would fill a parameter with noise.
        head = torch.eye(config.vocab_size, config.hidden_size) * _LOGIT_SCALE
        self.lm_head.register_buffer("weight", head, persistent=False)
        self.register_buffer("_weights", torch.tensor(WEIGHTS, dtype=torch.int64), persistent=False)
        self._pool = None
        self._req_to_token = None
        stages = get_pp_group()
        # Each pipeline stage has its own layer, and so its own KV pool.
        layers = get_pp_indices(config.num_hidden_layers, stages.rank_in_group, stages.world_size)
        self.start_layer, self.end_layer = layers
        self._is_last_stage = stages.is_last_rank

    def load_weights(self, weights) -> None:
        """Do nothing: there are no weights."""

    def bind(self, req_to_token_pool, token_to_kv_pool) -> None:
        """Set the pools to write to and read from."""
        self._req_to_token = req_to_token_pool.req_to_token
        self._pool = token_to_kv_pool.get_key_buffer(self._readable_layer)

    @property
    def _readable_layer(self) -> int:
        """The layer whose keys contain the whole history."""
        return self.start_layer

    @property
    def window(self) -> int | None:
        """How many tokens, including the newest, the output depends on; None means all."""
        return None

    @torch.no_grad()
    def forward(self, input_ids, positions, forward_batch, pp_proxy_tensors=None, get_embedding=False, **kwargs):
        hidden = torch.zeros((input_ids.shape[0], self.config.hidden_size), device=input_ids.device)
        if self._pool is not None and input_ids.shape[0]:
            self._write(input_ids, positions, forward_batch.out_cache_loc)
            if self._is_last_stage:
                tokens = self._predict(input_ids, forward_batch)
                hidden[torch.arange(len(tokens)), torch.tensor(tokens)] = 1.0
        if not self._is_last_stage:
            return PPProxyTensors({"hidden_states": hidden})
        if get_embedding:
            return self.pooler(hidden, forward_batch)
        return self.logits_processor(input_ids, hidden, self.lm_head, forward_batch)

    def read_back(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the token ids and positions stored in ``slots`` (int64, shape [n]); both int64, shape [n]."""
        rows = self._pool[slots.long(), 0, :2].to(torch.int64)
        return rows[:, _TOKEN], rows[:, _POSITION]

    def _write(self, input_ids, positions, slots) -> None:
        rows = torch.stack((input_ids, positions), dim=1).to(self._pool.dtype)
        self._pool[slots.long(), 0, :2] = rows

    def _predict(self, input_ids, forward_batch) -> list[int]:
        """Return the next token after each input row, in row order."""
        if forward_batch.forward_mode.is_target_verify():
            return self._after_drafts(forward_batch)
        # A decode row is the last position of its request; an extend row is any of the last extend_len positions.
        counts = forward_batch.extend_seq_lens_cpu
        if counts is None or forward_batch.forward_mode.is_decode():
            counts = [1] * len(forward_batch.req_pool_indices)
        tokens: list[int] = []
        lens = forward_batch.seq_lens.tolist()
        for index, (row, length) in enumerate(zip(forward_batch.req_pool_indices.tolist(), lens, strict=True)):
            first, count = len(tokens), int(counts[index])
            digests = self._digests(row, length, count)
            digests += self._disturbance(forward_batch, index, digests, input_ids[first : first + count])
            tokens += [token_of(d) for d in (digests % MODULUS).tolist()]
        if len(tokens) != len(input_ids):
            raise RuntimeError(f"oracle model: {len(input_ids)} input rows, but the batch describes {len(tokens)}")
        return tokens

    def _after_drafts(self, forward_batch) -> list[int]:
        """Return the next token after each draft, assuming that the drafts on its path from the root are right.

        Drafts follow the history in the request's row; siblings are for the same position. The root is the newest known
        token.
        """
        tokens: list[int] = []
        rows, lens = forward_batch.req_pool_indices.tolist(), forward_batch.seq_lens.tolist()
        for row, length, seen in zip(rows, lens, ancestors(forward_batch), strict=True):
            before = self._digests(row, length, 1)
            drafts, positions = self.read_back(self._req_to_token[row, length : length + len(seen)])
            # A product with a weight is below 2**38, and a tree has a few nodes: no overflow.
            digests = before + seen.to(torch.int64) @ (self._weights[positions] * (drafts + 1))
            tokens += [token_of(d) for d in (digests % MODULUS).tolist()]
        return tokens

    def _digests(self, row: int, length: int, count: int) -> torch.Tensor:
        """Return the digests after each of the last ``count`` of ``length`` positions of row ``row``; int64 [count]."""
        history, _ = self.read_back(self._req_to_token[row, :length])
        return (torch.cumsum(self._weights[:length] * (history + 1), 0) % MODULUS)[length - count :]

    def _disturbance(self, forward_batch, index: int, digests: torch.Tensor, input_ids: torch.Tensor):
        """Return what a second cache adds to the digests of request ``index``: 0 while it agrees with the first one."""
        return 0


EntryClass = SrFuzzOracleForCausalLM
