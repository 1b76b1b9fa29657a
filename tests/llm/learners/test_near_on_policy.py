"""SDFT, TTT-Discover, OAPL and mixture distillation as learners.

First on a policy of one token and two words whose only weight is the log-odds of the old one: there a step of the learner
itself must be a gradient step of the simulator's objective of the same name, and end where the theory says. Then on
small transformers: what is sampled, from whom, and what moves.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binom

import fstsim.method_objectives as simulator
from fstsim.errors import InputError
from fstsim.llm.learners.groups import ScoredGroups, sample_groups
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.sdft import SDFT, read_examples, rule_context
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.ttt import TTTDiscover
from fstsim.llm.learners.weights import Diverged, Weights
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, token_logprobs
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population, Problem, Score
from fstsim.objectives import ReverseKL
from fstsim.theory import (
    entropic_bracket,
    entropic_shift,
    entropic_tilt_log_odds,
    oapl_loss_gradient,
    oapl_old_mass,
    sdft_fixed_point,
)
from fstsim.two_mode import TwoModeProblem, TwoModeState

MakePolicy = Callable[..., Policy]

log_odds = st.floats(-3.0, 3.0)


# --- one token, two words ----------------------------------------------------------------------------------------------

OLD, NEW = 0, 1


class LogOdds(torch.nn.Module):
    """The whole model: ``s``, log-odds of the old word."""

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = torch.nn.Parameter(torch.tensor(s, dtype=torch.float64))


class TwoWords:
    """A policy that writes one of two words; a context of any kind moves the log-odds of the old one down by ``tilt``."""

    template, device, vocabulary, adapter = "world", torch.device("cpu"), 2, None

    def __init__(self, s: float, tilt: float = 0.0) -> None:
        self.model, self.tilt = LogOdds(s), tilt

    def encode(self, context: str, problem: Problem) -> list[int]:  # noqa: ARG002
        return [int(bool(context))]

    def encode_all(self, pairs: Sequence[tuple[str, Problem]]) -> list[list[int]]:
        return [self.encode(*pair) for pair in pairs]

    def encode_answer(self, answer: str) -> list[int]:
        return [OLD if answer == "old" else NEW]

    def encode_answers(self, answers: Sequence[str]) -> list[list[int]]:
        return [self.encode_answer(answer) for answer in answers]

    def decode(self, rollouts: Rollouts) -> list[str]:
        return ["old" if row == OLD else "new" for row in rollouts.completions[:, 0].tolist()]

    def forced(self, prompts: Sequence[list[int]], words: torch.Tensor) -> Rollouts:
        """Given words, one a prompt."""
        tokens, none = torch.tensor(prompts), torch.zeros(len(words), 1, dtype=torch.float64)
        mask = torch.ones(len(words), 1, dtype=torch.bool)
        blank = Rollouts(tokens, torch.ones_like(tokens, dtype=torch.bool), torch.arange(len(words)), words, mask, none)
        with torch.no_grad():
            return replace(blank, logprobs=self.logprobs(blank))

    def sample(
        self, prompts: Sequence[list[int]], repeats: Any, generator: torch.Generator, *, max_new_tokens: int
    ) -> Rollouts:
        assert max_new_tokens >= 1
        counts = [repeats] * len(prompts) if isinstance(repeats, int) else repeats
        rows = [prompt for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)]
        s = float(self.model.s.detach()) - self.tilt * torch.tensor(rows, dtype=torch.float64)
        return self.forced(rows, (torch.rand(s.shape, generator=generator) > torch.sigmoid(s)).long())

    def with_prompts(self, rollouts: Rollouts, prompts: Sequence[list[int]]) -> Rollouts:
        return replace(rollouts, prompts=torch.tensor(prompts))

    def next_tokens(self, rollouts: Rollouts) -> NextTokens:
        s = self.model.s - self.tilt * rollouts.prompts[rollouts.prompt_of].double()
        return NextTokens.apart(torch.stack((s, torch.zeros_like(s)), -1))

    def logits(self, rollouts: Rollouts) -> torch.Tensor:
        return self.next_tokens(rollouts).whole()

    def logprobs(self, rollouts: Rollouts) -> torch.Tensor:
        return token_logprobs(self.logits(rollouts), rollouts)


@dataclass(frozen=True)
class TwoOutcomes:
    """A task of one problem; the old word is worth ``reward_old``, the new one ``reward_new``."""

    reward_old: float = 0.0
    reward_new: float = 1.0
    name: str = "two:outcomes"

    def problems(self, split: str) -> list[Problem]:  # noqa: ARG002
        return [Problem("two", "x", "x")]

    def score(self, problem: Problem, completion: str) -> Score:  # noqa: ARG002
        return Score(self.reward_old if completion == "old" else self.reward_new, "")

    def answer(self, problem: Problem) -> str:  # noqa: ARG002
        return "new"

    def old_answer(self, problem: Problem) -> str:  # noqa: ARG002
        return "old"


def two_words(s: float, base: float, lag: float | None = None, tilt: float = 0.0, lr: float = 1.0) -> ShadowedWeights:
    """Plain gradient descent on the log-odds, no clipping: the move of a step over ``lr`` is minus the gradient."""
    policy = TwoWords(s, tilt)
    shadow = TwoWords(s if lag is None else lag, tilt)
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=lr)
    held: Any = (policy, TwoWords(base, tilt), optimizer, math.inf)
    return ShadowedWeights(*held, shadow=shadow)  # type: ignore[arg-type]


def at(weights: Weights) -> float:
    return float(weights.policy.model.s.detach())


def teacher_at(weights: ShadowedWeights) -> float:
    return float(weights.shadow.model.s.detach())


def group_of(policy: Any, olds: int, size: int, task: TwoOutcomes) -> ScoredGroups:
    """A group of ``size`` with exactly ``olds`` old words, as if ``policy`` had written it."""
    words = torch.tensor([[OLD]] * olds + [[NEW]] * (size - olds))
    rewards = torch.tensor([[task.reward_old] * olds + [task.reward_new] * (size - olds)], dtype=torch.float64)
    return ScoredGroups(policy.forced([[0]] * size, words), rewards, "two words")


# far apart, means at those of the problem: only the weight is left, and it is a two-outcome choice
FAR = TwoModeProblem(0.5, np.array([0.0]), np.array([60.0]), np.eye(1))


def state(s: float) -> TwoModeState:
    return TwoModeState(np.array(s), FAR.mean_old, FAR.mean_new)


def gradient(objective: Any, s: float) -> float:
    return float(objective.gradient(state(s)).log_odds)


# --- SDFT in the two-outcome limit


@settings(max_examples=25)
@given(
    log_odds,
    log_odds,
    log_odds,
    st.floats(0.0, 3.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["nothing", "demonstration"]),
)
def test_sdft_steps_down_the_simulators_gradient(
    s: float, teacher: float, base: float, tilt: float, anchor: float, sees: str
) -> None:
    """The anchored teacher of theory 8: ``a sbar + (1 - a) s_b - h``, h the whole tilt or a times it."""
    weights = two_words(s, base, teacher, tilt)
    learner = SDFT(problems=3, ema_rate=0.0, teacher_share=anchor, base_sees=sees)  # type: ignore[arg-type]
    learner.step(weights, Population(), parse_rules("digits:plus"), np.random.default_rng(0))
    h = tilt if sees == "demonstration" else anchor * tilt
    objective = simulator.SDFT(FAR, state(anchor * teacher + (1.0 - anchor) * base), h)
    assert at(weights) - s == pytest.approx(-gradient(objective, s), abs=1e-7)


@pytest.mark.parametrize(("anchor", "sees"), [(0.5, "demonstration"), (0.0, "demonstration"), (0.6, "nothing")])
def test_anchored_sdft_ends_where_the_theory_says(anchor: float, sees: str) -> None:
    base, tilt = 0.7, 0.8
    weights, task = two_words(base, base, tilt=tilt, lr=6.0), parse_rules("digits:plus")
    learner = SDFT(problems=1, ema_rate=0.2, teacher_share=anchor, base_sees=sees)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for _ in range(250):
        weights, _ = learner.step(weights, Population(), task, rng)
    h = tilt if sees == "demonstration" else anchor * tilt
    assert at(weights) == pytest.approx(float(sdft_fixed_point(base, h, anchor)), abs=1e-5)
    assert teacher_at(weights) == pytest.approx(at(weights), abs=1e-5)


def test_sdft_without_an_anchor_keeps_only_with_a_frozen_teacher() -> None:
    """rho = 0 ends at ``s_b - h``; rho > 0 goes on, lag between 0 and h (theory 8.1, 8.2)."""
    task, rng, tilt = parse_rules("digits:plus"), np.random.default_rng(0), 0.8
    frozen, moving = (two_words(0.7, 0.7, tilt=tilt, lr=4.0) for _ in range(2))
    for _ in range(160):
        frozen, _ = SDFT(problems=1, ema_rate=0.0).step(frozen, Population(), task, rng)
        moving, _ = SDFT(problems=1, ema_rate=0.1).step(moving, Population(), task, rng)
        assert 0.0 <= teacher_at(moving) - at(moving) <= tilt
    assert at(frozen) == pytest.approx(0.7 - tilt, abs=1e-6)
    assert at(moving) < -4.0
    assert frozen.age == moving.age == 160


# --- TTT-Discover in the two-outcome limit


def expected_move(learner: TTTDiscover, s: float, base: float, task: TwoOutcomes) -> float:
    """Mean of the learner's own step over every group that the policy can write, by its probability."""
    size, moves = learner.rollouts, []
    for olds in range(size + 1):
        weights = two_words(s, base)
        learner.learn(weights, group_of(weights.policy, olds, size, task))
        moves.append(at(weights) - s)
    return float(binom.pmf(np.arange(size + 1), size, expit(s)) @ moves)


def stretch(s: float, b: float, size: int, task: TwoOutcomes) -> float:
    """``Z E[1 / Z_others]`` by the binomial law of the others."""
    old, new = math.exp(b * task.reward_old), math.exp(b * task.reward_new)
    olds = np.arange(size)
    others = (olds * old + (size - 1 - olds) * new) / (size - 1)
    z = expit(s) * old + expit(-s) * new
    return float(z * (binom.pmf(olds, size - 1, expit(s)) / others).sum())


@settings(max_examples=10)
@given(log_odds, log_odds, st.floats(0.1, 4.0), st.floats(0.0, 2.0))
def test_ttt_with_others_is_the_exact_gradient_with_a_longer_entropic_part(
    s: float, base: float, b: float, leash: float
) -> None:
    """Expected step over all groups = (Z E[1/Z_others]) x entropic part + leash of the simulator's objective, exactly."""
    task = TwoOutcomes(0.2, 1.0)
    learner = TTTDiscover(rollouts=6, inverse_temperature=b, leash_reward=leash)
    parts = [
        gradient(simulator.TTTDiscover(FAR, state(base), 0.2, 1.0, b, weight, labelled=True), s)
        for weight in (0.0, leash)
    ]
    wanted = -(stretch(s, b, 6, task) * parts[0] + (parts[1] - parts[0]))
    assert expected_move(learner, s, base, task) == pytest.approx(wanted, abs=1e-7)


@settings(max_examples=20)
@given(st.integers(1, 7), log_odds, st.floats(0.1, 4.0), st.floats(0.0, 2.0), st.sampled_from(["reward", "loss"]))
def test_ttt_on_a_group_in_the_policys_own_proportions(
    olds: int, base: float, b: float, leash: float, kind: str
) -> None:
    """Weights over the group's mean: such a group is the population, and the step is the exact gradient's."""
    s, task = float(logit(olds / 8)), TwoOutcomes(0.2, 1.0)
    weights = two_words(s, base)
    # the leave-one-out baseline of the leash is right on average only: on one group it is longer by 8/7
    reward = leash * 7 / 8 if kind == "reward" else 0.0
    learner = TTTDiscover(
        inverse_temperature=b,
        normaliser="group",
        leash_reward=reward,
        leash_loss=leash if kind == "loss" else 0.0,
    )
    learner.learn(weights, group_of(weights.policy, olds, 8, task))
    objective = simulator.TTTDiscover(FAR, state(base), 0.2, 1.0, b, leash, labelled=True)
    assert at(weights) - s == pytest.approx(-gradient(objective, s), abs=1e-7)


@pytest.mark.parametrize("b", [0.5, 3.0])
def test_ttt_ends_at_the_self_consistent_tilt(b: float) -> None:
    """Where the expected step of the learner vanishes: at the theory's root, shifted by the stretch, which fades like 1/G."""
    base, leash, task = 0.4, 0.8, TwoOutcomes()
    predicted, gaps = float(entropic_tilt_log_odds(base, b, leash)), []
    for size in (8, 24):
        learner = TTTDiscover(rollouts=size, inverse_temperature=b, leash_reward=leash)
        end = brentq(lambda s, learner=learner: expected_move(learner, s, base, task), -6.0, 3.0, xtol=1e-7)
        shifted = brentq(
            lambda s, size=size: s + stretch(s, b, size, task) * float(entropic_shift(s, b)) / leash - base, -8.0, 3.0
        )
        assert end == pytest.approx(shifted, abs=1e-5)
        gaps.append(predicted - end)
    assert 0.0 <= gaps[1] < 0.4 * gaps[0] < 0.2
    low, high = entropic_bracket(base, b, leash)
    assert low <= predicted <= high


def test_ttt_adapts_the_temperature_of_each_group() -> None:
    """The move is that of the fixed temperature which spends the budget."""
    task, moves = TwoOutcomes(), []
    for b in (None, "same"):
        weights = two_words(0.3, 0.0)
        group = group_of(weights.policy, 6, 8, task)
        adaptive = TTTDiscover()
        learner = (
            adaptive
            if b is None
            else replace(adaptive, inverse_temperature=float(adaptive.inverse_temperatures(group.rewards)))
        )
        metrics = learner.learn(weights, group)
        moves.append((at(weights), metrics["inverse_temperature"]))
    assert moves[0] == pytest.approx(moves[1])
    assert moves[0][0] < 0.3


# --- OAPL in the two-outcome limit


@settings(max_examples=25)
@given(log_odds, st.integers(1, 7), st.floats(0.2, 2.0))
def test_oapl_on_a_group_in_the_lagged_policys_proportions(s: float, olds: int, tau: float) -> None:
    """Such a group has V* exactly, and the step is the exact gradient's: the simulator's and the theory's."""
    lag, task = float(logit(olds / 8)), TwoOutcomes(0.1, 0.8)
    weights = two_words(s, 0.0, lag)
    OAPL(tau=tau).learn(weights, group_of(weights.shadow, olds, 8, task))
    objective = simulator.OAPL(FAR, state(lag), 0.1, 0.8, tau)
    assert at(weights) - s == pytest.approx(-gradient(objective, s), abs=1e-7)
    assert at(weights) - s == pytest.approx(-float(oapl_loss_gradient(s, lag, tau, 0.1, 0.8)), abs=1e-7)


@pytest.mark.parametrize("anchor", [1.0, 0.6])
def test_a_solved_period_of_oapl_is_a_tilt_and_refreshes_add_up(anchor: float) -> None:
    """Log-odds fall by (r_n - r_o) / tau a refresh, or end at the anchor's limit, within the sampling error of V*."""
    base, tau, task = 0.5, 0.9, TwoOutcomes(0.3, 0.8)
    learner = OAPL(problems=1, rollouts=2000, tau=tau, period=25, lagged_share=anchor)
    weights, rng, ends = two_words(base, base, lr=3.0), np.random.default_rng(1), []
    for step in range(3 * 25):
        if step % 25 == 0:
            ends.append(at(weights))
        weights, info = learner.step(weights, Population(), task, rng)
        assert info.samples == 2000
        assert teacher_at(weights) == ends[-1]
    ends.append(at(weights))
    # V* of a group of n is off by about gap / sqrt(4 n), which moves the end by about that over tau; three refreshes add up
    error = 3.0 * 4.0 * 0.5 / math.sqrt(4.0 * 2000) / tau
    for k, s in enumerate(ends):
        assert s == pytest.approx(float(logit(oapl_old_mass(expit(base), 0.5, tau, k, anchor))), abs=error)


# --- mixture distillation in the two-outcome limit


@settings(max_examples=25)
@given(log_odds, log_odds, st.floats(0.0, 1.0), st.floats(0.01, 0.5))
def test_mixture_distillation_steps_down_the_reverse_kl(s: float, base: float, alpha: float, smoothing: float) -> None:
    weights = two_words(s, base)
    target = (1.0 - smoothing) * alpha + smoothing * float(expit(base))
    learner = MixtureDistillation(problems=1, alpha=alpha, smoothing=smoothing)
    learner.step(weights, Population(), TwoOutcomes(), np.random.default_rng(0))
    problem = TwoModeProblem(target, FAR.mean_old, FAR.mean_new, np.eye(1))
    assert at(weights) - s == pytest.approx(-gradient(ReverseKL(problem), s), abs=1e-6)


@pytest.mark.parametrize("direction", ["reverse", "forward"])
@pytest.mark.parametrize("start", [-3.0, 2.0])
def test_mixture_distillation_ends_at_its_share_from_any_start(direction: str, start: float) -> None:
    weights, rng = two_words(start, 0.0, lr=4.0), np.random.default_rng(0)
    learner = MixtureDistillation(problems=1, alpha=0.3, smoothing=0.1, direction=direction)  # type: ignore[arg-type]
    for _ in range(150):
        learner.step(weights, Population(), TwoOutcomes(), rng)
    assert expit(at(weights)) == pytest.approx(0.9 * 0.3 + 0.1 * 0.5, abs=1e-6)


# --- small transformers ------------------------------------------------------------------------------------------------


def start(make_policy: MakePolicy, seed: int = 1, lr: float = 3e-3) -> ShadowedWeights:
    policy, base = make_policy(seed=seed), make_policy(seed=seed)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=lr, weight_decay=0.0)
    return ShadowedWeights.start(Weights(policy, base, optimizer))


def flat(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


TASK = "strings:reverse"


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_teacher_is_the_moving_average_of_the_student(rate: float, make_policy: MakePolicy) -> None:
    weights, rng = start(make_policy), np.random.default_rng(0)
    average, before = flat(weights.shadow), flat(weights.policy)
    learner = SDFT(problems=4, ema_rate=rate, max_new_tokens=3)
    for _ in range(3):
        weights, info = learner.step(weights, Population(), parse_rules(TASK), rng)
        average = average + rate * (flat(weights.policy) - average)
        assert info.samples == 4
    torch.testing.assert_close(flat(weights.shadow), average, rtol=0.0, atol=1e-6)
    assert torch.equal(flat(weights.shadow), before) == (rate == 0.0)
    assert torch.equal(flat(weights.shadow), flat(weights.policy)) == (rate == 1.0)
    assert torch.equal(flat(weights.base), before)
    assert not any(p.requires_grad for p in weights.shadow.model.parameters())


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_the_student_moves_to_its_demonstrated_self(direction: str, make_policy: MakePolicy) -> None:
    weights, rng, losses = start(make_policy), np.random.default_rng(0), []
    learner = SDFT(problems=16, ema_rate=0.0, direction=direction, max_new_tokens=3)  # type: ignore[arg-type]
    for _ in range(25):
        weights, info = learner.step(weights, Population(), parse_rules(TASK), rng)
        losses.append(info.metrics["loss"])
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_the_anchor_is_token_by_token(make_policy: MakePolicy) -> None:
    """Against the product by hand of what teacher and base say, in the student's context followed by the rules."""
    weights = start(make_policy)
    weights = replace(weights, shadow=make_policy(seed=5))
    task = parse_rules("strings:reverse+next")
    problems = list(task.problems("test")[:3])
    contexts = ["prev", "", "sort"]
    rollouts = weights.policy.sample(
        [weights.policy.encode(c, p) for c, p in zip(contexts, problems, strict=True)],
        1,
        torch.Generator().manual_seed(0),
        max_new_tokens=4,
    )
    for sees in ("nothing", "demonstration"):
        learner = SDFT(teacher_share=0.3, base_sees=sees)  # type: ignore[arg-type]
        with torch.no_grad():
            found = learner.teacher_logprobs(weights, rollouts, problems, contexts, ["reverse next"] * 3)
        for i, (context, problem) in enumerate(zip(contexts, problems, strict=True)):
            shown = f"{context} reverse next".strip()
            written = rollouts.completions[i][rollouts.mask[i]].tolist()
            rows = []
            for policy, prompt in (
                (weights.shadow, shown),
                (weights.base, shown if sees == "demonstration" else context),
            ):
                tokens = policy.encode(prompt, problem)
                with torch.no_grad():
                    logits = policy.model(torch.tensor([tokens + written])).logits[0, len(tokens) - 1 : -1]
                rows.append(torch.log_softmax(logits, -1))
            wanted = torch.log_softmax(0.3 * rows[0] + 0.7 * rows[1], -1)
            torch.testing.assert_close(found[i, : len(written)], wanted, rtol=1e-4, atol=1e-4)


def test_worked_examples_are_read_by_the_base(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reflection's form, other examples for each problem, the likeliest reading; the teacher sees what was read."""
    policy, task, seen = make_policy(max_position_embeddings=80), parse_rules("strings:reverse"), []
    encode_text = Policy.encode_text
    monkeypatch.setattr(Policy, "encode_text", lambda self, text: seen.append(text) or encode_text(self, text))
    read = read_examples(policy, task, 5, np.random.default_rng(0))
    assert read == read_examples(policy, task, 5, np.random.default_rng(0))
    assert len(set(seen)) == 5
    for text in seen:
        pairs = [part.split(" > ") for part in text.removesuffix(" ?").split(" ; ")]
        assert len(pairs) == 4
        assert all(right == start[::-1] for start, right in pairs)
    weights = start(lambda **_: copy.deepcopy(policy))
    shown: list[Sequence[str]] = []
    real = SDFT.teacher_logprobs
    monkeypatch.setattr(SDFT, "teacher_logprobs", lambda *args: shown.append(args[-1]) or real(*args))
    SDFT(problems=3, demonstration="examples", max_new_tokens=3).step(
        weights, Population(), task, np.random.default_rng(0)
    )
    assert len(shown[0]) == 3


def test_demonstrations_that_cannot_be_shown(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with pytest.raises(InputError, match="digits:unnamed has no rule in words"):
        SDFT().check(policy, "", parse_rules("digits:unnamed"))
    with pytest.raises(InputError, match="do not fit the model's 64 positions"):
        SDFT().check(policy, " ".join(["next"] * 48), parse_rules("strings:next"))
    with pytest.raises(InputError, match="do not fit the model's 64 positions"):
        SDFT(demonstration="examples").check(policy, " ".join(["next"] * 45), parse_rules("strings:next"))
    SDFT().check(policy, "", parse_rules("strings:next"))
    other = replace(policy, template="plain")
    assert (
        rule_context(other, parse_rules("digits:plus+shift"))
        == "add 3 to each digit modulo 10; then move the last digit to the front"
    )
    with pytest.raises(InputError, match="needs the base model, or one made by fstsim pretrain"):
        SDFT(demonstration="examples").check(other, "", parse_rules("strings:next"))


def test_the_mixtures_sequences_have_the_shares_that_were_given(make_policy: MakePolicy) -> None:
    """Probability of the old answer, the right one and some other under the teacher, by the chain rule, in any order."""
    base, task = make_policy(), parse_rules("strings:reverse")
    problems = [p for p in task.problems("test") if task.answer(p) != task.old_answer(p)][:4]
    learner = MixtureDistillation(alpha=0.3, smoothing=0.1)
    for k, write in enumerate((task.old_answer, task.answer, lambda p: task.answer(p)[:3])):
        forced = base.forced([base.encode("", p) for p in problems], [base.encode_answer(write(p)) for p in problems])
        with torch.no_grad():
            teacher = learner.teacher_logprobs(base, forced, problems, task)
            own = base.logprobs(forced).sum(-1).exp()
        torch.testing.assert_close(teacher.exp().sum(-1), torch.ones(teacher.shape[:2]), rtol=1e-5, atol=1e-5)
        found = token_logprobs(teacher, forced).sum(-1).exp()
        point = (0.9 * 0.3, 0.9 * 0.7, 0.0)[k]
        torch.testing.assert_close(found, point + 0.1 * own, rtol=1e-3, atol=1e-9)


@dataclass(frozen=True)
class OneProblem:
    """A task of which only the first problem with two answers is left."""

    inner: Any
    name: str = "one:problem"

    def problems(self, split: Any) -> list[Problem]:
        return [p for p in self.inner.problems(split) if self.answer(p) != self.old_answer(p)][:1]

    def answer(self, problem: Problem) -> str:
        return self.inner.answer(problem)  # type: ignore[no-any-return]

    def old_answer(self, problem: Problem) -> str:
        return self.inner.old_answer(problem)  # type: ignore[no-any-return]


def test_a_transformer_writes_the_mixture(make_policy: MakePolicy) -> None:
    """On one problem, from half and half: both answers get their shares of the sequences."""
    weights, rng, task = start(make_policy, lr=1e-2), np.random.default_rng(0), OneProblem(parse_rules(TASK))
    for _ in range(25):
        SupervisedFineTuning(problems=8, replay_share=0.5).step(weights, Population(), task, rng)
    learner = MixtureDistillation(problems=16, alpha=0.1, smoothing=0.05, max_new_tokens=6)
    for _ in range(40):
        _, info = learner.step(weights, Population(), task, rng)  # type: ignore[arg-type]
        assert info.samples == 16
    (problem,) = task.problems("train")
    masses = []
    for answer in (task.old_answer(problem), task.answer(problem)):
        forced = weights.policy.forced([weights.policy.encode("", problem)], [weights.policy.encode_answer(answer)])
        with torch.no_grad():
            masses.append(float(weights.policy.logprobs(forced).sum().exp()))
    assert masses == pytest.approx([0.95 * 0.1, 0.95 * 0.9], abs=0.05)


@dataclass(frozen=True)
class FirstLetter:
    """Half of the alphabet is right as a first letter: a reward that a random policy meets now and then."""

    inner: Any
    name: str = "first:letter"

    def problems(self, split: Any) -> Sequence[Problem]:
        return self.inner.problems(split)  # type: ignore[no-any-return]

    def score(self, problem: Problem, completion: str) -> Score:  # noqa: ARG002
        return Score(float(completion[:1] in tuple("ABCDEFGH")), "")


@pytest.mark.parametrize(
    "learner",
    [
        TTTDiscover(problems=8, max_new_tokens=2),
        TTTDiscover(problems=8, max_new_tokens=2, inverse_temperature=2.0, normaliser="group", leash_loss=0.01),
        TTTDiscover(problems=8, max_new_tokens=2, leash_reward=0.01),
        OAPL(problems=8, max_new_tokens=2, period=2),
        OAPL(problems=8, max_new_tokens=2, period=3, lagged_share=0.9),
    ],
)
def test_reward_is_learned(learner: Any, make_policy: MakePolicy) -> None:
    weights, rng, rewards = start(make_policy), np.random.default_rng(0), []
    for _ in range(20):
        weights, info = learner.step(weights, Population(), FirstLetter(parse_rules(TASK)), rng)
        rewards.append(info.metrics["train_reward"])
        assert info.samples == 64
    assert 0.02 < np.mean(rewards[:2]) < 0.6
    assert np.mean(rewards[-4:]) > np.mean(rewards[:2]) + 0.2


def test_the_lagged_policy_is_refreshed_every_period(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled is the lagged policy, never the present one; it becomes the present one before steps 1, 4, 7, ..."""
    weights, rng, sampled = start(make_policy), np.random.default_rng(0), []
    sample = Policy.sample
    monkeypatch.setattr(Policy, "sample", lambda self, *a, **k: sampled.append(self) or sample(self, *a, **k))
    learner, lagged = OAPL(problems=2, rollouts=2, period=3, max_new_tokens=2, tau=0.1), flat(weights.policy)
    for step in range(8):
        if step % 3 == 0:
            lagged = flat(weights.policy)
        weights, _ = learner.step(weights, Population(), FirstLetter(parse_rules(TASK)), rng)
        assert sampled[-1] is weights.shadow
        assert torch.equal(flat(weights.shadow), lagged)
        assert weights.age == step + 1


def test_groups_are_scored_by_the_task(make_policy: MakePolicy) -> None:
    """``rewards (P, G)`` in the order of the rollouts, several contexts in a group."""
    policy, task = make_policy(), FirstLetter(parse_rules(TASK))
    population = Population(("", "next"))
    groups = sample_groups(policy, population, task, np.random.default_rng(0), problems=3, rollouts=5, max_new_tokens=2)
    assert groups.rewards.shape == (3, 5)
    assert groups.rewards.flatten().tolist() == [task.score(None, t).reward for t in policy.decode(groups.rollouts)]  # type: ignore[arg-type]
    assert len(groups.rollouts.prompts) == 6
    assert groups.what.startswith("first:letter, problems ")


LEARNERS = [SDFT(problems=2), TTTDiscover(problems=2), OAPL(problems=2, period=5), MixtureDistillation(problems=2)]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_weights_that_are_not_numbers(learner: Any, make_policy: MakePolicy) -> None:
    weights = start(make_policy)
    with torch.no_grad():
        next(weights.policy.model.parameters()).fill_(torch.nan)
    before = flat(weights.policy)
    with pytest.raises(Diverged, match=f"on {TASK}, problems") as caught:
        learner.step(replace(weights, age=1), Population(), parse_rules(TASK), np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(flat(weights.policy), before, equal_nan=True)
    assert all(p.grad is None for p in weights.policy.model.parameters())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SDFT(problems=0), "problems and max_new_tokens must be at least 1"),
        (lambda: SDFT(demonstration="answer"), "demonstration must be one of rule, examples; got 'answer'"),  # type: ignore[arg-type]
        (lambda: SDFT(ema_rate=1.5), r"ema_rate must lie in \[0, 1\], got 1.5"),
        (lambda: SDFT(ema_rate=math.nan), "ema_rate"),
        (lambda: SDFT(teacher_share=-0.1), r"teacher_share must lie in \[0, 1\]"),
        (lambda: SDFT(base_sees="all"), "base_sees must be one of nothing, demonstration"),  # type: ignore[arg-type]
        (lambda: SDFT(direction="both"), "direction"),  # type: ignore[arg-type]
        (lambda: TTTDiscover(problems=0), "problems"),
        (lambda: TTTDiscover(rollouts=1), "rollouts must be at least 2"),
        (lambda: TTTDiscover(rollouts=2), r"entropy_budget must be positive and below log\(rollouts\) = 0.693"),
        (lambda: TTTDiscover(entropy_budget=0.0), "budget"),
        (lambda: TTTDiscover(entropy_budget=math.nan), "budget"),
        (lambda: TTTDiscover(inverse_temperature=0.0), "inverse_temperature must be positive and finite"),
        (lambda: TTTDiscover(inverse_temperature=math.inf), "inverse_temperature"),
        (lambda: TTTDiscover(normaliser="all"), "normaliser must be one of leave-one-out, group"),  # type: ignore[arg-type]
        (lambda: TTTDiscover(leash_reward=-1.0), "leash_reward and leash_loss must be nonnegative"),
        (lambda: TTTDiscover(leash_loss=math.nan), "leash_loss must be a number, got nan"),
        (lambda: OAPL(period=0), "period"),
        (lambda: OAPL(rollouts=1), "rollouts must be at least 2"),
        (lambda: OAPL(tau=0.0), "tau must be positive and finite"),
        (lambda: OAPL(lagged_share=1.1), "lagged_share"),
        (lambda: MixtureDistillation(alpha=1.2), r"alpha must lie in \[0, 1\], got 1.2"),
        (lambda: MixtureDistillation(smoothing=0.0), "smoothing must lie above 0 and below 1"),
        (lambda: MixtureDistillation(smoothing=1.0), "smoothing"),
        (lambda: MixtureDistillation(direction="both"), "direction"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range(make: Callable[[], SimpleNamespace], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()
