"""AdamW in pieces of many steps against the simulator, which makes every one of them."""

from __future__ import annotations

import numpy as np
import pytest

from fstsim import AdamW, ForwardKL, InputError, Objective, ReverseKL, TwoModeProblem, TwoModeState, simulate
from fstsim.replay_objectives import ReverseKLReplay
from fstsim.theory.macro_steps import macro_adamw


def problem() -> TwoModeProblem:
    return TwoModeProblem.separated(3.0, 0.3)


def start(dimension: int) -> TwoModeState:
    there = problem()
    first = there.initial(0.8)
    nudge = np.linspace(0.1, 0.3, dimension)
    return TwoModeState(first.log_odds, first.mean_old + nudge, first.mean_new - nudge)


OBJECTIVES = {
    "forward": ForwardKL,
    "reverse": ReverseKL,
    "replay": lambda p: ReverseKLReplay(p, 0.2),
}


def distance(macro_state: TwoModeState, rows: np.ndarray, run: object) -> float:
    names = ("log_odds", "mean_old", "mean_new")
    return max(float(np.abs(getattr(macro_state, name) - getattr(run, name)[rows]).max()) for name in names)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    "optimizer",
    [AdamW(0.003), AdamW(0.01, weight_decay=0.05), AdamW(0.003, clip=0.05), AdamW(0.003, 0.8, 0.95, train="weight")],
    ids=["plain", "decay", "clip", "weight"],
)
def test_it_ends_where_the_simulator_does(name: str, optimizer: AdamW) -> None:
    there = problem()
    objective: Objective = OBJECTIVES[name](there)
    first = start(there.dimension)
    run = simulate(there, objective, first, optimizer, 600)
    macro = macro_adamw(there, objective, first, optimizer, 600, tolerance=1e-4)
    assert macro.steps[0] == 0
    assert macro.steps[-1] == 600
    moved = float(np.abs(run.log_odds[-1] - run.log_odds[0]))
    assert distance(macro.state, macro.steps, run) < max(0.01 * moved, 5.0 * macro.error + 1e-6)
    assert macro.gradients < 400


def test_a_smaller_tolerance_is_nearer_and_costs_more() -> None:
    there, optimizer = problem(), AdamW(0.003)
    objective, first = ForwardKL(there), start(there.dimension)
    run = simulate(there, objective, first, optimizer, 1000)
    found = [macro_adamw(there, objective, first, optimizer, 1000, tolerance) for tolerance in (1e-2, 1e-4, 1e-6)]
    errors = [distance(macro.state, macro.steps, run) for macro in found]
    costs = [macro.gradients for macro in found]
    assert errors[0] > errors[1] > errors[2]
    assert costs[0] < costs[1] < costs[2]
    assert costs[0] < 200


def test_pieces_of_a_few_steps_are_the_simulator() -> None:
    there, optimizer = problem(), AdamW(0.01, weight_decay=0.1)
    objective, first = ReverseKL(there), start(there.dimension)
    macro = macro_adamw(there, objective, first, optimizer, 25, tolerance=1e-16)
    run = simulate(there, objective, first, optimizer, 25)
    assert distance(macro.state, macro.steps, run) < 1e-12
    assert len(macro_adamw(there, objective, first, optimizer, 0).steps) == 1


def test_bad_input_is_refused() -> None:
    there = problem()
    objective, first = ForwardKL(there), start(there.dimension)
    with pytest.raises(InputError, match="tolerance must be positive"):
        macro_adamw(there, objective, first, AdamW(0.01), 5, 0.0)
    with pytest.raises(InputError, match="steps must be nonnegative"):
        macro_adamw(there, objective, first, AdamW(0.01), -1)
    with pytest.raises(InputError, match="no batch axes, and batch None"):
        macro_adamw(there, objective, first, AdamW(0.01, batch=8), 5)
