"""Deployed systems, a model with a state beside its weights: how far behaviour must be from the base for a given success."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from fstsim.errors import InputError
from fstsim.logits import bernoulli_kl
from fstsim.theory.numerics.inputs import finite

Array = NDArray[np.float64]


def deployed_kl_floor(log_odds: ArrayLike, base_log_odds: ArrayLike, gap: ArrayLike | None = None) -> Array:
    r"""Least KL(system || base) of whole completions at a success rate: \(k(x, x_0) = KL(Bern\,\sigma(x) \| Bern\,\sigma(x_0))\), nats.

    ``log_odds`` of success of the deployed system on a problem, ``base_log_odds`` of the bare base on the same problem. By
    data processing no system has less, whatever its state is, and the exponential tilt of the base on success has exactly this
    (statement deployed-kl-floor). Relative accuracy 1e-13 also where the two are close; where they are close and far out, their
    ``gap`` may be given apart, by a caller that knows it to more digits. Raises InputError unless all are finite.

    >>> round(float(deployed_kl_floor(0.0, -2.0)), 6)
    0.433781
    """
    x, x0 = np.broadcast_arrays(finite(log_odds, "log_odds"), finite(base_log_odds, "base_log_odds"))
    return bernoulli_kl(x, x0, None if gap is None else finite(gap, "gap"))


def proxy_log_normaliser(log_p: ArrayLike, log_expert: ArrayLike, log_anti: ArrayLike, alpha: ArrayLike) -> Array:
    r"""\(\log Z = \log E_{p_M}[(p_+/p_-)^\alpha]\), nats: what a token of a proxy-tuned model divides by.

    Log-probabilities ``(..., V)`` of the large model, the expert and the anti-expert at one prefix; ``alpha (...)``. Convex in
    alpha and 0 at alpha 0; where the anti-expert is the large model it is 0 at 1 too, so that it is at most 0 between them and
    at least 0 beyond (statement proxy-normaliser). Raises InputError unless all are finite.

    >>> import numpy as np
    >>> p, q = np.log([0.5, 0.5]), np.log([0.9, 0.1])
    >>> proxy_log_normaliser(p, q, p, [0.0, 0.5, 1.0, 2.0]).round(4).tolist()
    [0.0, -0.1116, 0.0, 0.4947]
    """
    p, expert, anti = (
        finite(x, name) for x, name in ((log_p, "log_p"), (log_expert, "log_expert"), (log_anti, "log_anti"))
    )
    change = finite(alpha, "alpha")[..., None] * (expert - anti)
    # where no ratio is large, log1p(sum p expm1(x)) keeps the digits that log of a sum next to 1 loses
    small = np.clip(change, -1.0, 1.0)
    near = np.abs(change).max(axis=-1) <= 1.0
    with np.errstate(invalid="ignore"):
        close = np.log1p((np.exp(p) * np.expm1(small)).sum(axis=-1))
    return np.asarray(np.where(near, close, logsumexp(p + change, axis=-1) - logsumexp(p, axis=-1)))


def proxy_log_odds(
    log_odds: ArrayLike, expert: ArrayLike, anti: ArrayLike, alpha: ArrayLike, log_normalisers: ArrayLike = 0.0
) -> Array:
    r"""Log-odds of two answers under proxy-tuning: \(s_M + \alpha (s_+ - s_-) - (\sum_t \log Z_t - \sum_t \log Z'_t)\), nats.

    ``log_odds``, ``expert``, ``anti``: of the same two answers under the large model and the small ones. ``log_normalisers``
    is the sum of `proxy_log_normaliser` along the first answer less that along the second: 0 for two tokens at one prefix
    (statement proxy-affine). Raises InputError unless all are finite.

    >>> float(proxy_log_odds(-2.0, 3.0, 1.0, 0.5))
    -1.0
    """
    s, s_expert, s_anti = (finite(x, name) for x, name in ((log_odds, "log_odds"), (expert, "expert"), (anti, "anti")))
    return np.asarray(s + finite(alpha, "alpha") * (s_expert - s_anti) - finite(log_normalisers, "log_normalisers"))


def proxy_tilt_strength(tau: ArrayLike, alpha: ArrayLike) -> Array:
    r"""Leash \(\tau / \alpha\) of the RL of the large model that proxy-tuning stands for, nats of KL a unit of reward.

    Exact for whole answers where the expert is the tilt \(p_- e^{r/\tau}\) (statement proxy-tilt); token by token it is an
    approximation. ``alpha`` 0 is an infinite leash. Raises InputError unless ``tau`` > 0 and ``alpha`` >= 0.

    >>> float(proxy_tilt_strength(0.5, 2.0))
    0.25
    """
    t, a = finite(tau, "tau"), finite(alpha, "alpha")
    if not ((t > 0.0).all() and (a >= 0.0).all()):
        raise InputError(f"tau must be positive and alpha nonnegative, got {tau!r} and {alpha!r}")
    with np.errstate(divide="ignore"):
        return np.asarray(t / a)
