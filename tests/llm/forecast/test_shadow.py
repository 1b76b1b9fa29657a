"""Forecasts of learners with a second copy of the weights: aims at every step are the run, averages against a plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.llm.forecast.aim import Aim
from fstsim.llm.forecast.path import Field, Path
from fstsim.llm.forecast.rule import Rule, Station
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.forecast.shadow import averaged, held_still, next_jump, shadow_of
from fstsim.llm.forecast.start import moving
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population
from fstsim.theory.coarse_adam import AdamW, learning_rates

MakePolicy = Callable[..., Policy]
TASK = parse_task("strings:reverse/share")
STEPS = 5


def weights_of(policy: Policy, optimizer: Any) -> Weights:
    base = Policy.of(copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer)
    return Weights(policy, base, optimizer, clip=0.5)


class Noted(Path):
    """Remembers the state of its generator before the last aim."""

    drawn_from: Any = None

    def _take(self) -> Aim:
        self.drawn_from = self.rng.bit_generator.state
        return super()._take()


@pytest.mark.parametrize(
    "learner",
    [
        SDFT(problems=6, ema_rate=0.2, teacher_share=0.5, max_new_tokens=6),
        OAPL(problems=4, rollouts=4, period=2, max_new_tokens=6),
    ],
    ids=["sdft", "oapl"],
)
def test_with_an_aim_at_every_step_it_is_the_run(make_policy: MakePolicy, learner: Learner) -> None:
    policy = make_policy()
    run = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    rates = learning_rates("linear", 1e-2, STEPS)
    made = torch.optim.AdamW(run.model.parameters(), lr=1.0, weight_decay=0.0)
    held: Any = learner.hold(weights_of(run, made))
    still = held_still(learner.hold(weights_of(policy, torch.optim.SGD(policy.model.parameters(), lr=0.0))))
    start = Station.start(moving(policy), shadowed=True)
    settings = ForecastSettings(batches=1, most_batches=1, shortest=1, longest=1)
    field = Field(still, learner, Population(), TASK)
    path = Noted(field, Rule(AdamW(), rates), settings, lambda: np.zeros(1), np.random.default_rng(7), start)
    rng = np.random.default_rng(7)
    for step in range(STEPS):
        if step:  # where the shadow has jumped this is another draw than that at the end of the piece
            rng.bit_generator.state = path.drawn_from
        made.param_groups[0]["lr"] = float(rates[step])
        held, _ = learner.step(held, Population(), TASK, rng)
        path.advance(path.next_piece(STEPS))
    for mine, theirs in ((path.station.weights, moving(run)), (path.station.shadow, moving(held.shadow))):
        own, wanted = (torch.cat([t.detach().ravel() for t in group]) for group in (mine, theirs))
        # a gradient that is nothing but rounding has a direction of its own under Adam
        off = (own - wanted).abs() > 3e-5 + 1e-3 * wanted.abs()
        assert off.float().mean() < 2e-3


def test_an_average_along_a_straight_line(rng: np.random.Generator) -> None:
    for rate, steps in ((0.0, 3), (0.1, 7), (0.5, 1), (1.0, 4)):
        began, end, shadow = rng.normal(size=(3, 5))
        kept, share = averaged(rate, steps)
        found = kept * shadow + (1.0 - kept) * began + share * (end - began)
        for j in range(1, steps + 1):
            shadow = shadow + rate * (began + (end - began) * j / steps - shadow)
        np.testing.assert_allclose(found, shadow, atol=1e-12)


def test_pieces_end_where_the_shadow_jumps(make_policy: MakePolicy) -> None:
    assert [next_jump(OAPL(period=5), step, 12) for step in (0, 4, 5, 9, 11)] == [5, 5, 10, 10, 12]
    assert next_jump(SDFT(ema_rate=0.1), 3, 12) == 12
    assert shadow_of(weights_of(make_policy(), None)) == []
