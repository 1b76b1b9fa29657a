r"""The sums of `fstsim.logistic_normal` as compiled loops, for whoever has numba (extra ``[fast]``).

Tilt, nodes, weights and pole corrections are those of the numpy sums; only the order of the additions and the way
softplus is written differ, so that the two agree to a few roundings (a test says 1e-14). With ``z = c + d u``,

    softplus(z) = max(z, 0) + log1p(y),  y = exp(-|z|),   log1p(y) = 2 artanh(w),  w = y / (2 + y) in [0, 1/3],

and ``artanh(w)`` is a short polynomial: no logarithm is left in the loop, which the compiler spreads over the lanes of a core.
A point's floor is one division and a handful of products a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FINE = 16
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
_ROOT = math.sqrt(2.0 * math.pi)

# sums may be taken in any order and a product and a sum be one instruction; nan and inf keep their meaning
_compile = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


class Tables(NamedTuple):
    """Node tables of all levels, one behind the other: level k has the rows ``first[k] .. first[k + 1] - 1``."""

    step: Array
    """(levels,)"""
    first: NDArray[np.int64]
    """(levels + 1,)"""
    coarse: Array
    """(rows,)"""
    weights: Array
    """(rows, 16)"""


class Nodes(Protocol):
    """One level of `fstsim.logistic_normal`: nodes, their spacing and weights."""

    @property
    def step(self) -> float: ...
    @property
    def coarse(self) -> Array: ...
    @property
    def weights(self) -> Array: ...


def _tables(levels: Sequence[Nodes]) -> Tables:
    first = np.cumsum([0, *(nodes.coarse.size for nodes in levels)]).astype(np.int64)
    coarse, weights = (np.concatenate(parts) for parts in zip(*((n.coarse, n.weights) for n in levels), strict=True))
    return Tables(np.array([nodes.step for nodes in levels]), first, coarse, weights)


def bound_to(
    corrected: Sequence[Nodes], plain: Sequence[Nodes]
) -> tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]:
    """`mean_slope` with the tables ``corrected`` and `softplus` with the tables ``plain``, of ``(loc, scale)``, each ``(n,)``."""
    of_mean, of_softplus = _tables(corrected), _tables(plain)

    def both(loc: Array, scale: Array) -> Array:
        out = np.empty((3, loc.size))
        mean_slope(np.ascontiguousarray(loc), np.ascontiguousarray(scale), of_mean, out)
        return out

    def one(loc: Array, scale: Array) -> Array:
        out = np.empty((2, loc.size))
        softplus(np.ascontiguousarray(loc), np.ascontiguousarray(scale), of_softplus, out)
        return out

    return both, one


@_compile
def _powers(ratio: float, out: Array) -> None:
    """``ratio**j`` for j = 0 .. 15, by doubling: 4 roundings at most."""
    out[0] = 1.0
    filled, power = 1, ratio
    while filled < _FINE:
        for j in range(filled):
            out[filled + j] = out[j] * power
        power *= power
        filled *= 2


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
def mean_slope(loc: Array, scale: Array, tables: Tables, out: Array) -> None:
    """Fill ``out (3, n)`` with exponent, mean sum and slope sum of every point at ``-|loc|``."""
    fine, fine_rest = np.empty(_FINE), np.empty(_FINE)
    for k in range(loc.size):
        d = scale[k]
        t, c, out[0, k] = _tilt(loc[k], d)
        level, rest = _level(d), 1.0 - t
        step = tables.step[level]
        from_mean, from_slope = _poles(t, c, d, step)
        _powers(np.exp(step * d), fine)
        _powers(np.exp(step * rest * d), fine_rest)
        sum_mean, sum_slope = 0.0, 0.0
        for i in range(tables.first[level], tables.first[level + 1]):
            z = c + d * tables.coarse[i]
            e, r = np.exp(z), np.exp(rest * z)
            for j in range(_FINE):
                inverse = 1.0 / (1.0 + e * fine[j])
                value = tables.weights[i, j] * (r * fine_rest[j] * inverse)
                sum_mean += value
                sum_slope += value * inverse
        out[1, k] = sum_mean - from_mean
        out[2, k] = sum_slope - from_slope


@_compile
def softplus(loc: Array, scale: Array, tables: Tables, out: Array) -> None:
    """Fill ``out (2, n)`` with exponent and softplus sum of every point at ``-|loc|``."""
    fine, fine_rest, fine_tilt = np.empty(_FINE), np.empty(_FINE), np.empty(_FINE)
    for k in range(loc.size):
        d = scale[k]
        t, c, out[0, k] = _tilt(loc[k], d)
        level, rest = _level(d), 1.0 - t
        step = tables.step[level]
        _powers(np.exp(step * d), fine)
        _powers(np.exp(step * rest * d), fine_rest)
        _powers(np.exp(-step * t * d), fine_tilt)
        total = 0.0
        for i in range(tables.first[level], tables.first[level + 1]):
            first = c + d * tables.coarse[i]
            e0, r0, q0 = np.exp(first), np.exp(rest * first), np.exp(-t * first)
            for j in range(_FINE):
                e = e0 * fine[j]
                below = e <= 1.0
                inverse = 1.0 / ((2.0 + e) if below else (1.0 + 2.0 * e))
                w = e * inverse if below else inverse
                x = w * w
                # even and odd powers apart: half the length of a chain in which each product waits for the one before
                y = x * x
                p = (((_ARTANH[8] * y + _ARTANH[6]) * y + _ARTANH[4]) * y + _ARTANH[2]) * y + _ARTANH[0]
                p += x * ((((_ARTANH[9] * y + _ARTANH[7]) * y + _ARTANH[5]) * y + _ARTANH[3]) * y + _ARTANH[1])
                # exp(-t z) softplus(z): below 0 exp((1 - t) z) 2 p / (2 + e), where exp(-t z) could overflow
                low = r0 * fine_rest[j] * (2.0 * p * inverse)
                high = q0 * fine_tilt[j] * (first + d * step * j + 2.0 * w * p)
                total += tables.weights[i, j] * (low if below else high)
        out[1, k] = total
