r"""SDFT: reverse KL to a demonstration-conditioned teacher that follows the student (theory 8).

The demonstration divides the teacher's odds of the old mode by ``e^h`` (``tilt`` h, nats), the teacher's log-odds
follow ``d sbar/dt = ema_rate (s - sbar)``, and an anchor mixes the teacher with the base in log space:
``s_T = a sbar + (1 - a) s_b - h``. Separated modes, Euclidean logit flow: ``ds/dt = -sigmoid'(s) (s - s_T)``; time in
units of 1 / learning rate. Everything broadcasts. The simulator with overlap and moving means is `fstsim.simulate_sdft`.
Source: own derivation on the model of SDFT (arXiv 2601.19897); statements `sdft-*`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.logits import logit_difference
from fstsim.overlap import validate_separation
from fstsim.theory.clocks import learning_clock_between
from fstsim.theory.numerics.inputs import finite, mass, nonnegative, positive, share

Array = NDArray[np.float64]


def sdft_fixed_point(base_log_odds: ArrayLike, tilt: ArrayLike, anchor: ArrayLike) -> Array:
    r"""Log-odds at which anchored self-distillation ends, ``s* = s_b - h / (1 - a)`` (theory 8.3 [T]).

    ``anchor`` a = 0 is a frozen teacher, ``s_b - h``. Without an anchor (a = 1) a tilt leaves no interior fixed point:
    -inf for h > 0 (the old mass is lost), inf for h < 0, and ``s_b`` for h = 0, where every state is fixed.
    Raises InputError on an anchor outside [0, 1] or non-finite numbers.

    >>> float(sdft_fixed_point(0.0, 0.5, 0.5))
    -1.0
    """
    s, h, a = np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), finite(tilt, "tilt"), share(anchor, "anchor"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(h == 0.0, s, s - h / (1.0 - a))


def sdft_response_bracket(
    base_log_odds: ArrayLike, tilt: ArrayLike, anchor: ArrayLike, least: ArrayLike, most: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on where anchored SDFT ends when the teacher follows its weights by ``least`` to ``most`` (theory 8.3 [T]).

    A model's demonstration need not be a tilt. Let the teacher with demonstration move by ``g(sbar - s_b)`` in log-odds,
    ``g(0) = 0``, slope in ``[k, K]``, ``a K < 1``: ``s_b - h / (1 - a K) <= s* <= s_b - h / (1 - a k)`` for ``h >= 0``.
    K = 1 is the tilt of `sdft_fixed_point`; k = 0 a *level*, a teacher in the context of a demonstration that stays where
    it is whatever the weights do. Raises InputError unless ``0 <= least <= most <= 1``, ``h >= 0``, anchor in [0, 1).

    >>> [float(x) for x in sdft_response_bracket(0.0, 0.5, 0.5, 0.0, 1.0)]
    [-1.0, -0.5]
    """
    s, h = finite(base_log_odds, "base_log_odds"), nonnegative(tilt, "tilt")
    a, k, top = share(anchor, "anchor"), share(least, "least"), share(most, "most")
    if not (a < 1.0).all():
        raise InputError(f"anchor must be below 1, got {anchor!r}")
    if not (k <= top).all():
        raise InputError(f"least must not exceed most, got {least!r} and {most!r}")
    # 1 - a K as a sum: next to 1 the product would be rounded
    return s - h / ((1.0 - a) + a * (1.0 - top)), s - h / ((1.0 - a) + a * (1.0 - k))


def sdft_is_retaining(
    base_log_odds: ArrayLike, tilt: ArrayLike, anchor: ArrayLike, min_mass: ArrayLike
) -> NDArray[np.bool_]:
    r"""Whether the final old mass is at least ``min_mass``: ``h <= (1 - a) (s_b - logit(min_mass))`` (theory 8.3 [T]).

    With ``h = 0`` and ``a = 1`` the start itself is kept. Errors as :func:`sdft_fixed_point`.
    """
    floor = logit(mass(min_mass, "min_mass"))
    return np.asarray(sdft_fixed_point(base_log_odds, tilt, anchor) >= floor)


def sdft_time(s0: ArrayLike, s: ArrayLike, sbar: ArrayLike, tilt: ArrayLike, ema_rate: ArrayLike) -> Array:
    r"""Time at which student and teacher, both started at ``s0``, are at ``s`` and ``sbar`` (no anchor; theory 8.2 [T]).

    ``t = (F(s0) - F(s)) / h + (s0 - sbar) / (rho h)``: student and teacher are resistances in series. Exact along
    the flow. Raises InputError unless ``tilt`` and ``ema_rate`` are positive.
    """
    h, rho = positive(tilt, "tilt"), positive(ema_rate, "ema_rate")
    start, end, teacher = finite(s0, "s0"), finite(s, "s"), finite(sbar, "sbar")
    with np.errstate(over="ignore"):
        return learning_clock_between(end, start) / h + (start - teacher) / rho / h


def sdft_retention_horizon(
    base_log_odds: ArrayLike, tilt: ArrayLike, ema_rate: ArrayLike, min_mass: ArrayLike
) -> Array:
    r"""Time until which the old mass certainly stays above ``min_mass`` without an anchor (theory 8.2 [T]).

    ``T = (s_b - h - logit(min_mass)) / (rho h)``, 0 where that is negative; inf for ``rho = 0`` (frozen teacher) when
    ``s_b - h`` retains. The sharper pair is :func:`sdft_retention_time_bounds`. Raises InputError unless ``tilt`` is
    positive and ``ema_rate`` nonnegative.
    """
    s, h = finite(base_log_odds, "base_log_odds"), positive(tilt, "tilt")
    rho = nonnegative(ema_rate, "ema_rate")
    reserve = np.maximum(s - h - logit(mass(min_mass, "min_mass")), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(reserve > 0.0, reserve / (rho * h), 0.0)


def sdft_retention_time_bounds(
    base_log_odds: ArrayLike, tilt: ArrayLike, ema_rate: ArrayLike, min_mass: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the time at which the old mass passes ``min_mass``, no anchor (theory 8.2 [T], sharpened).

    Proof: put ``s = logit(min_mass) < s_b`` into the conservation law of :func:`sdft_time`; the teacher is then
    somewhere in ``[s, min(s_b, s + h)]``, because the lag ``sbar - s`` stays in [0, h] and ``sbar`` falls. The two differ
    by at most ``1 / rho``. Raises InputError unless tilt and ema_rate are positive and ``min_mass < sigmoid(s_b)``.
    """
    s0, floor = finite(base_log_odds, "base_log_odds"), logit(mass(min_mass, "min_mass"))
    if not (floor < s0).all():
        raise InputError("min_mass must be below the base old mass")
    h = positive(tilt, "tilt")
    return (
        sdft_time(s0, floor, np.minimum(s0, floor + h), h, ema_rate),
        sdft_time(s0, floor, floor, h, ema_rate),
    )


def sdft_local_rate(fixed_log_odds: ArrayLike, ema_rate: ArrayLike, anchor: ArrayLike) -> tuple[Array, Array, Array]:
    r"""``(rate, lower, upper)``: exponential rate of the anchored flow near its fixed point (theory 8.3 [T]).

    ``rate = ((c + rho) - sqrt((c + rho)^2 - 4 c rho (1 - a))) / 2`` with ``c = sigmoid'(s*)``, and
    ``lower = c rho (1 - a) / (c + rho) <= rate <= 2 lower`` (the product of the two eigenvalues over the larger one,
    which lies between half their sum and their sum).
    """
    s, rho, a = finite(fixed_log_odds, "fixed_log_odds"), positive(ema_rate, "ema_rate"), share(anchor, "anchor")
    c = expit(s) * expit(-s)
    total = c + rho
    # (c + rho)^2 - 4 c rho (1 - a) = (c - rho)^2 + 4 c rho a
    larger = 0.5 * (total + np.hypot(c - rho, 2.0 * np.sqrt(c) * np.sqrt(rho * a)))
    lower = c / total * rho * (1.0 - a)
    return c / larger * rho * (1.0 - a), lower, 2.0 * lower


def probability_mixing_tilt(teacher_mass: ArrayLike, mixing: ArrayLike) -> Array:
    r"""Tilt of a teacher that mixes a share ``gamma`` of pure new demonstrations into its *probabilities* (theory 8.4 [T]).

    ``h(b) = log((1 - (1 - gamma) b) / ((1 - gamma) (1 - b)))``, increasing in the teacher's old mass ``b``, never below
    ``log(1 / (1 - gamma))``: so the mass is lost, in the end like ``1 / (h_gamma t)``. Raises InputError unless
    ``mixing`` lies in [0, 1) and the mass in (0, 1).
    """
    b, g = mass(teacher_mass, "teacher_mass"), np.asarray(mixing, dtype=np.float64)
    if not ((g >= 0.0) & (g < 1.0)).all():
        raise InputError(f"mixing must lie in [0, 1), got {mixing!r}")
    return np.log1p(g * b / (1.0 - b)) - np.log1p(-g)


def sdft_path_drift(beta0: ArrayLike, beta1: ArrayLike, tilt: ArrayLike, delta: ArrayLike) -> Array:
    r"""[A] Drift of the old mean while the old mass falls from ``beta0`` to ``beta1`` (theory 8.5), Mahalanobis units.

    ``sqrt(pi/2) e^(h/2) BC [g(beta1) - g(beta0)]``, ``g(b) = sqrt(1/b - 1) - 1 / sqrt(1/b - 1)``: set by the path in the
    weight, not by time; a retained mass ``beta >= b`` keeps it below ``O(e^(h/2) BC / sqrt(b))``. Leading order in BC.
    Raises InputError on masses outside (0, 1) or ``beta1 > beta0``.
    """
    start, end = mass(beta0, "beta0"), mass(beta1, "beta1")
    if not (end <= start).all():
        raise InputError("beta1 must not exceed beta0: the path runs downward")
    fall = logit_difference(start, end)
    d = validate_separation(delta)
    with np.errstate(over="ignore", invalid="ignore"):
        # 2 (sinh(-s1/2) - sinh(-s0/2)) as a product
        path = 4.0 * np.cosh(0.5 * logit(start) - 0.25 * fall) * np.sinh(0.25 * fall)
        drift = np.sqrt(0.5 * np.pi) * np.exp(0.5 * finite(tilt, "tilt") - 0.125 * d * d) * path
    return np.where(path == 0.0, 0.0, drift)
