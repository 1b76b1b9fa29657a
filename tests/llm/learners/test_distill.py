"""FST-distill: the student moves to its teacher's distributions, in the direction that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.learners.distill import Distillation
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population


def distance(student: Policy, teacher: Policy, context: str) -> float:
    """KL(student without context || teacher in context) of the first token, by hand, over some prompts."""
    total = 0.0
    for problem in parse_rules("strings:reverse").problems("test")[:16]:
        with torch.no_grad():
            rows = []
            for policy, shown in ((student, ""), (teacher, context)):
                tokens = torch.tensor([policy.encode(shown, problem)])
                rows.append(torch.log_softmax(policy.model(tokens).logits[0, -1].double(), -1))
        total += float((rows[0].exp() * (rows[0] - rows[1])).sum())
    return total / 16


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_the_student_moves_to_the_teacher(direction: str, make_policy: Callable[..., Policy]) -> None:
    student, teacher = make_policy(seed=1), make_policy(seed=1)
    weights = Weights(student, teacher, torch.optim.AdamW(student.model.parameters(), lr=3e-3, weight_decay=0.0))
    learner = Distillation(problems=16, direction=direction, teacher_context="reverse", max_new_tokens=3)  # type: ignore[arg-type]
    before = distance(student, teacher, "reverse")
    rng = np.random.default_rng(0)
    for _ in range(25):
        _, info = learner.step(weights, Population(), parse_rules("strings:reverse"), rng)
        assert info.samples == 16
    assert distance(student, teacher, "reverse") < 0.6 * before


def test_without_a_context_there_is_nothing_to_learn(make_policy: Callable[..., Policy]) -> None:
    student, teacher = make_policy(seed=2), make_policy(seed=2)
    weights = Weights(student, teacher, torch.optim.SGD(student.model.parameters(), lr=0.1))
    learner = Distillation(problems=8, max_new_tokens=3)
    _, info = learner.step(weights, Population(), parse_rules("digits:plus"), np.random.default_rng(0))
    assert info.metrics["loss"] == pytest.approx(0.0, abs=1e-5)
    assert info.metrics["grad_norm"] == pytest.approx(0.0, abs=1e-4)


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="direction"):
        Distillation(direction="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="problems"):
        Distillation(problems=0)
