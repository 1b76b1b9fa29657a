"""KL on prompts of old skills: against enumeration by plain passes, over which prompts, and none where nothing is asked."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.old_prompts import OldPrompts, task_prompts, world_prompts
from fstsim.llm.runs.probes import Probe, ProbeConfig
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population

CONFIG = ProbeConfig(problems=4, exam=2, max_new_tokens=8)


@pytest.fixture(scope="module")
def base() -> Policy:
    return Policy.load("base")


@pytest.fixture(scope="module")
def moved(base: Policy) -> Policy:
    """The base with every weight changed a little."""
    policy = Policy.of(copy.deepcopy(base.model), base.tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.02 * weight.std() * torch.randn(weight.shape, generator=generator)
    return policy


def plain_kl(p: Policy, q: Policy, prompt: list[int], written: list[int]) -> float:
    """KL(p || q) summed over the tokens of one completion, by one unpadded pass of transformers a model."""
    tokens = torch.tensor([[*prompt, *written]])
    rows = slice(len(prompt) - 1, len(prompt) - 1 + len(written))
    with torch.no_grad():
        logs = [torch.log_softmax(x.model(tokens).logits[0, rows].double(), -1) for x in (p, q)]
    return float((logs[0].exp() * (logs[0] - logs[1])).sum())


def test_kl_is_that_of_plain_passes(base: Policy, moved: Policy) -> None:
    asked = world_prompts(base, 2)
    old = OldPrompts(base, asked, CONFIG)
    row = old.measure(moved)
    for column, p, q in (("old_kl_to_base", moved, base), ("old_kl_from_base", base, moved)):
        wrote = old._sampled(p)
        kls = [
            plain_kl(p, q, p.encode(*pair), tokens[inside].tolist())
            for pair, tokens, inside in zip(asked, wrote.completions, wrote.mask, strict=True)
        ]
        assert row[column] == pytest.approx(float(np.mean(kls)), rel=1e-4)
        assert row[f"{column}_se"] == pytest.approx(float(np.std(kls, ddof=1) / np.sqrt(len(kls))), rel=1e-3)
    assert old.measure(base) == pytest.approx(dict.fromkeys(row, 0.0), abs=1e-12)


def test_prompts_name_the_rules_of_old_skills(base: Policy) -> None:
    asked = world_prompts(base, 2)
    assert len(asked) == 2 * 3 * 3, "one to three rules, three families"
    assert all(words for words, _ in asked)
    assert len(world_prompts(base, 100)) == 8 * 3 * 3
    task, text = parse_task("digits:plus"), parse_task("language:text")
    assert [words for words, _ in task_prompts(base, (task, text), 3)] == ["plus"] * 3


def test_every_probe_has_them_beside_the_exam(base: Policy, moved: Policy) -> None:
    task = parse_task("digits:plus")
    row = Probe(base, task, CONFIG, skills=old_skills(base, (), CONFIG, 0)).measure(moved, Population())
    now, start = (torch.nn.utils.parameters_to_vector(x.model.parameters()).detach() for x in (moved, base))
    assert row["weight_distance"] == pytest.approx(float((now - start).norm() / start.norm()), rel=1e-4)
    assert row["old_kl_to_base"] > 0.0
    assert "drift" in row
