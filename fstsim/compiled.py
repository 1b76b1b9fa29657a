"""The compiled sums of `fstsim.compiled_sums`, bound to node tables and given arrays of any layout. Needs numba."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fstsim import compiled_sums
from fstsim.compiled_tables import Nodes, tables_of

Array = NDArray[np.float64]


class Bound(NamedTuple):
    """The sums with their node tables, of arrays of any layout."""

    mean_slope: Callable[[Array, Array], Array]
    """``(loc, scale)``, each ``(n,)``: exponent, mean sum and slope sum ``(3, n)``"""
    softplus: Callable[[Array, Array], Array]
    """``(loc, scale)``, each ``(n,)``: exponent and softplus sum ``(2, n)``"""
    mean_softplus: Callable[[Array, Array, bool], Array]
    """``(loc, scale, own)``, each ``(m, n)``: `mean_softplus`, ``(2, m, n)``"""


def bound_to(corrected: Sequence[Nodes], plain: Sequence[Nodes]) -> Bound:
    """The sums of mean and slope with the tables ``corrected``, those with softplus in them with the tables ``plain``."""
    of_mean, of_softplus = tables_of(corrected), tables_of(plain)

    def mean_with_slope(loc: Array, scale: Array) -> Array:
        out = np.empty((3, loc.size))
        compiled_sums.mean_slope(np.ascontiguousarray(loc), np.ascontiguousarray(scale), of_mean, out)
        return out

    def softplus_alone(loc: Array, scale: Array) -> Array:
        out = np.empty((2, loc.size))
        compiled_sums.softplus(np.ascontiguousarray(loc), np.ascontiguousarray(scale), of_softplus, out)
        return out

    def mean_with_softplus(loc: Array, scale: Array, own: bool) -> Array:
        out = np.empty((2, *loc.shape))
        compiled_sums.mean_softplus(np.ascontiguousarray(loc), np.ascontiguousarray(scale), own, of_softplus, out)
        return out

    return Bound(mean_with_slope, softplus_alone, mean_with_softplus)
