"""A learner in whitened coordinates, in which the covariance is the identity: what the formulas are written in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.two_mode import TwoModeProblem, TwoModeState

Array = NDArray[np.float64]


class Whitened(NamedTuple):
    """Log-odds of the old mode ``(...)`` and both means ``(..., D)`` of a mixture, or a gradient in them."""

    log_odds: Array
    old: Array
    new: Array


def whiten(problem: TwoModeProblem, state: TwoModeState) -> Whitened:
    """``state`` in the whitened coordinates of ``problem``; InputError if it has another dimension."""
    if state.dimension != problem.dimension:
        raise InputError(f"state has dimension {state.dimension}, the problem {problem.dimension}")
    return Whitened(state.log_odds, problem.whiten(state.mean_old), problem.whiten(state.mean_new))


def unwhiten_gradient(problem: TwoModeProblem, gradient: Whitened | tuple[Array, Array, Array]) -> TwoModeState:
    """Gradient with respect to the state in the coordinates of ``problem``, from the one in whitened coordinates."""
    g_s, g_o, g_n = gradient
    return TwoModeState(g_s, problem.unwhiten_gradient(g_o), problem.unwhiten_gradient(g_n))
