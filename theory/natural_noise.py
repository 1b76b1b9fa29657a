r"""Noise of the natural gradient on finite batches: an unbiased estimate of the share, and the floor that it sets (theory 14.3).

The natural gradient of forward KL moves the old mass towards an estimate of the share alpha of old data (alpha = 0: new data only),

    beta + h (est - beta),   est = beta + (mean r_o(x_i) - beta) / (1 - kappa),   E est = alpha,

whatever the overlap and wherever beta is (`mass-forgetting-geometry`). By Cauchy-Schwarz against the score of alpha no such
estimate varies less than ``1 / (N D(alpha))``, the Cramer-Rao bound, and at ``beta = alpha`` it does not vary more
(`natural-gradient-noise`). Along the log-odds a step is ``h (est - beta) / (beta (1 - beta))``: its noise grows as the mass falls while its drift
stays, and below ``sqrt(h / (2 N D))`` the expected odds no longer fall (`natural-gradient-floor`). Components right, ``log_odds`` of beta.
Source: own derivation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, logit, logsumexp

from fstsim.errors import InputError
from fstsim.logits import expit_difference
from fstsim.overlap import harmonic_overlap, overlap_gap, validate_separation
from fstsim.theory.numerics.inputs import finite, positive

Array = NDArray[np.float64]

_STEP, _RADIUS = 0.4, 9.5  # of the quadrature, in units of the width


def _share(value: ArrayLike) -> Array:
    a = np.asarray(value, dtype=np.float64)
    if not ((a >= 0.0) & (a < 1.0)).all():
        raise InputError(f"share must lie in [0, 1), got {value!r}")
    return a


def weight_information(share: ArrayLike, delta: ArrayLike) -> Array:
    r"""Fisher information D of the weight at ``share``, in [0, 1): ``(1 - kappa) / (alpha (1 - alpha))``, at 0 ``chi^2 = e^(delta^2) - 1``.

    >>> float(weight_information(0.0, 1.0)) == float(np.expm1(1.0))
    True
    """
    a, d = np.broadcast_arrays(_share(share), validate_separation(delta))
    inner = np.clip(a, 1e-200, 1.0)
    with np.errstate(over="ignore"):
        chi2 = np.expm1(d * d)
    return np.where(a < 1e-200, chi2, overlap_gap(logit(inner), d) / (inner * (1.0 - inner)))


def _nodes(delta: Array, turn: Array) -> tuple[Array, Array]:
    """Places in units of the width and logarithms of their weights, as far as a responsibility turns."""
    step = _STEP / max(1.0, float(delta.max(initial=1.0)))
    far = _RADIUS + float(np.abs(turn).max(initial=0.0))
    u = step * np.arange(-np.ceil(far / step), np.ceil(far / step) + 1.0)
    return u, np.log(step) - 0.5 * u * u - 0.5 * np.log(2.0 * np.pi)


def natural_estimate_variance(log_odds: ArrayLike, share: ArrayLike, delta: ArrayLike) -> Array:
    r"""``N Var`` of the estimate towards which a natural-gradient step goes: ``Var_alpha(r_o) / (1 - kappa)^2``, by quadrature.

    ``share`` of old data in [0, 1), ``delta`` in (0, 64]. Statement `natural-gradient-noise` [T].

    >>> round(float(natural_estimate_variance(-30.0, 0.0, 1.0) * np.expm1(1.0)), 3)
    1.0
    """
    s, a, d = np.broadcast_arrays(
        finite(log_odds, "log_odds"), _share(share), positive(validate_separation(delta), "delta")
    )
    flat_s, flat_a, flat_d = s.ravel(), a.ravel(), d.ravel()
    u, log_weight = _nodes(flat_d, np.minimum(np.abs(flat_s) / flat_d + flat_d, 2.0 * flat_d))
    w, out = np.exp(log_weight), np.empty(flat_s.shape)
    block = max(1, (1 << 18) // u.size)
    for start in range(0, flat_s.size, block):
        rows = slice(start, start + block)
        here, wide = flat_s[rows, None], flat_d[rows, None]
        first, shift = here - 0.5 * wide**2, wide * u
        # from the new centre, so that nothing cancels where the responsibility is 0 or 1 to rounding
        new = expit_difference(first + shift, first, shift)
        old = expit_difference(first + wide**2 + shift, first, wide**2 + shift)
        mean = flat_a[rows] * (old @ w) + (1.0 - flat_a[rows]) * (new @ w)
        out[rows] = flat_a[rows] * ((old - mean[:, None]) ** 2 @ w) + (1.0 - flat_a[rows]) * (
            (new - mean[:, None]) ** 2 @ w
        )
    return out.reshape(s.shape) / overlap_gap(s, d) ** 2


def natural_estimate_bounds(log_odds: ArrayLike, share: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on `natural_estimate_variance`: ``1 / D(alpha)`` and ``y (1 - y) / (1 - kappa)^2``, y the mean responsibility.

    ``y = beta kappa + alpha (1 - kappa)``. The lower one is reached at ``beta = alpha``. Statement `natural-gradient-noise` [T].
    """
    s, a, d = np.broadcast_arrays(finite(log_odds, "log_odds"), _share(share), validate_separation(delta))
    gap = overlap_gap(s, d)
    kept = expit(s) * harmonic_overlap(s, d)
    y = kept + a * gap
    rest = expit(-s) * harmonic_overlap(s, d) + (1.0 - a) * gap
    return 1.0 / weight_information(a, d), (y / gap) * (rest / gap)


def natural_odds_growth(log_odds: ArrayLike, delta: ArrayLike, lr: ArrayLike, batch_size: ArrayLike) -> Array:
    r"""``log E[odds after / odds before] / N`` of one natural-gradient step of the log-odds on new data: ``log E_n e^(a (r_o - beta))``.

    ``a = h / (N beta (1 - beta) (1 - kappa))``; a batch's odds multiply by the product over its N samples. By quadrature in
    logarithms. Statement `natural-gradient-floor` [T].
    """
    s, d, h, n = np.broadcast_arrays(
        finite(log_odds, "log_odds"), positive(validate_separation(delta), "delta"), positive(lr, "lr"),
        positive(batch_size, "batch_size"),
    )  # fmt: skip
    a = np.exp(np.log(h / n) - log_expit(s) - log_expit(-s)) / overlap_gap(s, d)
    # where the responsibility turns, as far as e^(a r) can make up for how rare that is
    u, log_weight = _nodes(d.ravel(), np.minimum(np.sqrt(2.0 * a), np.abs(s) / d + d))
    r = expit((s - 0.5 * d * d)[..., None] + d[..., None] * u)
    return np.asarray(logsumexp(a[..., None] * r + log_weight, axis=-1) - a * expit(s))


def natural_odds_bounds(
    log_odds: ArrayLike, delta: ArrayLike, lr: ArrayLike, batch_size: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on `natural_odds_growth`, from kappa and ``chi^2`` alone.

    ``1 + a y + (a^2 / 2) (y^2 + (1 - kappa)^2 / chi^2) <= E_n e^(a r_o) <= 1 + a y + (e^a - 1 - a) min(y, x (1 - x) + y^2)`` with
    ``x = beta (1 - kappa)``, ``y = beta kappa``. Statement `natural-gradient-floor` [T].
    """
    s, d, h, n = (np.asarray(v, dtype=np.float64) for v in (log_odds, delta, lr, batch_size))
    gap = overlap_gap(s, d)
    a = np.exp(np.log(h / n) - log_expit(s) - log_expit(-s)) / gap
    x, y = expit(s) * gap, expit(s) * harmonic_overlap(s, d)
    least = y * y + gap * gap / weight_information(0.0, d)
    most = np.minimum(y, x * (1.0 - x) + y * y)
    lower = np.log1p(a * y + 0.5 * a * a * least) - a * expit(s)
    # e^a - 1 - a without its cancelling part for a small
    tail = np.where(a < 1e-3, 0.5 * a * a * (1.0 + a / 3.0 * (1.0 + a / 4.0)), np.expm1(np.minimum(a, 700.0)) - a)
    return lower, np.log1p(a * y + tail * most) - a * expit(s)


def natural_floor(lr: ArrayLike, batch_size: ArrayLike, share: ArrayLike, delta: ArrayLike) -> Array:
    r"""``sqrt(h / ((2 - h) N D(alpha)))``: least standard deviation of the old mass at rest, and for alpha = 0 the floor of its mean.

    The mass itself follows ``beta + h (est - beta)``, so that its variance settles at no less than ``h / (2 - h)`` times that of one
    estimate. ``lr`` h in (0, 2). Theory 14.3.

    >>> round(float(natural_floor(0.02, 256, 0.0, 1.0)), 4)
    0.0048
    """
    h = positive(lr, "lr")
    if not (h < 2.0).all():
        raise InputError(f"lr must be below 2, got {lr!r}")
    return np.sqrt(h / ((2.0 - h) * positive(batch_size, "batch_size") * weight_information(share, delta)))
