"""Systems against the policies and mixtures that they are: plain probabilities of whole completions, and the policy's own paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.systems.measure import SystemExam, answer_scores, deployed_kl, system_rewards
from fstsim.llm.systems.system import Asked, Bare, Deployed, bare_prompts, mixed_logits, sample_stepwise
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Problem

MakePolicy = Callable[..., Policy]
ASKED: list[Asked] = [
    ("", Problem("strings", "AB", "")),
    ("next", Problem("strings", "HGF", "")),
    ("", Problem("digits", "12", "")),
]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Mixture(Deployed):
    """The same policy in two contexts, of which one is drawn for each completion."""

    policy: Policy
    contexts: tuple[str, ...]
    weights: tuple[float, ...]

    @property
    def bare(self) -> Policy:
        return self.policy

    def logits(self, asked: Sequence[Asked], rollouts: Rollouts) -> torch.Tensor:
        parts = [Bare(self.policy).logits([(c, p) for _, p in asked], rollouts) for c in self.contexts]
        return mixed_logits(parts, torch.tensor(self.weights).log().expand(len(asked), -1), rollouts)


def test_a_mixture_has_the_mean_of_its_parts_probabilities(make_policy: MakePolicy) -> None:
    """Of whole answers: sums of probabilities in each context, however unlike the parts are."""
    policy = make_policy(seed=0)
    contexts, weights = ("next", "reverse rotate", ""), (0.7, 0.3, 0.0)
    problems = [p for _, p in ASKED]
    for answers in (["", "A", "12"], ["BAB", "HG", "3"]):
        each = np.exp(answer_logprobs(policy, contexts, problems, answers))
        logps, _ = answer_scores(Mixture(policy, contexts, weights), [("", p) for p in problems], answers)
        np.testing.assert_allclose(np.exp(logps), np.asarray(weights) @ each, rtol=2e-5)


def test_a_bare_policy_is_the_policy(make_policy: MakePolicy) -> None:
    policy = make_policy(seed=3)
    wrote = policy.sample(bare_prompts(policy, ASKED), 1, seeded(0), max_new_tokens=5)
    system = Bare(policy)
    again = system.sample(ASKED, seeded(0), max_new_tokens=5)
    stepwise = sample_stepwise(system, ASKED, seeded(0), 5, 1.0)
    greedy = sample_stepwise(system, ASKED, seeded(0), 5, 0.0)
    for found in (again, stepwise):
        assert torch.equal(found.completions, wrote.completions)
        assert torch.equal(found.mask, wrote.mask)
        torch.testing.assert_close(found.logprobs, wrote.logprobs, atol=1e-4, rtol=1e-4)
    best = policy.sample(bare_prompts(policy, ASKED), 1, seeded(0), max_new_tokens=5, temperature=0.0)
    assert torch.equal(greedy.completions, best.completions)
    other = policy.forced([policy.encode("reverse", Problem("digits", "9", ""))] * 3, [[5, 6]] * 3)
    torch.testing.assert_close(  # prompts that the rollouts hold are not looked at
        system.logits(ASKED, other), policy.logits(policy.forced(bare_prompts(policy, ASKED), [[5, 6]] * 3))
    )


def test_a_mixture_draws_its_parts_as_often_as_it_says(make_policy: MakePolicy) -> None:
    policy = make_policy(seed=0)
    system = Mixture(policy, ("next", "reverse rotate"), (0.7, 0.3))
    asked = [("", ASKED[0][1])] * 4000
    wrote = system.sample(asked, seeded(1), max_new_tokens=1).completions[:, 0].numpy()
    exact = sum(
        weight * np.exp(_next(policy, context, ASKED[0][1]))
        for context, weight in zip(system.contexts, system.weights, strict=True)
    )
    counts = np.bincount(wrote, minlength=len(exact)) / len(wrote)
    assert (np.abs(counts - exact) < 4.5 * np.sqrt(exact * (1.0 - exact) / len(wrote)) + 1e-3).all()


def _next(policy: Policy, context: str, problem: Problem) -> np.ndarray:
    """Log-probabilities of the next token from a plain pass, ``(V,)``."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([policy.encode(context, problem)])).logits[0, -1]
    return torch.log_softmax(logits.double(), -1).numpy()


def test_kl_of_a_system_to_itself_is_zero_and_of_one_token_exact(make_policy: MakePolicy) -> None:
    one, other = make_policy(seed=0), make_policy(seed=1)
    kl, entropy = deployed_kl(Bare(one), Bare(one), (ASKED, ASKED), 0, 4)
    assert not kl.any()
    assert (entropy > 0.0).all()
    kl, _ = deployed_kl(Bare(one), Bare(other), (ASKED, ASKED), 0, 1)
    for value, pair in zip(kl, ASKED, strict=True):
        p, q = (_next(each, *pair) for each in (one, other))
        assert value == pytest.approx(float((np.exp(p) * (p - q)).sum()), rel=1e-4)


def test_exam_of_a_bare_policy_is_the_exam(make_policy: MakePolicy) -> None:
    base = make_policy(seed=0)
    config = ProbeConfig(exam=4, problems=2)
    skills = old_skills(base, (), config, 0)[0]
    row = skills.measure(base)
    accuracies = [value for name, value in row.items() if name.startswith("accuracy")]
    assert SystemExam.of(base, config.exam).base == pytest.approx(np.mean(accuracies), abs=1e-12)


def test_rewards_are_probabilities_or_of_one_sample(make_policy: MakePolicy) -> None:
    policy = make_policy(seed=0)
    task = RuleTask("strings", ("next",), size=2)
    asked = [("next", p) for p in task.problems("test")]
    exact, logps = system_rewards(Bare(policy), task, asked, 0, 3)
    assert logps is not None
    np.testing.assert_allclose(exact, np.exp(logps))
    shared, none = system_rewards(Bare(policy), RuleTask("strings", ("next",), "share", 2), asked, 0, 3)
    assert none is None
    assert set(np.round(shared * 2)) <= {0.0, 1.0, 2.0}
