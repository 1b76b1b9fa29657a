"""What the compiled sums of `fstsim.compiled_sums` work with: nodes and weights of all levels in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FINE = 16
"""Nodes in a row."""
TAIL = 81.0
"""The Gaussian is kept to the root of this, and a tilted integrand to where it is as small."""


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
    half_first: NDArray[np.int64]
    """(levels + 1,), as ``first`` for the rows of pairs"""
    half_nodes: Array
    """(half rows, 16) nodes above 0, see `fstsim.compiled_sums`"""
    half_weights: Array
    """(half rows, 16)"""


class Nodes(Protocol):
    """One level of `fstsim.logistic_normal`: nodes, their spacing and weights."""

    @property
    def step(self) -> float: ...
    @property
    def coarse(self) -> Array: ...
    @property
    def weights(self) -> Array: ...


def _half_nodes(step: float) -> Array:
    """``(rows, 16)`` nodes ``u = 0, step, 2 step, ...`` up to 9."""
    rows = math.ceil((math.sqrt(TAIL) / step + 1.0) / FINE)
    return step * np.arange(rows * FINE, dtype=np.float64).reshape(rows, FINE)


def _half_weights(step: float) -> Array:
    """``(rows, 16)`` trapezoid weights of `_half_nodes`, the first one halved for its pair."""
    u = _half_nodes(step)
    weights = step * np.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
    weights[0, 0] *= 0.5
    return np.asarray(weights, dtype=np.float64)


def tables_of(levels: Sequence[Nodes]) -> Tables:
    """All levels, the smallest scale first, in one set of arrays."""
    first = np.cumsum([0, *(nodes.coarse.size for nodes in levels)]).astype(np.int64)
    coarse, weights = (np.concatenate(parts) for parts in zip(*((n.coarse, n.weights) for n in levels), strict=True))
    steps = np.array([nodes.step for nodes in levels])
    above, above_weights = [_half_nodes(step) for step in steps], [_half_weights(step) for step in steps]
    half_first = np.cumsum([0, *map(len, above)]).astype(np.int64)
    return Tables(steps, first, coarse, weights, half_first, np.concatenate(above), np.concatenate(above_weights))
