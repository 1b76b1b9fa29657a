r"""SDFT, TTT-Discover, OAPL and mixture distillation as pure tensor functions: what their learners differ in.

Shapes: B rollouts, P problems of G rollouts each (B = P G), T tokens, V vocabulary, K components. Losses are to be
minimised, logarithms natural. With one token and two words each has the gradient of the two-outcome objective of the
same name in `fstsim.method_objectives` (theory 3 and 8 to 10).
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from fstsim.errors import InputError
from fstsim.llm.policy.divergence import inside, token_kl

Direction = Literal["reverse", "forward"]
Normaliser = Literal["leave-one-out", "group"]

_DOUBLINGS = 1100  # two best rewards may differ by the smallest number that there is
_BISECTIONS = 60


def check_direction(direction: str) -> None:
    """InputError unless ``direction`` is reverse or forward."""
    if direction not in ("reverse", "forward"):
        raise InputError(f"direction must be reverse or forward, got {direction!r}")


# --- teachers ---------------------------------------------------------------------------------------------------------


def distillation_loss(
    logits: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, direction: Direction = "reverse"
) -> torch.Tensor:
    r"""KL between the student's and the teacher's next-token distributions along the student's samples, nats a sequence.

    ``reverse`` \(\frac1B\sum_{b,t} KL(\pi_\theta\|\pi_T)\), ``forward`` \(KL(\pi_T\|\pi_\theta)\), with the full vocabulary;
    ``logits, teacher (B, T, V)``. No gradient flows into the teacher, nor into which prefixes are visited.
    """
    kept = mask[..., None]
    logits, taught = inside(logits, kept), inside(teacher.detach(), kept)
    kl = token_kl(logits, taught) if direction == "reverse" else token_kl(taught, logits)
    return inside(kl, mask).sum() / len(logits)


def anchored_logprobs(teacher: torch.Tensor, anchor: torch.Tensor, share: float) -> torch.Tensor:
    r"""Log-probabilities of \(\propto \pi_T^{a}\,\pi_A^{1-a}\), token by token, ``(..., V)``; ``share`` a is the teacher's.

    In log-odds \(a\,s_T + (1-a)\,s_A\): the anchored teacher of SDFT (theory 8, `sdft-anchored-fixed-point`).
    """
    own, fixed = torch.log_softmax(teacher, -1), torch.log_softmax(anchor, -1)
    return torch.log_softmax(share * own + (1.0 - share) * fixed, -1)


def mixture_logprobs(
    components: torch.Tensor, completions: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    r"""Next-token log-probabilities ``(B, T, V)`` of a mixture of *sequence* distributions, exactly.

    \(p(y_t | y_{<t}) = \sum_k \rho_k(y_{<t})\, p_k(y_t | y_{<t})\) with the posterior of the component along the prefix,
    \(\rho_k(y_{<t}) \propto w_k\, p_k(y_{<t})\). ``components (K, B, T, V)`` are normalised log-probabilities, -inf allowed
    as long as one component admits every prefix; ``weights (K,)`` are nonnegative and sum to 1; ``completions, mask (B, T)``.
    """
    written = components.gather(-1, completions[None, :, :, None].expand(len(components), -1, -1, 1))[..., 0]
    written = torch.where(mask, written, 0.0)
    before = torch.cat((torch.zeros_like(written[..., :1]), written[..., :-1]), -1).cumsum(-1)
    joint = weights.to(components).log()[:, None, None] + before
    posterior = joint - torch.logsumexp(joint, 0)
    return torch.logsumexp(posterior[..., None] + components, 0)


def point_logprobs(answers: torch.Tensor, length: int, vocabulary: int) -> torch.Tensor:
    """Next-token log-probabilities ``(B, length, vocabulary)`` of the distribution that writes ``answers (B, S)`` surely.

    Past the end of an answer its last token is repeated: no completion that counts gets there.
    """
    place = torch.arange(length, device=answers.device).clamp(max=answers.shape[1] - 1)
    sure = torch.full((len(answers), length, vocabulary), -math.inf, device=answers.device)
    return sure.scatter(-1, answers[:, place, None], 0.0)


# --- TTT-Discover -----------------------------------------------------------------------------------------------------


def entropic_divergence(rewards: torch.Tensor, inverse_temperature: torch.Tensor) -> torch.Tensor:
    r"""KL of the tilted weights \(q_i \propto e^{b r_i}\) to uniform in every group, nats, ``(P,)``; ``b (P,)`` may be inf."""
    logq = torch.log_softmax(_exponents(rewards, inverse_temperature), -1)
    return torch.where(logq > -math.inf, logq.exp() * logq, 0.0).sum(-1) + math.log(rewards.shape[1])


def entropic_temperatures(rewards: torch.Tensor, budget: float) -> torch.Tensor:
    r"""Inverse temperature b of every group at which \(KL(q_b \| \mathrm{uniform})\) is ``budget`` nats, ``(P,)``, float64.

    ``rewards (P, G)``. inf where even all weight on the best rollouts stays within the budget, 0 where all rewards are
    equal. KL rises with b, so that the root is unique: doubling, then bisection. Source: 2601.16175, adaptive beta.
    """
    if not 0.0 < budget < math.inf:
        raise InputError(f"budget must be positive and finite, got {budget}")
    r = rewards.double()
    best, spread = r.amax(-1, keepdim=True), r.amax(-1) - r.amin(-1)
    limit = -((r == best).double().mean(-1)).log()
    scale = torch.where(spread > 0.0, spread, 1.0)
    low, high = torch.zeros_like(scale), 1.0 / scale
    for _ in range(_DOUBLINGS):
        below = entropic_divergence(r, high) < budget
        if not bool((below & (limit > budget)).any()):
            break
        high = torch.where(below, 2.0 * high, high)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        below = entropic_divergence(r, middle) < budget
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    root = torch.where(limit > budget, 0.5 * (low + high), math.inf)
    return torch.where(spread > 0.0, root, 0.0)


def entropic_advantages(
    rewards: torch.Tensor, inverse_temperature: torch.Tensor, normaliser: Normaliser = "leave-one-out"
) -> torch.Tensor:
    r"""\(e^{b r_i} / Z_i - 1\): the policy gradient of \(\log E\,e^{br}\) in every group, ``(P, G)``, float64.

    ``rewards (P, G)``, ``inverse_temperature (P,)``. ``group``: Z is the mean over the group, weights at most G, biased
    towards no signal; ``leave-one-out``: the mean over the others, independent of rollout i, so that the expected step is
    parallel to the exact one and longer by \(Z\,E[1/Z_{others}] \ge 1\) (as `fstsim.method_objectives.TTTDiscover`).
    Source: 2601.16175; theory 9.
    """
    size = rewards.shape[1]
    own = _exponents(rewards, inverse_temperature)
    if normaliser == "group":
        log_mean = torch.logsumexp(own, -1, keepdim=True) - math.log(size)
    elif normaliser == "leave-one-out":
        # sums of those before and of those after: nothing is subtracted, no small sum is lost beside a large weight
        none = torch.full_like(own[:, :1], -math.inf)
        before = torch.cat((none, own.logcumsumexp(-1)[:, :-1]), -1)
        after = torch.cat((own.flip(-1).logcumsumexp(-1).flip(-1)[:, 1:], none), -1)
        log_mean = torch.logaddexp(before, after) - math.log(size - 1)
    else:
        raise InputError(f"normaliser {normaliser!r} is unknown; allowed: leave-one-out, group")
    return torch.expm1(own - log_mean)


def _exponents(rewards: torch.Tensor, inverse_temperature: torch.Tensor) -> torch.Tensor:
    """``b (r - best)`` of every group, 0 for its best also when b is inf, float64."""
    gap = rewards.double() - rewards.double().amax(-1, keepdim=True)
    return torch.where(gap == 0.0, 0.0, inverse_temperature.double()[:, None] * gap)


def others_mean_removed(values: torch.Tensor) -> torch.Tensor:
    """Each value less the mean of the others in its group, ``(P, G)``: the leave-one-out baseline."""
    size = values.shape[1]
    return (values - values.mean(-1, keepdim=True)) * (size / (size - 1))


# --- OAPL -------------------------------------------------------------------------------------------------------------


def anchored_rewards(
    rewards: torch.Tensor, lag_logprobs: torch.Tensor, base_logprobs: torch.Tensor, tau: float, anchor: float
) -> torch.Tensor:
    r"""\(r + \tau (1 - a) \log \frac{\pi_0}{\pi_{lag}}\), of sequences, any shape.

    Regressing on these instead of r makes the reference \(\pi_{lag}^{a} \pi_0^{1-a}\) without sampling from it, its
    normaliser included: \(\pi_{lag}\, e^{\tilde r/\tau} = \pi_{lag}^{a} \pi_0^{1-a} e^{r/\tau}\). Theory 10.1.
    """
    return rewards + tau * (1.0 - anchor) * (base_logprobs - lag_logprobs)


def soft_value(rewards: torch.Tensor, tau: float) -> torch.Tensor:
    r"""\(V^* = \tau \log \frac1G \sum_i e^{r_i/\tau}\) of every group of the lagged policy's rollouts, ``(P, G)`` to ``(P,)``."""
    return tau * (torch.logsumexp(rewards / tau, -1) - math.log(rewards.shape[-1]))


def oapl_loss(
    logprobs: torch.Tensor,
    lag_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    tau: float,
    rollouts: int | None = None,
) -> torch.Tensor:
    r"""\(\frac1B\sum_b \big(\tau \log\frac{\pi}{\pi_{lag}} - (r - V^*)\big)^2\), units of reward squared; all ``(B,)``, of sequences.

    Zero exactly at \(\pi = \pi_{lag} e^{r/\tau}/Z\). ``advantages`` are \(r - V^*\). Source: 2602.19362; theory 10.
    """
    residual = tau * (logprobs - lag_logprobs) - advantages
    return residual.square().sum() / (len(logprobs) if rollouts is None else rollouts)
