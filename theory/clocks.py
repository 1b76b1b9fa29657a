r"""Learning clocks: the time that a policy gradient on one logit needs, and the two numerical tools behind it.

``dx/dt = eta M(x)`` with a positive, even mobility M takes ``(F(x1) - F(x0)) / eta``, ``F(x) = int_0^x dx / M``, odd:

    plain        M = sigma'(x) = p (1 - p)            F(x) = 2 x + 2 sinh x
    normalised   M = sqrt(sigma'(x)), large groups    F(x) = 4 sinh(x / 2)

`theory.group_normalised` has the mobility of a finite group, between the two. Units: log-odds, time in 1 / rate.
Source: own derivation, theory 12c, 12c' and 13.1; statements `fast-slow-time`, `plasticity-relearning-time`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fstsim.errors import InputError

Array = NDArray[np.float64]
Mobility = Literal["plain", "normalised"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PANEL = 2.0  # panel width in log-odds: 16 nodes resolve poles at distance pi to rounding
_ROOT_STEPS = 200
_LARGE = 700.0  # log-odds; cosh overflows a little beyond


def finite(value: ArrayLike, name: str) -> Array:
    """``value`` as float64; InputError unless every entry is finite."""
    x = np.asarray(value, dtype=np.float64)
    if not np.isfinite(x).all():
        raise InputError(f"{name} must be finite, got {value!r}")
    return x


def positive(value: ArrayLike, name: str, *, zero: bool = False, infinite: bool = False) -> Array:
    """``value`` as float64; InputError unless every entry is positive (``zero``: or 0; ``infinite``: or inf)."""
    x = np.asarray(value, dtype=np.float64)
    good = ((x >= 0.0) if zero else (x > 0.0)) & (np.isfinite(x) | (infinite & (x == np.inf)))
    if not good.all():
        kind = "nonnegative" if zero else "positive"
        raise InputError(f"{name} must be {kind}{'' if infinite else ' and finite'}, got {value!r}")
    return x


def check_mobility(mobility: str) -> None:
    """InputError unless ``mobility`` is ``plain`` or ``normalised``."""
    if mobility not in get_args(Mobility):
        raise InputError(f"mobility must be one of {', '.join(get_args(Mobility))}; got {mobility!r}")


def mobility_of(log_odds: ArrayLike, mobility: Mobility = "plain") -> Array:
    """``sigma'(x)`` (plain) or its square root (normalised)."""
    check_mobility(mobility)
    x = np.asarray(log_odds, dtype=np.float64)
    variance = expit(x) * expit(-x)
    return variance if mobility == "plain" else np.sqrt(variance)


def learning_clock(log_odds: ArrayLike, mobility: Mobility = "plain") -> Array:
    r"""``F(x) = int_0^x dx / M``: ``2 x + 2 sinh x`` (plain) or ``4 sinh(x / 2)`` (normalised); odd, increasing.

    >>> round(float(learning_clock(2.0)), 6)
    11.253721
    """
    check_mobility(mobility)
    x = np.asarray(log_odds, dtype=np.float64)
    with np.errstate(over="ignore"):
        return 2.0 * x + 2.0 * np.sinh(x) if mobility == "plain" else 4.0 * np.sinh(0.5 * x)


def learning_clock_between(start: ArrayLike, end: ArrayLike, mobility: Mobility = "plain") -> Array:
    r"""``F(end) - F(start)`` without cancellation: ``2 D + 4 cosh((x + y)/2) sinh(D/2)``, ``D = end - start``.

    Normalised: ``8 cosh((x + y)/4) sinh(D/4)``. Negative when ``end < start``.
    """
    check_mobility(mobility)
    x, y = np.broadcast_arrays(np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64))
    return _clock_across(0.5 * (x + y), y - x, mobility)


def learning_clock_over(start: ArrayLike, gap: ArrayLike, mobility: Mobility = "plain") -> Array:
    """``F(start + gap) - F(start)``, also where ``gap`` is smaller than the rounding of ``start``."""
    x, g = np.broadcast_arrays(np.asarray(start, dtype=np.float64), np.asarray(gap, dtype=np.float64))
    return _clock_across(x + 0.5 * g, g, mobility)


def _clock_across(middle: Array, gap: Array, mobility: Mobility) -> Array:
    if mobility == "plain":
        return 2.0 * gap + 4.0 * _cosh_sinh(middle, 0.5 * gap)
    return 8.0 * _cosh_sinh(0.5 * middle, 0.25 * gap)


def _cosh_sinh(x: Array, y: Array) -> Array:
    """``cosh(x) sinh(y)``, infinite only where the product is."""
    with np.errstate(over="ignore", invalid="ignore"):
        root = np.exp(0.5 * np.abs(x))
        large = root * (0.5 * np.sinh(y)) * root
        return np.where(y == 0.0, 0.0, np.where(np.abs(x) > _LARGE, large, np.cosh(x) * np.sinh(y)))


def inverse_learning_clock(clock: ArrayLike, mobility: Mobility = "plain") -> Array:
    """The log-odds ``x`` with ``F(x) = clock``; Newton from ``arcsinh(clock / 2)``, monotone from the right."""
    check_mobility(mobility)
    y = np.asarray(clock, dtype=np.float64)
    if mobility == "normalised":
        return 2.0 * np.arcsinh(0.25 * y)
    size = np.abs(y)
    x = np.arcsinh(0.5 * size)
    for _ in range(_ROOT_STEPS):
        with np.errstate(invalid="ignore", over="ignore"):
            step = (learning_clock(x) - size) / (2.0 + 2.0 * np.cosh(x))
        step = np.where(np.isfinite(step), step, 0.0)
        x = x - step
        if (np.abs(step) <= 1e-15 * (1e-300 + np.abs(x))).all():
            break
    return np.copysign(x, y)


def integrate(f: Callable[..., Array], low: ArrayLike, high: ArrayLike, *parameters: ArrayLike) -> Array:
    """``int_low^high f(x, *parameters) dx`` for each pair of limits, composite Gauss-Legendre in panels of log-odds width 2.

    ``f`` maps an array ``(..., 16)`` to one of the same shape. Exact to rounding where f has no pole nearer to the
    real axis than about pi, as ``1 / M`` and its relatives do not. ``parameters`` broadcast with the limits and come to f with a last
    axis of 1; with them short intervals do not wait for long ones: pairs that need the same number of panels are taken together.
    """
    a, b, *others = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (low, high, *parameters)))
    width = b - a
    panels = np.maximum(1.0, np.ceil(np.abs(width) / _PANEL))
    if not others:
        return _panels(f, a, width, int(panels.max(initial=1.0)))
    total = np.empty(width.shape)
    for count in np.unique(panels):
        here = panels == count
        total[here] = _panels(f, a[here], width[here], int(count), *(x[here][..., None] for x in others))
    return total


def _panels(f: Callable[..., Array], low: Array, width: Array, panels: int, *parameters: Array) -> Array:
    half = 0.5 * width / panels
    total = np.zeros(width.shape)
    for panel in range(panels):
        x = (low + (2 * panel + 1) * half)[..., None] + half[..., None] * _NODES
        total = total + half * (_WEIGHTS * f(x, *parameters)).sum(axis=-1)
    return total


def solve_increasing(
    f: Callable[[Array], Array],
    slope: Callable[[Array], Array],
    target: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
) -> Array:
    """Roots of ``f(x) = target``, f increasing on ``[low, high]`` with derivative ``slope``: Newton inside a bisection.

    A root outside the bracket comes out as the nearer end.
    """
    y, a, b = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (target, low, high)))
    x = 0.5 * (a + b)
    last = np.abs(b - a)
    for _ in range(_ROOT_STEPS):
        residual = f(x) - y
        a, b = np.where(residual <= 0.0, x, a), np.where(residual >= 0.0, x, b)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = x - residual / slope(x)
        # Newton only where it stays inside and at least halves the previous step
        good = (newton >= a) & (newton <= b) & (np.abs(newton - x) <= 0.5 * last)
        new = np.where(good, newton, 0.5 * (a + b))
        last = np.abs(new - x)
        x = new
        if (last <= 4e-16 * np.maximum(np.abs(x), 1e-300)).all():
            break
    return x
