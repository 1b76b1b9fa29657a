"""95 % intervals of a mean over independent runs (seeds)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]

LEVEL = 0.95
"""Probability with which an interval of this project covers the mean."""


class Interval(NamedTuple):
    """A mean and the two ends of its interval, each ``(...)``."""

    mean: Array
    low: Array
    high: Array


def student_interval(values: ArrayLike) -> Interval:
    r"""Mean of ``values (n, ...)`` over the first axis, and its Student interval \(\bar x \pm t_{n-1} s / \sqrt n\).

    Exact for independent normal values. The ends are nan where there are fewer than two of them, or one is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    mean = x.mean(axis=0)
    half = np.full(mean.shape, np.nan)
    if len(x) > 1:
        half = stdtrit(len(x) - 1, 0.5 + LEVEL / 2.0) * x.std(axis=0, ddof=1) / np.sqrt(len(x))
    return Interval(mean, mean - half, mean + half)
