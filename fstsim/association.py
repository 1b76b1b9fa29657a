"""How far one number goes with another over many runs, with intervals that resample whole runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.intervals import LEVEL, Interval

Array = NDArray[np.float64]
_RESAMPLES = 400


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank; nan where one of the two does not vary.

    >>> spearman([1.0, 2.0, 3.0], [1.0, 10.0, 100.0])
    1.0
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 2 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    from scipy.stats import rankdata  # scipy.stats is a second of start-up

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def partial_spearman(x: ArrayLike, y: ArrayLike) -> float:
    r"""Rank correlation of ``x[:, 0]`` with ``y`` at a fixed ``x[:, 1]``: \((r_{xy} - r_{xz} r_{yz}) / \sqrt{(1 - r_{xz}^2)(1 - r_{yz}^2)}\).

    ``x (N, 2)``. That of the ranks' parts that are not linear in the ranks of ``x[:, 1]``; nan where there are none.

    >>> round(partial_spearman([[1, 4], [2, 1], [3, 3], [4, 2]], [1, 2, 3, 4]), 12)
    1.0
    """
    a, z = np.asarray(x, dtype=np.float64).T
    r, with_x, with_y = spearman(a, y), spearman(a, z), spearman(y, z)
    left = (1.0 - with_x**2) * (1.0 - with_y**2)
    return float((r - with_x * with_y) / np.sqrt(left)) if left > 1e-12 else float("nan")


def quadratic_r2(x: ArrayLike, y: ArrayLike) -> float:
    """Share of the variance of ``y`` that a quadratic in ``x`` explains (least squares); nan where it has none to explain.

    >>> quadratic_r2([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 4.0, 9.0])
    1.0
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(np.unique(a)) < 3 or np.ptp(b) == 0.0:
        return float("nan")
    scaled = (a - a.mean()) / a.std()  # the same fit, of better condition
    left = b - np.polyval(np.polyfit(scaled, b, 2), scaled)
    return float(1.0 - left.var() / b.var())


def over_groups(
    measure: Callable[[Array, Array], float], x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable]
) -> Interval:
    """``measure(x, y)`` with a 95 % bootstrap interval that draws ``groups`` (runs whose points belong together).

    Percentiles of 400 draws of as many groups as there are, always the same random numbers; draws without a value are left
    out, and the ends are nan where no draw has one.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    members: dict[Hashable, list[int]] = {}
    for place, name in enumerate(groups):
        members.setdefault(name, []).append(place)
    parts = [np.array(places) for places in members.values()]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(_RESAMPLES if parts else 0):
        chosen = np.concatenate([parts[k] for k in rng.integers(len(parts), size=len(parts))])
        value = measure(xs[chosen], ys[chosen])
        if np.isfinite(value):
            draws.append(value)
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(draws, (tail, 1.0 - tail)) if draws else (np.nan, np.nan)
    return Interval(*np.asarray([measure(xs, ys), low, high]))
