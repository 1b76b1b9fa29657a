r"""Stall: after drift, finite groups may never see the task that is to be relearned (theory 13 with 16.2).

The mean flow relearns from any drift, in a time that is exponential in it (`relearning_time`). A run draws finitely many
rollouts: n steps of B groups of G. While the policy has not moved every group is dead with the probability of
`dead_group_probability`, and where all are, nothing moves. Source: own derivation; statement `plasticity-stall`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py

from fstsim.theory.group_normalised import check_group, check_probability, log_dead_group_probability
from fstsim.theory.numerics.inputs import positive

Array = NDArray[np.float64]


def stall_probability(success_probability: ArrayLike, group_size: ArrayLike, groups: ArrayLike) -> Array:
    r"""Probability ``((1 - p)^G + p^G)^N`` that none of N groups of G rollouts has a signal, so that the policy stays where it is.

    N is the number of groups of a whole stage (steps x problems a step) for a stage without any motion, of one step for a
    step without. Raises InputError on probabilities outside [0, 1], group sizes below 2 or ``groups`` that are not positive.

    >>> round(float(stall_probability(1e-5, 8, 48 * 32)), 2)
    0.88
    """
    n = positive(groups, "groups")
    p, g = np.broadcast_arrays(check_probability(success_probability), check_group(group_size))
    return np.exp(n * log_dead_group_probability(p, g))


def stall_bounds(success_probability: ArrayLike, group_size: ArrayLike, groups: ArrayLike) -> tuple[Array, Array]:
    r"""``1 - N G p <= P(stall) <= exp(-N G p (1 - p)^(G - 1))``: a drift beyond ``log(N G / eps)`` stalls with 1 - eps.

    A group needs a success for a signal, and exactly one is enough. With ``p = sigmoid(-S) <= e^(-S)`` the lower bound is
    at least ``1 - N G e^(-S)``. Errors as `stall_probability`.
    """
    n, g = positive(groups, "groups"), positive(group_size, "group_size")
    p = np.asarray(success_probability, dtype=np.float64)
    return np.maximum(1.0 - n * g * p, 0.0), np.exp(-n * g * p * np.exp(xlog1py(g - 1.0, -p)))
