"""Faults that SGLang ships for its own tests: the KV canary's perturbations, and forced retractions."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from sr_fuzz.faults import fault, triggered, wrapped

# Forwards before the first perturbation, so that the prompt is prefilled and entries can be exchanged.
WARMUP_FORWARDS = 3

# Small, so that each request is retracted several times; more than 1, so that it makes progress in between.
RETRACT_EVERY = 3


@fault("perturbed_page_table", stands_for="a page table that points elsewhere", expected=("kv_content", "kv_pages"))
@contextmanager
def perturbed_page_table() -> Iterator[None]:
    """The KV canary's ``req_to_token`` perturbation: an entry of a running request's row points to another slot.

    The canary itself is not used, because it copies over CUDA streams and pinned memory; its perturbations do not need
    them. The settings are read from the environment, as the canary reads them.
    """
    from sglang.srt.kv_canary.perturb import req_to_token
    from sglang.srt.kv_canary.perturb.config import PerturbConfig
    from sglang.srt.kv_canary.perturb.utils import WarmupGate
    from sglang.srt.model_executor.model_runner import ModelRunner

    settings = {"REQ_TO_TOKEN_PROB": "1.0", "WARMUP_STEPS": str(WARMUP_FORWARDS)}
    with patch.dict(os.environ, {f"SGLANG_KV_CANARY_PERTURB_{name}": value for name, value in settings.items()}):
        config = PerturbConfig.from_env()
    forwards = itertools.count()
    gate = WarmupGate(config=config, outer_step_counter_getter=lambda: next(forwards))

    def forward(original, runner, batch, *args, **kwargs):
        rows = runner.req_to_token_pool.req_to_token
        before = rows.clone()
        req_to_token.run(
            maybe_inaccurate_forward_batch=batch,
            config=config,
            req_to_token_pool=runner.req_to_token_pool,
            warmup_gate=gate,
        )
        if not bool((rows == before).all()):
            triggered()
        return original(runner, batch, *args, **kwargs)

    with wrapped(ModelRunner, "forward", forward):
        yield


@contextmanager
def forced_retraction() -> Iterator[None]:
    """``SGLANG_TEST_RETRACT``: a retraction at each third forward. This is not a fault: no invariant may be violated.

    The environment variable has the same effect if it is set before SGLang is imported; this function is for one engine
    of a process that has already imported SGLang.
    """
    from sglang.srt.managers import scheduler

    with patch.multiple(scheduler, TEST_RETRACT=True, TEST_RETRACT_INTERVAL=RETRACT_EVERY):
        yield
