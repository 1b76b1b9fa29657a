"""The slow channel: every step against the gradient written out by hand, and what it must do to a small model.

Gradients are read by an optimizer that changes nothing (`Recorder`), so that they are compared, not their traces in
weights. Stub tasks with one problem make a step deterministic up to sampling.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer

from fstsim.errors import InputError
from fstsim.llm.learners import weights as weights_module
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Diverged, Weights, chunks, sample_problems, share_out
from fstsim.llm.policy.divergence import token_kl
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.tasks.rules import RuleTask, parse_rules
from fstsim.llm.types import Population, Problem, Score, Split

MakePolicy = Callable[..., Policy]
Gradients = dict[str, torch.Tensor]


class Recorder(Optimizer):
    """Keeps the gradients it is given and leaves weights alone."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.seen: list[Gradients] = []
        super().__init__(model.parameters(), {})

    def step(self, closure: Any = None) -> None:  # noqa: ARG002 -- the interface of torch
        self.seen.append(gradients_of(self.model))


def gradients_of(model: torch.nn.Module) -> Gradients:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def gradients_by_hand(model: torch.nn.Module, loss: torch.Tensor) -> Gradients:
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = gradients_of(model)
    model.zero_grad(set_to_none=True)
    return found


def assert_same(one: Gradients, two: Gradients, tolerance: float = 1e-4) -> None:
    """Equal up to float32, relative to the largest entry of all."""
    assert set(one) == set(two)
    scale = max(float(g.abs().max()) for g in two.values())
    assert scale > 0.0
    for name, gradient in two.items():
        assert float((one[name] - gradient).abs().max()) <= tolerance * scale, name


def recorded(policy: Policy, base: Policy | None = None) -> tuple[Weights, Recorder]:
    recorder = Recorder(policy.model)
    return Weights(policy, base or policy, recorder, clip=1e9), recorder


def state(policy: Policy) -> Gradients:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def unchanged(policy: Policy, before: Gradients) -> bool:
    return all(torch.equal(p.detach(), before[name]) for name, p in policy.model.named_parameters())


@dataclass(frozen=True)
class Stub:
    """Problems of strings; reward as the function says, of the text without spaces."""

    reward: Callable[[Problem, str], float]
    texts: tuple[str, ...] = ("ABCDE",)
    name: str = "stub"
    asked: list[tuple[Problem, str]] = field(default_factory=list)

    def problems(self, split: Split) -> Sequence[Problem]:
        assert split == "train", "learners see the train split only"
        return [Problem("strings", text, "") for text in self.texts]

    def score(self, problem: Problem, completion: str) -> Score:
        self.asked.append((problem, completion))
        return Score(self.reward(problem, completion.replace(" ", "")), "")

    def answer(self, problem: Problem) -> str:
        return problem.text[::-1]

    def old_answer(self, problem: Problem) -> str:
        return problem.text


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


EMPTY = Population()


# --- drawing and sharing out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rollouts", "contexts"), [(8, 1), (8, 3), (8, 8), (3, 5), (2, 7)])
def test_sharing_out(rollouts: int, contexts: int) -> None:
    """All are given out, no context gets two more than another, and what is left over falls on each equally often."""
    generator, trials = rng(1), 4000
    extra = np.zeros(contexts)
    for _ in range(trials):
        shares = share_out(rollouts, contexts, generator)
        assert sum(shares) == rollouts
        assert len(shares) == contexts
        assert max(shares) - min(shares) <= 1
        extra += np.array(shares) - rollouts // contexts
    p = (rollouts % contexts) / contexts
    assert np.all(np.abs(extra / trials - p) <= 4.5 * math.sqrt(p * (1 - p) / trials))


def test_drawing_problems() -> None:
    """Without repetition while there are enough, with repetition beyond; each as often as any other."""
    problems = [Problem("strings", text, "") for text in "ABCDEFGH"]
    generator, trials = rng(2), 3000
    seen: Counter[str] = Counter()
    for _ in range(trials):
        drawn = sample_problems(problems, 3, generator)
        assert len({p.text for p in drawn}) == 3
        seen.update(p.text for p in drawn)
    assert all(abs(seen[p.text] / trials - 3 / 8) <= 4.5 * math.sqrt(15 / 64 / trials) for p in problems)
    assert len({p.text for p in sample_problems(problems, 8, generator)}) == 8
    assert len(sample_problems(problems, 20, generator)) == 20


def test_chunks_cover_the_rows(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    r = policy.sample([policy.encode("", Problem("strings", "ABC", ""))], 10, torch.Generator(), max_new_tokens=4)
    width = r.prompts.shape[1] + r.completions.shape[1]
    monkeypatch.setattr(weights_module, "_TOKENS_AT_ONCE", 3 * width)
    rows = torch.tensor([9, 1, 2, 3, 4, 5, 0])
    parts = chunks(r, rows, 64)
    assert [len(p) for p in parts] == [3, 3, 1]
    assert torch.equal(torch.cat(parts), rows)
    assert chunks(r, rows[:0], 64) == []
    monkeypatch.setattr(weights_module, "_LOGITS_AT_ONCE", 2 * r.completions.shape[1] * 64)
    assert [len(p) for p in chunks(r, rows, 64)] == [2, 2, 2, 1]
    assert [len(p) for p in chunks(r, rows, 200)] == [1] * 7


# --- groups and contexts ---------------------------------------------------------------------------------------------


def test_a_group_holds_rollouts_of_several_contexts(make_policy: MakePolicy) -> None:
    """Three contexts, eight rollouts: each group has eight, every context two or three, after the right prompts."""
    policy = make_policy()
    contexts = Population(("", "reverse", "next rotate"))
    problems = [Problem("strings", text, "") for text in ("ABC", "HGFED", "AAAA")]
    learner = PolicyGradient(problems=3, rollouts=8, max_new_tokens=3)
    r, groups = learner.roll_out(policy, contexts, problems, rng())
    assert groups.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    prompts = [row[m].tolist() for row, m in zip(r.prompts, r.prompt_mask, strict=True)]
    for g, problem in enumerate(problems):
        used = Counter(tuple(prompts[r.prompt_of[i]]) for i in range(24) if groups[i] == g)
        assert set(used) == {tuple(policy.encode(context, problem)) for context in contexts.prompts}
        assert sorted(used.values()) == [2, 3, 3]


def test_fewer_rollouts_than_contexts(make_policy: MakePolicy) -> None:
    """Contexts without a share are left out, not run for nothing."""
    learner = PolicyGradient(problems=1, rollouts=2, max_new_tokens=2)
    problems = [Problem("strings", "ABC", "")]
    r, groups = learner.roll_out(make_policy(), Population(("", "next", "sort", "prev")), problems, rng())
    assert len(r.prompts) == len(r) == len(groups) == 2


def test_completions_are_scored_on_their_own_problem(make_policy: MakePolicy) -> None:
    policy = make_policy()
    task = Stub(lambda *_: 0.0, texts=("ABC", "HGFED", "AAAA", "BB"))
    weights, _ = recorded(policy)
    learner = PolicyGradient(problems=3, rollouts=4, max_new_tokens=3)
    _, info = learner.step(weights, EMPTY, task, rng(3))
    assert info.samples == len(task.asked) == 12
    again = sample_problems(task.problems("train"), 3, (generator := rng(3)))
    texts = policy.decode(learner.roll_out(policy, EMPTY, again, generator)[0])
    assert task.asked == [(again[i // 4], text) for i, text in enumerate(texts)]


# --- the gradient of a step ------------------------------------------------------------------------------------------


def one_batch(policy: Policy, learner: PolicyGradient, contexts: Population = EMPTY) -> tuple[Rollouts, torch.Tensor]:
    problems = [Problem("strings", text, "") for text in ("ABC", "HGFED", "AAAA", "BB", "CAFE")]
    return learner.roll_out(policy, contexts, problems, rng(4))


def some_rewards(count: int, size: int) -> torch.Tensor:
    """Rewards 0 and 1; the second and the last group are dead, at 0 and at 1."""
    rewards = torch.from_numpy(rng(5).integers(2, size=count)).float()
    rewards[size : 2 * size], rewards[-size:] = 0.0, 1.0
    return rewards


def by_hand(policy: Policy, learner: PolicyGradient, r: Rollouts, rewards: torch.Tensor) -> torch.Tensor:
    """The loss of all rollouts, dead groups included, in plain sums."""
    logp = policy.logprobs(r)
    size, total = learner.rollouts, torch.zeros(())
    for i in range(len(r)):
        own = rewards[i // size * size : i // size * size + size]
        centred = float(rewards[i] - own.mean())
        scale = {
            "normalised": 1.0 / (float(own.std(correction=0)) + 1e-6),
            "centred": 1.0,
            "leave-one-out": size / (size - 1),
        }
        total = total - centred * scale[learner.advantage] * logp[i][r.mask[i]].sum()
    return total / (float(r.mask.sum()) if learner.loss == "cispo" else len(r))


@pytest.mark.parametrize("loss", ["cispo", "reinforce"])
@pytest.mark.parametrize("advantage", ["normalised", "centred", "leave-one-out"])
@pytest.mark.parametrize("contexts", [("",), ("", "reverse", "next rotate")])
def test_gradient_of_a_step(make_policy: MakePolicy, loss: str, advantage: str, contexts: tuple[str, ...]) -> None:
    """Skipping dead groups gives the gradient of the whole batch; with several contexts a group has one baseline."""
    policy = make_policy()
    learner = PolicyGradient(loss=loss, advantage=advantage, rollouts=6, max_new_tokens=4, temperature=1.4)
    r, groups = one_batch(policy, learner, Population(contexts))
    rewards = some_rewards(len(r), 6)
    expected = gradients_by_hand(policy.model, by_hand(policy, learner, r, rewards))
    weights, recorder = recorded(policy)
    metrics = learner.learn(weights, r, rewards, groups, "test")
    (found,) = recorder.seen
    assert_same(found, expected)
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in expected.values()))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["dead_share"] == pytest.approx(2 / 5)
    assert metrics["train_reward"] == pytest.approx(float(rewards.mean()))
    assert metrics["length"] == pytest.approx(float(r.mask.sum()) / len(r))
    assert metrics["capped_share"] == 0.0
    assert all(p.grad is None for p in policy.model.parameters()), "nothing is left for the next step"


@pytest.mark.parametrize("loss", ["cispo", "reinforce"])
def test_keeping_dead_groups_gives_the_same_gradient(make_policy: MakePolicy, loss: str) -> None:
    """The path that keeps them (it has a leash loss, of no strength worth mentioning) against the one that skips."""
    policy, base = make_policy(seed=0), make_policy(seed=1)
    learner = PolicyGradient(loss=loss, rollouts=6, max_new_tokens=4)
    r, groups = one_batch(policy, learner)
    rewards = some_rewards(len(r), 6)
    found = []
    for strength in (0.0, 1e-30):
        weights, recorder = recorded(policy, base)
        dataclasses.replace(learner, leash_loss=strength).learn(weights, r, rewards, groups, "test")
        found += recorder.seen
    assert_same(found[0], found[1])


def test_parts_of_a_batch_add_up(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that does not fit in memory is run in parts: the same gradient, with leash and all."""
    policy, base = make_policy(seed=0), make_policy(seed=1)
    learner = PolicyGradient(rollouts=6, max_new_tokens=4, leash_loss=0.3, leash_reward=0.2)
    r, groups = one_batch(policy, learner)
    found, metrics = [], []
    for limit in (10**6, 50):
        monkeypatch.setattr(weights_module, "_TOKENS_AT_ONCE", limit)
        weights, recorder = recorded(policy, base)
        metrics.append(learner.learn(weights, r, some_rewards(len(r), 6), groups, "test"))
        found += recorder.seen
    assert_same(found[1], found[0])
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-4, abs=1e-6)


def test_without_any_signal_nothing_moves(make_policy: MakePolicy) -> None:
    """All groups dead: no gradient, and plain SGD leaves the weights as they are."""
    policy = make_policy()
    before = state(policy)
    weights = Weights(policy, policy, SGD(policy.model.parameters(), lr=10.0))
    _, info = PolicyGradient(problems=2, rollouts=3, max_new_tokens=3).step(weights, EMPTY, Stub(lambda *_: 0.7), rng())
    assert unchanged(policy, before)
    assert info.metrics["dead_share"] == 1.0
    assert info.metrics["grad_norm"] == 0.0
    assert info.metrics["train_reward"] == pytest.approx(0.7)


@pytest.mark.parametrize("loss", ["cispo", "reinforce"])
def test_gradient_of_the_leash_as_a_loss(make_policy: MakePolicy, loss: str) -> None:
    """Equal rewards leave the leash alone: the full-vocabulary KL to the base, a mean over sequences.

    CISPO is a mean over tokens, so the leash there is divided by the mean length: one strength means the same relative
    pull in both.
    """
    policy, base = make_policy(seed=0), make_policy(seed=1)
    learner = PolicyGradient(loss=loss, rollouts=6, max_new_tokens=4, leash_loss=0.7, temperature=0.8)
    r, groups = one_batch(policy, learner)
    with torch.no_grad():
        base_logits = base.logits(r)
    kl = token_kl(policy.logits(r), base_logits)
    count = float(r.mask.sum()) if loss == "cispo" else len(r)
    expected = gradients_by_hand(policy.model, 0.7 * kl[r.mask].sum() / count)
    weights, recorder = recorded(policy, base)
    learner.learn(weights, r, torch.ones(len(r)), groups, "test")
    assert_same(recorder.seen[0], expected)
    assert all(p.grad is None for p in base.model.parameters())


@pytest.mark.parametrize("loss", ["cispo", "reinforce"])
def test_gradient_of_the_leash_with_its_prefixes(make_policy: MakePolicy, loss: str) -> None:
    """Every token pays for the KL that comes behind it, in plain sums."""
    policy, base = make_policy(seed=0), make_policy(seed=1)
    learner = PolicyGradient(loss=loss, rollouts=6, max_new_tokens=4, leash_loss=0.7, leash_loss_prefix=True)
    r, groups = one_batch(policy, learner)
    with torch.no_grad():
        base_logits = base.logits(r)
    kl, logp = token_kl(policy.logits(r), base_logits), policy.logprobs(r)
    total = kl[r.mask].sum()
    for i in range(len(r)):
        written = int(r.mask[i].sum())
        for t in range(written):
            total = total + kl[i, t + 1 : written].sum().detach() * logp[i, t]
    count = float(r.mask.sum()) if loss == "cispo" else len(r)
    expected = gradients_by_hand(policy.model, 0.7 * total / count)
    weights, recorder = recorded(policy, base)
    learner.learn(weights, r, torch.ones(len(r)), groups, "test")
    assert_same(recorder.seen[0], expected)


@pytest.mark.parametrize("ratio", [False, True])
@pytest.mark.parametrize("loss", ["cispo", "reinforce"])
def test_gradient_of_an_estimated_leash(make_policy: MakePolicy, loss: str, ratio: bool) -> None:
    """k3 of the sampled tokens in plain sums; the ratio is to the policy that sampled, so that it stays when weights move."""
    policy, base = make_policy(seed=0), make_policy(seed=1)
    learner = PolicyGradient(
        loss=loss, rollouts=6, max_new_tokens=4, leash_loss=0.7, kl_estimator="k3", kl_estimator_ratio=ratio, updates=2
    )
    r, groups = one_batch(policy, learner)
    with torch.no_grad():
        other = base.logprobs(r)
    weights, recorder = recorded(policy, base)
    learner.learn(weights, r, torch.ones(len(r)), groups, "test")
    count = float(r.mask.sum()) if loss == "cispo" else len(r)
    own = policy.logprobs(r)
    k3 = torch.exp(other - own) - 1.0 - (other - own)
    weight = torch.exp(own - r.logprobs) if ratio else torch.ones_like(own)
    expected = gradients_by_hand(policy.model, 0.7 * (weight * k3)[r.mask].sum() / count)
    assert_same(recorder.seen[0], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_estimator": "k4", "leash_loss": 0.1}, "kl_estimator must be one of exact, k1, k2, k3"),
        ({"kl_estimator": "k3"}, "kl_estimator k3 needs a leash_loss above 0"),
        (
            {"kl_estimator": "k3", "leash_loss": 0.1, "leash_loss_prefix": True},
            "leash_loss_prefix needs kl_estimator exact",
        ),
        ({"kl_estimator_ratio": True, "leash_loss": 0.1}, "kl_estimator_ratio needs kl_estimator k1, k2 or k3"),
    ],
)
def test_an_estimator_that_nothing_would_use_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PolicyGradient(**settings)


def test_prefixes_belong_to_a_leash() -> None:
    with pytest.raises(InputError, match="leash_loss_prefix needs a leash_loss above 0"):
        PolicyGradient(leash_loss_prefix=True)


def test_gradient_of_the_leash_in_the_reward(make_policy: MakePolicy) -> None:
    """Rewards less strength times the log-ratio of the whole sequence to the base, then advantages as ever."""
    policy, base = make_policy(seed=0), make_policy(seed=1)
    learner = PolicyGradient(loss="reinforce", rollouts=6, max_new_tokens=4, leash_reward=0.3, advantage="centred")
    r, groups = one_batch(policy, learner)
    rewards = some_rewards(len(r), 6)
    with torch.no_grad():
        ratio = ((policy.logprobs(r) - base.logprobs(r)) * r.mask).sum(1)
    expected = gradients_by_hand(policy.model, by_hand(policy, learner, r, rewards - 0.3 * ratio))
    weights, recorder = recorded(policy, base)
    metrics = learner.learn(weights, r, rewards, groups, "test")
    assert_same(recorder.seen[0], expected)
    assert metrics["train_reward"] == pytest.approx(float(rewards.mean())), (
        "the reward that is reported has no leash in it"
    )


def test_at_the_base_a_leash_in_the_reward_is_nothing(make_policy: MakePolicy) -> None:
    """Base and policy are the same, and scored on other paths: rounding makes no signal of a group without one."""
    policy = make_policy()
    base = dataclasses.replace(make_policy(), share_prompts=False)
    learner = PolicyGradient(rollouts=6, max_new_tokens=4)
    r, groups = one_batch(policy, learner)
    rewards = torch.where(groups == 0, some_rewards(len(r), 6), 0.5)
    found, shares = [], []
    for strength in (0.0, 1.0):
        weights, recorder = recorded(policy, base)
        metrics = dataclasses.replace(learner, leash_reward=strength).learn(weights, r, rewards, groups, "test")
        shares.append(metrics["dead_share"])
        found += recorder.seen
    assert_same(found[1], found[0])
    assert shares[0] == shares[1] == pytest.approx(1.0 - 1.0 / (int(groups.max()) + 1))


# --- what steps do ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cispo", "reinforce"])
def test_rewards_rise(make_policy: MakePolicy, loss: str) -> None:
    """Reward for completions that start with one of the letters A to D: from 1 in 16 to nearly always."""
    policy = make_policy()
    weights = Weights(policy, policy, AdamW(policy.model.parameters(), lr=0.01))
    task = Stub(lambda _, text: float(text[:1] in {*"ABCD"}), texts=("ABCDE", "HHH", "CAB", "EF"))
    learner = PolicyGradient(loss=loss, problems=8, rollouts=8, max_new_tokens=2)
    generator = rng(6)
    rewards = [learner.step(weights, EMPTY, task, generator)[1].metrics["train_reward"] for _ in range(25)]
    assert np.mean(rewards[:2]) < 0.5
    assert np.mean(rewards[-3:]) > 0.9


def test_more_updates_than_one_leave_the_sampling_policy(make_policy: MakePolicy) -> None:
    """On the first update no ratio is capped; after a long step of a tiny cap many are, and the share is reported."""
    task = Stub(lambda _, text: float(len(text) % 2), texts=("ABCDE", "HHH"))
    shares = {}
    for updates in (1, 3):
        policy = make_policy()
        weights = Weights(policy, policy, SGD(policy.model.parameters(), lr=0.5), clip=1.0)
        learner = PolicyGradient(problems=4, rollouts=8, max_new_tokens=3, ratio_cap=1.001, updates=updates)
        shares[updates] = learner.step(weights, EMPTY, task, rng(7))[1].metrics["capped_share"]
    assert shares[1] == 0.0
    assert 0.05 < shares[3] < 1.0


def test_a_second_update_has_the_gradient_of_capped_ratios(make_policy: MakePolicy) -> None:
    """After one step of SGD, on the same batch: min(rho, c) A / N on each log-probability, with the weights as they are."""
    policy = make_policy()
    learner = PolicyGradient(rollouts=6, max_new_tokens=4, ratio_cap=1.05, updates=2)
    r, groups = one_batch(policy, learner)
    rewards = some_rewards(len(r), 6)

    class StepAndRecord(Recorder):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            if len(self.seen) == 1:
                with torch.no_grad():
                    for p in self.model.parameters():
                        p -= 0.05 * p.grad

    recorder = StepAndRecord(policy.model)
    metrics = learner.learn(Weights(policy, policy, recorder, clip=1e9), r, rewards, groups, "test")
    assert len(recorder.seen) == 2
    logp = policy.logprobs(r)
    ratio = torch.exp(logp.detach() - r.logprobs)
    own = rewards.view(-1, 6)
    advantages = ((own - own.mean(1, keepdim=True)) / (own.std(1, correction=0, keepdim=True) + 1e-6)).flatten()
    weight = ratio.clamp(max=1.05) * advantages[:, None]
    assert_same(recorder.seen[1], gradients_by_hand(policy.model, -(weight * logp)[r.mask].sum() / float(r.mask.sum())))
    live = (own.std(1) > 0).repeat_interleave(6)
    capped = int(((ratio > 1.05) & r.mask)[live].sum())
    assert capped > 0
    assert metrics["capped_share"] == pytest.approx(capped / (2 * float(r.mask.sum())))


def first_token_kl(policy: Policy, base: Policy, texts: Sequence[str]) -> float:
    """Exact KL(policy || base) of the first token, the mean over problems."""
    prompts = [policy.encode("", Problem("strings", text, "")) for text in texts]
    r = policy.forced(prompts, [[0]] * len(prompts))
    with torch.no_grad():
        return float(token_kl(policy.logits(r), base.logits(r)).mean())


@pytest.mark.parametrize(
    "leash",
    [
        {"leash_loss": 1.0},
        {"leash_reward": 1.0},
        {"leash_loss": 1.0, "kl_estimator": "k2"},
        {"leash_loss": 1.0, "kl_estimator": "k3"},
        {"leash_loss": 1.0, "kl_estimator": "k1", "kl_estimator_ratio": True},
    ],
)
@pytest.mark.parametrize("loss", ["cispo", "reinforce"])
def test_a_leash_alone_pulls_to_the_base(make_policy: MakePolicy, leash: dict[str, Any], loss: str) -> None:
    """Rewards all equal, so that the leash is all there is: KL(policy || base) falls, exactly measured; the base stays."""
    policy, base = make_policy(seed=0), make_policy(seed=0)
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.15 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    texts, before = ("ABCDE", "HHH", "CAB", "EF"), state(base)
    start = first_token_kl(policy, base, texts)
    weights = Weights(policy, base, AdamW(policy.model.parameters(), lr=0.003))
    learner = PolicyGradient(loss=loss, problems=8, rollouts=16, max_new_tokens=1, **leash)
    generator = rng(8)
    for _ in range(25):
        learner.step(weights, EMPTY, Stub(lambda *_: 1.0, texts=texts), generator)
    assert start > 0.05
    assert first_token_kl(policy, base, texts) < 0.5 * start
    assert unchanged(base, before)


def test_one_seed_one_run(make_policy: MakePolicy) -> None:
    """The run's generator is all the randomness: the same weights to the last bit, and others from another seed."""
    found = []
    for seed in (1, 1, 2):
        policy = make_policy()
        weights = Weights(policy, make_policy(), AdamW(policy.model.parameters(), lr=0.01))
        task = RuleTask("strings", ("next",), "share", size=3)
        learner = PolicyGradient(problems=4, rollouts=4, max_new_tokens=4, leash_loss=0.1)
        generator = rng(seed)
        torch.manual_seed(len(found))  # must not matter
        for _ in range(3):
            learner.step(weights, Population(("", "next")), task, generator)
        for _ in range(2):
            SupervisedFineTuning(problems=4, replay_share=0.5).step(weights, Population(("", "next")), task, generator)
        found.append(policy)
    assert unchanged(found[0], state(found[1]))
    assert not unchanged(found[0], state(found[2]))


# --- supervised fine-tuning ------------------------------------------------------------------------------------------


def nll(policy: Policy, context: str, task: RuleTask, split: Split, count: int, old: bool = False) -> torch.Tensor:
    """Mean negative log-probability of the answers to the first problems of a split."""
    problems = task.problems(split)[:count]
    prompts = [policy.encode(context, p) for p in problems]
    answers = [policy.encode_answer(task.old_answer(p) if old else task.answer(p)) for p in problems]
    return -policy.logprobs(policy.forced(prompts, answers)).sum() / count


@pytest.mark.parametrize("replay", [0.0, 0.4, 1.0])
def test_gradient_of_fine_tuning(make_policy: MakePolicy, replay: float) -> None:
    """One problem only: the step's gradient is the mixture of that of the right answer and that of the old one."""
    policy, task = make_policy(), Stub(lambda *_: 0.0)
    (problem,) = task.problems("train")
    prompt = [policy.encode("reverse", problem)]
    new, old = (
        gradients_by_hand(policy.model, -policy.logprobs(policy.forced(prompt, [policy.encode_answer(text)])).sum())
        for text in ("EDCBA", "ABCDE")
    )
    weights, recorder = recorded(policy)
    learner = SupervisedFineTuning(problems=10, replay_share=replay)
    _, info = learner.step(weights, Population(("reverse",)), task, rng(9))
    share = info.metrics["old_share"]
    assert share == replay if replay in {0.0, 1.0} else 0.0 < share < 1.0
    assert info.samples == 0, "demonstrations are no rollouts"
    assert_same(recorder.seen[0], {name: (1 - share) * new[name] + share * old[name] for name in new})


def test_share_of_replay(make_policy: MakePolicy) -> None:
    """Over many demonstrations the share of old answers is the one asked for, within 4.5 standard errors."""
    weights, _ = recorded(make_policy())
    task, learner, count = (
        RuleTask("strings", ("next",), size=2),
        SupervisedFineTuning(problems=1500, replay_share=0.3),
        1500,
    )
    _, info = learner.step(weights, EMPTY, task, rng(10))
    assert abs(info.metrics["old_share"] - 0.3) <= 4.5 * math.sqrt(0.21 / count)


def test_every_context_is_shown(make_policy: MakePolicy) -> None:
    """One problem in two contexts: the gradient mixes both, in multiples of one demonstration."""
    policy, task = make_policy(), Stub(lambda *_: 0.0)
    (problem,) = task.problems("train")
    each = []
    for context in ("", "reverse"):
        forced = policy.forced([policy.encode(context, problem)], [policy.encode_answer("EDCBA")])
        each.append(gradients_by_hand(policy.model, -policy.logprobs(forced).sum()))
    weights, recorder = recorded(policy)
    SupervisedFineTuning(problems=12).step(weights, Population(("", "reverse")), task, rng(11))
    one, two, found = (torch.cat([g[name].flatten() for name in each[0]]) for g in (*each, recorder.seen[0]))
    share = float((found - two) @ (one - two) / ((one - two) @ (one - two)))
    assert share * 12 == pytest.approx(round(share * 12), abs=0.01)
    assert 0.1 < share < 0.9
    assert torch.allclose(found, share * one + (1 - share) * two, rtol=0.0, atol=1e-4 * float(two.abs().max()))


@pytest.mark.parametrize("replay", [0.0, 1.0])
def test_fine_tuning_lowers_the_nll_of_what_it_shows(make_policy: MakePolicy, replay: float) -> None:
    """Of held-out demonstrations too; with replay alone, of the old answers."""
    policy, task = make_policy(), RuleTask("strings", ("next",), size=3)
    weights = Weights(policy, policy, AdamW(policy.model.parameters(), lr=0.01))
    before = float(nll(policy, "", task, "test", 30, old=bool(replay)).detach())
    generator = rng(12)
    learner = SupervisedFineTuning(problems=32, replay_share=replay)
    losses = [learner.step(weights, EMPTY, task, generator)[1].metrics["loss"] for _ in range(40)]
    after = float(nll(policy, "", task, "test", 30, old=bool(replay)).detach())
    assert losses[0] == pytest.approx(before, rel=0.25)
    assert losses[-1] < 0.6 * losses[0]
    assert after < 0.6 * before


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "learner",
    [
        PolicyGradient(problems=2, rollouts=4, max_new_tokens=3),
        PolicyGradient(problems=2, rollouts=4, max_new_tokens=3, leash_loss=0.1),
        PolicyGradient(problems=2, rollouts=4, max_new_tokens=3, leash_reward=0.1, loss="reinforce"),
        SupervisedFineTuning(problems=2),
    ],
    ids=["cispo", "leash loss", "leash reward", "sft"],
)
def test_weights_that_are_not_numbers(make_policy: MakePolicy, learner: PolicyGradient | SupervisedFineTuning) -> None:
    """A policy gone to nan stops the run and says on what; no weight is touched and no gradient left."""
    policy = make_policy()
    with torch.no_grad():
        policy.model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    before = {name: torch.nan_to_num(p, nan=99.0) for name, p in state(policy).items()}
    weights = Weights(policy, make_policy(), AdamW(policy.model.parameters(), lr=0.1))
    task = RuleTask("strings", ("next",), "share", size=3)
    with pytest.raises(Diverged, match=r"strings@3:next/share, problems [A-H]{3}"):
        learner.step(weights, EMPTY, task, rng(13))
    after = {name: torch.nan_to_num(p, nan=99.0) for name, p in state(policy).items()}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.grad is None for p in policy.model.parameters())


def test_a_gradient_that_is_not_finite(make_policy: MakePolicy) -> None:
    """A finite loss may have an infinite gradient: stopped as well, before the optimizer sees it."""
    policy = make_policy()
    before = state(policy)
    weights = Weights(policy, policy, SGD(policy.model.parameters(), lr=1.0))
    first = next(policy.model.parameters())
    first.grad = torch.full_like(first, math.inf)
    with pytest.raises(Diverged, match="gradient is not finite on the third batch"):
        weights.apply("the third batch")
    assert unchanged(policy, before)
    assert all(p.grad is None for p in policy.model.parameters())


def test_gradients_are_clipped(make_policy: MakePolicy) -> None:
    """The norm is reported before clipping; the step is of the clipped gradient."""
    policy = make_policy()
    before = state(policy)
    weights = Weights(policy, policy, SGD(policy.model.parameters(), lr=1.0), clip=0.5)
    nll(policy, "", parse_rules("strings"), "train", 4).backward()
    norm = weights.apply("test")
    assert norm > 0.5
    moved = sum(float(((p.detach() - before[name]) ** 2).sum()) for name, p in policy.model.named_parameters())
    assert math.sqrt(moved) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "ppo"}, "cispo, reinforce"),
        ({"problems": 0}, "at least 1"),
        ({"updates": 0}, "at least 1"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"rollouts": 1}, "at least 2"),
        ({"advantage": "median"}, "leave-one-out"),
        ({"ratio_cap": 0.2}, "above 1"),
        ({"ratio_cap": math.nan}, "must be a number"),
        ({"leash_reward": -0.1}, "nonnegative"),
        ({"leash_loss": math.nan}, "must be a number"),
        ({"temperature": 0.0}, "positive"),
        ({"temperature": math.inf}, "positive"),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        PolicyGradient(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("settings", "says"), [({"problems": 0}, "at least 1"), ({"replay_share": 1.5}, r"\[0, 1\]")])
def test_bad_settings_of_fine_tuning(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        SupervisedFineTuning(**settings)


def test_a_context_too_long_for_the_model(make_policy: MakePolicy) -> None:
    """Said before anything is sampled or changed."""
    policy = make_policy()
    before = copy.deepcopy(state(policy))
    weights = Weights(policy, policy, AdamW(policy.model.parameters(), lr=0.1))
    task = RuleTask("strings", ("next",), size=3)
    for learner in (PolicyGradient(problems=2), SupervisedFineTuning(problems=2)):
        with pytest.raises(InputError, match="shorten the context"):
            learner.step(weights, Population(("reverse " * 60,)), task, rng())
    assert unchanged(policy, before)
