"""Small tools of the random instances: a log-uniform draw, scalars as means, one value as both bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fstsim.theory.statements.statement import Bounds

Array = NDArray[np.float64]


def log_uniform(rng: np.random.Generator, low: float, high: float, size: int | tuple[int, ...]) -> Array:
    """Positive numbers whose logarithm is uniform between those of ``low`` and ``high``; ``size`` is the shape."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def sometimes(rng: np.random.Generator, far: Array, usual: Array, share: float = 0.2) -> Array:
    """Instances ``far`` out or next to each other, where digits get lost, in place of a ``share`` of the usual ones."""
    return np.where(rng.random(usual.shape[0]) < share, far, usual)


def column(x: Array) -> Array:
    """Scalars as means of dimension 1, ``(n,) -> (n, 1)``."""
    return np.asarray(x, dtype=np.float64)[..., None]


def same(value: Array) -> Bounds:
    """The bounds of an identity or an approximation: ``value`` below and above."""
    return value, value
