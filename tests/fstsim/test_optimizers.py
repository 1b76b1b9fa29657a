"""AdamW in the simulator: torch's own optimizer step by step, finite batches, batch axes, and runs that are killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fstsim import (
    OAPL,
    SDFT,
    AdamW,
    ForwardKL,
    InputError,
    Objective,
    ReverseKL,
    Trajectory,
    TwoModeProblem,
    TwoModeState,
    simulate,
)
from fstsim.method_loops import Regression, Teacher, simulate_oapl, simulate_sdft
from fstsim.optimizers import AdamMoments, adamw_change
from fstsim.simulate import Part, adam_moments
from fstsim.simulation_run import SimulationConfig, run_simulation

SKEWED = TwoModeProblem(0.6, [0.0, 1.0], [2.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
RATES = st.floats(1e-3, 0.5)
NUMBERS = st.floats(-5.0, 5.0)


def torch_steps(start: np.ndarray, gradients: list[np.ndarray], how: AdamW) -> list[np.ndarray]:
    parameter = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    other = torch.optim.AdamW(
        [parameter], lr=how.lr, betas=(how.beta1, how.beta2), eps=how.eps, weight_decay=how.weight_decay
    )
    path = [start]
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        if how.clip is not None:
            torch.nn.utils.clip_grad_norm_([parameter], how.clip)
        other.step()
        path.append(parameter.detach().numpy().copy())
    return path


@settings(max_examples=40)  # each builds a torch optimizer
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=12),
    RATES,
    st.floats(0.0, 0.99),
    st.floats(0.5, 0.9999),  # a size that forgets at once amplifies rounding without limit
    st.sampled_from([1e-8, 1e-3]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([None, 1.0]),
)
def test_each_step_is_that_of_torch(
    rows: list[tuple[float, float, float]],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    clip: float | None,
) -> None:
    how = AdamW(lr, beta1, beta2, eps, decay, clip=clip)
    gradients = [np.array(row) for row in rows]
    start = np.array([0.3, -1.0, 2.0])
    moments, now = AdamMoments.zeros((3,)), start
    for gradient, expected in zip(gradients, torch_steps(start, gradients, how)[1:], strict=True):
        now = now + adamw_change(now, gradient, moments, how)
        np.testing.assert_allclose(now, expected, rtol=0.0, atol=1e-12)
    assert moments.step == len(rows)


def packed(problem: TwoModeProblem, state: TwoModeState) -> np.ndarray:
    """Log-odds and whitened means: what the optimizer sees."""
    return np.concatenate([state.log_odds[None], problem.whiten(state.mean_old), problem.whiten(state.mean_new)])


@pytest.mark.parametrize("objective", [ForwardKL(SKEWED, 0.2), ReverseKL(SKEWED)], ids=["forward", "reverse"])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_a_run_is_that_of_torch(objective: Objective, decay: float) -> None:
    """torch follows the same exact gradients, in coordinates with unit covariance, for 60 steps."""
    how = AdamW(0.03, weight_decay=decay)
    start = SKEWED.initial(0.7, [0.4, -0.3])
    run = simulate(SKEWED, objective, start, how, 60)
    d = SKEWED.dimension
    root = np.linalg.cholesky(SKEWED.covariance)
    parameter = torch.tensor(packed(SKEWED, start), requires_grad=True)
    other = torch.optim.AdamW([parameter], lr=how.lr, weight_decay=decay)
    for k in range(60):
        y = parameter.detach().numpy().copy()
        here = TwoModeState(y[0], root @ y[1 : d + 1], root @ y[d + 1 :])
        np.testing.assert_allclose(packed(SKEWED, run.state(k)), y, rtol=0.0, atol=1e-11)
        g = objective.gradient(here)
        parameter.grad = torch.tensor(np.concatenate([g.log_odds[None], root.T @ g.mean_old, root.T @ g.mean_new]))
        other.step()


def test_units_do_not_matter() -> None:
    """Steps are taken in whitened coordinates: another unit of length, the same masses and Mahalanobis drift."""
    scaled = TwoModeProblem(0.6, 7.0 * SKEWED.mean_old, 7.0 * SKEWED.mean_new, 49.0 * SKEWED.covariance)
    runs = [simulate(p, ForwardKL(p), p.initial(0.7), AdamW(0.05), 50) for p in (SKEWED, scaled)]
    np.testing.assert_allclose(runs[0].log_odds, runs[1].log_odds, rtol=1e-9)
    np.testing.assert_allclose(runs[0].drift, runs[1].drift, rtol=1e-7, atol=1e-12)


def test_replicates_do_not_see_each_other(rng: np.random.Generator) -> None:
    starts = TwoModeState(rng.normal(size=5), rng.normal(size=(5, 2)), rng.normal(size=(5, 2)))
    together = simulate(SKEWED, ForwardKL(SKEWED), starts, AdamW(0.02, weight_decay=0.1), 30)
    for i in range(5):
        one = TwoModeState(starts.log_odds[i], starts.mean_old[i], starts.mean_new[i])
        alone = simulate(SKEWED, ForwardKL(SKEWED), one, AdamW(0.02, weight_decay=0.1), 30)
        np.testing.assert_allclose(together.log_odds[:, i], alone.log_odds, rtol=1e-12)
        np.testing.assert_allclose(together.mean_old[:, i], alone.mean_old, rtol=1e-12, atol=1e-14)


def test_weight_alone() -> None:
    """``train="weight"``: means neither move nor decay, and the log-odds start with ``lr`` a step (`adam-monotone-step`)."""
    problem = TwoModeProblem.separated(8.0)
    run = simulate(problem, ForwardKL(problem), problem.initial(0.9), AdamW(0.1, train="weight"), 8)
    np.testing.assert_array_equal(run.mean_old, np.zeros((9, 1)))
    np.testing.assert_array_equal(run.mean_new, np.full((9, 1), 8.0))
    steps = -np.diff(run.log_odds)
    assert steps[0] == pytest.approx(0.1, rel=1e-6)
    assert (steps <= 0.1).all()
    assert (steps > 0.09).all()


def test_batches_are_drawn_and_counted() -> None:
    problem = TwoModeProblem.separated(4.0)
    how = AdamW(0.02, batch=64, train="weight")
    starts = TwoModeState(np.zeros(200), np.zeros((200, 1)), np.full((200, 1), 4.0))
    run = simulate(problem, ForwardKL(problem), starts, how, 40, np.random.default_rng(3))
    np.testing.assert_array_equal(run.samples, 64 * np.arange(41))
    again = simulate(problem, ForwardKL(problem), starts, how, 40, np.random.default_rng(3))
    np.testing.assert_array_equal(run.log_odds, again.log_odds)
    # large batches follow the exact gradient: the mean of 200 runs is near it, within the spread that they show
    exact = simulate(problem, ForwardKL(problem), problem.initial(0.5), replace(how, batch=None), 40)
    spread = run.log_odds[-1].std(ddof=1)
    assert 0.0 < spread < 0.1
    assert abs(run.log_odds[-1].mean() - exact.log_odds[-1]) < 5.0 * spread / np.sqrt(200) + 0.02
    with pytest.raises(InputError, match="AdamW draws batches"):
        simulate(problem, ForwardKL(problem), starts, how, 1)


def test_memory_carries_a_run_on() -> None:
    whole = simulate(SKEWED, ForwardKL(SKEWED), SKEWED.initial(0.7), AdamW(0.05), 40)
    memory = adam_moments(SKEWED.initial(0.7))
    first = simulate(SKEWED, ForwardKL(SKEWED), SKEWED.initial(0.7), AdamW(0.05), 15, part=Part(moments=memory))
    assert memory.step == 15
    both = first.then(simulate(SKEWED, ForwardKL(SKEWED), first.state(), AdamW(0.05), 25, part=Part(moments=memory)))
    np.testing.assert_array_equal(both.log_odds, whole.log_odds)
    np.testing.assert_array_equal(both.mean_new, whole.mean_new)
    forgetful = simulate(SKEWED, ForwardKL(SKEWED), first.state(), AdamW(0.05), 25)
    assert abs(forgetful.log_odds[1] - whole.log_odds[16]) > 1e-3
    with pytest.raises(InputError, match=r"moments of shape \(2,\) belong to other learners"):
        simulate(
            SKEWED, ForwardKL(SKEWED), SKEWED.initial(0.7), AdamW(0.05), 1, part=Part(moments=AdamMoments.zeros((2,)))
        )


def test_divergence_ends_the_run() -> None:
    problem = TwoModeProblem.separated(2.0)
    run = simulate(problem, ForwardKL(problem), problem.initial(0.5), AdamW(100.0), 20)
    assert run.status == "diverged"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": 0.1, "beta1": 1.0}, r"beta1 must lie in \[0, 1\)"),
        ({"lr": 0.1, "beta2": -0.1}, r"beta2 must lie in \[0, 1\)"),
        ({"lr": 0.1, "eps": 0.0}, "eps must be positive"),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay must be nonnegative"),
        ({"lr": 0.1, "batch": 0}, "batch must be at least 1"),
        ({"lr": 0.1, "clip": 0.0}, "clip must be positive"),
        ({"lr": 0.1, "train": "none"}, "train must be one of"),
    ],
)
def test_bad_input(bad: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdamW(**bad)  # type: ignore[arg-type]


# --- run directories --------------------------------------------------------------------------------------------------

CONFIG = SimulationConfig(optimizer="adamw", steps=47, batch=4, replicates=3, seed=1, lr=0.05, weight_decay=0.01)


class Killed(BaseException):
    """Stands for a kill at one exact place."""


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, batch=0, replicates=1)], ids=["batches", "exact"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_run_goes_on_to_the_same_rows(
    config: SimulationConfig, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    real, made = Trajectory.save, 0

    def save(self: Trajectory, path: Path, generator: str = "") -> None:
        nonlocal made
        real(self, path, generator)
        made += 1
        if made == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trajectory, "save", save)
        with pytest.raises(Killed):
            run_simulation(config, killed, segment=10)
    run_simulation(config, killed, segment=10)
    run_simulation(config, whole, segment=10)
    for name in ("metrics.jsonl", "config.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    with np.load(killed / "checkpoint.npz") as one, np.load(whole / "checkpoint.npz") as other:
        for name in one.files:
            assert one[name].tobytes() == other[name].tobytes(), name
        assert json.loads(str(one["generator"]))["adamw"]["step"] == 47


def test_segments_do_not_show(tmp_path: Path) -> None:
    config = replace(CONFIG, replicates=1)
    problem = config.problem()
    optimizer = config.optimizer_of()
    assert optimizer == AdamW(0.05, batch=4, weight_decay=0.01)
    start, rng = config.initial_of(problem), np.random.default_rng(config.seed)
    plain = simulate(problem, config.objective_of(problem), start, optimizer, config.steps, rng)
    run = run_simulation(config, tmp_path, segment=7)
    for name in ("log_odds", "mean_old", "mean_new", "samples"):
        np.testing.assert_array_equal(getattr(run, name), getattr(plain, name))


def test_a_diverged_run_stays_so(tmp_path: Path) -> None:
    config = SimulationConfig(optimizer="adamw", lr=100.0, steps=20, batch=0)
    assert run_simulation(config, tmp_path).status == "diverged"
    assert run_simulation(config, tmp_path).status == "diverged"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"geometry": "fisher"}, "geometry must be logit with optimizer adamw"),
        ({"batch": 0, "replicates": 2}, "replicates must be 1 with exact adamw"),
        ({"batch": 1, "objective": "reverse"}, "batch must be at least 2 with the reverse objective"),
        ({"beta2": 1.0}, r"beta2 must lie in \[0, 1\)"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"optimizer": "sgd", "batch": 0}, "batch must lie in 1"),
    ],
)
def test_bad_configurations(bad: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SimulationConfig(**{"optimizer": "adamw", **bad})  # type: ignore[arg-type]


def test_the_loops_of_the_methods_keep_its_memory() -> None:
    """One step of SDFT or OAPL at a time, with one memory: constant drift of the logit at full speed, as in one go."""
    problem = TwoModeProblem.separated(6.0, alpha=0.5)
    state, optimizer = problem.initial(0.5), AdamW(lr=0.01, train="weight")
    free = simulate_oapl(problem, state, Regression(0.0, 1.0, 1.0), 1, 30, optimizer)
    objective = OAPL(problem, state, 0.0, 1.0, 1.0)
    assert free.log_odds == pytest.approx(simulate(problem, objective, state, optimizer, 30).log_odds)
    student, _ = simulate_sdft(problem, state, Teacher(1.0, 0.0), optimizer, 30)
    teacher = SDFT(problem, state, 1.0)
    assert student.log_odds == pytest.approx(simulate(problem, teacher, state, optimizer, 30).log_odds)
