"""The response of the old behaviour along Adam's direction: a real first step, Adam's own recursion, and the calibration."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fstsim import InputError
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population
from fstsim.llm.validation.response import adam_direction, old_mass_response, response_forgetting

MakePolicy = Callable[..., Policy]
TASK = parse_rules("digits:plus")
SHOWN = SupervisedFineTuning(4)


def parameters(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def test_one_batch_is_the_first_step_of_a_run(make_policy: MakePolicy) -> None:
    policy = make_policy()
    before = parameters(policy)
    direction = adam_direction(policy, TASK, SHOWN, batches=1, seed=5)
    torch.testing.assert_close(parameters(policy), before, rtol=0.0, atol=0.0)
    learner = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    optimizer = torch.optim.AdamW(learner.model.parameters(), lr=0.01, weight_decay=0.0)
    SHOWN.step(Weights(learner, policy, optimizer), Population(), TASK, np.random.default_rng(5))
    moved = torch.cat([u.flatten() for u in direction])
    torch.testing.assert_close(parameters(learner), before - 0.01 * moved, rtol=0.0, atol=1e-6)
    assert float(moved.abs().max()) <= 1.0 + 1e-5  # the first step is a sign


def test_several_batches_are_the_running_means_at_fixed_weights(make_policy: MakePolicy) -> None:
    policy = make_policy(seed=1)
    direction = torch.cat([u.flatten() for u in adam_direction(policy, TASK, SHOWN, batches=3, seed=2)])
    seen: list[torch.Tensor] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]  # noqa: ARG002
            seen.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]).double().clone())

    still = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    weights, rng = Weights(still, policy, Recorder(still.model.parameters(), lr=1.0)), np.random.default_rng(2)
    for _ in range(3):
        SHOWN.step(weights, Population(), TASK, rng)
    first = sum(0.1 * 0.9 ** (2 - k) * g for k, g in enumerate(seen)) / (1 - 0.9**3)
    second = sum(0.001 * 0.999 ** (2 - k) * g * g for k, g in enumerate(seen)) / (1 - 0.999**3)
    expected = first / (second**0.5 + 1e-8)
    large = second > 1e-12  # where float32 has digits
    assert int(large.sum()) > 1000
    torch.testing.assert_close(direction.double()[large], expected[large], rtol=2e-3, atol=2e-3)


def test_response_is_measured_at_the_moved_weights(make_policy: MakePolicy) -> None:
    policy = make_policy(seed=3)
    direction = adam_direction(policy, TASK, SHOWN, batches=2)
    found = old_mass_response(policy, TASK, 6, direction, [0.0, 0.02])
    problems = [p for p in list(TASK.problems("test"))[:6] if TASK.answer(p) != TASK.old_answer(p)]
    answers = [TASK.old_answer(p) for p in problems]
    base = np.exp(answer_logprobs(policy, ("",), problems, answers))[0]
    np.testing.assert_allclose(found[0], base, rtol=1e-5)
    with torch.no_grad():
        for parameter, along in zip(policy.model.parameters(), direction, strict=True):
            parameter -= 0.02 * along
    np.testing.assert_allclose(found[1], np.exp(answer_logprobs(policy, ("",), problems, answers))[0], rtol=1e-4)


def test_calibrated_curve_on_a_known_response() -> None:
    """Mean mass ``0.4 e^(-3 d)``: the unit of distance cancels, and three times the step loses three times the log."""
    d = np.linspace(0.0, 4.0, 9)
    masses = 0.4 * np.exp(-3.0 * d)[:, None] * np.array([0.5, 1.5])
    found = response_forgetting(d, masses, 6, 0.4 * 0.7, [0, 6, 18, 1000])
    np.testing.assert_allclose(found[:3], 0.4 * 0.7 ** np.array([0.0, 1.0, 3.0]), rtol=1e-12)
    assert np.isnan(found[3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: response_forgetting([0.0, 1.0], [[0.5], [0.4]], 6, 0.1, 3), "not through 0.1"),
        (lambda: response_forgetting([0.0, 1.0], [[0.5], [0.4]], 6, 0.6, 3), "not through 0.6"),
        (lambda: response_forgetting([0.1, 1.0], [[0.5], [0.4]], 6, 0.45, 3), "distances must ascend from 0"),
        (lambda: response_forgetting([0.0, 1.0], [[0.5], [0.4]], 0, 0.45, 3), "step must be positive"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_batches_must_be_positive(make_policy: MakePolicy) -> None:
    with pytest.raises(InputError, match="batches must be at least 1"):
        adam_direction(make_policy(), TASK, SHOWN, batches=0)
