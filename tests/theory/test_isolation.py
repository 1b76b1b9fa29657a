"""Frozen weights: the closed forms against mpmath, stepped flows and torch's own optimizers."""

from __future__ import annotations

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.theory import check_statement, find_statements
from fstsim.theory.isolation import forward_time, frozen_share


@given(
    start=st.floats(-30.0, 30.0),
    share=st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-300, 1.0)),
    way=st.floats(1e-6, 0.999),
)
def test_the_time_is_the_integral(start: float, share: float, way: float) -> None:
    at = -60.0 if share == 0.0 else 60.0 if share == 1.0 else max(-60.0, min(60.0, float(logit(share))))
    end = start + way * (at - start)
    if not abs(end - start) > 1e-6 or (0.0 < share < 1.0 and not abs(end - logit(share)) > 1e-5):
        return
    with mp.workdps(30):
        q = mp.mpf(share)
        points = np.linspace(start, end, 7).tolist()
        exact = -mp.quad(lambda s: 1 / (1 / (1 + mp.exp(-s)) - q), points)
    # next to q = 1 the distance from it has as many digits as q has left
    slack = 1e-9 + 1e-15 / min(1.0, max(abs(1.0 - share), 1e-16)) if share < 1.0 else 1e-9
    assert float(forward_time(start, end, share)) == pytest.approx(float(exact), rel=slack)


def test_a_time_that_never_comes_is_bad_input() -> None:
    with pytest.raises(InputError, match="between start and the fixed point"):
        forward_time(0.0, -3.0, 0.2)
    with pytest.raises(InputError, match="share must lie"):
        forward_time(0.0, -3.0, 1.2)
    with pytest.raises(InputError, match="must not all be 0"):
        frozen_share([0.0, 0.0], [True, False])
    with pytest.raises(InputError, match="how must be"):
        frozen_share([1.0], [True], "adamw")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["sgd", "adam"])
def test_torch_takes_the_time_that_the_share_says(how: str) -> None:
    """Small steps of torch's optimizer on weights of which a part is put back: the logit is there 1 / (1 - phi) later."""
    loadings = torch.tensor([1.5, -0.7, 0.4, 2.0], dtype=torch.float64)
    frozen = torch.tensor([True, False, False, True])
    end, rate, counts = -2.0, 4e-3 if how == "sgd" else 1e-3, []
    for mask in (frozen, torch.zeros_like(frozen)):
        theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        kind = torch.optim.SGD if how == "sgd" else torch.optim.Adam
        optimizer = kind([theta], lr=rate) if how == "sgd" else kind([theta], lr=rate, betas=(0.0, 0.9), eps=0.0)
        steps = 0
        while float((s := 1.0 + loadings @ theta).detach()) > end:
            optimizer.zero_grad()
            torch.nn.functional.softplus(s).backward()
            kept = theta.detach()[mask].clone()
            optimizer.step()
            with torch.no_grad():
                theta[mask] = kept
            steps += 1
        counts.append(steps)
    _, rest = frozen_share(loadings.numpy(), frozen.numpy(), how)  # type: ignore[arg-type]
    assert counts[1] / counts[0] == pytest.approx(float(rest), rel=2e-2)
    if how == "sgd":
        assert rate * counts[1] == pytest.approx(
            float(forward_time(1.0, end, 0.0)) / float((loadings**2).sum()), rel=2e-2
        )


def test_the_end_is_the_share_of_old_demonstrations_whatever_is_frozen() -> None:
    loadings, q = np.array([1.0, -2.0, 0.5]), 0.3
    for frozen in ([False, False, False], [False, True, False], [True, True, False]):
        theta = np.zeros(3)
        for _ in range(8000):
            gradient = (expit(2.0 + loadings @ theta) - q) * loadings
            theta = np.where(frozen, theta, theta - 0.1 * gradient)
        assert expit(2.0 + loadings @ theta) == pytest.approx(q, abs=1e-6)


@pytest.mark.parametrize("slug", ["isolation-clock", "isolation-steps"])
def test_another_exponent_is_noticed(slug: str) -> None:
    """The share of the wrong power would be another claim: the search finds it."""
    (statement,) = find_statements(slug)
    swapped = replace(statement, bound=lambda **x: statement.bound(**{**x, "adam": 1.0 - x["adam"]}))
    assert check_statement(statement, 2000, seed=3).violations == 0
    assert check_statement(swapped, 2000, seed=3).violations > 0
