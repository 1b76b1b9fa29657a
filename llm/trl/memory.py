r"""What a fast-slow training takes of each GPU, by part, from the model's configuration alone: no weights are loaded.

With N weights, n of them trained and P processes, in bytes. Data parallel (DDP), float32: weights \(4N\), gradients \(4n\), buckets in
which they are averaged \(4n\), moments of AdamW \(8n\). An adapter beside bfloat16: \(2N + 4n\), gradients, buckets and moments as before.
ZeRO, bfloat16 (1910.02054): weights \(2N\), gradients \(2n\) (stage 1) or \(2n/P\) (stage 2), float32 weights and moments \(12n/P\).
A pass of R rows of p + c tokens, in b bytes a number, with gradient checkpointing: inputs of the L layers \(bRL(p+c)H\), and of
logits of completions `LOGITS` times \(bRcV\). A token in the cache of keys and values: \(4LKD\), for K heads of dimension D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedConfig

from fstsim.errors import InputError

LOGITS = 4
"""Tensors of logits that live at once in a forward and backward pass of TRL's loss; a test counts them."""


@dataclass(frozen=True)
class Plan:
    """A training on ``gpus`` (P): ``rank`` of an adapter (0: all weights), ``zero`` stage (0: DDP), and what one pass holds."""

    gpus: int = 8
    rank: int = 0
    zero: int = 0
    rows: int = 4
    """rollouts of one pass (``per_device_train_batch_size``)"""
    prompt: int = 512
    """tokens, context included"""
    completion: int = 1024
    """tokens"""

    def __post_init__(self) -> None:
        if self.zero not in (0, 1, 2):
            raise InputError(f"zero must be 0, 1 or 2 (a fast round needs whole weights on the main process), got {self.zero}")
        for name in ("gpus", "rows", "prompt", "completion"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.rank < 0:
            raise InputError(f"rank must be at least 0, got {self.rank}")


def count_weights(config: PreTrainedConfig, rank: int = 0) -> tuple[int, int]:
    """``(weights, trained)`` of a causal model: its own, and those of an adapter of ``rank`` on its linear layers; 0: all are trained."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        weights = sum(weight.numel() for weight in model.parameters())
        if rank == 0:
            return weights, weights
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    return weights, sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def memory_of_gpu(config: PreTrainedConfig, plan: Plan) -> dict[str, float]:
    """Bytes on each GPU by what they are for, without the memory of kernels and of a library; parts of 0 are left out."""
    weights, trained = count_weights(config, plan.rank)
    half = bool(plan.rank or plan.zero)
    number = 2.0 if half else 4.0
    share = plan.gpus if plan.zero else 1
    gradients = {0: 4.0, 1: 2.0, 2: 2.0 / plan.gpus}[plan.zero]
    layer = plan.rows * (plan.prompt + plan.completion) * config.hidden_size
    parts = {
        "weights": number * weights,
        "adapter": (2.0 if plan.zero else 4.0) * trained if plan.rank else 0.0,
        "gradients": gradients * trained,
        "buckets": 4.0 * trained if plan.gpus > 1 and not plan.zero else 0.0,
        "optimizer": (12.0 if plan.zero else 8.0) * trained / share,
        "layer inputs": number * config.num_hidden_layers * layer,
        "logits": LOGITS * number * plan.rows * plan.completion * config.vocab_size,
    }
    return {name: size for name, size in parts.items() if size}


def cache_of_token(config: PreTrainedConfig) -> int:
    """Bytes of one token in a cache of keys and values in bfloat16, as sampling keeps them."""
    dimension = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * dimension
