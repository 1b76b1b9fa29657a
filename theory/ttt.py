r"""TTT-Discover: the entropic utility ``log E_pi e^(br) - lambda KL(pi || pi_0)`` and its self-consistent tilt (theory 9).

``scaled_gap`` is ``g = b (r_new - r_old)``, ``kl_weight`` lambda multiplies the KL when the utility is written as above
(written ``(1/b) log E e^(br) - lambda' KL``, it is ``lambda = b lambda'``). Log-odds are of the old mode, nats. The
optimum is ``pi_0 exp(e^(br) / (lambda Z))`` with ``Z = E_pi* e^(br)`` its own mean: not the plain tilt ``e^(br)``.
Source: own derivation on the model of TTT-Discover (arXiv 2601.16175); statements `ttt-discover-*`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.logits import exp_difference
from fstsim.overlap import bhattacharyya_coefficient, harmonic_overlap, validate_separation
from fstsim.theory.numerics.inputs import finite, mass, nonnegative, positive
from fstsim.theory.overlap import second_moment_constant
from fstsim.tilts import MAX_GAIN, TiltGrid, tilt_grid

Array = NDArray[np.float64]

_BISECTIONS = 70
_ROWS = 64  # base mixtures integrated together


def entropic_shift(log_odds: ArrayLike, scaled_gap: ArrayLike) -> Array:
    r"""``(e^g - 1) / (beta + (1 - beta) e^g)``: lambda times the log-odds that the new mode gains (theory 9.1).

    In ``[1 - e^-g, e^g - 1]`` for ``g > 0``, increasing in the old mass, and at most ``1 / (1 - beta)`` for any gap.
    """
    s, g = np.broadcast_arrays(finite(log_odds, "log_odds"), finite(scaled_gap, "scaled_gap"))
    # at -s for -g it is the negative; with g >= 0 divide through by e^g
    side, size = np.where(g < 0.0, -1.0, 1.0), np.abs(g)
    return side * -np.expm1(-size) / (expit(side * s) * np.exp(-size) + expit(-side * s))


def entropic_tilt_log_odds(base_log_odds: ArrayLike, scaled_gap: ArrayLike, kl_weight: ArrayLike) -> Array:
    r"""Log-odds of the optimum: the root of ``s + shift(s) / lambda = s_0``, `entropic_shift` (theory 9.1 [T]).

    Unique, because the left side increases. Bisection on the bracket of :func:`entropic_bracket`, then Newton.
    ``lambda = 0`` gives -inf for g > 0 (the old mass is lost). Raises InputError on a negative ``kl_weight``.

    >>> round(float(entropic_tilt_log_odds(0.0, 50.0, 1.0)), 6)  # an enormous gap, yet bounded
    -1.278465
    """
    s0, g, lam = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"), finite(scaled_gap, "scaled_gap"), nonnegative(kl_weight, "kl_weight")
    )
    leashed = lam > 0.0
    safe = np.where(leashed, lam, 1.0)
    low, high = _bracket(s0, g, safe)
    # below log-odds 0 the shift is at most 2: a bracket as wide as e^g would not be halved often enough
    low = np.where(g > 0.0, np.maximum(low, np.minimum(s0, 0.0) - 2.0 / safe), low)
    high = np.where(g < 0.0, np.minimum(high, np.maximum(s0, 0.0) + 2.0 / safe), high)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        above = middle + entropic_shift(middle, g) / safe > s0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    s = 0.5 * (low + high)
    shift = entropic_shift(s, g)
    slope = 1.0 + expit(s) * expit(-s) * shift * shift / safe  # d shift / ds = sigmoid' shift^2
    s = s - (s + shift / safe - s0) / slope
    with np.errstate(invalid="ignore"):
        return np.where(leashed, s, np.where(g == 0.0, s0, -np.sign(g) * np.inf))


def _bracket(s0: Array, g: Array, lam: Array) -> tuple[Array, Array]:
    least = np.abs(np.expm1(-np.abs(g)))  # both signs: the shift lies between that and its value at the base
    at_base = entropic_shift(s0, g)
    near, far = s0 - np.sign(g) * least / lam, s0 - at_base / lam
    return np.minimum(near, far), np.maximum(near, far)


def entropic_bracket(base_log_odds: ArrayLike, scaled_gap: ArrayLike, kl_weight: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on :func:`entropic_tilt_log_odds` (theory 9.2 [T]).

    For g > 0: ``s_0 - shift(s_0) / lambda <= s* <= s_0 - (1 - e^-g) / lambda``, hence ``s* >= s_0 - 1 / (lambda (1 - beta_0))``
    whatever the gap: the entropic utility limits itself. Mirrored for g < 0.
    """
    s0, g, lam = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"), finite(scaled_gap, "scaled_gap"), positive(kl_weight, "kl_weight")
    )
    return _bracket(s0, g, lam)


def entropic_retention_threshold(base_log_odds: ArrayLike, scaled_gap: ArrayLike, min_mass: ArrayLike) -> Array:
    r"""Smallest leash that retains: ``beta* >= a`` iff ``lambda >= shift(logit a) / (s_0 - logit a)`` (theory 9.2 [T]).

    For a gap ``g >= 0`` in favour of the new mode; inf where the base does not exceed ``min_mass`` (and g > 0), 0 at
    ``g = 0`` where it does. Raises InputError on a negative gap (the old mode then gains) or a mass outside (0, 1).
    """
    s0, g, a = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"),
        finite(scaled_gap, "scaled_gap"),
        mass(min_mass, "min_mass"),
    )
    if not (g >= 0.0).all():
        raise InputError(f"scaled_gap must be nonnegative here, got {scaled_gap!r}: the old mode is favoured")
    floor = logit(a)
    shift, room = entropic_shift(floor, g), s0 - floor
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 0.0, shift / room, np.where((room == 0.0) & (g == 0.0), 0.0, np.inf))


def entropic_unleashed_time(s0: ArrayLike, s1: ArrayLike, scaled_gap: ArrayLike) -> Array:
    r"""Time of the flow without leash, ``ds/dt = -sigmoid'(s) shift(s)``, from ``s0`` to ``s1`` (theory 9.2, lambda = 0 [T]).

    ``t = ([s + e^s] + e^g [s - e^-s]) / (e^g - 1)`` between the two, because ``beta / sigmoid' = 1 + e^s`` and
    ``(1 - beta) / sigmoid' = 1 + e^-s``. The mass ends like ``1 / ((1 - e^-g) t)``. Raises InputError unless g > 0.
    """
    a, b, g = np.broadcast_arrays(finite(s0, "s0"), finite(s1, "s1"), finite(scaled_gap, "scaled_gap"))
    if not (g > 0.0).all():
        raise InputError(f"scaled_gap must be positive, got {scaled_gap!r}")
    gap = a - b
    old = gap * np.exp(-g) + exp_difference(a - g, b - g, gap)
    with np.errstate(over="ignore"):
        return (old + gap + exp_difference(-b, -a, gap)) / -np.expm1(-g)


class EntropicOptimum(NamedTuple):
    """Optimum of the entropic utility over *all* densities, reward by base responsibility (theory 9.3)."""

    log_mean: Array  # log Z' = log E_pi* exp(g rho_n)
    old_mass: Array  # E_pi* rho_o
    old_shift: Array  # shift of the mean of the tilted old component toward the new mean


def entropic_optimum(
    base_log_odds: ArrayLike, scaled_gap: ArrayLike, kl_weight: ArrayLike, delta: ArrayLike
) -> EntropicOptimum:
    r"""The self-consistent tilt with overlap, exactly: ``pi_0 exp(e^(g rho_n) / (lambda Z'))`` (theory 9.3).

    ``rho_n`` is the base responsibility of the new mode; everything depends on ``x`` along the axis only, so that
    one-dimensional sums are exact in any dimension. ``Z'`` is the unique root of ``Z' = E_pi* e^(g rho_n)`` (its right
    side falls as Z' grows). Raises InputError unless ``scaled_gap >= 0``, ``kl_weight > 0``,
    ``delta`` lies in (0, 64] and the tilt stays below 500 nats.
    """
    s0, g, lam, d = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"),
        finite(scaled_gap, "scaled_gap"),
        positive(kl_weight, "kl_weight"),
        validate_separation(delta),
    )
    if not ((g >= 0.0) & (g <= 50.0)).all():
        raise InputError(f"scaled_gap must lie in [0, 50], got {scaled_gap!r}")
    flat = [x.ravel() for x in (s0, g, lam, d)]
    span = np.expm1(flat[1]) / (flat[2] * np.exp(flat[1] * expit(-flat[0])))  # l(1) - l(0) at the least Z'
    if not (span <= MAX_GAIN).all():
        raise InputError(f"the tilt reaches {span.max():.3g} nats: raise kl_weight or lower scaled_gap")
    out = np.empty((3, s0.size))
    order = np.argsort(flat[3] * (36.0 + span))  # neighbours need grids of one size
    for start in range(0, s0.size, _ROWS):
        i = order[start : start + _ROWS]
        grid = tilt_grid(flat[0][i], flat[3][i], float(span[i].max(initial=0.0)))
        out[:, i] = _entropic_root(grid, *(x[i] for x in flat))
    return EntropicOptimum(*(row.reshape(s0.shape) for row in out))


def _entropic_root(grid: TiltGrid, s0: Array, g: Array, lam: Array, d: Array) -> tuple[Array, Array, Array]:
    log_base = grid.log_base(s0)
    gain = np.exp(g[:, None] * -grid.old_share)  # exp(g rho_n), divided by its maximum e^g
    low, high = g * expit(-s0), g.copy()  # Jensen under the base, which the tilt can only raise; and the maximum
    z = low
    tilt = gain
    for _ in range(_BISECTIONS):
        tilt = np.exp(g - z)[:, None] / lam[:, None] * gain
        exponent = log_base + tilt
        weight = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
        raised = weight * gain
        total, total_raised = weight.sum(axis=-1), raised.sum(axis=-1)
        excess = z - g - np.log(total_raised / total)
        # dt/dz = -t: the slope is 1 + (mean tilt under the raised weights) - (mean tilt) >= 1
        slope = 1.0 + (raised * tilt).sum(axis=-1) / total_raised - (weight * tilt).sum(axis=-1) / total
        low, high = np.where(excess > 0.0, low, z), np.where(excess > 0.0, z, high)
        if (np.abs(excess) <= 1e-13 * (1.0 + z)).all():
            break
        newton = z - excess / slope
        z = np.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
    return z, grid.old_mass(s0, tilt), grid.old_shift(d, tilt, g[:, None] * tilt)


def entropic_drift_bound(
    base_log_odds: ArrayLike, scaled_gap: ArrayLike, kl_weight: ArrayLike, delta: ArrayLike
) -> Array:
    r"""Bound on the shift of the tilted old component, reward by base responsibility (theory 9.3 [T]), Mahalanobis.

    ``delta sqrt((1-beta_0)/beta_0) BC [H_0 C(delta) + (H_1 - H_0) min(1/8, sqrt(pi/128)/delta)]`` with ``H_0 = g l(0)``,
    ``H_1 = g l(1) e^(l(1) - l(0))``, ``l(rho) = e^(g rho) / (lambda Z')``. For Z' the lower bound of
    :func:`entropic_mean_lower_bound` is used, so that nothing has to be integrated. Small only while the tilt
    ``l(1) - l(0)`` is well below ``delta^2 / 8``; and only because the reward is flat inside the old mode.
    """
    s0, g, lam, d = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"),
        finite(scaled_gap, "scaled_gap"),
        positive(kl_weight, "kl_weight"),
        validate_separation(delta),
    )
    if not (g >= 0.0).all():
        raise InputError(f"scaled_gap must be nonnegative here, got {scaled_gap!r}")
    log_z = entropic_mean_lower_bound(s0, g, d)
    l_0, l_1 = np.exp(-log_z) / lam, np.exp(g - log_z) / lam
    with np.errstate(over="ignore"):
        h_0, h_1 = g * l_0, g * l_1 * np.exp(l_1 - l_0)
    return responsibility_drift_bound(s0, d, h_0, h_1)


def entropic_mean_lower_bound(base_log_odds: ArrayLike, scaled_gap: ArrayLike, delta: ArrayLike) -> Array:
    r"""Lower bound on ``log Z'``, ``Z' = E_pi* e^(g rho_n)`` of :func:`entropic_optimum` [T].

    The tilt favours large ``rho_n``, so ``Z' >= E_pi0 e^(g rho_n)``. That is at least ``e^(g (1 - beta_0))`` (Jensen), and
    at least ``beta_0 + (1 - beta_0) e^g - K_g h``, ``h = beta_0 (1 - beta_0) kappa``, ``K_g = g e^g - e^g + 1``: chord of the
    exponential minus its largest gap per ``rho (1 - rho)``.
    """
    s0, g, d = np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), finite(scaled_gap, "scaled_gap"), delta)
    beta, rest = expit(s0), expit(-s0)
    both = beta * rest * harmonic_overlap(s0, d)
    # divided by e^g, which may overflow
    chord = beta * np.exp(-g) + rest - (g - 1.0 + np.exp(-g)) * both
    with np.errstate(divide="ignore", invalid="ignore"):
        by_chord = np.where(chord > 0.0, g + np.log(np.where(chord > 0.0, chord, 1.0)), -np.inf)
    return np.maximum(g * rest, by_chord)


def entropic_overlap_bounds(
    base_log_odds: ArrayLike, scaled_gap: ArrayLike, kl_weight: ArrayLike, delta: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the old *odds* ``M / (1 - M)`` of :func:`entropic_optimum`: 9.2 with overlap [T].

    Lower: ``rho_n >= 0`` and ``<= 1`` in ``E[rho_n e^l] / E[rho_o e^l]`` give ``e^(s_0 - (e^g - 1) / (lambda Z'))``, and Z' is at least
    :func:`entropic_mean_lower_bound`. Upper: M falls as Z' falls, ``Z' <= e^g``; at that Z' the tilt ``f = e^(l - l(0))`` runs
    below its chord, by at most ``K rho (1 - rho)`` with ``K = f'(1) - f(1) + 1`` (all its derivatives are positive), so
    ``M <= (beta_0 + (e^L - 1) h) / (beta_0 + (1 - beta_0) e^L - K h)``, ``L = (1 - e^-g) / lambda``, ``h = beta_0 (1 - beta_0) kappa``.
    As ``kappa -> 0`` both meet the bracket of :func:`entropic_bracket`.
    """
    s0, g, lam, d = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"),
        nonnegative(scaled_gap, "scaled_gap"),
        positive(kl_weight, "kl_weight"),
        validate_separation(delta),
    )
    lower = np.exp(s0 - (np.exp(g - entropic_mean_lower_bound(s0, g, d)) * -np.expm1(-g)) / lam)
    beta, rest = expit(s0), expit(-s0)
    both = beta * rest * harmonic_overlap(s0, d)
    tilt = -np.expm1(-g) / lam
    shrink = np.exp(-tilt)  # all divided by e^L
    old = beta * shrink + -np.expm1(-tilt) * both
    new = rest - (g / lam - 1.0 + shrink) * both - -np.expm1(-tilt) * both  # denominator less numerator
    with np.errstate(divide="ignore", invalid="ignore"):
        upper = np.where(new > 0.0, old / new, np.inf)
    return lower, np.minimum(upper, np.exp(s0))


def responsibility_drift_bound(base_log_odds: Array, delta: Array, h_0: Array, h_1: Array) -> Array:
    r"""``delta e^(-s_0/2) BC [H_0 C(delta) + (H_1 - H_0) min(1/8, sqrt(pi/128)/delta)]``, shared by 9.3 and 10.3.

    Bounds ``delta E_o[l'(rho_n) rho_o rho_n e^(l - l(0))]`` when ``l' e^(l - l(0))`` runs below its chord from ``H_0`` to ``H_1``:
    the two expectations are half-tilt integrals of ``sigmoid'`` and ``sigmoid^2 (1 - sigmoid)`` (theory 0.3).
    """
    with np.errstate(divide="ignore"):
        quarter = np.minimum(0.125, np.sqrt(np.pi / 128.0) / delta)
    gate = delta * np.exp(-0.5 * base_log_odds) * bhattacharyya_coefficient(delta)
    return gate * (h_0 * second_moment_constant(delta) + (h_1 - h_0) * quarter)
