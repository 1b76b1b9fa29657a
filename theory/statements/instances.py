"""Small tools of the random instances: a log-uniform draw, scalars as means, one value as both bounds, a flow for both sides."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fstsim.theory.statements.statement import Bounds

Array = NDArray[np.float64]
T = TypeVar("T")


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


def once(function: Callable[..., T]) -> Callable[..., T]:
    """``function(*arrays)``, whose last value is kept: exact side and bound of a statement may need the same flow of the same instances.

    Instances are told apart by their numbers. The value is shared: callers do not write into it.
    """

    @lru_cache(maxsize=1)
    def value(*instance: tuple[tuple[int, ...], bytes]) -> T:
        return function(*(np.frombuffer(numbers).reshape(shape) for shape, numbers in instance))

    @wraps(function)
    def remembered(*arrays: Array) -> T:
        return value(*((x.shape, np.ascontiguousarray(x, dtype=np.float64).tobytes()) for x in arrays))

    return remembered
