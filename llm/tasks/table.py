"""What a model can do on each task before any training: the table by which tasks are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs, mean_se
from fstsim.llm.tasks.families import FAMILIES, UNNAMED
from fstsim.llm.tasks.rules import SIZES, RuleTask
from fstsim.llm.types import Answered, Demonstrated, Measured, Problem, Task, rule_words

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
    exactly (`fstsim.llm.runs.probes`; a lower bound for models outside of the shipped world), and ``log_empty``, the mean
    of log p, nats; ``dead`` is the mean probability that all ``group`` rollouts of a problem get the same reward:
    \\((1-p)^G + p^G\\). ``old`` and ``old_told`` are the same probabilities of the old behaviour, of tasks that have one. Of
    others, such as those where the share of right symbols is the reward, ``group`` completions of each problem are sampled,
    always with the same random numbers: their mean reward, and the share of groups in which all rewards are the same.
    ``sampled`` is their number, 0 where nothing is sampled. A task that is `Measured` has what it says, and ``kind`` says
    whether that is a probability or nats a token.
    """
    return [_row(policy, task, list(task.problems("test"))[:problems], group) for task in tasks]


def _row(policy: Policy, task: Task, held_out: Sequence[Problem], group: int) -> dict[str, Any]:
    if isinstance(task, Measured):
        kind, values = task.measure(policy, len(held_out))
        mean, error = mean_se(values)
        return {"task": task.name, "kind": kind, "empty": mean, "empty_se": error, "sampled": 0}
    words = rule_words(task, policy.template)
    contexts = ("",) if words is None or policy.unknown(words) else ("", words)
    row: dict[str, Any] = {"task": task.name}
    if task.exact and isinstance(task, Answered):
        new = [task.answer(p) for p in held_out]
        old = [task.old_answer(p) for p in held_out] if isinstance(task, Demonstrated) else []
        # in one pass, which runs a prompt once for both behaviours
        logps = answer_logprobs(policy, contexts, [*held_out, *held_out[: len(old)]], [*new, *old])
        means = np.exp(logps[:, : len(new)])
        dead = (1 - means[0]) ** group + means[0] ** group
        row["log_empty"] = float(logps[0, : len(new)].mean())
        if old:
            for name, values in zip(("old", "old_told"), np.exp(logps[:, len(new) :]), strict=False):
                row[name], row[f"{name}_se"] = mean_se(values)
    else:
        rewards = np.array([_sampled_rewards(policy, task, held_out, context, group) for context in contexts])
        means, dead = rewards.mean(-1), np.ptp(rewards[0], -1) == 0.0
    row["empty"], row["empty_se"] = mean_se(means[0])
    row["dead"] = float(dead.mean())
    row["sampled"] = 0 if "log_empty" in row else group
    if len(contexts) > 1:
        row["told"], row["told_se"] = mean_se(means[1])
    return row


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
