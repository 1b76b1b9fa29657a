"""What a model can do on each task before any training: the table by which tasks are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fstsim.llm.families import FAMILIES, UNNAMED
from fstsim.llm.policy import Policy
from fstsim.llm.probes import answer_logprobs, mean_se
from fstsim.llm.world import SIZES, RuleTask

COMPOSED = {
    "strings": (("reverse", "next"), ("rotate", "mirror"), ("reverse", "rotate", "next")),
    "digits": (("negate", "shift"), ("plus", "flip"), ("negate", "shift", "plus")),
    "star_graph": (("forward", "up"), ("cross", "roll"), ("forward", "up", "cross")),
}
"""Compositions in the table, beside every single rule and the rule without a word."""


def table_tasks(sizes: Mapping[str, int] = SIZES) -> list[RuleTask]:
    """Every single rule, the rule without a word and some compositions, of every family, with problems of ``sizes``."""
    rules = [
        (family.name, words)
        for family in FAMILIES.values()
        for words in (*((word,) for word in family.rules), *COMPOSED[family.name], (UNNAMED,))
    ]
    return [RuleTask(family, words, size=sizes[family]) for family, words in rules]


@torch.no_grad()
def measure_tasks(policy: Policy, tasks: list[RuleTask], problems: int = 128, group: int = 8) -> list[dict[str, Any]]:
    """For each task: success probability without context and with its rules in context, and dead groups without context.

    Exact for each test problem; means over ``problems`` with standard errors. ``dead`` is the mean probability that all
    ``group`` rollouts of a problem get the same reward: \\((1-p)^G + p^G\\).
    """
    rows = []
    for task in tasks:
        held_out = list(task.problems("test"))[:problems]
        answers = [task.answer(p) for p in held_out]
        words = "" if UNNAMED in task.rules else " ".join(task.rules)
        bare, told = np.exp(answer_logprobs(policy, ("", words), held_out, answers))
        mean, error = mean_se(bare)
        row = {
            "task": task.name,
            "empty": mean,
            "empty_se": error,
            "dead": float(((1 - bare) ** group + bare**group).mean()),
        }
        if words:
            row["told"], row["told_se"] = mean_se(told)
        rows.append(row)
    return rows
