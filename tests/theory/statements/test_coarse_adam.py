"""The order of paths of coarse Adam, and what their statements leave to be measured."""

from __future__ import annotations

import numpy as np
import pytest

from fstsim.theory import check_statement, find_statements
from fstsim.theory.adam import adam_shift_path
from fstsim.theory.coarse_adam import AdamW, Moments, adam_piece
from fstsim.theory.statements.coarse_adam import coarse_shift

PROMPTS = np.array([[-3.0, -1.0, 0.5], [-0.5, 0.0, 0.2]])


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("beta2", [0.95, 0.999])
def test_the_error_falls_at_least_with_the_square_of_the_length(beta1: float, beta2: float) -> None:
    """Learning rates fall with the pieces' number of steps: one path in time, in ever finer pieces of 16 steps."""
    errors = []
    for refined in (1, 2, 4):
        steps, h = 96 * refined, 0.03 / refined
        exact = adam_shift_path(PROMPTS, h, steps, beta1, beta2)[-1]
        coarse = coarse_shift(PROMPTS, h, steps, 16, AdamW(beta1, beta2, 0.0))
        errors.append(np.abs(coarse - exact).max())
    assert errors[0] > 3.5 * errors[1]
    assert errors[1] > 3.5 * errors[2] or errors[2] < 1e-6


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_the_correction_gains_an_order(beta1: float) -> None:
    """Against constant gradients it gains more with every refinement: what the second gradient of a piece is for."""
    adam, gains = AdamW(beta1, 0.95, 0.0), []
    for refined in (1, 2, 4):
        steps, h = 96 * refined, 0.03 / refined
        exact = adam_shift_path(PROMPTS, h, steps, beta1, 0.95)[-1]
        at, moments = np.zeros(2), Moments(np.zeros(2), np.zeros(2))
        for _ in range(steps // 16):
            g = (1.0 / (1.0 + np.exp(-PROMPTS - at[:, None]))).mean(axis=1)
            at, moments = adam_piece(at, moments, g, g * g, np.full(16, h), adam)
        gains.append(np.abs(at - exact).max() / np.abs(coarse_shift(PROMPTS, h, steps, 16, adam) - exact).max())
    assert gains[0] > 4.0
    assert gains[1] > 1.3 * gains[0]
    assert gains[2] > 1.3 * gains[1]


def test_the_coarse_paths_of_the_statement_are_near() -> None:
    result = check_statement(find_statements("coarse-adam-order")[0], 200, seed=1)
    assert result.upper is not None
    assert 0.995 < result.upper[0] <= result.upper[2] < 1.005
