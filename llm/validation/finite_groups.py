r"""What TTT-Discover and OAPL do with finite groups: the theory's fixed points with the expectation over a group put in.

The theory takes the normaliser \(Z\) and the value \(V^*\) for exact; a learner estimates them on G rollouts. For a reward of 0
or 1 both expectations are sums over a binomial, so that the fixed points stay exact. Log-odds are those of success, nats;
the limits G to infinity are `ttt-discover` and `oapl`. All are elementwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit
from scipy.stats import binom

Array = NDArray[np.float64]

_HALVINGS = 80


def _bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Root of an increasing function, elementwise."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        below = function(middle) < 0.0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)


def entropic_group_optimum(base_log_odds: Array, gap: float, kl_weight: float, group: int) -> Array:
    r"""Success log-odds at which TTT-Discover with b = ``gap`` and leash ``kl_weight`` stands still, groups of G.

    \(x - x_0 = \frac{e^g - 1}{\lambda} E\big[1 / (1 + (e^g - 1) K/(G-1))\big]\), K binomial with G - 1 trials and success
    \(\sigma(x)\): the leave-one-out normaliser is independent of the rollout that it divides. The right side falls in x,
    so that the root is unique; by Jensen's inequality it lies above the exact-Z optimum.
    """
    x0 = np.asarray(base_log_odds, dtype=np.float64)
    excess = np.expm1(gap)
    k = np.arange(group)
    weight = 1.0 / (1.0 + excess * k / (group - 1))

    def balance(x: Array) -> Array:
        expected = binom.pmf(k, group - 1, expit(x)[..., None]) @ weight
        return np.asarray(x - x0 - excess * expected / kl_weight)

    return _bisect(balance, x0, x0 + excess / kl_weight)


def oapl_group_step(log_odds: Array, tau: float, group: int) -> Array:
    r"""Success log-odds after one solved period of OAPL from ``log_odds`` of the lagged policy, groups of G.

    The minimiser of \(E_{y \sim lag}[(\tau \log\frac{\pi(y)}{\pi_{lag}(y)} - r(y) + V_G)^2]\), where \(V_G = \tau \log
    \frac1G \sum e^{r/\tau}\) contains the rollout itself: a success is compared with a higher value, and the step is
    shorter than the \(1/\tau\) of the exact value.
    """
    x0 = np.asarray(log_odds, dtype=np.float64)
    k = np.arange(group)
    others = binom.pmf(k, group - 1, expit(x0)[..., None])

    def advantage(reward: int) -> Array:
        value = tau * np.log1p(np.expm1(1.0 / tau) * (k + reward) / group)
        return np.asarray(reward - others @ value)

    won, lost = advantage(1), advantage(0)

    def slope(x: Array) -> Array:
        up = tau * (log_expit(x) - log_expit(x0)) - won
        down = tau * (log_expit(-x) - log_expit(-x0)) - lost
        return np.asarray(expit(x0) * expit(-x) * up - expit(-x0) * expit(x) * down)

    return _bisect(slope, x0 - 2.0 / tau, x0 + 2.0 / tau)
