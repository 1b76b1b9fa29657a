"""Aims and paths on tiny random models: an aim is what the learner would step with, and aims at every step are the run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.llm.forecast.aim import joined, take_aim
from fstsim.llm.forecast.path import Field, Path
from fstsim.llm.forecast.rule import Piece, Rule, Station, at_pace, go
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.distill import Distillation
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population
from fstsim.theory.coarse_adam import SGD, AdamW, learning_rates

MakePolicy = Callable[..., Policy]
TASK = parse_task("strings:reverse/share")
LEARNERS: Sequence[Learner] = (
    SupervisedFineTuning(6, replay_share=0.3),
    PolicyGradient(problems=4, rollouts=4, leash_loss=0.1, max_new_tokens=6),
    PolicyGradient("reinforce", 4, 4, "centred", updates=2, leash_reward=0.1, max_new_tokens=6),
    Distillation(problems=4, teacher_context="reverse", max_new_tokens=6),
)
NAMES = ["sft", "cispo", "reinforce twice", "distill"]
STEPS = 5


def weights_of(policy: Policy, optimizer: Any = None, lr: float = 1e-3) -> Weights:
    base = Policy.of(copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer)
    with torch.no_grad():  # a leash to the policy itself would not pull
        for k, weight in enumerate(base.model.parameters()):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(k))
    made = optimizer or torch.optim.AdamW(policy.model.parameters(), lr=lr, weight_decay=0.1)
    return Weights(policy, base, made, clip=0.5)


@pytest.mark.parametrize("learner", LEARNERS, ids=NAMES)
def test_an_aim_is_what_the_learner_would_step_with(make_policy: MakePolicy, learner: Learner) -> None:
    """With SGD at learning rate 1 one step is the clipped gradient."""
    policy = make_policy()
    before = [p.detach().clone() for p in policy.model.parameters()]
    aim = take_aim(weights_of(policy), learner, Population(), TASK, np.random.default_rng(3), batches=2)
    assert all(torch.equal(p, b) for p, b in zip(policy.model.parameters(), before, strict=True))
    each, rng = [], np.random.default_rng(3)
    updates = getattr(learner, "updates", 1)
    if updates > 1:
        assert aim.updates == 2 * updates
        return
    for _ in range(2):
        learner.step(weights_of(policy, torch.optim.SGD(policy.model.parameters(), lr=1.0)), Population(), TASK, rng)
        each.append([b - p.detach() for p, b in zip(policy.model.parameters(), before, strict=True)])
        with torch.no_grad():
            for p, b in zip(policy.model.parameters(), before, strict=True):
                p.copy_(b)
    for g, q, one, two in zip(aim.g, aim.q, *each, strict=True):
        torch.testing.assert_close(g, (one + two) / 2.0, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(q, (one**2 + two**2) / 2.0, rtol=1e-3, atol=1e-7)
        assert (q >= g**2 * (1.0 - 1e-5)).all()
    norms = [sum(float((t**2).sum()) for t in some) ** 0.5 for some in each]
    assert max(norms) <= 0.5 + 1e-5


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("learner", LEARNERS, ids=NAMES)
def test_with_an_aim_at_every_step_it_is_the_run(make_policy: MakePolicy, learner: Learner, optimizer: str) -> None:
    policy = make_policy()
    run = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    rates = learning_rates("cosine", 1e-2, STEPS, warmup=2)
    if optimizer == "adamw":
        rule = Rule(AdamW(weight_decay=0.1), rates)
        made: Any = torch.optim.AdamW(run.model.parameters(), lr=1.0, weight_decay=0.1)
    else:
        rule = Rule(SGD(0.9, 0.01), rates)
        made = torch.optim.SGD(run.model.parameters(), lr=1.0, momentum=0.9, weight_decay=0.01)
    updates = getattr(learner, "updates", 1)
    if updates > 1:
        learner = replace(learner, updates=1)  # type: ignore[call-arg]  # an aim sees all of them at the same weights
    held, rng = weights_of(run, made), np.random.default_rng(7)
    settings = ForecastSettings(batches=1, most_batches=1, shortest=1, longest=1)
    start = Station.start(list(policy.model.parameters()))
    moving = Field(weights_of(policy), learner, Population(), TASK)
    path = Path(moving, rule, settings, lambda: np.zeros(1), np.random.default_rng(7), start)
    for step in range(STEPS):
        made.param_groups[0]["lr"] = float(rates[step])
        learner.step(held, Population(), TASK, rng)
        path.advance(path.next_piece(STEPS))
    assert path.station.step == STEPS
    assert path.spent.gradients == STEPS + 1
    for own, wanted in zip(path.station.weights, run.model.parameters(), strict=True):
        torch.testing.assert_close(own, wanted.detach(), rtol=1e-3, atol=2e-5)


def test_a_piece_of_constant_gradient_needs_no_correction(make_policy: MakePolicy) -> None:
    """Predicted and corrected agree where both aims are the same, in parts of several steps too."""
    policy = make_policy()
    aim = take_aim(weights_of(policy), LEARNERS[0], Population(), TASK, np.random.default_rng(0), batches=3)
    rule = Rule(AdamW(), learning_rates("linear", 1e-3, 60))
    station = Station.start(list(policy.model.parameters()))
    ends = []
    for piece in (Piece(aim, 50), Piece(aim, 50, aim, 50)):
        there = [torch.empty_like(t) for t in station.weights]
        assert go(rule, station, piece, there, stay=True) == 50
        ends.append(there)
    assert station.step == 0
    for one, two in zip(*ends, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_joined_aims_are_of_all_batches(make_policy: MakePolicy) -> None:
    held = weights_of(make_policy())
    whole = take_aim(held, LEARNERS[0], Population(), TASK, np.random.default_rng(5), batches=3)
    rng = np.random.default_rng(5)
    parts = [take_aim(held, LEARNERS[0], Population(), TASK, rng, batches=n) for n in (2, 1)]
    found = joined(*parts)
    assert (found.updates, found.batches) == (3, 3)
    for one, two in zip((*found.g, *found.q), (*whole.g, *whole.q), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)
    assert found.noise_share > 0.0


def test_pace() -> None:
    """Two updates a slow step have its rate twice; half as many have every other one."""
    rates = np.array([1.0, 2.0, 3.0, 4.0])
    assert at_pace(rates, 2.0).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert at_pace(rates, 0.5).tolist() == [2, 4]
    assert at_pace(rates, 0.0).size == 0


@pytest.mark.parametrize("length", [2, 8])
def test_error_above_the_tolerance_at_the_shortest_piece_is_lost(length: int, make_policy: MakePolicy) -> None:
    """A longer piece is refused, and shortened until it is the shortest."""
    policy = make_policy()
    start = Station.start(list(policy.model.parameters()))
    moving = Field(weights_of(policy), LEARNERS[0], Population(), TASK)
    weight = next(iter(policy.model.parameters()))
    rule = Rule(AdamW(), learning_rates("constant", 1e-3, 8))
    settings = ForecastSettings(tolerance=1e-9)
    read = lambda: weight.detach().double().numpy().ravel() * 10.0  # noqa: E731
    path = Path(moving, rule, settings, read, np.random.default_rng(0), start)
    path.length = length
    assert path.lost is None
    assert path.next_piece(8).length == 2
    assert path.length == 2
    assert path.lost == 0
