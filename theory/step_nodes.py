r"""Few nodes for a sum over many steps: Gauss quadrature on the steps themselves.

The first `EXACT` steps are nodes; beyond them come panels that double in length, whose `POINTS` nodes and weights are those of
the discrete measure ``c_j``, so that any schedule is in the weights and a polynomial of degree ``2 POINTS - 1`` in j is summed exactly.
Source: Gauss nodes of a discrete measure by the Stieltjes recurrence and the eigenvalues of its Jacobi matrix (Golub and Welsch 1969).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError

Array = NDArray[np.float64]

EXACT = 32
"""steps of a piece that are summed one by one"""
POINTS = 8
"""nodes of each panel beyond them"""
ROUGH = (8, 4)
"""The same of a piece in which gradients change: what is read there is known no better."""


def step_nodes(coefficients: ArrayLike, exact: int = EXACT, points: int = POINTS) -> tuple[Array, Array]:
    """Nodes (steps, counted from 1, between steps too) and weights ``(k,)`` of the sum ``sum_j coefficients_j f(j)``.

    The first ``exact`` steps are nodes themselves; panels ``(exact, 2 exact], (2 exact, 4 exact] ...`` have ``points``
    nodes each, which sum polynomials of degree ``2 points - 1`` exactly. Weights are positive where coefficients are, and
    their sum is that of the coefficients. Raises InputError for a negative coefficient, or no node.
    """
    c = np.asarray(coefficients, dtype=np.float64)
    if not (c >= 0.0).all():
        raise InputError("coefficients must be nonnegative: a learning rate times weight decay is above 1")
    if exact < 1 or points < 1:
        raise InputError(f"exact and points must be at least 1, got {exact} and {points}")
    steps = np.arange(1.0, c.size + 1.0)
    nodes, weights = [steps[:exact]], [c[:exact]]
    first = exact
    while first < c.size:
        panel = slice(first, 2 * first)
        x, w = _gauss(steps[panel], c[panel], points)
        nodes.append(x)
        weights.append(w)
        first *= 2
    found, by = np.concatenate(nodes), np.concatenate(weights)
    there = by > 0.0
    return found[there], by[there]


def _gauss(x: Array, c: Array, points: int) -> tuple[Array, Array]:
    """Gauss nodes and weights of the measure with masses ``c`` at ``x``; the measure itself where it has no more masses."""
    there = c > 0.0
    x, c = x[there], c[there]
    if x.size <= points:
        return x, c
    middle, half = (x[0] + x[-1]) / 2.0, (x[-1] - x[0]) / 2.0
    z, total = (x - middle) / half, c.sum()
    # Stieltjes: orthonormal polynomials on the masses, p_{k+1} b_{k+1} = (z - a_k) p_k - b_k p_{k-1}
    before, now = np.zeros_like(z), np.full_like(z, 1.0 / np.sqrt(total))
    diagonal, beside = np.empty(points), np.zeros(points)
    for k in range(points):
        diagonal[k] = (c * z * now**2).sum()
        after = (z - diagonal[k]) * now - beside[k - 1] * before if k else (z - diagonal[k]) * now
        beside[k] = np.sqrt((c * after**2).sum())
        before, now = now, after / beside[k]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return middle + half * values, total * vectors[0] ** 2
