"""Intervals where the answer is known: learners whose gradients are written down, on controls that are linear in the weights."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.fast_slow import StepInfo
from fstsim.llm.forecast.control import RIGHT, Layout, from_odds, odds
from fstsim.llm.forecast.interval import Carried, carried, half_width
from fstsim.llm.forecast.path import Field, Path
from fstsim.llm.forecast.reading import OLD, Reading
from fstsim.llm.forecast.rule import Rule, Station
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population
from fstsim.theory.coarse_adam import SGD, AdamW, learning_rates

MakePolicy = Callable[..., Policy]
Array = NDArray[np.float64]
ANSWERS, SCALE, DRIFT, NOISE = 240, 20.0, 1.0, 0.4


@dataclass(frozen=True)
class Written(Learner):
    """Gradient ``drift + pull w + noise`` in every weight, ``updates`` times a step."""

    about = "a gradient that is written down"
    drift: float = DRIFT
    pull: float = 0.0
    noise: float = NOISE
    updates: int = 1

    def step(self, weights: Weights, context: Any, task: Any, rng: np.random.Generator) -> tuple[Weights, StepInfo]:  # noqa: ARG002
        for _ in range(self.updates):
            for p in weights.policy.model.parameters():
                draw = torch.from_numpy(rng.normal(size=tuple(p.shape))).to(p.dtype)
                p.grad = self.drift + self.pull * p.detach() + self.noise * draw
            weights.apply("a toy")
        return weights, StepInfo(samples=0)


def path_of(policy: Policy, learner: Learner, rule: Rule, settings: ForecastSettings) -> tuple[Path, Layout]:
    """Controls are log-odds ``SCALE`` times the change of the first weights."""
    weight = max(policy.model.parameters(), key=lambda p: p.numel())
    begun = weight.detach().double().numpy().ravel()[:ANSWERS].copy()

    def read() -> Array:
        return from_odds(SCALE * (weight.detach().double().numpy().ravel()[:ANSWERS] - begun))

    held = Weights(policy, policy, torch.optim.SGD(policy.model.parameters(), lr=0.0), clip=math.inf)
    moving = Field(held, learner, Population(), parse_task("strings:reverse/share"))
    start = Station.start(list(policy.model.parameters()))
    path = Path(moving, rule, settings, read, np.random.default_rng(5), start)
    return path, Layout({RIGHT: ANSWERS}, (), read())


def walk(path: Path, steps: int) -> None:
    while path.station.step < steps:
        path.advance(path.next_piece(steps))


def answer(k: int, reading: Reading) -> float:
    """Log-odds of one control."""
    return float(odds(reading.log_right)[k])


def variances(path: Path, layout: Layout, step: int) -> tuple[float, float]:
    """Of the log-odds of one answer in a run and in a path, mean over the answers."""
    each = [carried(path.made, layout, functools.partial(answer, k), step, path.rule.rates) for k in range(ANSWERS)]
    return float(np.mean([c.run for c in each])), float(np.mean([c.path for c in each]))


@pytest.mark.parametrize(("batches", "updates"), [(2, 1), (3, 1), (4, 2), (1, 1)])
def test_noise_of_a_run_under_sgd_is_exact(make_policy: MakePolicy, batches: int, updates: int) -> None:
    r"""\(Var(\ell) = s^2 h^2 \sigma^2 T\), that of the path about n/b times as much; within a piece in proportion."""
    steps, rate, length = 96, 1e-3, 6
    settings = ForecastSettings(
        tolerance=1e3, batches=batches, most_batches=batches, shortest=length, longest=length, replicates=1
    )
    rule = Rule(SGD(), learning_rates("constant", rate, steps))
    path, layout = path_of(make_policy(), Written(updates=updates), rule, settings)
    walk(path, steps)
    exact = SCALE**2 * rate**2 * NOISE**2 * updates
    for step in (steps, 45):
        run, mean = variances(path, layout, step)
        assert run == pytest.approx(exact * step, rel=0.15)  # 3,840 draws, 1,920
        if step == steps:
            assert mean == pytest.approx(run * length / batches, rel=0.02)


def test_noise_of_a_run_under_adam_bounds_that_of_simulated_runs(
    make_policy: MakePolicy, rng: np.random.Generator
) -> None:
    steps, rate, many = 120, 1e-3, 4000
    settings = ForecastSettings(tolerance=1e3, batches=2, most_batches=2, shortest=6, longest=6, replicates=1)
    adam = AdamW()
    path, layout = path_of(make_policy(), Written(), Rule(adam, learning_rates("constant", rate, steps)), settings)
    walk(path, steps)
    w, m, v = np.zeros(many), np.zeros(many), np.zeros(many)
    for t in range(1, steps + 1):
        g = DRIFT + NOISE * rng.normal(size=many)
        m, v = adam.beta1 * m + (1 - adam.beta1) * g, adam.beta2 * v + (1 - adam.beta2) * g * g
        w -= rate * (m / (1 - adam.beta1**t)) / (np.sqrt(v / (1 - adam.beta2**t)) + adam.eps)
    # a bound: the run's own noise is in what its gradients are divided by, too
    assert 0.9 <= variances(path, layout, steps)[0] / (SCALE**2 * w.var()) <= 3.0


def test_error_of_pieces_holds_that_of_a_quadratic(make_policy: MakePolicy) -> None:
    r"""\(w_{t+1} = w_t - h (d + k w_t)\): the interval at the end of many pieces has the exact end in it, and is no wild guess."""
    steps, rate, pull = 120, 1e-2, 3.0
    policy = make_policy()
    begun = max(policy.model.parameters(), key=lambda p: p.numel()).detach().double().numpy().ravel()[:ANSWERS].copy()
    settings = ForecastSettings(tolerance=1e3, batches=2, most_batches=2, shortest=12, longest=12, replicates=1)
    rule = Rule(SGD(), learning_rates("constant", rate, steps))
    path, layout = path_of(policy, Written(1.0, pull, 0.0), rule, settings)
    of: Any = lambda r: float(odds(r.log_right).mean())  # noqa: E731
    while path.station.step < steps:
        piece = path.next_piece(steps)
        last = path.made[-1]
        path.advance(piece)
    rest = -1.0 / pull
    exact = SCALE * float(((begun - rest) * (1.0 - rate * pull) ** steps - (begun - rest)).mean())
    value = float(np.mean(last["odds"]))
    on_the_way = carried(path.made, layout, of, steps, rule.rates)
    assert max(on_the_way.run, on_the_way.path) < 1e-12
    half = half_width(np.array([value]), [float(np.mean(last["drift"]))], [on_the_way])
    assert 0.01 < abs(value - exact) <= half
    assert half < 0.1 * abs(exact)


def test_interval_covers_new_runs(make_policy: MakePolicy) -> None:
    """Of 2,000 runs of SGD, whose ends are drawn from their exact law, about 93 % lie within: each bound has 95, the smaller one less."""
    steps, rate = 96, 1e-3
    settings = ForecastSettings(tolerance=1e3, batches=2, most_batches=2, shortest=6, longest=6)
    rule = Rule(SGD(), learning_rates("constant", rate, steps))
    rng, inside = np.random.default_rng(0), []
    paths = []
    for seed in (1, 2):
        path, layout = path_of(make_policy(), Written(), rule, settings)
        path.rng = np.random.default_rng(seed)
        walk(path, steps)
        paths.append(path)
    ends = rng.normal(-SCALE * rate * DRIFT * steps, SCALE * rate * NOISE * math.sqrt(steps), size=(2000, ANSWERS))
    for k in range(ANSWERS):
        of: Any = functools.partial(answer, k)
        values = np.array([path.made[-1]["odds"][k] for path in paths])
        ways = [carried(path.made, layout, of, steps, rule.rates) for path in paths]
        half = half_width(values, [0.0, 0.0], ways)
        inside.append(np.abs(ends[:, k] - values.mean()) <= half)
    assert 0.91 <= float(np.mean(inside)) <= 0.96  # .926: now and then two paths agree by chance


def test_half_width() -> None:
    """The smaller bound of noise, and the error of the pieces; Student's t of two is 12.706, of three 4.303."""
    values, student = np.array([1.0, 1.2]), 12.7062**2 * 0.02 * 1.5
    ways = [Carried(0.1, 0.3, 0.4), Carried(-0.3, 0.5, 0.8)]
    assert half_width(values, [0.2, -0.2], ways) == pytest.approx(math.sqrt(4 * (0.4 + 0.3) + 0.4**2))
    far = [Carried(0.1, 30.0, 40.0), Carried(-0.3, 50.0, 80.0)]
    assert half_width(values, [0.2, -0.2], far) == pytest.approx(math.sqrt(student + 0.4**2), rel=1e-4)
    assert half_width(values, [0.2, -0.2], [Carried()] * 2) == pytest.approx(math.sqrt(student + 0.04), rel=1e-4)
    assert half_width(values[:1], [0.2], [Carried(0.0, 0.5, 0.3)]) == pytest.approx(math.sqrt(4 * 0.8 + 0.04))
    assert half_width(values[:1], [0.2], [Carried()]) == pytest.approx(0.2)
    three = np.array([1.0, 1.1, 1.2])
    assert half_width(three, [0.0] * 3, [Carried()] * 3) == pytest.approx(4.30265 * 0.1 * math.sqrt(4 / 3), rel=1e-4)


def test_layout_reads_quantities_off_controls(rng: np.random.Generator) -> None:
    assert expit(odds(np.log([0.2, 0.7]))) == pytest.approx([0.2, 0.7])
    assert from_odds(odds(np.log([0.2, 1e-9, 0.999]))) == pytest.approx(np.log([0.2, 1e-9, 0.999]))
    assert np.isfinite(odds(np.zeros(1))).all()
    start, now = (np.log(rng.uniform(0.05, 0.45, size=8)) for _ in range(2))
    layout = Layout({RIGHT: 3, OLD: 3, "digits:plus": 2}, (1,), start)
    sorted_keys = json.loads(json.dumps(layout.to_dict(), sort_keys=True))
    assert Layout.from_dict(sorted_keys).reading(now).reward.tolist() == pytest.approx(np.exp(now[:3]).tolist())
    found = layout.reading(now)
    assert found.log_old_mass == pytest.approx(math.log(np.exp(now[[3, 5]]).mean()))
    assert found.skill_reward["digits:plus"].tolist() == np.exp(now[6:]).tolist()
    p, q = (np.array([np.exp(x[0]), np.exp(x[3]), 1 - np.exp(x[0]) - np.exp(x[3])]) for x in (now, start))
    assert found.kl_to_base[0] == pytest.approx((p * np.log(p / q)).sum())
    assert found.kl_from_base[0] == pytest.approx((q * np.log(q / p)).sum())
    assert layout.reading(start).kl_to_base == pytest.approx(np.zeros(3))
    bare = Layout({"digits:plus": 2}, (), start[6:]).reading(start[6:])
    assert np.isnan(bare.reward).all()
    assert np.isnan(bare.log_old_mass)
    assert carried([{"from": 0, "steps": 4, "odds": [0.0]}], None, lambda r: r.log_old_mass, 3, np.ones(4)) == Carried()
