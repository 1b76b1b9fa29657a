"""The prompt of a group, run once: its key/value cache is repeated for every completion, and gradients flow through it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from fstsim.llm.rollouts import positions_of


def can_share(model: PreTrainedModel) -> bool:
    """Whether every layer keeps plain keys and values, which can be repeated for a group."""
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
    return all(kind == "full_attention" for kind in kinds)


def run_prompts(model: PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor | None) -> Any:
    """The model's output for left-padded prompts ``tokens, mask (P, S)``: their cache, and logits ``(P, 1, V)`` after each.

    ``seen`` is what the model is told of the padding, in a form that it takes; None where there is none.
    """
    return model(
        tokens,
        attention_mask=seen,
        position_ids=positions_of(mask),
        use_cache=True,
        logits_to_keep=1,
    )


def repeat(cache: Any, rows: torch.Tensor) -> Any:
    """The cache of the prompts, once for every completion: ``rows (B,)`` says whose prompt it has. Differentiable."""
    cache.reorder_cache(rows)
    return cache
