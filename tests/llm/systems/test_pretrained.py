"""Soft tokens and proxy-tuning on SmolLM2-135M as it is: mechanics, no claims."""

from __future__ import annotations

import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.pretrained import cached_path
from fstsim.llm.policy.rollouts import token_logprobs
from fstsim.llm.systems.proxy import ProxyPolicy
from fstsim.llm.systems.soft import SOFT, SoftPolicy
from fstsim.llm.systems.system import Asked, Bare
from fstsim.llm.types import Problem

pytestmark = [
    pytest.mark.pretrained,
    pytest.mark.skipif(not cached_path("smollm2").exists(), reason="fstsim model smollm2 has not been run"),
]
ASKED: list[Asked] = [("", Problem("", "", "Write the word cat.")), ("Be brief.", Problem("", "", "What is 2 + 3?"))]


@pytest.fixture(scope="module")
def smollm2() -> Policy:
    policy = Policy.load("smollm2")
    policy.model.requires_grad_(False)
    return policy


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_model_steered_by_itself_is_itself(smollm2: Policy) -> None:
    base = Bare(smollm2).sample(ASKED, seeded(), max_new_tokens=4, temperature=0.0)
    with torch.no_grad():
        logits = Bare(smollm2).logits(ASKED, base)
    for alpha in (0.0, 1.0):
        system = ProxyPolicy(smollm2, smollm2, smollm2, alpha)
        wrote = system.sample(ASKED, seeded(), max_new_tokens=4, temperature=0.0)
        assert torch.equal(wrote.completions, base.completions)
        with torch.no_grad():
            assert torch.equal(system.logits(ASKED, base), logits)


@pytest.mark.parametrize("place", ["context", "thought"])
def test_a_model_that_assists_itself(smollm2: Policy, place: str) -> None:
    """Embeddings of words in place of the vectors are the words; gradients reach the projection alone."""
    system = SoftPolicy.start(smollm2, smollm2, 3, 0)
    acting = (
        system.trained_as
        if place == "context"
        else SoftPolicy(smollm2, smollm2, system.projection, place="thought").trained_as
    )
    prompts = acting.encode_all(ASKED)
    words = [7, 99, 1234]
    with torch.no_grad():
        system.projection.bias.copy_(smollm2.model.get_input_embeddings()(torch.tensor(words)))
    told = [[words[row[:i].count(SOFT)] if token == SOFT else token for i, token in enumerate(row)] for row in prompts]
    shown, spelt = acting.forced(prompts, [[5, 6], [8, 9]]), smollm2.forced(told, [[5, 6], [8, 9]])
    found = acting.logits(shown)
    torch.testing.assert_close(found, smollm2.logits(spelt), atol=2e-3, rtol=1e-3)
    token_logprobs(found, shown).sum().backward()
    assert system.projection.bias.grad is not None
    assert system.projection.matrix.grad is not None
    assert system.projection.matrix.grad.abs().sum() > 0.0
    system.projection.bias.grad = system.projection.matrix.grad = None
