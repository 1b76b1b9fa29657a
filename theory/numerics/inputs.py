"""Checks of numeric input: an array of float64 comes back, or one clear InputError that names the argument."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError

Array = NDArray[np.float64]


def finite(value: ArrayLike, name: str) -> Array:
    """Any finite numbers."""
    x = np.asarray(value, dtype=np.float64)
    if not np.isfinite(x).all():
        raise InputError(f"{name} must be finite, got {value!r}")
    return x


def positive(value: ArrayLike, name: str) -> Array:
    """Finite and above 0."""
    x = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(x) & (x > 0.0)).all():
        raise InputError(f"{name} must be positive and finite, got {value!r}")
    return x


def nonnegative(value: ArrayLike, name: str) -> Array:
    """Finite and not below 0."""
    x = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(x) & (x >= 0.0)).all():
        raise InputError(f"{name} must be nonnegative and finite, got {value!r}")
    return x


def mass(value: ArrayLike, name: str) -> Array:
    """A probability strictly between 0 and 1."""
    x = np.asarray(value, dtype=np.float64)
    if not ((x > 0.0) & (x < 1.0)).all():
        raise InputError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    return x


def share(value: ArrayLike, name: str) -> Array:
    """In [0, 1]."""
    x = np.asarray(value, dtype=np.float64)
    if not ((x >= 0.0) & (x <= 1.0)).all():
        raise InputError(f"{name} must lie in [0, 1], got {value!r}")
    return x
