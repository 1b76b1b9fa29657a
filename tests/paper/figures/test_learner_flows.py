"""Flows solved together are the flows that the simulator solves one by one, whoever else is in the batch."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from fstsim import ForwardKL, GradientFlow, TwoModeProblem, gradient_flow
from fstsim.paper.figures.learner_flows import forward_flows, held_forward_flows, leashed_flows, solve_together
from fstsim.replay_objectives import Direction, KLLeash

DELTAS = (1.0, 4.0, 8.0)
TIMES = np.geomspace(0.1, 1e4, 9)


def test_forward_flows_are_those_of_the_simulator() -> None:
    free, held = (flows(DELTAS, 0.4, 1e4, 1e-8)(TIMES) for flows in (forward_flows, held_forward_flows))
    assert free.shape == (9, 3, 3)
    assert held.shape == (9, 3, 1)
    for k, delta in enumerate(DELTAS):
        problem = TwoModeProblem.separated(delta)
        for found, how in ((free, GradientFlow(rtol=1e-8)), (held, GradientFlow(train="weight", rtol=1e-8))):
            alone = gradient_flow(problem, ForwardKL(problem), problem.initial(0.4), 1e4, how)(TIMES)
            np.testing.assert_allclose(found[:, k, 0], alone.log_odds, rtol=1e-6)
            if found is free:
                np.testing.assert_allclose(found[:, k, 1], alone.mean_old[:, 0], rtol=1e-4, atol=1e-10)
                np.testing.assert_allclose(found[:, k, 2], alone.mean_new[:, 0], rtol=1e-6)


@pytest.mark.parametrize("direction", get_args(Direction))
def test_leashed_flows_are_those_of_the_simulator(direction: Direction) -> None:
    cases = [(0.1, 3.0), (0.5, 2.0), (2.0, 4.0)]
    times = np.array([0.5, 5.0, 50.0])
    found = leashed_flows(*np.transpose(cases), 0.3, direction, 50.0, 1e-8)(times)
    for k, (strength, delta) in enumerate(cases):
        problem = TwoModeProblem.separated(delta)
        objective = KLLeash(problem, problem.initial(0.3), strength, direction)
        how = GradientFlow(geometry="em", train="weight", rtol=1e-8)
        alone = gradient_flow(problem, objective, problem.initial(0.3), 50.0, how)(times)
        np.testing.assert_allclose(found[:, k, 0], alone.log_odds, rtol=1e-6)


def test_a_flow_that_does_not_come_to_an_end_is_an_error() -> None:
    with np.errstate(all="ignore"), pytest.raises(RuntimeError, match="rtol 1e-06 beyond time"):
        solve_together(lambda y: y * y, np.ones((1, 1)), 2.0, 1e-6)  # 1 / (1 - t)
