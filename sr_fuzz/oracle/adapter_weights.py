"""LoRA adapters without files: weights that encode the adapter's number, loaded into a scheduler when it boots.

They are loaded with ``load_lora_adapter_from_tensors``, which SGLang has for adapters that a trainer sends. So nothing
is read from disk, which the loader of a model without weights refuses, and we choose the ids.

Ranks and scalings differ between adapters: the weights of an adapter give its number only with its own rank and
scaling, so a mix-up is detected.
"""

from __future__ import annotations

from typing import Any

from sr_fuzz.script import EngineConfig
from sr_fuzz.script.adapters import ADAPTERS, adapter_number
from sr_fuzz.script.errors import EngineError

_MODULE = "o_proj"
_LARGEST_RANK = 2


def settings(config: EngineConfig) -> dict[str, Any]:
    """Return the ``ServerArgs`` of an engine with these adapters."""
    found: dict[str, Any] = {
        # Adapters that are loaded after the start must fit into the pool that exists by then.
        "max_lora_rank": _LARGEST_RANK,
        "lora_target_modules": [_MODULE],
        # The only backend that needs no GPU kernels.
        "lora_backend": "torch_native",
    }
    if config.enable_lora_overlap_loading:
        # SGLang requires it, because it would otherwise pin any number of adapters in host memory.
        found["max_loaded_loras"] = len(ADAPTERS)
    return found


def rank_of(name: str) -> int:
    """Return the adapter's rank: 1 and 2 alternate."""
    return 1 + (adapter_number(name) - 1) % _LARGEST_RANK


def peft_config(name: str) -> dict[str, Any]:
    """Return the content of PEFT's ``adapter_config.json``. SGLang scales by ``lora_alpha / r``, here 1 or 2."""
    rank = rank_of(name)
    return {"peft_type": "LORA", "r": rank, "lora_alpha": rank * rank, "target_modules": [_MODULE]}


def weights(name: str, hidden_size: int) -> dict[str, Any]:
    """Return the two matrices by PEFT's names.

    For an input that begins with 1 the scaled output begins with the adapter's number.
    """
    import torch

    rank = rank_of(name)
    down, up = torch.zeros(rank, hidden_size), torch.zeros(hidden_size, rank)
    down[:, 0] = 1.0
    # The output is scaled by the rank, and summed over it.
    up[0, :] = adapter_number(name) / (rank * rank)
    module = f"base_model.model.model.layers.0.self_attn.{_MODULE}"
    return {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}


def load(scheduler: Any) -> None:
    """Load all adapters into a scheduler that has ``enable_lora``; does nothing for a real model."""
    runner = scheduler.tp_worker.model_runner
    if getattr(runner, "lora_manager", None) is None or not hasattr(runner.model, "read_adapters"):
        return
    from sglang.srt.lora.lora_registry import LoRARef

    for name in ADAPTERS:
        # The name is also the id, so that an order by id is the same in every run.
        ref = LoRARef(lora_id=name, lora_name=name, lora_path=f"memory:{name}", pinned=False)
        tensors = weights(name, runner.model.config.hidden_size)
        result = runner.load_lora_adapter_from_tensors(ref, tensors, peft_config(name))
        if not result.success:
            raise EngineError(f"the adapter {name} could not be loaded: {result.error_message}")


def number_in_pool(manager: Any, name: str, slot: int) -> float:
    """Apply the weights in ``slot``, with rank and scaling of ``name``, to an input that begins with 1."""
    from sglang.srt.lora.utils import LoRAType

    pool, rank = manager.memory_pool, rank_of(name)
    down = pool.get_tensor(_MODULE, 0, LoRAType.LORA_A)[slot, :rank, 0]
    up = pool.get_tensor(_MODULE, 0, LoRAType.LORA_B)[slot, 0, :rank]
    return float(manager.loras[name].scaling * (down * up).sum())
