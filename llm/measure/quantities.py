"""One policy on one set of problems, and its distance from the base: arrays over problems, from which everything is averaged.

Sampled completions serve KL, entropy, pass@k and, where no exact probability is known, the reward. Every model draws them
from the same random numbers. At each of their tokens KL and entropy are taken with the full vocabulary, as in
`fstsim.llm.runs.probes`; their sum over a completion has the sequences' KL as expectation (cut off at ``max_new_tokens``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.measure.paired import flips, mean_se, pass_fan, ratio_se
from fstsim.llm.policy.divergence import inside
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.tasks.parse import problems_hash
from fstsim.llm.types import Answered, Demonstrated, Problem, Task

Array = NDArray[np.float64]
PROBLEMS_AT_ONCE = 16
"""problems that are sampled together"""
LOGITS_AT_ONCE = 2**26
"""numbers in the logits of one pass: a quarter of a gigabyte in float32"""


@dataclass(frozen=True)
class ProblemSet:
    """Problems of a ``task``, all shown in one ``context``."""

    name: str
    task: Task
    problems: tuple[Problem, ...]
    context: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the task shows."""
        return problems_hash(self.task)

    def prompts(self, policy: Policy) -> list[list[int]]:
        """Tokens of every prompt."""
        return policy.encode_all([(self.context, problem) for problem in self.problems])

    def check_fit(self, policy: Policy, new: int) -> None:
        """InputError if a prompt and ``new`` tokens are longer than the model, or the model knows a word of it not."""
        if strange := policy.unknown(self.context):
            raise InputError(f"the context of {self.task.name} has words that the base does not know: {strange[0]!r}")
        limit = policy.positions
        for problem, tokens in zip(self.problems, self.prompts(policy), strict=True):
            where = problem.where or f"{self.task.name}, problem {problem.stated[:40]!r}"
            if limit is not None and len(tokens) + new > limit:
                raise InputError(
                    f"{where}: a prompt of {len(tokens)} tokens and {new} new ones do not fit the model's {limit} positions: "
                    "shorten it or --max-new-tokens"
                )
            if strange := policy.unknown(problem.stated):
                raise InputError(f"{where}: the prompt has words that the base does not know: {strange[0]!r}")


@dataclass(frozen=True)
class Sampled:
    """What a policy writes: ``parts`` of some problems each, ``samples`` completions a problem, and greedy success.

    ``solved (problems, samples)``, ``rewards`` the same; ``greedy (problems,)``.
    """

    parts: tuple[Rollouts, ...]
    rewards: Array
    solved: NDArray[np.bool_]
    greedy: NDArray[np.bool_]


def sample_set(policy: Policy, given: ProblemSet, settings: MeasureSettings) -> Sampled:
    """Completions of all problems: sampled at temperature 1, and greedy."""
    prompts, new = given.prompts(policy), settings.max_new_tokens
    parts, rewards, greedy = [], [], []
    for first in range(0, len(prompts), PROBLEMS_AT_ONCE):
        some = slice(first, first + PROBLEMS_AT_ONCE)
        generator = torch.Generator(policy.device).manual_seed(settings.seed * 1_000_003 + first)
        part = policy.sample(prompts[some], settings.samples, generator, max_new_tokens=new)
        parts.append(part)
        rewards.append(_rewards(policy, given, given.problems[some], part, settings.samples))
        best = policy.sample(prompts[some], 1, generator, max_new_tokens=new, temperature=0.0)
        greedy.append(_rewards(policy, given, given.problems[some], best, 1)[:, 0] >= 1.0)
    whole = np.concatenate(rewards)
    return Sampled(tuple(parts), whole, whole >= 1.0, np.concatenate(greedy))


def _rewards(policy: Policy, given: ProblemSet, problems: Sequence[Problem], part: Rollouts, each: int) -> Array:
    texts = policy.decode(part)
    scores = [given.task.score(problems[k // each], text).reward for k, text in enumerate(texts)]
    return np.array(scores, np.float64).reshape(len(problems), each)


def _blocks(rollouts: Rollouts, vocabulary: int) -> Iterator[Rollouts]:
    rows = max(1, LOGITS_AT_ONCE // (vocabulary * rollouts.completions.shape[1]))
    for some in torch.arange(len(rollouts), device=rollouts.completions.device).split(rows):
        yield rollouts.take(some)


@torch.no_grad()
def kl_entropy_length(p: Policy, q: Policy | None, sampled: Sampled) -> tuple[Array, Array, Array]:
    """KL(p || q), entropy of p (nats a sequence) and length (tokens) of what ``p`` sampled, mean of each problem's ``(n,)``.

    KL is 0 without ``q``.
    """
    found = []
    for rollouts in sampled.parts:
        for part in _blocks(rollouts, p.vocabulary):
            own = p.next_tokens(part)
            kl = own.kl(q.next_tokens(part), part.mask) if q is not None else torch.zeros_like(part.logprobs)
            each = torch.stack([kl, inside(own.entropy(), part.mask), part.mask.float()])
            found.append(each.double().sum(-1).cpu().numpy())
    values = np.concatenate(found, 1).reshape(3, *sampled.rewards.shape).mean(-1)
    return values[0], values[1], values[2]


@dataclass(frozen=True)
class Answers:
    """Log-probabilities ``(n,)`` of right and old answers, nats, and tokens of the right ones; None where the task has none."""

    right: Array | None
    length: Array | None
    old: Array | None


def score_answers(policy: Policy, given: ProblemSet) -> Answers:
    """Exactly, by teacher forcing."""
    right = length = old = None
    if isinstance(given.task, Answered):
        answers = [given.task.answer(problem) for problem in given.problems]
        right = answer_logprobs(policy, (given.context,), given.problems, answers)[0]
        length = np.array([len(policy.encode_answer(answer)) for answer in answers], np.float64)
    if isinstance(given.task, Demonstrated):
        answers = [given.task.old_answer(problem) for problem in given.problems]
        old = answer_logprobs(policy, (given.context,), given.problems, answers)[0]
    return Answers(right, length, old)


@dataclass(frozen=True)
class Measured:
    """A policy on a set by itself."""

    sampled: Sampled
    answers: Answers

    def reward(self, exact: bool) -> Array:
        """Success probability of every problem where the task is ``exact``, else the mean reward of its samples."""
        return np.exp(self.answers.right) if exact and self.answers.right is not None else self.sampled.rewards.mean(1)


def measure_alone(policy: Policy, given: ProblemSet, settings: MeasureSettings) -> Measured:
    """What needs no other model."""
    return Measured(sample_set(policy, given, settings), score_answers(policy, given))


def own_columns(given: ProblemSet, held: Measured, values: tuple[Array, Array]) -> dict[str, Any]:
    """Columns of a policy by itself; ``values`` are entropy and length of what it sampled."""
    row: dict[str, Any] = {}
    row["reward"], row["reward_se"] = mean_se(held.reward(given.task.exact))
    row["greedy"], row["greedy_se"] = mean_se(held.sampled.greedy.astype(np.float64))
    row["entropy"], row["entropy_se"] = mean_se(values[0])
    row["entropy_token"], row["entropy_token_se"] = ratio_se(*values)
    row["length"], row["length_se"] = mean_se(values[1])
    answers = held.answers
    if answers.right is not None and answers.length is not None:
        row["answer_nll"], row["answer_nll_se"] = mean_se(-answers.right)
        row["answer_nll_token"], row["answer_nll_token_se"] = ratio_se(-answers.right, answers.length)
    if answers.old is not None:
        row["old_mass"], row["old_mass_se"] = mean_se(np.exp(answers.old))
    row["pass_at"] = pass_fan(held.sampled.solved)
    return row


@torch.no_grad()
def measure_base(base: Policy, given: ProblemSet, held: Measured) -> dict[str, Any]:
    """The row of the base itself: all distances are 0."""
    _, *values = kl_entropy_length(base, None, held.sampled)
    return own_columns(given, held, (values[0], values[1]))


@torch.no_grad()
def measure_against(
    policy: Policy, base: Policy, given: ProblemSet, then: Measured, settings: MeasureSettings
) -> dict[str, Any]:
    """The row of ``policy``: its own columns, KL in both directions, and what changed since ``then``, the base's."""
    now = measure_alone(policy, given, settings)
    to_base, *values = kl_entropy_length(policy, base, now.sampled)
    from_base, _, length = kl_entropy_length(base, policy, then.sampled)
    row = own_columns(given, now, (values[0], values[1]))
    for name, kl, tokens in (("kl_to_base", to_base, values[1]), ("kl_from_base", from_base, length)):
        row[name], row[f"{name}_se"] = mean_se(kl)
        row[f"{name}_token"], row[f"{name}_token_se"] = ratio_se(kl, tokens)
    exact = given.task.exact
    row["reward_change"], row["reward_change_se"] = mean_se(now.reward(exact) - then.reward(exact))
    return row | flips(then.sampled.greedy, now.sampled.greedy)
