"""Soft tokens against words in their place: embeddings of rule words are those words, wherever vectors stand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.learners.soft import SoftTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import token_logprobs
from fstsim.llm.systems.measure import answer_scores
from fstsim.llm.systems.soft import SOFT, SoftPolicy, check_place
from fstsim.llm.systems.system import Asked, Bare, sample_stepwise
from fstsim.llm.systems.weights import SystemWeights, trainable
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Population, Problem, Score

MakePolicy = Callable[..., Policy]
PROBLEMS = [Problem("strings", "A B", ""), Problem("strings", "H G F A", ""), Problem("digits", "1 2 3", "")]
ASKED: list[Asked] = [("", p) for p in PROBLEMS]
WORDS = "reverse next"


class OddLength(RuleTask):
    """Rewards what random models write half of the time: completions of an odd number of characters."""

    def score(self, problem: Problem, completion: str) -> Score:  # noqa: ARG002
        return Score(float(len(completion) % 2), "")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(make_policy: MakePolicy, vectors: int = 2, **settings: object) -> SoftPolicy:
    base = make_policy(seed=0)
    return replace(SoftPolicy.start(base, base, vectors, 0), **settings)


def with_matrix(system: SoftPolicy, size: float = 0.3) -> SoftPolicy:
    with torch.no_grad():
        system.projection.matrix.normal_(0.0, size, generator=seeded(5))
    return system


def test_no_vectors_are_the_base_to_the_bit(make_policy: MakePolicy) -> None:
    system = start(make_policy, 0)
    shown = system.base.forced([system.base.encode(*pair) for pair in ASKED], [[5, 6, 7]] * 3)
    assert torch.equal(system.logits(ASKED, shown), Bare(system.base).logits(ASKED, shown))
    several = replace(start(make_policy, 2), shown=0)
    assert torch.equal(several.logits(ASKED, shown), Bare(several.base).logits(ASKED, shown))


@pytest.mark.parametrize("context", ["", "rotate"])
def test_embeddings_of_rule_words_are_the_words(make_policy: MakePolicy, context: str) -> None:
    """A wrong position, mask, position id or scale of the embedding would be seen here."""
    system = start(make_policy, 2)
    table = system.base.model.get_input_embeddings()
    words = torch.tensor(system.base._tokens(WORDS))
    with torch.no_grad():
        system.projection.bias.copy_(table(words))
    shown = system.base.forced([system.base.encode(*pair) for pair in ASKED], [[5, 6, 7]] * 3)
    told: list[Asked] = [(f"{context} {WORDS}".strip(), p) for p in PROBLEMS]
    asked: list[Asked] = [(context, p) for p in PROBLEMS]
    expected = Bare(system.base).logits(told, shown)
    torch.testing.assert_close(system.logits(asked, shown), expected, atol=1e-5, rtol=1e-5)
    wrote, words_wrote = (
        system.sample(asked, seeded(0), max_new_tokens=6),
        Bare(system.base).sample(told, seeded(0), max_new_tokens=6),
    )
    assert torch.equal(wrote.completions, words_wrote.completions)


@pytest.mark.parametrize("place", ["context", "thought"])
def test_vectors_stand_in_their_place(make_policy: MakePolicy, place: str) -> None:
    policy = start(make_policy, 2, place=place).trained_as
    plain = make_policy(seed=0).encode("next", PROBLEMS[0])
    soft = policy.encode("next", PROBLEMS[0])
    assert [token for token in soft if token != SOFT] == plain
    bar, ends = policy._tokens("|")[0], policy._tokens("=")[0]
    assert soft[soft.index(SOFT) + 2] == (bar if place == "context" else ends)


@pytest.mark.parametrize("place", ["context", "thought"])
@pytest.mark.parametrize("thoughts", ["full", "bias", "zero"])
def test_sampling_and_scoring_agree(make_policy: MakePolicy, place: str, thoughts: str) -> None:
    system = with_matrix(start(make_policy, 3, place=place, thoughts=thoughts))
    fast = system.sample(ASKED, seeded(1), max_new_tokens=6)
    slow = sample_stepwise(system, ASKED, seeded(1), 6, 1.0)
    assert torch.equal(fast.completions, slow.completions)
    with torch.no_grad():
        scored = token_logprobs(system.logits(ASKED, fast), fast)
    torch.testing.assert_close(fast.logprobs, scored, atol=1e-4, rtol=1e-4)
    for row, pair in enumerate(ASKED):  # alone as in a batch of prompts of other lengths
        alone = fast.take(torch.tensor([row]))
        with torch.no_grad():
            logp = token_logprobs(system.logits([pair], alone), alone)
        torch.testing.assert_close(logp[0], scored[row, : logp.shape[1]], atol=1e-4, rtol=1e-4)


def test_thoughts_are_hidden_states_behind_the_problem(make_policy: MakePolicy) -> None:
    """From a plain pass over one unpadded prompt; shuffled ones are those of another problem."""
    system = with_matrix(start(make_policy, 3))
    policy = system.trained_as
    tokens, mask = policy._pad(policy.encode_all(ASKED))
    with torch.no_grad():
        found = policy.thought(tokens, mask)
        others = replace(policy, thoughts="shuffled").thought(tokens, mask)
    matrix, bias = system.projection.matrix, system.projection.bias
    for row, pair in enumerate(ASKED):
        read = [*system.base.encode(*pair), *[system.base.end_token] * 3]
        with torch.no_grad():
            states = system.base.model(torch.tensor([read]), output_hidden_states=True).hidden_states[-1][0, -3:]
            torch.testing.assert_close(found[row], bias + states @ matrix.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(others, found.roll(1, 0))


def test_gradients_are_the_projections_alone(make_policy: MakePolicy) -> None:
    base, assistant = make_policy(seed=0), make_policy(seed=3, hidden_size=16)
    system = SoftPolicy.start(base, assistant, 2, 0)
    shown = base.forced([base.encode(*pair) for pair in ASKED], [[5, 6, 7]] * 3)
    token_logprobs(system.logits(ASKED, shown), shown).sum().backward()
    for parameter in system.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0.0
    assert all(p.grad is None for each in (base, assistant) for p in each.model.parameters())
    assert system.size.trained == 2 * 32 + 32 * 16


@pytest.mark.parametrize(("by", "thoughts"), [("sft", "full"), ("sft", "bias"), ("rl", "full"), ("sft", "zero")])
def test_training_moves_the_projection_alone(make_policy: MakePolicy, by: str, thoughts: str) -> None:
    learner = SoftTokens(problems=8, rollouts=4, by=by, vectors=2, thoughts=thoughts)  # type: ignore[arg-type]
    base = make_policy(seed=0)
    base.model.requires_grad_(False)
    system = learner.deploy(base, 0)
    before = {name: value.clone() for name, value in system.tensors().items()}
    weights_before = copy.deepcopy(base.model.state_dict())
    optimizer = torch.optim.AdamW(trainable(system), lr=1e-2, weight_decay=0.0)
    weights = SystemWeights(base, base, optimizer, system=system)
    task = OddLength("strings", ("next",))
    asked: list[Asked] = [("", p) for p in task.problems("train")[:8]]
    answers = [task.answer(p) for _, p in asked]
    began = answer_scores(system, asked, answers)[0].mean()
    rng = np.random.default_rng(0)
    for _ in range(6):
        weights, _ = learner.step(weights, Population(), task, rng)
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, weights_before[name])
    moved = {name for name, value in system.tensors().items() if not torch.equal(value, before[name])}
    assert moved == {"full": {"bias", "matrix"}, "bias": {"bias"}, "zero": set()}[thoughts]
    assert system.size.trained == sum(before[name].numel() for name in moved)
    if by == "sft" and thoughts != "zero":
        assert answer_scores(system, asked, answers)[0].mean() > began


def test_more_vectors_in_test_than_in_training(make_policy: MakePolicy) -> None:
    """Rows of the bias are used in turn; fewer use the first."""
    system = start(make_policy, 2)
    more, fewer = replace(system, shown=3).acting, replace(system, shown=1).acting
    tokens, mask = more._pad(more.encode_all(ASKED))
    bias = system.projection.bias
    torch.testing.assert_close(more.thought(tokens, mask)[0], bias[[0, 1, 0]])
    assert fewer.encode("", PROBLEMS[0]).count(SOFT) == 1


def test_state_is_the_projection_and_is_refused_elsewhere(make_policy: MakePolicy) -> None:
    system, other = with_matrix(start(make_policy, 2)), start(make_policy, 2)
    other.restore(system.tensors(), system.notes())
    assert torch.equal(other.projection.matrix, system.projection.matrix)
    with pytest.raises(ValueError, match="bias"):
        start(make_policy, 3).restore(system.tensors(), system.notes())
    with pytest.raises(ValueError, match="thought"):
        replace(other, place="thought").restore(system.tensors(), system.notes())


def test_bad_settings_are_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(InputError, match="place must be one of context, thought; got 'end'"):
        check_place("end")
    with pytest.raises(InputError, match="vectors must lie in"):
        SoftTokens(vectors=-1)
    strange = copy.deepcopy(make_policy().tokenizer)
    strange.add_tokens(["other"])
    with pytest.raises(InputError, match="other' is not the same token"):
        SoftPolicy.start(make_policy(), replace(make_policy(), tokenizer=strange), 2, 0)
