r"""Groups drawn from several contexts, with one shared baseline and one shared standard deviation (what FST groups do).

Rollout i comes from a context with success probability ``p_i``; X and ``v = X (1 - X)`` are those of the whole group.

**Weights.** For *any* policy (a language model too) and any parameter, on-policy, binary reward:

    E[A_i grad log pi(y_i)] = m_i grad p_i,    m_i = E w(N_-i) > 0,    w(n) = sqrt((G-1-n)/(n+1)) + sqrt(n/(G-n)),

with ``N_-i`` the successes of the *other* rollouts (Poisson-binomial). *Proof*. ``A_i`` depends on ``y_i`` only through
``r_i``: ``A_i = A_i(0) + r_i (A_i(1) - A_i(0))``; ``E grad log pi = 0`` and ``E r_i grad log pi = grad p_i``; the difference of the
advantages is ``w(N_-i)`` (a dead group counts 0). So the update is the gradient of ``sum_i m_i p_i / G`` at frozen m:

- a context's own success is never pushed down, however far it lies below the group's mean, not even in one realised
  group: a rollout contributes ``(r - X)(r - p) >= 0``. Only conflicting gradients of *shared* parameters can lower it;
- it vanishes iff ``p_i (1 - p_i) = 0``: a group of sure successes and sure failures is alive (and noisy) without signal;
- a lone success (or lone failure) weighs most: ``w_min(G) <= m_i <= sqrt(G - 1)``. Companions that do not agree *lower*
  the weight of a hard context, down to about 2, so that no company shortens its own ``1/p0`` plateau; what companions
  that succeed sometimes do is move the shared logit at once. Without std, ``m_i = 1 - 1/G`` (1 with the leave-one-out
  baseline): contexts decouple exactly.

Own derivation; statements `group-normalised-contexts*`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.theory.clocks import positive
from fstsim.theory.group_normalised import (
    Baseline,
    Normaliser,
    check_group,
    check_probability,
    group_logit_update,
    group_normalised_drift,
    log_dead_group_probability,
)

Array = NDArray[np.float64]


def poisson_binomial(probabilities: ArrayLike) -> Array:
    """Law of the number of successes of independent trials, ``(..., n)`` probabilities to ``(..., n + 1)``, by convolution."""
    p = check_probability(probabilities, "probabilities")
    if p.ndim < 1:
        raise InputError("probabilities must have an axis of trials")
    law = np.ones((*p.shape[:-1], 1))
    for k in range(p.shape[-1]):
        hit = p[..., k, None]
        longer = np.zeros((*law.shape[:-1], k + 2))
        longer[..., :-1] = law * (1.0 - hit)
        longer[..., 1:] += law * hit
        law = longer
    return law


def advantage_gap(
    others_successes: ArrayLike,
    group_size: ArrayLike,
    baseline: Baseline = "mean",
    normaliser: Normaliser = "population",
    epsilon: float = 0.0,
) -> Array:
    r"""``w(n)``: advantage of a rollout if it succeeds minus if it fails, n of the other G - 1 having succeeded.

    Population std: ``sqrt((G-1-n)/(n+1)) + sqrt(n/(G-n))``, largest for n = 0 and G - 1. In general
    ``u((n+1)/G) G/(n+1) + u(n/G) G/(G-n)`` with u = `group_logit_update`. Raises InputError unless 0 <= n <= G - 1.
    """
    n, g = np.broadcast_arrays(np.asarray(others_successes, dtype=np.float64), check_group(group_size))
    if not ((n >= 0.0) & (n <= g - 1.0) & (n == np.floor(n))).all():
        raise InputError(f"others_successes must be a whole number in 0..group_size - 1, got {others_successes!r}")
    win = group_logit_update((n + 1.0) / g, g, baseline, normaliser, epsilon) * g / (n + 1.0)
    return win + group_logit_update(n / g, g, baseline, normaliser, epsilon) * g / (g - n)


def advantage_gap_range(group_size: ArrayLike) -> tuple[Array, Array]:
    r"""``(w_min, w_max)`` of :func:`advantage_gap`, population std: ``2 sqrt((G-1)/(G+1))`` (G odd) and ``sqrt(G-1)``.

    *Proof*. With ``z = (n+1)(G-n)`` and ``y = sqrt(1 - G/z)``: ``w^2 = G - 1 + 2 y - (G+1) y^2``, which is ``G - 1`` at n = 0
    and falls in y from ``y = 1/(G+1)`` on; the next n has ``y >= 2/(G+1)``, and z is largest in the middle,
    ``z = floor((G+1)^2/4)``: for even G ``w_min^2 = 2 G/(G+2) + 2 sqrt((G-2)/(G+2))``. Both ends tend to 2 and infinity.
    """
    g = check_group(group_size)
    even = np.sqrt(2.0 * g / (g + 2.0) + 2.0 * np.sqrt((g - 2.0) / (g + 2.0)))
    return np.where(g % 2.0 == 0.0, even, 2.0 * np.sqrt((g - 1.0) / (g + 1.0))), np.sqrt(g - 1.0)


def shared_group_weights(
    success_probabilities: ArrayLike,
    baseline: Baseline = "mean",
    normaliser: Normaliser = "population",
    epsilon: float = 0.0,
) -> Array:
    r"""``m_i``: what the gradient of each rollout's success probability is multiplied by, ``(..., G)`` to ``(..., G)``.

    One success probability for each rollout of the group (repeat a context's as often as it is drawn). Exact finite sum
    over the Poisson-binomial law of the others.
    """
    p = _rollouts(success_probabilities)
    g = p.shape[-1]
    gap = advantage_gap(np.arange(g), g, baseline, normaliser, epsilon)
    return np.stack([poisson_binomial(np.delete(p, i, axis=-1)) @ gap for i in range(g)], axis=-1)


def shared_group_drift(
    success_probabilities: ArrayLike,
    baseline: Baseline = "mean",
    normaliser: Normaliser = "population",
    epsilon: float = 0.0,
) -> Array:
    r"""Expected update through each rollout of the logit of its context, ``m_i p_i (1 - p_i) / G``, ``(..., G)``.

    Add up a context's rollouts for its own logit, and all of them for a logit that the contexts share (slow weights).
    Equal probabilities give `group_normalised_drift` in total.
    """
    p = _rollouts(success_probabilities)
    return shared_group_weights(p, baseline, normaliser, epsilon) * p * (1.0 - p) / p.shape[-1]


def random_context_drift(
    success_probabilities: ArrayLike,
    weights: ArrayLike,
    group_size: ArrayLike,
    normaliser: Normaliser = "population",
) -> Array:
    r"""Expected update of each context's own logit when every rollout draws its context at random, ``(..., K)``.

    ``w_c p_c (1 - p_c) / (P (1 - P)) * drift(P, G)`` with ``P = sum_c w_c p_c``: the number of successes is then binomial.
    The sum over c, the shared logit's, is ``drift(P, G)`` times the share of the reward variance that is *within*
    contexts. ``weights (K,)`` must be nonnegative with sum 1.
    """
    p = check_probability(success_probabilities, "success_probabilities")
    w = positive(weights, "weights", zero=True)
    if w.ndim != 1 or p.ndim < 1 or p.shape[-1] != w.size or abs(w.sum() - 1.0) > 1e-9:
        raise InputError(f"weights must be one number for each context and sum to 1, got {weights!r}")
    mean = (p * w).sum(axis=-1)
    variance = (mean * (1.0 - mean))[..., None]
    total = group_normalised_drift(np.clip(mean, 0.0, 1.0), group_size, normaliser=normaliser)[..., None]
    share = np.divide(w * p * (1.0 - p), variance, out=np.zeros(np.broadcast(p, variance).shape), where=variance > 0.0)
    return share * total


def shared_dead_group_probability(success_probabilities: ArrayLike) -> Array:
    """Probability that all rewards of the group agree, ``prod (1 - p_i) + prod p_i``, ``(..., G)`` to ``(...)``."""
    p = _rollouts(success_probabilities)
    return np.prod(1.0 - p, axis=-1) + np.prod(p, axis=-1)


def neutral_logit_variance(success_probability: ArrayLike, group_size: ArrayLike) -> Array:
    r"""Variance of one group's update of a logit that has nothing to do with the reward, per unit score variance.

    ``(1 - dead) / G``: advantages of a live group have unit variance (population std), whatever the signal. This is the
    diffusion of behaviours that the task does not concern, and what a live group without signal costs.
    """
    p, g = np.broadcast_arrays(check_probability(success_probability), check_group(group_size))
    return -np.expm1(log_dead_group_probability(p, g)) / g


def _rollouts(probabilities: ArrayLike) -> Array:
    p = check_probability(probabilities, "success_probabilities")
    if p.ndim < 1 or p.shape[-1] < 2:
        raise InputError("success_probabilities must have one entry for each of at least 2 rollouts of the group")
    return p
