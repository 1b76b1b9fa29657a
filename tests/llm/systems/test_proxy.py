"""Proxy-tuning against plain passes: the combination is that of three models read one row at a time, at every alpha."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.learners.proxy import ProxyTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import token_logprobs
from fstsim.llm.systems.measure import answer_scores
from fstsim.llm.systems.proxy import ProxyPolicy, answer_normalisers, combined
from fstsim.llm.systems.system import Asked, Bare, sample_stepwise
from fstsim.llm.systems.weights import SystemWeights, trainable
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Population, Problem, Score
from fstsim.theory.deployed import proxy_log_odds

MakePolicy = Callable[..., Policy]
ASKED: list[Asked] = [
    ("", Problem("strings", "A B", "")),
    ("next reverse", Problem("strings", "H G F A", "")),
    ("", Problem("digits", "1 2 3", "")),
]
ANSWERS = ["B A", "A F G H", "3"]


class OddLength(RuleTask):
    """Rewards what random models write half of the time: completions of an odd number of characters."""

    def score(self, problem: Problem, completion: str) -> Score:  # noqa: ARG002
        return Score(float(len(completion) % 2), "")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def system_of(make_policy: MakePolicy, alpha: float, *, tuned: bool = True, big: Policy | None = None) -> ProxyPolicy:
    """A system of unlike models; the expert is another model than its start where it is ``tuned``."""
    small = make_policy(seed=1, hidden_size=16)
    system = ProxyPolicy.start(big or make_policy(seed=0), small, alpha)
    if not tuned:
        return system
    return replace(system, expert=make_policy(seed=2, hidden_size=16))


def plain_logits(policy: Policy, asked: Asked, answer: str) -> torch.Tensor:
    """Next-token logits along an answer from one unpadded pass, ``(T, V)``."""
    prompt, tokens = policy.encode(*asked), policy.encode_answer(answer)
    with torch.no_grad():
        return policy.model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_an_expert_that_has_learned_nothing_changes_no_bit(make_policy: MakePolicy, alpha: float) -> None:
    system = system_of(make_policy, alpha, tuned=False)
    shown = system.big.forced([system.big.encode(*pair) for pair in ASKED], [[5, 6, 7]] * 3)
    assert torch.equal(system.logits(ASKED, shown), Bare(system.big).logits(ASKED, shown))
    wrote, base = (each.sample(ASKED, seeded(0), max_new_tokens=6) for each in (system, Bare(system.big)))
    assert torch.equal(wrote.completions, base.completions)


def test_alpha_0_is_the_model_and_a_pair_of_the_model_is_the_expert(make_policy: MakePolicy) -> None:
    system = system_of(make_policy, 0.0)
    shown = system.big.forced([system.big.encode(*pair) for pair in ASKED], [[5, 6, 7]] * 3)
    assert torch.equal(system.logits(ASKED, shown), Bare(system.big).logits(ASKED, shown))
    big = make_policy(seed=0)
    same = ProxyPolicy(big, make_policy(seed=2, hidden_size=16), big, 1.0)
    own = torch.log_softmax(Bare(same.expert).logits(ASKED, shown), -1)
    torch.testing.assert_close(torch.log_softmax(same.logits(ASKED, shown), -1), own, atol=1e-5, rtol=0.0)


def test_combination_is_that_of_plain_passes_of_single_prompts(make_policy: MakePolicy) -> None:
    """Logits before any softmax: three left-padded prompts give what three single ones give, of each model."""
    system = system_of(make_policy, 0.7)
    shown = system.big.forced(
        [system.big.encode(*pair) for pair in ASKED], [system.big.encode_answer(answer) for answer in ANSWERS]
    )
    found = system.logits(ASKED, shown)
    for row, (pair, answer) in enumerate(zip(ASKED, ANSWERS, strict=True)):
        big, expert, anti = (plain_logits(each, pair, answer) for each in (system.big, system.expert, system.anti))
        torch.testing.assert_close(found[row, : len(big)], big + 0.7 * (expert - anti), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_own_caches_sample_as_scoring_from_logits_alone(make_policy: MakePolicy, temperature: float) -> None:
    system = system_of(make_policy, 1.5)
    fast = system.sample(ASKED, seeded(3), max_new_tokens=8, temperature=temperature)
    slow = sample_stepwise(system, ASKED, seeded(3), 8, temperature)
    assert torch.equal(fast.completions, slow.completions)
    torch.testing.assert_close(fast.logprobs, slow.logprobs, atol=1e-4, rtol=1e-4)
    again = token_logprobs(system.logits(ASKED, fast), fast)  # over the temperature of the rollouts
    torch.testing.assert_close(fast.logprobs, again, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("alpha", [-0.5, 0.5, 1.0, 2.0])
def test_log_odds_of_whole_answers_are_affine_but_for_the_normalisers(make_policy: MakePolicy, alpha: float) -> None:
    """Statement proxy-affine on models: fails if a cache, a position or a temperature of one model is out of step."""
    system = system_of(make_policy, alpha)
    policy = system.big
    prompts = [policy.encode(*pair) for pair in ASKED]
    pairs = (ANSWERS, ["A", "B", "1 2 3 4"])

    def whole(each: Policy) -> list[np.ndarray]:
        return [
            token_logprobs(each.logits(shown).double(), shown).sum(-1).numpy()
            for answers in pairs
            for shown in [each.forced(prompts, [each.encode_answer(a) for a in answers])]
        ]

    with torch.no_grad():
        logz = [answer_normalisers(system, prompts, [policy.encode_answer(a) for a in answers]) for answers in pairs]
        odds = [one - other for one, other in (whole(e) for e in (policy, system.expert, system.anti, system.acting))]
    expected = proxy_log_odds(*odds[:3], alpha, (logz[0] - logz[1]).numpy())
    np.testing.assert_allclose(odds[3], expected, atol=1e-4)


def test_padded_vocabularies_are_cut_to_the_models(make_policy: MakePolicy) -> None:
    big, more, fewer = torch.randn(2, 5), torch.randn(2, 7), torch.randn(2, 4)
    torch.testing.assert_close(combined(big, more, 0 * more, 2.0), big + 2.0 * more[:, :5])
    torch.testing.assert_close(combined(big, fewer, 0 * fewer, 1.0)[:, :4], big[:, :4] + fewer)
    assert torch.equal(combined(big, fewer, 0 * fewer, 1.0)[:, 4], big[:, 4])
    small = make_policy(seed=1, vocab_size=make_policy().vocabulary + 3)
    system = ProxyPolicy.start(make_policy(seed=0), small, 1.0)
    wrote = system.sample(ASKED, seeded(0), max_new_tokens=4)
    assert system.logits(ASKED, wrote).shape[-1] == system.big.vocabulary


def test_other_tokenizers_are_refused_in_one_line(make_policy: MakePolicy) -> None:
    big, small = make_policy(seed=0), make_policy(seed=1)
    strange = copy.deepcopy(small.tokenizer)
    strange.add_tokens(["other"])
    with pytest.raises(InputError, match=r"other' is not the same token") as raised:
        ProxyPolicy.start(big, replace(small, tokenizer=strange), 1.0, "small")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("by", ["sft", "rl"])
@pytest.mark.parametrize("tuned_on", ["own", "combined"])
def test_training_moves_the_expert_alone(make_policy: MakePolicy, by: str, tuned_on: str) -> None:
    big = make_policy(seed=0)
    big.model.requires_grad_(False)
    system = system_of(make_policy, 1.0, tuned=False, big=big)
    before = [p.detach().clone() for each in (big, system.anti) for p in each.model.parameters()]
    learner = ProxyTuning(problems=8, rollouts=4, by=by, tuned_on=tuned_on)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(trainable(system), lr=3e-3, weight_decay=0.0)
    weights = SystemWeights(big, big, optimizer, system=system)
    task = OddLength("strings", ("next",))
    rng = np.random.default_rng(0)
    answer = [task.answer(p) for p in task.problems("train")[:8]]
    asked: list[Asked] = [("", p) for p in task.problems("train")[:8]]
    learns = system if tuned_on == "combined" else Bare(system.expert)
    start = answer_scores(learns, asked, answer)[0].mean()
    for _ in range(4):
        weights, _ = learner.step(weights, Population(), task, rng)
    after = [p for each in (big, system.anti) for p in each.model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)
    assert any(not torch.equal(p, q) for p, q in zip(system.parameters(), system.anti.model.parameters(), strict=True))
    if by == "sft":
        assert answer_scores(learns, asked, answer)[0].mean() > start


def test_the_start_stays_frozen(make_policy: MakePolicy) -> None:
    system = system_of(make_policy, 1.0, tuned=False)
    assert not any(p.requires_grad for p in system.anti.model.parameters())
    assert all(p.requires_grad for p in system.parameters())


def test_state_is_the_expert_and_is_refused_elsewhere(make_policy: MakePolicy) -> None:
    system, other = system_of(make_policy, 1.0), system_of(make_policy, 1.0, tuned=False)
    other.restore(system.tensors(), system.notes())
    for one, two in zip(other.parameters(), system.parameters(), strict=True):
        assert torch.equal(one, two)
    assert system.size.trained == sum(p.numel() for p in system.expert.model.parameters())
    with pytest.raises(ValueError, match="alpha"):
        replace(other, alpha=2.0).restore(system.tensors(), system.notes())
    with pytest.raises(ValueError, match="lacks a tensor"):
        other.restore({}, system.notes())
