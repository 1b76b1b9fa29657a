r"""The sums of `fstsim.logistic_normal` as compiled loops, for whoever has numba (extra ``[fast]``).

Tilt, steps and pole corrections are those of the numpy sums; the order of the additions, and the way in which softplus is
written, are not, so that the two agree to a few roundings (a test says 3e-14).

Where the tilt leaves the Gaussian centred (every location but the far tails), nodes and weights are symmetric. With ``z = d u > 0``,

    A = exp(-t z),  B = exp(-(1 - t) z),  y = A B = exp(-z),  rho = log1p(y) / y,

the two nodes of a pair together give

    exp(-t z) sigmoid(z):           (A + B) / (1 + y)
    exp(-t z) sigmoid'(z):          (A y + B) / (1 + y)^2
    exp(-t z) softplus(z):          A (z + y rho) + B rho
    exp(-(1 - t) z) softplus(z):    B (z + y rho) + A rho

so that a pair costs one division and one polynomial, nothing overflows, and A or B, whichever is larger, says where to stop.
The last row is the same integral seen from the other mode of a learner: its misassignment probabilities and both its
softplus integrals come from one pass over the pairs.

In the far tails nodes are taken one by one, with ``z = c + d u``, c < 0, and ``softplus(z) = max(z, 0) + log1p(exp(-|z|))``.
Everywhere ``log1p(y) = 2 artanh(w)``, ``w = y / (2 + y)`` in [0, 1/3], and ``artanh(w)`` is a short polynomial: no logarithm is left
in a loop, which the compiler spreads over the lanes of a core.

All that is compiled is in this file: numba keeps what it compiled until the file of the caller changes, and does not look at others.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from fstsim.compiled_tables import FINE, TAIL, Tables

Array = NDArray[np.float64]

_ROOT = math.sqrt(2.0 * math.pi)
_EXACT_ROWS = 8  # rows of nodes after which the exponentials are computed anew: no product of more than a dozen factors
# artanh(w) / w in powers of w^2 <= 1/9: the polynomial of degree 9 that is nearest to it there, 5e-17 away (mpmath's chebyfit);
# the Taylor series, 1 / (2 k + 1), would need 15 terms
_ARTANH = (
    1.0,
    0.33333333333341286,
    0.199999999976438,
    0.1428571455582858,
    0.11111095430673142,
    0.09091429900236955,
    0.07681838124445817,
    0.06795652742789947,
    0.04940394524382393,
    0.08890381913056651,
)

_FAR = 6.5  # z from which y = exp(-z) is so small that six terms of a series in y are exact
# log1p(y) / y and 1 / (1 + y) at z >= _FAR: what is left out is below 2e-18 and 2e-17
_LOG = (1.0, -1.0 / 2.0, 1.0 / 3.0, -1.0 / 4.0, 1.0 / 5.0, -1.0 / 6.0)

# sums may be taken in any order and a product and a sum be one instruction; nan and inf keep their meaning
_compile = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_compile
def _powers(ratio: float, out: Array) -> float:
    """``ratio**j`` for j = 0 .. 15, by doubling, 4 roundings at most; returns ``ratio**16``."""
    to_2 = ratio * ratio
    to_4 = to_2 * to_2
    to_8 = to_4 * to_4
    out[0], out[1] = 1.0, ratio
    for j in range(2):
        out[2 + j] = out[j] * to_2
    for j in range(4):
        out[4 + j] = out[j] * to_4
    for j in range(8):
        out[8 + j] = out[j] * to_8
    return to_8 * to_8


@_compile
def _artanh_ratio(x: float) -> float:
    """``artanh(w) / w`` at ``x = w^2 <= 1/9``."""
    # even and odd _powers apart: half the length of a chain in which each product waits for the one before
    y = x * x
    p = (((_ARTANH[8] * y + _ARTANH[6]) * y + _ARTANH[4]) * y + _ARTANH[2]) * y + _ARTANH[0]
    return p + x * ((((_ARTANH[9] * y + _ARTANH[7]) * y + _ARTANH[5]) * y + _ARTANH[3]) * y + _ARTANH[1])


@_compile
def _near(d: float, nodes: Array, rows: int) -> int:
    """Rows, of the first ``rows``, that begin below `_FAR`."""
    near = 0
    while near < rows and d * nodes[near, 0] < _FAR:
        near += 1
    return near


@_compile
def _rows(t: float, d: float, step: float) -> int:
    """Rows of 16 pairs up to where the Gaussian times the larger of A and B is as small as the Gaussian at 9."""
    m = min(t, 1.0 - t) * d
    return int((math.sqrt(m * m + TAIL) - m) / (FINE * step)) + 1


@_compile
def _inverse_far(y: float) -> float:
    """``1 / (1 + y)`` at ``y <= exp(-_FAR)``."""
    x = y * y
    return (1.0 - y) * (1.0 + x + x * x)


@_compile
def _mean_slope_pairs(
    t: float, d: float, nodes: Array, weights: Array, fine_a: Array, fine_b: Array
) -> tuple[float, float]:
    """Sums of exp(-t z) sigmoid(z) and exp(-t z) sigmoid'(z); ``fine_a`` and ``fine_b`` (16,) are overwritten."""
    step = nodes[0, 1]
    on_a, on_b = _powers(np.exp(-step * t * d), fine_a), _powers(np.exp(-step * (1.0 - t) * d), fine_b)
    a0, b0, mean, slope = 1.0, 1.0, 0.0, 0.0
    rows = _rows(t, d, step)
    near = _near(d, nodes, rows)
    for i in range(rows):
        if i > 0 and i % _EXACT_ROWS == 0:
            z = d * nodes[i, 0]
            a0, b0 = np.exp(-t * z), np.exp(-(1.0 - t) * z)
        if i < near:
            for j in range(FINE):
                a, b = a0 * fine_a[j], b0 * fine_b[j]
                y = a * b
                inverse = 1.0 / (1.0 + y)
                value = weights[i, j] * inverse
                mean += value * (a + b)
                slope += value * inverse * (a * y + b)
        else:
            for j in range(FINE):
                a, b = a0 * fine_a[j], b0 * fine_b[j]
                y = a * b
                inverse = _inverse_far(y)
                value = weights[i, j] * inverse
                mean += value * (a + b)
                slope += value * inverse * (a * y + b)
        a0 *= on_a
        b0 *= on_b
    return mean, slope


@_compile
def _softplus_pairs(
    t: float, d: float, nodes: Array, weights: Array, fine_a: Array, fine_b: Array
) -> tuple[float, float, float]:
    """Sums of exp(-t z) sigmoid(z), exp(-t z) softplus(z), exp(-(1 - t) z) softplus(z); the first needs no pole corrections."""
    step = nodes[0, 1]
    on_a, on_b = _powers(np.exp(-step * t * d), fine_a), _powers(np.exp(-step * (1.0 - t) * d), fine_b)
    a0, b0, mean, own, other = 1.0, 1.0, 0.0, 0.0, 0.0
    rows = _rows(t, d, step)
    near = _near(d, nodes, rows)
    for i in range(rows):
        if i > 0 and i % _EXACT_ROWS == 0:
            z = d * nodes[i, 0]
            a0, b0 = np.exp(-t * z), np.exp(-(1.0 - t) * z)
        if i < near:
            for j in range(FINE):
                a, b = a0 * fine_a[j], b0 * fine_b[j]
                y = a * b
                one, two = 1.0 + y, 2.0 + y
                both = 1.0 / (one * two)
                half = both * one
                w = y * half
                rho = 2.0 * half * _artanh_ratio(w * w)
                high = d * nodes[i, j] + y * rho
                weight = weights[i, j]
                mean += weight * (a + b) * (both * two)
                own += weight * (a * high + b * rho)
                other += weight * (b * high + a * rho)
        else:
            for j in range(FINE):
                a, b = a0 * fine_a[j], b0 * fine_b[j]
                y = a * b
                rho = ((((_LOG[5] * y + _LOG[4]) * y + _LOG[3]) * y + _LOG[2]) * y + _LOG[1]) * y + _LOG[0]
                high = d * nodes[i, j] + y * rho
                weight = weights[i, j]
                mean += weight * (a + b) * _inverse_far(y)
                own += weight * (a * high + b * rho)
                other += weight * (b * high + a * rho)
        a0 *= on_a
        b0 *= on_b
    return mean, own, other


@_compile
def _tilt(loc: float, scale: float) -> tuple[float, float, float]:
    """``(t, center, exponent)`` of one point, as `fstsim.logistic_normal` defines them."""
    a, variance = -abs(loc), scale * scale
    if a == 0.0:
        t = 0.0
    elif -a >= variance:
        t = 1.0
    else:
        t = -a / variance
    center = 0.0 if t < 1.0 else min(a + variance, 0.0)
    return t, center, t * a + 0.5 * t * t * variance


@_compile
def _level(scale: float) -> int:
    """Row of the tables for ``scale``: four to a factor of two."""
    return math.ceil(4.0 * math.log2(max(scale, 1.0)) - 1e-9)


@_compile
def _poles(t: float, center: float, scale: float, step: float) -> tuple[float, float]:
    """What the sums of mean and slope owe to the poles at +-i pi; see `fstsim.logistic_normal`."""
    if scale <= 0.5 * step:
        return 0.0, 0.0
    if center == 0.0:  # the pole lies on the imaginary axis: all is real
        height, angle = math.pi / scale, math.pi * t
        decay = math.exp(-2.0 * math.pi * height / step)
        m = decay / (1.0 - decay)
        p = math.exp(0.5 * height * height) * m * (4.0 * math.pi / _ROOT) / scale
        sin, cos = math.sin(angle), math.cos(angle)
        return p * sin, p * ((2.0 * math.pi / step * (1.0 + m) - height) * cos / scale + sin * t)
    if center > -12.0 * scale:
        u = complex(-center / scale, math.pi / scale)
        n = 1.0 / (np.exp(-2j * math.pi * u / step) - 1.0)  # the exponent's real part is above 11: no cancellation
        q = -np.exp(-0.5 * u * u) * n / (scale * _ROOT)  # center < 0 only at t = 1
        rate = 2j * math.pi / step * (1.0 + n) - u - scale
        return -4.0 * math.pi * q.imag, 4.0 * math.pi * (q / scale * rate).imag
    return 0.0, 0.0


@_compile
def _shifted_mean_slope(
    tilt: tuple[float, float], d: float, level: int, tables: Tables, fine: tuple[Array, Array, Array]
) -> tuple[float, float]:
    """Both sums where the tilt ``(t, center)`` leaves the center below 0."""
    t, c = tilt
    step, rest = tables.step[level], 1.0 - t
    fine_e, fine_rest, _ = fine
    _powers(np.exp(step * d), fine_e)
    _powers(np.exp(step * rest * d), fine_rest)
    sum_mean, sum_slope = 0.0, 0.0
    for i in range(tables.first[level], tables.first[level + 1]):
        z = c + d * tables.coarse[i]
        e, r = np.exp(z), np.exp(rest * z)
        for j in range(FINE):
            inverse = 1.0 / (1.0 + e * fine_e[j])
            value = tables.weights[i, j] * (r * fine_rest[j] * inverse)
            sum_mean += value
            sum_slope += value * inverse
    return sum_mean, sum_slope


@_compile
def _shifted_softplus(
    tilt: tuple[float, float], d: float, level: int, tables: Tables, fine: tuple[Array, Array, Array]
) -> float:
    """The sum where the tilt ``(t, center)`` leaves the center below 0."""
    t, c = tilt
    step, rest = tables.step[level], 1.0 - t
    fine_e, fine_rest, fine_tilt = fine
    _powers(np.exp(step * d), fine_e)
    _powers(np.exp(step * rest * d), fine_rest)
    _powers(np.exp(-step * t * d), fine_tilt)
    total = 0.0
    for i in range(tables.first[level], tables.first[level + 1]):
        first = c + d * tables.coarse[i]
        e0, r0, q0 = np.exp(first), np.exp(rest * first), np.exp(-t * first)
        for j in range(FINE):
            e = e0 * fine_e[j]
            below = e <= 1.0
            inverse = 1.0 / ((2.0 + e) if below else (1.0 + 2.0 * e))
            w = e * inverse if below else inverse
            p = _artanh_ratio(w * w)
            # exp(-t z) softplus(z): below 0 exp((1 - t) z) 2 p / (2 + e), where exp(-t z) could overflow
            low = r0 * fine_rest[j] * (2.0 * p * inverse)
            high = q0 * fine_tilt[j] * (first + d * step * j + 2.0 * w * p)
            total += tables.weights[i, j] * (low if below else high)
    return total


@_compile
def _half(level: int, tables: Tables) -> tuple[Array, Array]:
    """Nodes and weights of the pairs of a level."""
    first, end = tables.half_first[level], tables.half_first[level + 1]
    return tables.half_nodes[first:end], tables.half_weights[first:end]


@_compile
def mean_slope(loc: Array, scale: Array, tables: Tables, out: Array) -> None:
    """Fill ``out (3, n)`` with exponent, mean sum and slope sum of every point at ``-|loc|``."""
    fine = (np.empty(FINE), np.empty(FINE), np.empty(FINE))
    for k in range(loc.size):
        d = scale[k]
        t, c, out[0, k] = _tilt(loc[k], d)
        level = _level(d)
        step = tables.step[level]
        from_mean, from_slope = _poles(t, c, d, step)
        if c == 0.0:
            nodes, weights = _half(level, tables)
            of_mean, of_slope = _mean_slope_pairs(t, d, nodes, weights, fine[0], fine[1])
        else:
            of_mean, of_slope = _shifted_mean_slope((t, c), d, level, tables, fine)
        out[1, k], out[2, k] = of_mean - from_mean, of_slope - from_slope


@_compile
def softplus(loc: Array, scale: Array, tables: Tables, out: Array) -> None:
    """Fill ``out (2, n)`` with exponent and softplus sum of every point at ``-|loc|``."""
    fine = (np.empty(FINE), np.empty(FINE), np.empty(FINE))
    for k in range(loc.size):
        d = scale[k]
        t, c, out[0, k] = _tilt(loc[k], d)
        level = _level(d)
        if c == 0.0:
            nodes, weights = _half(level, tables)
            _, out[1, k], _ = _softplus_pairs(t, d, nodes, weights, fine[0], fine[1])
        else:
            out[1, k] = _shifted_softplus((t, c), d, level, tables, fine)


@_compile
def mean_softplus(loc: Array, scale: Array, own: bool, tables: Tables, out: Array) -> None:
    """Fill ``out (2, m, n)`` with LN and SP at ``(-|loc|, scale)``, both ``(m, n)``.

    With ``own`` the first two rows belong together: ``loc[1] = loc[0] - scale**2``, as a sample of either mode sees the odds of
    a mixture of both. Where neither is in a far tail, one pass serves both.
    """
    fine = (np.empty(FINE), np.empty(FINE), np.empty(FINE))
    for k in range(loc.shape[1]):
        known = -1
        for i in range(loc.shape[0]):
            if i == known:
                continue
            a, d = loc[i, k], scale[i, k]
            t, c, exponent = _tilt(a, d)
            level, factor = _level(d), math.exp(exponent)
            if c == 0.0:
                nodes, weights = _half(level, tables)
                mean, value, other = _softplus_pairs(t, d, nodes, weights, fine[0], fine[1])
                if own and i == 0 and a >= 0.0:
                    back = math.exp(-0.5 * (1.0 - t) * (1.0 - t) * d * d)
                    out[0, 1, k], out[1, 1, k], known = back * mean, back * other, 1
            else:
                mean, _ = _shifted_mean_slope((t, c), d, level, tables, fine)
                value = _shifted_softplus((t, c), d, level, tables, fine)
            out[0, i, k], out[1, i, k] = factor * mean, factor * value
