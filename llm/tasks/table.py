"""What a model can do on each task before any training: the table by which tasks are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.probes import answer_logprobs, mean_se
from fstsim.llm.tasks.families import FAMILIES, UNNAMED
from fstsim.llm.tasks.rules import SIZES, RuleTask
from fstsim.llm.types import Answered, Problem, Task, rule_words

COMPOSED = {
    "strings": (("reverse", "next"), ("rotate", "mirror"), ("reverse", "rotate", "next")),
    "digits": (("negate", "shift"), ("plus", "flip"), ("negate", "shift", "plus")),
    "star_graph": (("forward", "up"), ("cross", "roll"), ("forward", "up", "cross")),
}
"""Compositions in the table, beside every single rule and the rule without a word."""


def table_tasks(sizes: Mapping[str, int] = SIZES) -> list[RuleTask]:
    """Every single rule, the rule without a word and some compositions, of every family in ``sizes``, with problems of that size."""
    rules = [
        (family.name, words)
        for family in FAMILIES.values()
        if family.name in sizes
        for words in (*((word,) for word in family.rules), *COMPOSED.get(family.name, ()), (UNNAMED,))
    ]
    return [RuleTask(family, words, size=sizes[family]) for family, words in rules]


_ROWS = 256  # completions sampled at once
_NEW = 64  # tokens of a completion where no answer says how long it can be


@torch.no_grad()
def measure_tasks(policy: Policy, tasks: Sequence[Task], problems: int = 128, group: int = 8) -> list[dict[str, Any]]:
    """For each task: expected reward without context and with its rules in context, and dead groups without context.

    Means over ``problems`` test problems with standard errors. Exact-match tasks: the success probability p of each problem,
    exactly (`fstsim.llm.runs.probes`; a lower bound for models outside of the shipped world); ``dead`` is the mean probability
    that all ``group`` rollouts of a problem get the same reward: \\((1-p)^G + p^G\\). Of others, such as those where the share of right symbols is the
    reward, ``group`` completions of each problem are sampled, always with the same random numbers: their mean reward, and
    the share of groups in which all rewards are the same.
    ``sampled`` is their number, 0 where nothing is sampled.
    """
    rows = []
    for task in tasks:
        held_out = list(task.problems("test"))[:problems]
        words = rule_words(task, policy.template)
        contexts = ("",) if words is None or policy.unknown(words) else ("", words)
        if task.exact and isinstance(task, Answered):
            answers = [task.answer(p) for p in held_out]
            means = np.exp(answer_logprobs(policy, contexts, held_out, answers))
            dead = (1 - means[0]) ** group + means[0] ** group
        else:
            rewards = np.array([_sampled_rewards(policy, task, held_out, context, group) for context in contexts])
            means, dead = rewards.mean(-1), np.ptp(rewards[0], -1) == 0.0
        mean, error = mean_se(means[0])
        row = {
            "task": task.name,
            "empty": mean,
            "empty_se": error,
            "dead": float(dead.mean()),
            "sampled": 0 if task.exact and isinstance(task, Answered) else group,
        }
        if len(contexts) > 1:
            row["told"], row["told_se"] = mean_se(means[1])
        rows.append(row)
    return rows


def _sampled_rewards(policy: Policy, task: Task, problems: Sequence[Problem], context: str, group: int) -> np.ndarray:
    """Rewards ``(problems, group)`` of sampled completions, no longer than the longest answer where there are answers."""
    new = max(len(policy.encode_answer(task.answer(p))) for p in problems) if isinstance(task, Answered) else _NEW
    generator = torch.Generator(policy.device).manual_seed(0)
    found: list[list[float]] = []
    step = max(1, _ROWS // group)
    for first in range(0, len(problems), step):
        block = problems[first : first + step]
        prompts = [policy.encode(context, p) for p in block]
        texts = policy.decode(policy.sample(prompts, group, generator, max_new_tokens=new))
        found += [
            [task.score(p, text).reward for text in texts[i * group : (i + 1) * group]] for i, p in enumerate(block)
        ]
    return np.array(found)
