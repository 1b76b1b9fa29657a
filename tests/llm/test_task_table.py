"""The table of tasks: what the shipped model does before training, against sampling and greedy decoding."""

from __future__ import annotations

import numpy as np
import torch

from fstsim.llm.policy import Policy
from fstsim.llm.task_table import measure_tasks, table_tasks
from fstsim.llm.world import parse_task


def test_success_is_what_sampling_finds_and_rules_in_context_are_followed() -> None:
    policy = Policy.load()
    task = parse_task("digits:negate")
    (row,) = measure_tasks(policy, [task], problems=48)
    prompts = [policy.encode("", p) for p in list(task.problems("test"))[:48]]
    rollouts = policy.sample(prompts, 16, torch.Generator().manual_seed(0), max_new_tokens=8)
    texts = policy.decode(rollouts)
    rewards = np.array([task.score(task.problems("test")[i // 16], text).reward for i, text in enumerate(texts)])
    assert abs(rewards.mean() - row["empty"]) < 4.5 * np.sqrt(row["empty"] * (1 - row["empty"]) / len(rewards))
    assert row["told"] > 0.95
    assert row["told"] > row["empty"] + 0.5


def test_the_table_has_every_rule_and_the_one_without_a_word() -> None:
    names = [task.name for task in table_tasks()]
    assert len(names) == len(set(names))
    assert {"strings:reverse", "digits:sums", "star_graph:forward", "star_graph:unnamed"} <= set(names)
