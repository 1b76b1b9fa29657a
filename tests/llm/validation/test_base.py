"""The base that predictions are computed from answers as any policy does, and equal weights only once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.base import Base
from tests.tiny_models import MakePolicy


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts were computed, call by call."""
    found: list[int] = []
    plain = Policy.answer_logprobs

    def counted(self: Policy, prompts: Any, answers: Any) -> torch.Tensor:
        found.append(len(prompts))
        return plain(self, prompts, answers)

    monkeypatch.setattr(Policy, "answer_logprobs", counted)
    return found


def test_equal_weights_are_asked_once(make_policy: MakePolicy, asked: list[int]) -> None:
    policy = make_policy(seed=0)
    base, again = (Base.of(model, policy.tokenizer) for model in (policy.model, copy.deepcopy(policy.model)))
    prompts, answers = [[5, 6, 7], [8, 9]], [[4, 2], [6, 3, 2]]
    first = base.answer_logprobs(prompts, answers)
    torch.testing.assert_close(first, policy.answer_logprobs(prompts, answers), rtol=0, atol=0)
    assert asked == [2, 2], "once by each"
    first += 1.0  # what is handed out is nobody else's
    torch.testing.assert_close(again.answer_logprobs(prompts, answers) + 1.0, first, rtol=0, atol=0)
    assert asked == [2, 2]
    base.answer_logprobs(prompts[::-1], answers[::-1])
    assert asked == [2, 2, 2], "another question"


def test_other_weights_are_asked_for_themselves(make_policy: MakePolicy, asked: list[int]) -> None:
    prompts, answers = [[5, 6, 7]], [[7, 4, 2]]
    values = [
        Base.of(policy.model, policy.tokenizer).answer_logprobs(prompts, answers)
        for policy in (make_policy(seed=1), make_policy(seed=2))
    ]
    assert asked == [1, 1]
    assert not torch.equal(*values)
