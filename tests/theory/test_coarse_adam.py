"""Coarse Adam against torch's optimizers, step by step, under gradients that stay the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.theory.coarse_adam import (
    SGD,
    AdamW,
    Moments,
    adam_direction,
    adam_moments,
    adam_piece,
    adam_ramp,
    between,
    learning_rates,
    sgd_piece,
)
from fstsim.theory.step_nodes import step_nodes

SIZE = 40


def _stepped(optimizer: type, constants: dict, pieces: list[tuple[torch.Tensor, np.ndarray]], start: torch.Tensor):
    """Weights and state after torch's own steps."""
    held = start.clone().requires_grad_()
    stepper = optimizer([held], lr=1.0, **constants)
    for gradient, rates in pieces:
        for rate in rates:
            stepper.param_groups[0]["lr"] = float(rate)
            held.grad = gradient.clone()
            stepper.step()
    return held.detach(), stepper.state[held]


def _problem(rng: np.random.Generator) -> tuple[torch.Tensor, list[torch.Tensor]]:
    draw = lambda: torch.from_numpy(rng.normal(size=SIZE) * 10.0 ** rng.uniform(-6, 1, SIZE))  # noqa: E731
    return torch.from_numpy(rng.normal(size=SIZE)), [draw(), draw(), draw()]


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("adam", [AdamW(), AdamW(0.8, 0.95, 1e-6, 0.3), AdamW(0.0, 0.99, weight_decay=0.1)])
@pytest.mark.parametrize("arrays", ["numpy", "torch"])
def test_adamw(rng: np.random.Generator, kind: str, adam: AdamW, arrays: str) -> None:
    start, gradients = _problem(rng)
    rates = learning_rates(kind, 1e-2, 75, warmup=7)
    lengths = [20, 32, 23]
    pieces = list(zip(gradients, np.split(rates, np.cumsum(lengths)[:-1]), strict=True))
    constants = {"betas": (adam.beta1, adam.beta2), "eps": adam.eps, "weight_decay": adam.weight_decay}
    wanted, state = _stepped(torch.optim.AdamW, constants, pieces, start)
    turn = (lambda t: t.numpy()) if arrays == "numpy" else (lambda t: t)
    weights, moments = turn(start), Moments(0.0 * turn(start), 0.0 * turn(start))
    for gradient, some in pieces:
        weights, moments = adam_piece(weights, moments, turn(gradient), turn(gradient) ** 2, some, adam)
    assert isinstance(weights, np.ndarray if arrays == "numpy" else torch.Tensor)
    np.testing.assert_allclose(weights, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(moments.first, state["exp_avg"], rtol=1e-12)
    np.testing.assert_allclose(moments.second, state["exp_avg_sq"], rtol=1e-12)
    assert moments.age == 75 == float(state["step"])


@pytest.mark.parametrize("age", [0, 3, 500])
@pytest.mark.parametrize("steps", [100, 1500])
@pytest.mark.parametrize("adam", [AdamW(), AdamW(0.95, 0.99), AdamW(0.0, 0.5), AdamW(0.99, 0.9999)])
def test_long_pieces_by_quadrature(rng: np.random.Generator, age: int, steps: int, adam: AdamW) -> None:
    """Within 1e-7 of the sum of learning rates of the sum step by step, whatever the moments at the start."""
    g = rng.normal(size=SIZE) * 10.0 ** rng.uniform(-6, 1, SIZE)
    q = g**2 * 10.0 ** rng.uniform(0, 4, SIZE)
    if age:
        scale = 10.0 ** rng.uniform(-4, 4, SIZE)
        held = Moments(rng.normal(size=SIZE) * np.abs(g) * scale, (g * scale) ** 2, age)
    else:
        held = Moments(np.zeros(SIZE), np.zeros(SIZE), 0)
    rates = learning_rates("cosine", 1e-3, steps, warmup=50)
    there, moments = adam_piece(np.zeros(SIZE), held, g, q, rates, adam)
    sizes = [adam_direction(held, g, q, j, adam) for j in range(1, steps + 1)]
    wanted = -(rates[:, None] * np.array(sizes)).sum(0)
    largest = np.abs(sizes).max()
    np.testing.assert_allclose(there, wanted, rtol=0, atol=1e-7 * rates.sum() * max(1.0, largest))
    np.testing.assert_allclose(moments.first, adam_moments(held, g, q, steps, adam).first)


@pytest.mark.parametrize("sgd", [SGD(), SGD(0.9), SGD(0.9, 0.1), SGD(0.9, 0.1, nesterov=True)])
def test_sgd(rng: np.random.Generator, sgd: SGD) -> None:
    start, gradients = _problem(rng)
    rates = learning_rates("linear", 1e-2, 60, warmup=4)
    pieces = list(zip(gradients, np.split(rates, [13, 40]), strict=True))
    wanted, state = _stepped(torch.optim.SGD, dict(vars(sgd)), pieces, start)
    weights, moments = start, Moments(torch.zeros(SIZE), torch.zeros(SIZE))
    for gradient, some in pieces:
        weights, moments = sgd_piece(weights, moments, gradient, some, sgd)
    np.testing.assert_allclose(weights, wanted, rtol=1e-12, atol=1e-12)
    if sgd.momentum:
        np.testing.assert_allclose(moments.first, state["momentum_buffer"], rtol=1e-12, atol=1e-12)


def test_pieces_join(rng: np.random.Generator) -> None:
    """One piece is its two halves."""
    start, (g, *_) = _problem(rng)
    rates = learning_rates("cosine", 1e-3, 30)
    held = Moments(g * 0.3, 4.0 * g**2, 11)
    whole, after = adam_piece(start, held, g, 2.0 * g**2, rates)
    half, moments = adam_piece(start, held, g, 2.0 * g**2, rates[:13])
    half, moments = adam_piece(half, moments, g, 2.0 * g**2, rates[13:])
    np.testing.assert_allclose(half, whole, atol=1e-13)
    np.testing.assert_allclose(moments.second, after.second, rtol=1e-13)


def test_interpolation_keeps_the_square_below(rng: np.random.Generator) -> None:
    g = [rng.normal(size=SIZE) for _ in range(2)]
    q = [x**2 * 10.0 ** rng.uniform(0, 3, SIZE) for x in g]
    q[0][:5], g[0][:5] = 0.0, 0.0
    for share in (0.0, 0.3, 1.0):
        mean, square = between((g[0], q[0]), (g[1], q[1]), share)
        assert (square >= mean**2 * (1 - 1e-15)).all()
        np.testing.assert_allclose(mean, (1 - share) * g[0] + share * g[1])
        tensors = [torch.from_numpy(x) for x in (g[0], q[0], g[1], q[1])]
        np.testing.assert_allclose(between((tensors[0], tensors[1]), (tensors[2], tensors[3]), share)[1], square)


@pytest.mark.parametrize("adam", [AdamW(), AdamW(0.8, 0.95, 1e-6, 0.3), AdamW(0.0, 0.99)])
@pytest.mark.parametrize(("age", "steps"), [(0, 1), (0, 7), (3, 40), (500, 300)])
def test_a_ramp_is_a_plain_loop(rng: np.random.Generator, adam: AdamW, age: int, steps: int) -> None:
    """Moments and the first 8 steps to rounding, the sum over steps to a thousandth of the rates for nearly all."""
    g0, g1 = rng.normal(size=(2, 300))
    q0, q1 = (g * g * (1.0 + 3.0 * rng.exponential(size=300)) for g in (g0, g1))
    m0, v0 = (0.3 * g0, 0.5 * q0 + 0.01) if age else (0.0 * g0, 0.0 * q0)
    start = rng.normal(size=300)
    rates, shares = 1e-3 * rng.uniform(size=steps), np.arange(steps) / steps
    found, moments = adam_ramp(start, Moments(m0, v0, age), (g0, q0), (g1, q1), shares, rates, adam)
    half = np.maximum(np.sqrt(q0 * q1), ((g0 + g1) / 2.0) ** 2)
    weights, m, v = start.copy(), m0, v0
    for j, (rate, s) in enumerate(zip(rates, shares, strict=True), start=1):
        g = (1.0 - s) * g0 + s * g1
        q = (1.0 - 2.0 * s) * q0 + 2.0 * s * half if s < 0.5 else (2.0 - 2.0 * s) * half + (2.0 * s - 1.0) * q1
        assert (q >= g * g * (1.0 - 1e-12)).all()
        m, v, t = adam.beta1 * m + (1 - adam.beta1) * g, adam.beta2 * v + (1 - adam.beta2) * q, age + j
        direction = m / (1 - adam.beta1**t) / (np.sqrt(v / (1 - adam.beta2**t)) + adam.eps)
        weights = weights - rate * (direction + adam.weight_decay * weights)
    np.testing.assert_allclose(moments.first, m, atol=1e-12)
    np.testing.assert_allclose(moments.second, v, atol=1e-12)
    assert moments.age == age + steps
    off = np.abs(found - weights) / rates.sum()
    assert off.max() < (1e-9 if steps <= 8 else 2e-2)  # the largest where a gradient changes its sign
    assert np.quantile(off, 0.95) < 1e-3
    with pytest.raises(InputError, match="share for each"):
        adam_ramp(start, Moments(m0, v0, age), (g0, q0), (g1, q1), shares[1:], rates, adam)


def test_nodes_sum_polynomials(rng: np.random.Generator) -> None:
    c = rng.uniform(size=600) * (rng.random(600) < 0.7)
    nodes, weights = step_nodes(c, exact=16, points=6)
    assert len(nodes) <= 16 + 6 * 6
    assert (weights > 0.0).all()
    j = np.arange(1.0, 601.0)
    for degree in range(12):
        np.testing.assert_allclose(
            (weights * (nodes / 600) ** degree).sum(), (c * (j / 600) ** degree).sum(), rtol=1e-11
        )


def test_bad_input() -> None:
    for wrong in (
        lambda: learning_rates("step", 1.0, 3),  # type: ignore[arg-type]
        lambda: learning_rates("linear", 1.0, 0),
        lambda: learning_rates("linear", 1.0, 3, warmup=4),
        lambda: AdamW(beta1=1.0),
        lambda: SGD(momentum=-0.1),
        lambda: adam_moments(Moments(0.0, 0.0), 1.0, 1.0, -1),
        lambda: adam_piece(np.ones(1), Moments(0.0, 0.0), np.ones(1), np.ones(1), [-1.0]),
        lambda: step_nodes([-1.0]),
    ):
        with pytest.raises(InputError):
            wrong()
