r"""How long reverse KL stays at a merged state: both learner components on one target mode (theory 3.2).

Coordinates along the axis of the target, distances from the old mean; ``m*`` is the merged state near the new one. With
``u_k = m_k - m*``, barycentre ``M = beta u_o + (1 - beta) u_n``, split ``D = u_n - u_o`` of variance ``k = beta (1 - beta) D^2``
and ``A_r = delta^2 max E_(N(m))[r_o r_n]`` over ``|m - m*| <= r``, the exact flow of the means has, whatever the weight does,

    (1/2) d/dt (u_o^2 + u_n^2)  <=  A_r (M^2 + k) - M^2 - k^2 / (1 + k)        while |u_o|, |u_n| <= r.

So the distance grows by at most an e-fold in a time ``1 / A_r``, exponentially long in the separation; and it cannot grow at all
where the split has more than the variance ``A / (1 - A)``, so that a weight which stays above b never lets it pass
``A / ((1 - A)^2 b)``. Source: own derivation; statement `merged-escape`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from fstsim.errors import InputError
from fstsim.logistic_normal import logistic_normal_slope
from fstsim.theory.numerics.inputs import finite, mass, nonnegative, positive
from fstsim.theory.reverse_kl import merged_states

Array = NDArray[np.float64]


def merged_pull(alpha: ArrayLike, delta: ArrayLike, radius: ArrayLike) -> Array:
    r"""``A_r = delta^2 max E_(N(m))[r_o r_n]`` over ``|m - m*| <= radius``: the most that the target pulls a split apart, per unit.

    ``E[r_o r_n]`` is greatest half way between the modes: the maximum is there, or at the end of the range that is nearest.
    ``radius`` at least 0; all arguments broadcast. Raises InputError where there is no merged state (`merged_state`).

    >>> [round(float(a), 5) for a in merged_pull(0.5, 8.0, [0.0, 1.0, 8.0])]
    [0.00157, 0.04326, 3.11361]
    """
    r, d = nonnegative(radius, "radius"), np.asarray(delta, dtype=np.float64)
    middle = logit(np.asarray(alpha, dtype=np.float64)) + 0.5 * d * d - d * merged_states(alpha, d)
    nearest = np.clip(0.0, middle - d * r, middle + d * r)
    return d * d * logistic_normal_slope(nearest, d)


def merged_growth_bound(beta: ArrayLike, old: ArrayLike, new: ArrayLike, pull: ArrayLike) -> Array:
    r"""Most that half the squared distance ``u_o^2 + u_n^2`` grows by in unit time: ``A (M^2 + k) - M^2 - k^2 / (1 + k)``.

    ``old`` and ``new`` are u_o and u_n, ``pull`` is `merged_pull` at a radius of at least both. Statement `merged-escape` [T].
    """
    b, u, v, a = mass(beta, "beta"), finite(old, "old"), finite(new, "new"), nonnegative(pull, "pull")
    centre = (b * u + (1.0 - b) * v) ** 2
    split = b * (1.0 - b) * (v - u) ** 2
    return a * (centre + split) - centre - split * split / (1.0 + split)


def merged_escape_least(start: ArrayLike, end: ArrayLike, alpha: float, delta: float) -> Array:
    r"""Least time in which the exact flow takes ``sqrt(u_o^2 + u_n^2)`` from ``start`` to ``end``: ``log(end / start) / A_end``.

    Whatever the weight does, and however it is trained. Of order ``e^((delta/2 - end)^2 / 2)``; `merged_escape_time` is what the
    flow takes to leading order. Statement `merged-escape` [T].

    >>> float(merged_escape_least(1e-3, 0.5, 0.5, 10.0)) > 400.0
    True
    """
    first, last = positive(start, "start"), positive(end, "end")
    if not (first <= last).all():
        raise InputError(f"end must be at least start, got {start!r} and {end!r}")
    return np.log(last / first) / merged_pull(alpha, delta, last)


def merged_frozen_reach(least_weight: ArrayLike, start: ArrayLike, alpha: float, delta: float, radius: float) -> Array:
    r"""Distance ``sqrt(u_o^2 + u_n^2)`` that the flow never passes while ``min(beta, 1 - beta) >= least_weight``; inf where that is not shown.

    ``max(start, sqrt(A / b) / (1 - A))`` with A at ``radius``, where it is below ``radius`` and A below 1: with a frozen weight
    the merged state is not left at all. Statement `merged-escape` [T].
    """
    b, first = mass(least_weight, "least_weight"), positive(start, "start")
    a = float(merged_pull(alpha, delta, radius))
    if a >= 1.0:
        return np.full(np.broadcast_shapes(b.shape, first.shape), np.inf)
    reach = np.maximum(first, np.sqrt(a / b) / (1.0 - a))
    return np.where(reach <= radius, reach, np.inf)
