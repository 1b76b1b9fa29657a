"""Rollouts of a fast round that the next slow step reuses: the same groups, the same law, counted once, gone when weights move.

With completions of one token the expected reward is a sum over the vocabulary, so that its gradient is exact: estimates are
compared with it in random directions, within 4.5 standard errors of their own scatter.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer

import fstsim.llm.runs.run as train_run
from fstsim.errors import InputError
from fstsim.llm.contexts.policy_adapter import PolicyAdapter
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.reuse import join
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Population, Problem, Score, Split
from fstsim.records import read_rows

MakePolicy = Callable[..., Policy]

CONTEXTS = ("", "next", "rotate reverse")
TEXTS = ("ABCDE", "HHH", "CAB", "EF")
TASK = RuleTask("strings", ("next",), "share", size=3)


@dataclass(frozen=True)
class FirstLetter:
    """Reward for a completion that starts with one of ``letters``; every split has the same few problems."""

    letters: str = "ABCDEF"
    name: str = "first letter"
    texts: tuple[str, ...] = TEXTS

    def problems(self, split: Split) -> Sequence[Problem]:
        assert split == "train", "weights learn on what is reused: validation problems stay out of it"
        return [Problem("strings", text, "") for text in self.texts]

    def score(self, problem: Problem, completion: str) -> Score:
        assert problem.text in self.texts
        return Score(float(completion[:1] in {*self.letters}), "wrong")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def adapter_of(weights: Weights, task: Any, generator: np.random.Generator, tokens: int = 1) -> PolicyAdapter:
    return PolicyAdapter(weights.policy, task, None, generator, tokens)  # type: ignore[arg-type]  # asked for nothing


def hand_over(
    weights: Weights, task: Any, contexts: Sequence[str], generator: np.random.Generator, tokens: int = 1
) -> None:
    """What a round does that keeps ``contexts``, all of which were in the population."""
    adapter, problems = adapter_of(weights, task, generator, tokens), task.problems("train")
    for context in contexts:
        adapter.scores(context, problems)
    handed = adapter.reusable(contexts, problems)
    assert handed is not None
    weights.reusable[:] = [handed]


def weights_of(policy: Policy) -> Weights:
    return Weights(policy, policy, SGD(policy.model.parameters(), lr=0.1))


# --- groups ----------------------------------------------------------------------------------------------------------


def test_joined_rollouts_are_scored_as_before(make_policy: MakePolicy) -> None:
    """Prompts and completions of other lengths: the same tokens, masks and log-probabilities, in order."""
    policy = make_policy()
    parts = [
        policy.sample(
            [policy.encode(c, Problem("strings", text, "")) for text in texts], 2,
            torch.Generator().manual_seed(k), max_new_tokens=tokens,
        )
        for k, (c, texts, tokens) in enumerate([("", ("AB", "ABCDEFGH"), 2), ("next rotate", ("CAB",), 5), ("", ("H",), 3)])
    ]  # fmt: skip
    whole = join(parts)
    assert len(whole) == sum(map(len, parts))
    assert policy.decode(whole) == [text for part in parts for text in policy.decode(part)]
    logprobs = policy.logprobs(whole)
    assert torch.allclose(logprobs, whole.logprobs, atol=1e-5)
    first = 0
    for part in parts:
        rows = torch.arange(first, first + len(part))
        alone = whole.take(rows)
        assert torch.equal(alone.completions[alone.mask], part.completions[part.mask])
        assert torch.equal(alone.prompts[alone.prompt_mask], part.prompts[part.prompt_mask])
        first += len(part)


@pytest.mark.parametrize("rollouts", [2, 3, 8])
def test_groups_have_the_contexts_that_they_have_without_reuse(make_policy: MakePolicy, rollouts: int) -> None:
    """Every group: the declared size, each context in the same share; only what was there is not drawn again."""
    weights, task = weights_of(make_policy()), FirstLetter()
    hand_over(weights, task, CONTEXTS, rng(1))
    held = weights.reusable[0]
    learner = PolicyGradient(problems=5, rollouts=rollouts, max_new_tokens=1)
    problems = [*held.problems, Problem("strings", "GG", "")]
    population = Population(CONTEXTS)
    alone, groups = learner.roll_out(weights.policy, population, problems, rng(2))
    both, again, reused = learner.roll_out_again(weights.policy, population, problems, rng(2), held)

    def count(r: Any, g: torch.Tensor) -> Counter[tuple[int, tuple[int, ...]]]:
        prompts = [tuple(row[m].tolist()) for row, m in zip(r.prompts, r.prompt_mask, strict=True)]
        return Counter((k, prompts[i]) for k, i in zip(g.tolist(), r.prompt_of.tolist(), strict=True))

    assert count(both, again) == count(alone, groups)
    assert set(Counter(again.tolist()).values()) == {rollouts}
    assert reused == len(TEXTS) * min(rollouts, len(CONTEXTS))


def test_a_group_that_is_all_there_draws_nothing(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, task = weights_of(make_policy()), FirstLetter()
    hand_over(weights, task, CONTEXTS[:2], rng(1))
    monkeypatch.setattr(Policy, "sample", lambda *_, **__: pytest.fail("nothing is left to be drawn"))
    learner = PolicyGradient(problems=4, rollouts=2, max_new_tokens=1)
    _, info = learner.step(weights, Population(CONTEXTS[:2]), task, rng(2))
    assert info.samples == 0
    assert info.metrics["reused"] == 8


# --- the law ---------------------------------------------------------------------------------------------------------


def expected_gradient(policy: Policy, task: FirstLetter, contexts: Sequence[str]) -> torch.Tensor:
    """Exact gradient of the mean reward over contexts and problems, by summing over the first token."""
    prompts = [policy.encode(c, p) for c in contexts for p in task.problems("train")]
    logits = policy.logits(policy.forced(prompts, [[0]] * len(prompts)))[:, 0]
    texts = policy.tokenizer.batch_decode([[k] for k in range(logits.shape[-1])], skip_special_tokens=True)
    rewards = torch.tensor([float(text[:1] in {*task.letters}) for text in texts])
    policy.model.zero_grad(set_to_none=True)
    (torch.softmax(logits, -1) @ rewards).mean().backward()
    found = torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])
    policy.model.zero_grad(set_to_none=True)
    return found


class Projected(Optimizer):
    """Keeps projections of the gradients it is given, and leaves weights alone."""

    def __init__(self, policy: Policy, directions: torch.Tensor) -> None:
        self.parameters, self.directions = list(policy.model.parameters()), directions
        self.seen: list[torch.Tensor] = []
        super().__init__(self.parameters, {})

    def step(self, closure: Any = None) -> None:  # noqa: ARG002 -- the interface of torch
        gradient = torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])
        self.seen.append(-self.directions @ gradient)


def test_the_expected_gradient_is_that_of_the_mean_reward(make_policy: MakePolicy) -> None:
    """Contexts that were fixed before the round: no bias, with REINFORCE and the leave-one-out baseline."""
    policy, task = make_policy(num_hidden_layers=1, initializer_range=0.15), FirstLetter()
    exact = expected_gradient(policy, task, CONTEXTS[:2])
    directions = torch.stack([exact, *torch.randn(4, len(exact), generator=torch.Generator().manual_seed(1))])
    directions /= directions.norm(dim=1, keepdim=True)
    recorder = Projected(policy, directions)
    weights = Weights(policy, policy, recorder, clip=1e9)
    learner = PolicyGradient(loss="reinforce", advantage="leave-one-out", problems=4, rollouts=4, max_new_tokens=1)
    generator, count = rng(3), 120
    for _ in range(count):
        hand_over(weights, task, CONTEXTS[:2], generator)
        _, info = learner.step(weights, Population(CONTEXTS[:2]), task, generator)
        assert info.metrics["reused"] == 8
        assert info.samples == 8
    # a batch without any signal makes no step: its gradient is 0
    seen = torch.stack([*recorder.seen, *[torch.zeros(5)] * (count - len(recorder.seen))])
    error = seen.std(0) / math.sqrt(count)
    assert float(directions[0] @ exact) > 6 * float(error[0])
    assert (abs(seen.mean(0) - directions @ exact) <= 4.5 * error).all()


def test_selection_changes_how_much_a_context_counts_and_never_the_direction() -> None:
    """A table of softmax policies with shared weights; of five contexts the two with the best mean reward are kept.

    The mean update is the sum of ``m_i grad p_i`` with m from rewards and advantages alone; m exceeds what it is without
    selection, (G - 1) / G, for contexts that seldom succeed, as the docstring of `reuse` says.
    """
    generator, draws, problems, tokens, group = rng(5), 40_000, 3, 4, 4
    bias = generator.normal(size=(5, tokens)) - np.array([1.5, 0.0, 0.0, 0.0])
    law = np.exp(bias) / np.exp(bias).sum(1, keepdims=True)
    success = law[:, 0]
    assert success.max() < 0.4
    score = np.eye(tokens)[None] - law[:, None]  # (context, token, weight): gradient of log pi for shared logits
    gradient = success[:, None] * score[:, 0]  # of the success probability

    def draw(context: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return (generator.random(shape)[..., None] > law.cumsum(1)[context][..., :-1]).sum(-1)

    contexts = np.broadcast_to(np.arange(5)[:, None], (draws, 5, problems))
    scored = draw(contexts, contexts.shape)
    kept = np.argsort(-(scored == 0).mean(-1) + 1e-6 * generator.random((draws, 5)), axis=1)[:, :2]
    reused = np.take_along_axis(scored, kept[..., None], axis=1)[..., 0]  # of the first problem: one rollout a context
    fresh = draw(kept, kept.shape)
    tokens_drawn, whose = np.concatenate((reused, fresh), 1), np.concatenate((kept, kept), 1)
    rewards = (tokens_drawn == 0).astype(float)
    advantages = rewards - rewards.mean(1, keepdims=True)
    updates = advantages[..., None] * score[whose, tokens_drawn]
    p = success[whose]
    predicted = (advantages * (rewards - p) / (p * (1 - p)))[..., None] * gradient[whose]
    difference = (updates - predicted).sum(1)
    error = difference.std(0) / math.sqrt(draws)
    assert (abs(difference.mean(0)) <= 4.5 * error + 1e-12).all()  # the right token's part is 0 in every draw
    for context in range(5):
        mine = whose[:, :2] == context
        weight = (advantages[:, :2] * (rewards - p)[:, :2])[mine] / (success[context] * (1 - success[context]))
        assert (weight >= 0.0).all()
        plain = 1 - 1 / group
        assert weight.mean() > plain + 4.5 * weight.std() / math.sqrt(len(weight))


# --- counted once, and gone when the weights move --------------------------------------------------------------------


def test_every_rollout_is_counted_once(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both channels together ask the policy for as many completions as they say, reflections included; only kept contexts."""
    drawn, sample = 0, Policy.sample

    def counted(self: Policy, *args: Any, **kwargs: Any) -> Any:
        nonlocal drawn
        found = sample(self, *args, **kwargs)
        drawn += len(found)
        return found

    monkeypatch.setattr(Policy, "sample", counted)
    policy = make_policy(max_position_embeddings=200)
    weights = Weights(policy, policy, AdamW(policy.model.parameters(), lr=1e-3))
    evolve = PromptEvolution(contexts=2, rollout_budget=24, validation=4, shown=4, max_new_tokens=3, reuse=True)
    learner = PolicyGradient(problems=6, rollouts=4, max_new_tokens=3)
    population, generator = Population(("", "next", "reverse")), rng(4)
    for _ in range(3):
        drawn = 0
        population, fast = evolve.step(weights, population, TASK, generator)
        assert drawn == fast.samples
        held = weights.reusable[0]
        assert {c for c, _ in held.pairs} == set(population.prompts)
        assert len(set(held.pairs)) == len(held.pairs) == 4 * len(population.prompts)
        assert {p.uid for p in held.problems} <= {p.uid for p in TASK.problems("train")}
        weights, slow = learner.step(weights, population, TASK, generator)
        assert drawn == fast.samples + slow.samples
        assert slow.samples + slow.metrics["reused"] == 24
        weights, slow = learner.step(weights, population, TASK, generator)
        assert slow.samples == 24
        assert "reused" not in slow.metrics


def test_rollouts_handed_over_are_those_that_scored(make_policy: MakePolicy) -> None:
    """The rewards of what is handed over are the scores of the population."""
    policy = make_policy(max_position_embeddings=200)
    weights = weights_of(policy)
    evolve = PromptEvolution(contexts=2, rollout_budget=24, validation=4, shown=4, max_new_tokens=1, reuse=True)
    population, _ = evolve.step(weights, Population(CONTEXTS), FirstLetter(texts=(*TEXTS, "A", "B", "C", "D")), rng(6))
    held = weights.reusable[0]
    texts = policy.decode(held.rollouts)
    for context, score in zip(population.prompts, population.scores, strict=True):
        own = [float(t[:1] in {*"ABCDEF"}) for t, (c, _) in zip(texts, held.pairs, strict=True) if c == context]
        assert np.mean(own) == score
    assert torch.allclose(policy.logprobs(held.rollouts), held.rollouts.logprobs, atol=1e-5)


def test_weights_that_moved_leave_nothing_to_reuse(make_policy: MakePolicy) -> None:
    """Another learner's step in between: its update empties the store, and the next step samples everything."""
    policy = make_policy()
    weights = Weights(policy, policy, AdamW(policy.model.parameters(), lr=1e-3))
    hand_over(weights, TASK, ("", "next"), rng(), 3)
    SupervisedFineTuning(problems=2).step(weights, Population(), TASK, rng())
    assert weights.reusable == []
    _, info = PolicyGradient(problems=2, rollouts=2, max_new_tokens=3).step(weights, Population(), TASK, rng())
    assert info.samples == 4
    assert "reused" not in info.metrics


@pytest.mark.parametrize("changes", [{"max_new_tokens": 2}, {"temperature": 0.7}, {"task": "other"}])
def test_another_law_is_not_reused(make_policy: MakePolicy, changes: dict[str, Any]) -> None:
    """Shorter completions, another temperature or another task: refused in one line, nothing changed."""
    weights = weights_of(make_policy())
    hand_over(weights, FirstLetter(), CONTEXTS, rng(1))
    task = FirstLetter(name=changes.pop("task", "first letter"))
    before = {name: p.clone() for name, p in weights.policy.model.state_dict().items()}
    with pytest.raises(InputError, match="cannot be reused on") as caught:
        replace(PolicyGradient(problems=2, rollouts=2, max_new_tokens=1), **changes).step(
            weights, Population(), task, rng()
        )
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in weights.policy.model.state_dict().items())


def test_without_reuse_nothing_is_left(make_policy: MakePolicy) -> None:
    weights = weights_of(make_policy(max_position_embeddings=200))
    PromptEvolution(contexts=2, rollout_budget=24, validation=4, max_new_tokens=3).step(
        weights, Population(), TASK, rng()
    )
    assert weights.reusable == []


# --- stopped and continued -------------------------------------------------------------------------------------------


def test_a_run_that_reuses_continues_to_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after a step with reuse, at a checkpoint and beyond one: the same rows and prompts byte for byte, in which fast rounds' rollouts were reused."""
    monkeypatch.setattr(train_run, "relearn_steps", functools.partial(relearn_steps, most=2, batch=4))
    config = TrainConfig(
        method="fst",
        tasks=("strings:rotate",),
        steps=4,
        lr=1e-3,
        learner=PolicyGradient(problems=4, rollouts=4),
        fast=PromptEvolution(contexts=2, rollout_budget=40, validation=6, shown=3, reuse=True),
        slow_steps_per_round=2,
        probe=ProbeConfig(every=4, problems=3, exam=1),
    )

    def stop_at(step: int) -> Callable[[int, str], None]:
        def progress(done: int, note: str) -> None:
            assert note
            if done == step:
                raise KeyboardInterrupt

        return progress

    whole = run_training(config, tmp_path / "whole")
    for step in (1, 3):  # step 3 follows a round and is not measured: it is taken again
        with pytest.raises(KeyboardInterrupt):
            run_training(config, tmp_path / "stopped", stop_at(step))
    run_training(config, tmp_path / "stopped")
    for name in ("metrics.jsonl", "prompts.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    reused = [row.get("reused") for row in read_rows(tmp_path / "whole" / "metrics.jsonl")[1:]]
    assert all(n for n in reused[::2])
    assert reused[1::2] == [None, None]
    assert any(row.get("grad_norm") for row in whole)
