r"""Losses and advantages of the slow channel, as pure tensor functions.

Shapes: B rollouts, T tokens, V vocabulary; ``mask (B, T)`` is true on tokens that were written. Losses are to be
minimised. Against the papers, deliberately: (1) advantages divide by the population standard deviation of a group;
(2) groups whose rewards are all equal get advantage exactly 0 and can be left out; (3) per-token losses are summed over
the batch and divided by the tokens of *all* rollouts, left-out ones included, so that skipping changes nothing.
"""

from __future__ import annotations

from typing import Literal

import torch

from fstsim.errors import InputError
from fstsim.llm.policy.divergence import inside

Advantage = Literal["normalised", "centred", "leave-one-out"]
KLEstimator = Literal["exact", "k1", "k2", "k3"]
_ROUNDING = 1e-5
"""nats a token: how well log-probabilities of sampling and of scoring agree in float32"""


def group_advantages(
    rewards: torch.Tensor, groups: torch.Tensor, kind: Advantage = "normalised", epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Advantages ``(B,)`` and whether each group is dead ``(groups,)``: one baseline a group, whatever contexts it holds.

    ``normalised`` \((r - \bar r) / (\mathrm{std} + \epsilon)\), ``centred`` \(r - \bar r\), ``leave-one-out``
    \((r - \bar r) G / (G - 1)\). ``groups (B,)`` numbers the group of each rollout from 0. Source: 2605.12484, theory 16.
    """
    count = int(groups.max()) + 1
    ones = torch.zeros(count, dtype=rewards.dtype, device=rewards.device)
    size = ones.index_add(0, groups, torch.ones_like(rewards))
    mean = ones.index_add(0, groups, rewards) / size
    centred = rewards - mean[groups]
    spread = (ones.index_add(0, groups, centred**2) / size).sqrt()
    low = torch.full_like(mean, torch.inf).scatter_reduce(0, groups, rewards, "amin")
    high = torch.full_like(mean, -torch.inf).scatter_reduce(0, groups, rewards, "amax")
    dead = low == high
    if kind == "normalised":
        advantages = centred / (spread[groups] + epsilon)
    elif kind == "leave-one-out":
        advantages = centred * (size / (size - 1).clamp(min=1))[groups]
    elif kind == "centred":
        advantages = centred
    else:
        raise InputError(f"advantage {kind!r} is unknown; allowed: normalised, centred, leave-one-out")
    return torch.where(dead[groups], 0.0, advantages), dead


def cispo_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    ratio_cap: float,
    tokens: float | torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""CISPO and the share of capped tokens.

    \(-\frac{1}{N} \sum_{b,t} \mathrm{sg}[\min(\rho_{bt}, c)]\, A_b \log \pi(y_{bt})\) with
    \(\rho = \pi / \pi_{old}\) and N = ``tokens`` (the mask's by default). The cap clips from above only, under the stop-gradient.
    With one update a batch every ratio is 1 and the cap is inert. Raises InputError unless ``ratio_cap`` > 1.
    """
    if not ratio_cap > 1.0:
        raise InputError(f"ratio_cap must be above 1, got {ratio_cap}")
    count = mask.sum() if tokens is None else tokens
    logprobs, old_logprobs = inside(logprobs, mask), inside(old_logprobs, mask)
    ratio = torch.exp(logprobs.detach() - old_logprobs)
    weight = ratio.clamp(max=ratio_cap) * advantages[:, None]
    loss = -(weight * logprobs).sum() / count
    capped = ((ratio > ratio_cap) & mask).sum() / mask.sum().clamp(min=1)
    return loss, capped


def reinforce_loss(
    logprobs: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, rollouts: int | None = None
) -> torch.Tensor:
    r"""REINFORCE: \(-\frac{1}{B} \sum_b A_b \sum_t \log \pi(y_{bt})\); its gradient estimates that of the expected reward."""
    return -(advantages[:, None] * inside(logprobs, mask)).sum() / (len(logprobs) if rollouts is None else rollouts)


def sft_loss(logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    r"""Forward KL to demonstrations up to a constant: \(-\frac{1}{B} \sum_b \log \pi(y_b)\), nats a sequence."""
    return -inside(logprobs, mask).sum() / len(logprobs)


def leash_loss(kl: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(policy || base) along the sampled sequences, nats a sequence: ``kl (B, T)`` has the full vocabulary at every token.

    Its gradient moves the next-token distributions only; that of which prefixes are visited is left out, and stands in
    `prefix_loss`.
    """
    return inside(kl, mask).sum() / len(kl)


def prefix_loss(kl: torch.Tensor, logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    r"""What `leash_loss` leaves out: the gradient of KL(policy || base) through the prefixes, nats a sequence.

    \(\frac{1}{B} \sum_{b,t} \mathrm{sg}[\sum_{s>t} k_{bs}] \log \pi(y_{bt})\) with \(k_{bs}\) = ``kl (B, T)``, the KL of the next-token
    distributions at token s: each token pays for the KL to come behind it. Added to `leash_loss`, the expected gradient is
    that of the KL of whole sequences. Its value is no KL. Statement `leash-loss-prefix`.
    """
    kl = inside(kl, mask).detach()
    to_come = kl.sum(-1, keepdim=True) - kl.cumsum(-1)
    return (to_come * inside(logprobs, mask)).sum() / len(kl)


def estimated_leash_loss(
    logprobs: torch.Tensor,
    base_logprobs: torch.Tensor,
    mask: torch.Tensor,
    estimator: KLEstimator,
    held_logprobs: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""A leash to the base from the sampled tokens alone, nats a sequence: what takes the place of `leash_loss` elsewhere.

    \(\frac{1}{B} \sum_{b,t} \rho_{bt} k(u_{bt})\), \(u = \log \pi_0 - \log \pi\), with ``k1`` \(-u\), ``k2`` \(u^2 / 2\), ``k3``
    \(e^u - 1 - u\). Without ``held_logprobs`` \(\rho\) is 1: the expected gradient is none (k1), that of KL(policy || base)
    (k2), that of KL(base || policy) (k3). With those of sampling \(\rho = \pi / \pi_{held}\), and k1 and k3 have that of
    KL(policy || base). Statements `kl-estimators-loss` and `kl-estimators-ratio`. Raises InputError on another estimator.
    """
    own, base = inside(logprobs, mask), inside(base_logprobs, mask)
    u = base - own
    if estimator == "k1":
        value = -u
    elif estimator == "k2":
        value = 0.5 * u**2
    elif estimator == "k3":
        value = torch.expm1(u) - u
    else:
        raise InputError(f"kl_estimator of sampled tokens must be k1, k2 or k3, got {estimator!r}")
    if held_logprobs is not None:
        value = value * torch.exp(own - inside(held_logprobs, mask))
    return value.sum() / len(logprobs)


def leashed_rewards(
    rewards: torch.Tensor, logprobs: torch.Tensor, base_logprobs: torch.Tensor, mask: torch.Tensor, strength: float
) -> torch.Tensor:
    r"""Rewards less ``strength`` nats of k1 a sequence: \(r - \tau \sum_t (\log \pi - \log \pi_0)\), ``(B,)``.

    As part of the reward k1 has the right gradient; differentiated as a loss it would have none. A token's difference
    below 1e-5 nats is rounding and counts as none: while the policy is still the base, a group of equal rewards would
    otherwise have a spread, which normalised advantages blow up to size one.
    """
    gap = inside(logprobs, mask) - inside(base_logprobs, mask)
    return rewards - strength * torch.where(mask & (gap.abs() >= _ROUNDING), gap, 0.0).sum(-1)
