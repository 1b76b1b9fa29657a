"""Entropy of next-token distributions and KL between them, from logits: what losses and measurements are made of."""

from __future__ import annotations

import torch


def inside(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``values`` on the mask and 0 elsewhere, whatever stands there: a product with the mask would keep nan and inf."""
    return torch.where(mask, values, 0.0)


def token_kl(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    r"""Exact KL(p || q) of every next-token distribution, nats, ``(B, T)``; ``logits`` of p, ``other`` of q, ``(B, T, V)``.

    A token that p excludes (logit -inf) adds nothing, whatever q gives it; one that only q excludes makes the divergence inf.
    """
    logp, logq = torch.log_softmax(logits, -1), torch.log_softmax(other, -1)
    possible = logits > -torch.inf
    # by where on both sides: 0 times the gradient of -inf would be nan too
    return (logp.exp() * (inside(logp, possible) - inside(logq, possible))).sum(-1)


def token_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of every next-token distribution, nats, ``(B, T)``."""
    logp = torch.log_softmax(logits, -1)
    return -(logp.exp() * inside(logp, logits > -torch.inf)).sum(-1)
