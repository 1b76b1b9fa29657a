r"""What a fast-slow training takes of each GPU, by part, from the model's configuration alone: no weights are loaded.

With N weights, n of them trained and P processes, in bytes. Data parallel (DDP), float32: weights \(4N\), gradients \(4n\), buckets
in which they are averaged \(4n\), moments of AdamW \(8n\). An adapter in float32 beside bfloat16: \(2N + 4n\), the rest as before.
ZeRO with bfloat16 (1910.02054): weights \(2N\), gradients \(2n\) (stage 1) or \(2n/P\) (stage 2), float32 weights and moments
\(12n/P\). A pass of R rows of S tokens with gradient checkpointing keeps the inputs of L layers of width H, \(bLRSH\) with b bytes
a number; sampling them a cache \(bLRS \cdot 2KD\) of keys and values, for K heads of dimension D. TRL makes logits in tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedConfig

from fstsim.errors import InputError


@dataclass(frozen=True)
class Plan:
    """A training on ``gpus`` (P) processes, and what one pass of one of them holds. Raises InputError if it cannot be."""

    gpus: int = 8
    rank: int = 0
    """rank of the adapter; 0: all weights are trained"""
    zero: int = 0
    """stage of DeepSpeed's ZeRO; 0: DDP"""
    rows: int = 4
    """rollouts of one pass (``per_device_train_batch_size``)"""
    tokens: int = 1536
    """tokens of a rollout, context and problem included"""

    def __post_init__(self) -> None:
        if self.zero not in (0, 1, 2):
            raise InputError(f"zero must be 0, 1 or 2, because a fast round needs whole weights; got {self.zero}")
        if self.rank < 0:
            raise InputError(f"rank must be at least 0, got {self.rank}")
        if self.rank and self.zero:
            raise InputError(
                f"an adapter leaves nothing worth sharding: give rank or zero, got {self.rank} and {self.zero}"
            )
        for name in ("gpus", "rows", "tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


def count_weights(config: PreTrainedConfig, rank: int = 0) -> tuple[int, int]:
    """``(weights, trained)`` of a causal model; trained are all, or those of an adapter of ``rank`` on all linear layers but the last."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        weights = sum(weight.numel() for weight in model.parameters())
        if rank == 0:
            return weights, weights
        adapted = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    return weights, sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)


def memory_of_gpu(config: PreTrainedConfig, plan: Plan) -> dict[str, float]:
    """Bytes on each GPU by what they are for; parts of 0 are left out.

    Not among them: what one layer keeps while it is computed again, tiles of logits, and the memory of CUDA and its libraries.
    """
    weights, trained = count_weights(config, plan.rank)
    number = 2.0 if plan.rank or plan.zero else 4.0
    shape: Any = config
    layers = shape.num_hidden_layers * plan.rows * plan.tokens
    dimension = getattr(config, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    parts = {
        "weights": number * weights,
        "adapter": 4.0 * trained if plan.rank else 0.0,
        "gradients": (4.0, 2.0, 2.0 / plan.gpus)[plan.zero] * trained,
        "buckets": 4.0 * trained if plan.gpus > 1 and not plan.zero else 0.0,
        "optimizer": 12.0 * trained / plan.gpus if plan.zero else 8.0 * trained,
        "layer inputs": number * layers * shape.hidden_size,
        "cache": number * layers * 2 * shape.num_key_value_heads * dimension,
    }
    return {name: size for name, size in parts.items() if size}


def memory_table(config: PreTrainedConfig, plans: Mapping[str, Plan]) -> str:
    """Markdown: gigabytes (10^9 bytes) on each GPU, a row a part and a column a plan, the sum last."""
    columns = {name: memory_of_gpu(config, plan) for name, plan in plans.items()}
    parts = list(dict.fromkeys(part for held in columns.values() for part in held))
    rows = [
        [part, *(f"{held[part] / 1e9:.1f}" if part in held else "–" for held in columns.values())] for part in parts
    ]
    rows.append(["sum", *(f"{sum(held.values()) / 1e9:.1f}" for held in columns.values())])
    head = [["GB on each GPU", *columns], ["---"] * (len(columns) + 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])
