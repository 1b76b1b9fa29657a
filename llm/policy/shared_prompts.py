"""The prompt of a group, run once: its key/value cache is repeated for every completion, and gradients flow through it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fstsim.errors import InputError
from fstsim.llm.policy.declared import vocabulary_size
from fstsim.llm.policy.rollouts import positions_of


def can_share(model: PreTrainedModel) -> bool:
    """Whether every layer keeps plain keys and values, of all tokens, which can be repeated for a group.

    Asked of the cache that transformers makes for the model: a window is in force where its layers forget, and whether a
    config says so by ``layer_types`` or by ``sliding_window`` alone (Mistral) depends on the model.
    """
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


@torch.no_grad()
def keeps_cache(model: PreTrainedModel) -> bool:
    """Whether the model hands back a cache of what it has read (Mamba does not, an encoder neither): tried on four tokens.

    Raises InputError if that fails, or its logits are not finite (finite weights can be too large).
    """
    was_training = model.training
    model.eval()
    try:
        tokens = (torch.arange(4, device=model.device)[None] * 7 + 3) % vocabulary_size(model)
        out = model(tokens, use_cache=True)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise InputError(f"{type(model).__name__} cannot be used: {' '.join(str(error).split())[:200]}") from error
    finally:
        model.train(was_training)
    if not bool(torch.isfinite(out.logits).any(-1).all()) or bool(torch.isnan(out.logits).any()):
        raise InputError(f"{type(model).__name__} cannot be used: its logits are not finite")
    return getattr(out, "past_key_values", None) is not None


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
