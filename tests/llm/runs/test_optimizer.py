"""The optimizer of a run: rates against transformers' schedules, moments in bfloat16 against AdamW and against exact means."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from fstsim.errors import InputError
from fstsim.llm.runs.checkpoint import pack_optimizer, read_checkpoint, unpack_optimizer, write_checkpoint
from fstsim.llm.runs.config import METHODS, TrainConfig
from fstsim.llm.runs.optimizer import AdamWHalfMoments, OptimizerConfig, _rounded

# --- the learning rate of a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
def test_rates_after_the_warm_up_are_those_of_transformers(schedule: Any, theirs: Any, warmup: int) -> None:
    steps, lr = 11, 0.02
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = theirs(optimizer, warmup, steps)
    ours = OptimizerConfig(schedule=schedule, warmup=warmup)
    for step in range(steps):
        if step >= warmup:
            assert ours.rate(lr, step, steps) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        scheduler.step()


def test_warm_up_wastes_no_step_and_constant_rates_are_the_rate_itself() -> None:
    ours = OptimizerConfig(warmup=3)
    assert [ours.rate(0.4, k, 10) for k in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    lr = 3e-4 / 7
    assert all(OptimizerConfig().rate(lr, k, 10) == lr for k in range(10))  # to the bit: recorded runs are such


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "adam"}, "optimizer must be one of adamw, adamw-bf16-moments, sgd; got 'adam'"),
        ({"schedule": "step"}, "schedule must be one of constant, linear, cosine; got 'step'"),
        ({"weight_decay": -0.1}, "weight_decay must be nonnegative"),
        ({"weight_decay": math.nan}, "weight_decay must be a number"),
        ({"momentum": 0.9}, "momentum is used by optimizer sgd only; optimizer is adamw"),
        ({"kind": "sgd", "momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"kind": "sgd", "beta1": 0.8}, "beta1, beta2 and epsilon are used by AdamW only"),
        ({"beta2": 1.0}, "beta2 must be at least 0 and below 1"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"warmup": -1}, "warmup must be at least 0"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        OptimizerConfig(**wrong)


def test_a_warm_up_longer_than_the_run() -> None:
    with pytest.raises(InputError, match="warmup must be below the 10 slow steps of the run, got 10"):
        TrainConfig(steps=5, tasks=("strings", "digits"), method="sft", optimizer=OptimizerConfig(warmup=10))


@pytest.mark.parametrize("method", METHODS)
def test_a_configuration_recorded_without_an_optimizer_has_the_default(method: str) -> None:
    recorded = asdict(TrainConfig(method=method))
    del recorded["optimizer"]
    assert TrainConfig.from_dict(recorded) == TrainConfig(method=method)
    assert TrainConfig(method=method).optimizer == OptimizerConfig()


def test_the_default_is_the_optimizer_of_recorded_runs() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    ours, theirs = OptimizerConfig().build([weight], 0.01), AdamW([weight], lr=0.01, weight_decay=0.0, fused=False)
    assert type(ours) is AdamW
    assert ours.state_dict() == theirs.state_dict()


# --- moments in bfloat16 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, 1.00123, -3.14159, 6.1e-20, 1.9999, -0.0, 3e-39])
def test_rounding_is_without_bias(value: float) -> None:
    """Over all 65,536 values of the bits the mean is the number itself, and only its two neighbours occur."""
    bits = torch.arange(1 << 16, dtype=torch.int32)
    exact = torch.tensor(value, dtype=torch.float32)
    rounded = _rounded(exact.repeat(1 << 16), bits)
    assert rounded.dtype == torch.bfloat16
    assert float(rounded.double().mean()) == pytest.approx(float(exact.double()), rel=1e-12, abs=0.0)
    neighbours = rounded.double().unique()
    assert len(neighbours) <= 2
    assert float(neighbours.max() - neighbours.min()) <= abs(float(exact)) * 2.0**-7 + 1e-38


def quadratic(optimizer: Any, weight: torch.nn.Parameter, steps: range, noise: float = 0.3) -> None:
    """Steps on a quadratic of badly scaled coordinates, with noise that depends on the number of the step alone."""
    scale = torch.logspace(-3, 1, weight.numel())
    for step in steps:
        drawn = torch.randn(weight.numel(), generator=torch.Generator().manual_seed(step))
        weight.grad = scale * (weight.detach() - 1.0) + noise * scale * drawn
        optimizer.step()


def test_the_first_step_is_that_of_adamw() -> None:
    """Moments are rounded after they were used."""
    weights = [torch.nn.Parameter(torch.linspace(-2.0, 2.0, 500)) for _ in range(2)]
    settings: dict[str, Any] = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    quadratic(AdamWHalfMoments([weights[0]], **settings), weights[0], range(1))
    quadratic(AdamW([weights[1]], **settings, foreach=False), weights[1], range(1))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("steps", [30, 600])
def test_the_path_is_that_of_adamw(steps: int) -> None:
    """Steps differ by about 2 % at random: the paths stay together while they are hundreds of roundings long."""
    weights = [torch.nn.Parameter(torch.linspace(-2.0, 2.0, 2000)) for _ in range(2)]
    half, whole = AdamWHalfMoments([weights[0]], lr=0.01, seed=5), AdamW([weights[1]], lr=0.01, weight_decay=0.0)
    quadratic(half, weights[0], range(steps))
    quadratic(whole, weights[1], range(steps))
    moved = (weights[1].detach() - torch.linspace(-2.0, 2.0, 2000)).abs().mean()
    gap = (weights[0] - weights[1]).detach()
    assert float(gap.abs().mean()) < 0.02 * float(moved)
    assert abs(float(gap.mean())) < 0.002 * float(moved), "no drift to one side"
    ratio = half.state[weights[0]]["exp_avg_sq"].double() / whole.state[weights[1]]["exp_avg_sq"].double()
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(ratio.std()) < 0.09  # what the docstring says


def test_rounding_to_the_nearest_would_never_forget_a_large_gradient() -> None:
    """Why bits are drawn: a second moment of one large gradient decays as in AdamW, where rounding to the nearest keeps it."""
    weight = torch.nn.Parameter(torch.zeros(4000))
    optimizer = AdamWHalfMoments([weight], lr=0.0, seed=1)
    nearest = torch.tensor(0.001, dtype=torch.bfloat16)
    weight.grad = torch.ones(4000)
    optimizer.step()
    weight.grad = torch.zeros(4000)
    for _ in range(1500):
        optimizer.step()
        nearest = (nearest.float() * 0.999).bfloat16()
    exact = 0.001 * 0.999**1500
    moment = optimizer.state[weight]["exp_avg_sq"].double()
    assert float(moment.mean()) == pytest.approx(exact, abs=4.0 * float(moment.std()) / math.sqrt(4000))
    assert float(nearest) > 3.0 * exact


def test_two_bytes_a_moment_and_a_continued_run_is_the_same(tmp_path: Path) -> None:
    """Also through a file, where torch would make float32 of them; and in parts, as large weights are taken."""
    whole, again = (torch.nn.Parameter(torch.linspace(-2.0, 2.0, 1500)) for _ in range(2))
    optimizer = AdamWHalfMoments([whole], lr=0.01, seed=3)
    quadratic(optimizer, whole, range(7))
    tensors, rest = pack_optimizer(optimizer, "optimizer")
    assert sum(t.numel() * t.element_size() for t in tensors.values()) == 4 * 1500 + 4
    write_checkpoint(tmp_path / "c", {**tensors, "weight": whole}, rest)
    found, meta = read_checkpoint(tmp_path / "c")
    again.data.copy_(found["weight"])
    other = AdamWHalfMoments([again], lr=1.0, seed=4)
    unpack_optimizer(other, "optimizer", found, meta)
    assert {str(t.dtype) for t in other.state[again].values()} == {"torch.float32", "torch.bfloat16"}
    quadratic(optimizer, whole, range(7, 15))
    quadratic(other, again, range(7, 15))
    assert torch.equal(whole, again)
    for name, value in optimizer.state[whole].items():
        assert torch.equal(value, other.state[again][name]), name


def test_seeds_steps_and_weights_have_random_bits_of_their_own() -> None:
    def moments(seed: int, count: int) -> list[torch.Tensor]:
        held = [torch.nn.Parameter(torch.ones(1000)) for _ in range(count)]
        optimizer = AdamWHalfMoments(held, lr=0.1, seed=seed)
        for weight in held:
            weight.grad = torch.full((1000,), 0.123)
        optimizer.step()
        return [optimizer.state[weight]["exp_avg_sq"] for weight in held]

    one, two = moments(0, 2)
    assert not torch.equal(one, two)
    assert torch.equal(one, moments(0, 1)[0])
    assert not torch.equal(one, moments(1, 1)[0])
