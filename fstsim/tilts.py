r"""One-dimensional integrals of exponentially tilted two-mode mixtures: what reward-driven methods need.

A reward that is a function of the *base responsibility* ``rho_n(x)`` of the new mode keeps everything one-dimensional
in any dimension, because the log-odds behind ``rho_n`` are linear in ``x`` (see `fstsim.logistic_normal`). Two sums
serve all of them, both trapezoid rules of a positive integrand:

- :func:`log_entropic_mean`, ``log E exp(g sigmoid(a + d U))``: the entropic utility of one Gaussian component;
- :func:`tilt_grid`: nodes on which ``pi_0 exp(l(rho_n))`` and its two components are integrated for any ``l``.

Step: on the line ``Im z = pi/2`` the real part of the sigmoid stays in (0, 1), so the tilt grows there by at most
``exp(span)``, ``span = l(1) - l(0)``, and the rule errs by ``exp(span - pi^2 / (d h))`` relative to the smallest value
of the integrand; ``h = pi^2 / (d (36 + span))`` makes that 2e-16. The nodes reach ``sqrt(2 span)`` beyond 9.5 standard
deviations, so that a tail which the tilt lifts above the bulk is not cut off.

Source: own derivation in the setting of arXiv 2603.12163; statements `ttt-discover`, `oapl`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, logsumexp

from fstsim.errors import InputError
from fstsim.logistic_normal import MAX_SCALE
from fstsim.overlap import validate_separation

Array = NDArray[np.float64]

_REACH = 9.5  # standard deviations: the tail beyond is 2e-21
_BLOCK = 1 << 18  # doubles in one working array
MAX_GAIN = 500.0  # exp(gain) must not overflow, and the nodes must stay few


def _step(scale: float, span: float) -> float:
    return float(np.pi**2 / (max(1.0, scale) * (36.0 + span)))


def log_entropic_mean(loc: ArrayLike, scale: ArrayLike, gain: ArrayLike) -> tuple[Array, Array]:
    r"""``log E exp(g sigmoid(a + d U))``, ``U ~ N(0, 1)``, and its derivative in ``a``; both in nats.

    ``loc``, ``scale`` in [0, 64] and ``gain`` in [-500, 500] broadcast. Relative error of the mean below 1e-13.
    Raises InputError on non-finite numbers or arguments outside these ranges. Statement `ttt-discover`.

    >>> value, slope = log_entropic_mean(0.0, 2.0, 0.0)
    >>> float(value) + 0.0, float(slope)
    (0.0, 0.0)
    """
    a, d, g = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (loc, scale, gain)))
    if not np.isfinite(a).all():
        raise InputError("loc must be finite (got nan or inf)")
    if not ((d >= 0.0) & (d <= MAX_SCALE)).all():
        raise InputError(f"scale must lie in [0, {MAX_SCALE:g}], got {scale!r}")
    if not (np.abs(g) <= MAX_GAIN).all():
        raise InputError(f"gain must lie in [-{MAX_GAIN:g}, {MAX_GAIN:g}], got {gain!r}")
    # exp(g sigmoid(z)) = e^g exp(-g sigmoid(-z)): the integrand is at least 1 with the gain positive
    side = np.where(g < 0.0, -1.0, 1.0).ravel()
    a_flat, d_flat, g_flat = side * a.ravel(), d.ravel(), np.abs(g).ravel()
    value, slope = np.zeros(a_flat.size), np.zeros(a_flat.size)
    top = float(g_flat.max(initial=0.0))
    h = _step(float(d_flat.max(initial=0.0)), top)
    count = int(np.ceil((_REACH + np.sqrt(2.0 * top)) / h))
    u = h * np.arange(-count, count + 1)
    log_weight = -0.5 * u * u + np.log(h / np.sqrt(2.0 * np.pi))
    rows = max(1, _BLOCK // u.size)
    for start in range(0, a_flat.size, rows):
        i = slice(start, start + rows)
        z = a_flat[i, None] + d_flat[i, None] * u
        sigma = expit(z)
        exponent = log_weight + g_flat[i, None] * sigma
        value[i] = logsumexp(exponent, axis=-1)
        slope[i] = g_flat[i] * (np.exp(exponent - value[i, None]) * sigma * expit(-z)).sum(axis=-1)
    flipped = np.where(side < 0.0, -g_flat, 0.0)
    return (value + flipped).reshape(a.shape), (side * slope).reshape(a.shape)


class TiltGrid(NamedTuple):
    """Nodes along the axis from the old to the new mean, for a batch of ``n`` base mixtures.

    ``position (M,)`` is the coordinate from the old mean; ``log_old`` and ``log_new (n, M)`` are the log of component
    density times node weight, the mixture weights left out; ``old_share`` and ``new_share (n, M)`` are the base
    responsibilities ``rho_o`` and ``rho_n``.
    """

    position: Array
    log_old: Array
    log_new: Array
    old_share: Array
    new_share: Array

    def old_mass(self, base_log_odds: Array, tilt: Array) -> Array:
        """``E[rho_o]`` under ``pi_0 exp(tilt)`` normalised, ``(n,)``; ``tilt (n, M)``."""
        exponent = self.log_base(base_log_odds) + tilt
        old = logsumexp(exponent, axis=-1, b=self.old_share)
        return np.exp(old - logsumexp(exponent, axis=-1))

    def log_base(self, base_log_odds: Array) -> Array:
        """Log of base density times node weight, ``(n, M)``."""
        s = base_log_odds[:, None]
        return np.logaddexp(log_expit(s) + self.log_old, log_expit(-s) + self.log_new)

    def old_shift(self, delta: Array, tilt: Array, tilt_slope: Array) -> Array:
        r"""Shift of the mean of the tilted old component, ``E_o[y e^l] / E_o[e^l] = delta E_o[l' rho_o rho_n e^l] / E_o[e^l]``.

        The second form (Stein) has one sign, so that tiny shifts keep their digits. ``tilt_slope`` is ``l'(rho_n)``.
        """
        exponent = self.log_old + tilt
        weight = np.exp(exponent - logsumexp(exponent, axis=-1, keepdims=True))
        return delta * (weight * tilt_slope * self.old_share * self.new_share).sum(axis=-1)


def tilt_grid(base_log_odds: ArrayLike, delta: ArrayLike, span: float) -> TiltGrid:
    r"""Nodes for ``pi_0 exp(l(rho_n))`` with ``l(1) - l(0) <= span``; ``base_log_odds (n,)``, ``delta (n,)``.

    One grid for all entries, as fine as the largest separation needs. Raises InputError on shapes that are not one
    axis, a separation outside (0, 64] or a span outside [0, 500].
    """
    s, d = np.asarray(base_log_odds, dtype=np.float64), validate_separation(delta)
    if s.ndim != 1 or s.shape != d.shape:
        raise InputError(f"base_log_odds and delta must share one axis, got shapes {s.shape} and {d.shape}")
    if not (np.isfinite(s).all() and (d > 0.0).all()):
        raise InputError("base_log_odds must be finite and delta positive")
    if not 0.0 <= span <= MAX_GAIN:
        raise InputError(f"span must lie in [0, {MAX_GAIN:g}], got {span!r}")
    widest = float(d.max(initial=0.0))
    h = _step(widest, span)
    reach = _REACH + float(np.sqrt(2.0 * span))
    y = h * np.arange(np.floor(-reach / h), np.ceil((widest + reach) / h) + 1)
    norm = np.log(h / np.sqrt(2.0 * np.pi))
    # log-odds of new against old at the point y
    z = d[:, None] * (y - 0.5 * d[:, None]) - s[:, None]
    log_old = np.broadcast_to(norm - 0.5 * y * y, z.shape)
    log_new = norm - 0.5 * (y - d[:, None]) ** 2
    return TiltGrid(y, log_old, log_new, expit(-z), expit(z))
