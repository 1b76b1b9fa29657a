r"""Differences of functions of log-odds and masses that do not cancel, however near or far apart the arguments are.

A formula of the theory is often a difference of two clocks, logits or divergences. Written as it stands in a text it loses
its digits where the two nearly agree, and becomes ``inf - inf`` where both overflow. Each function here has terms of
one sign only: relative error of a few units in the last place, times ``|s|`` where an exponential of ``s`` is the value.
Source: own derivation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_TRUSTED = 1e100  # a quotient larger than this may overflow: there the plain difference has all digits


def logit_difference(a: Array, b: Array) -> Array:
    r"""``logit(a) - logit(b) = log(1 + (a - b) / (b (1 - a)))`` of masses in (0, 1), taken from the smaller to the larger."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    with np.errstate(over="ignore"):
        excess = (high - low) / low / (1.0 - high)
    near = np.log1p(np.where(excess < _TRUSTED, excess, 0.0))
    return np.copysign(np.where(excess < _TRUSTED, near, logit(high) - logit(low)), a - b)


def exp_difference(a: Array, b: Array, gap: Array | None = None) -> Array:
    r"""``e^a - e^b = \pm e^{\max} (1 - e^{-|a - b|})``: infinite of the right sign where it overflows, 0 for ``a = b``.

    ``gap = a - b`` may be given apart, by a caller that knows it to more digits.
    """
    gap = a - b if gap is None else gap
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.exp(np.maximum(a, b)) * -np.expm1(-np.abs(gap))
    return np.where(gap == 0.0, 0.0, np.copysign(size, gap))


def expit_difference(s: Array, p: Array, gap: Array | None = None) -> Array:
    r"""``sigma(s) - sigma(p) = sigma(max) sigma(-min) (1 - e^{-|s - p|})`` with the sign of ``s - p``.

    ``gap = s - p`` may be given apart, by a caller that knows it to more digits.
    """
    gap = s - p if gap is None else gap
    size = expit(np.maximum(s, p)) * expit(-np.minimum(s, p)) * -np.expm1(-np.abs(gap))
    return np.copysign(size, gap)


def log_expit_difference(s: Array, p: Array, gap: Array | None = None) -> Array:
    r"""``log sigma(s) - log sigma(p)``: ``log(1 + sigma(-s)(e^{s - p} - 1))`` for ``s > p``, antisymmetric.

    ``gap = s - p`` may be given apart, by a caller that knows it to more digits.
    """
    signed = s - p if gap is None else gap
    low, high, gap = np.minimum(s, p), np.maximum(s, p), np.abs(signed)
    near = np.log1p(expit(-high) * np.expm1(np.minimum(gap, 1.0)))
    # log sigma(x) = min(x, 0) - log(1 + e^-|x|); the difference of the minima is exact where both are negative
    linear = np.where(high < 0.0, gap, np.maximum(-low, 0.0))
    far = linear - (np.log1p(np.exp(-np.abs(high))) - np.log1p(np.exp(-np.abs(low))))
    return np.copysign(np.where(gap < 1.0, near, far), signed)


def bernoulli_kl(s: Array, p: Array, gap: Array | None = None) -> Array:
    r"""``KL(Bern sigma(s) || Bern sigma(p)) = int_0^{s - p} y sigma'(p + y) dy``, nats.

    Within one nat by Gauss-Legendre, farther by ``beta log(beta / alpha) + (1 - beta) log((1 - beta) / (1 - alpha))``,
    whose two terms then differ in size. ``gap = s - p`` may be given apart, by a caller that knows it to more digits.
    """
    s, p = np.broadcast_arrays(s, p)
    gap = s - p if gap is None else gap
    half = 0.5 * np.where(np.abs(gap) < 1.0, gap, 0.0)[..., None]
    y = half + half * _NODES
    near = (half * (_WEIGHTS * (y * (expit(p[..., None] + y) * expit(-p[..., None] - y))))).sum(axis=-1)
    far = expit(s) * log_expit_difference(s, p, gap) + expit(-s) * log_expit_difference(-s, -p, -gap)
    return np.where(np.abs(gap) < 1.0, near, far)


def bernoulli_kl_gap(s: Array, p: Array) -> Array:
    r"""``log 1/sigma(p) - KL(Bern sigma(s) || Bern sigma(p))``: what the divergence falls short of its limit for ``s -> inf``.

    ``log(1 + e^-s) + (s - p) sigma(-s)``, for ``s < 0`` as ``log(1 + e^s) - p - (s - p) sigma(s)``: the small one of two equal sums.
    """
    s, p = np.broadcast_arrays(s, p)
    above = np.logaddexp(0.0, -s) + (s - p) * expit(-s)
    return np.where(s < 0.0, np.logaddexp(0.0, s) - p - (s - p) * expit(s), above)
