"""The table of tasks: what the shipped model does before training, against sampling and greedy decoding."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from fstsim.front.tables import tasks_caption, tasks_table
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.families import STRINGS
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.tasks.table import measure_tasks, table_tasks


def test_success_is_what_sampling_finds_and_rules_in_context_are_followed() -> None:
    policy = Policy.load()
    task = parse_rules("digits:negate")
    (row,) = measure_tasks(policy, [task], problems=48)
    prompts = [policy.encode("", p) for p in list(task.problems("test"))[:48]]
    rollouts = policy.sample(prompts, 16, torch.Generator().manual_seed(0), max_new_tokens=8)
    texts = policy.decode(rollouts)
    rewards = np.array([task.score(task.problems("test")[i // 16], text).reward for i, text in enumerate(texts)])
    assert abs(rewards.mean() - row["empty"]) < 4.5 * np.sqrt(row["empty"] * (1 - row["empty"]) / len(rewards))
    assert row["told"] > 0.95
    assert row["told"] > row["empty"] + 0.5


def test_of_a_shared_reward_the_mean_share_is_shown() -> None:
    """Against other samples, more of them; the row of the same task without /share has the probability of a right answer."""
    policy = Policy.load()
    exact, share = (parse_rules(name) for name in ("strings:unnamed", "strings:unnamed/share"))
    (right,), (row,) = (measure_tasks(policy, [task], problems=48) for task in (exact, share))
    problems = list(share.problems("test"))[:48]
    prompts = [policy.encode("", p) for p in problems]
    rollouts = policy.sample(prompts, 32, torch.Generator().manual_seed(1), max_new_tokens=8)
    texts = policy.decode(rollouts)
    rewards = np.array([share.score(problems[i // 32], text).reward for i, text in enumerate(texts)]).reshape(48, 32)
    spread = rewards.std(1, ddof=1).mean() / np.sqrt(48)  # of a mean share, of one sample a problem
    assert abs(row["empty"] - rewards.mean()) < 4.5 * spread * np.sqrt(1 / 8 + 1 / 32)
    assert row["empty"] > 0.1 > 10 * right["empty"], "another number than the chance of a right answer"
    dead = np.mean([np.ptp(group) == 0.0 for four in np.split(rewards, 4, 1) for group in four])
    assert abs(row["dead"] - dead) < 4.5 * np.sqrt(max(dead, 0.02) / 48)
    assert (right["sampled"], row["sampled"]) == (0, 8)
    assert measure_tasks(policy, [share], problems=48) == [row], "always the same random numbers"


def test_the_table_says_what_its_numbers_are() -> None:
    row = {"task": "a", "empty": 0.25, "empty_se": 0.01, "dead": 0.5, "sampled": 0}

    def shown(*rows: dict[str, object]) -> str:
        out = io.StringIO()
        Console(file=out, width=200).print(tasks_table(rows, "model"), tasks_caption(rows))
        return out.getvalue()

    assert "success probability" in shown(row)
    assert "*" not in shown(row)
    both = shown(row, {**row, "task": "a/share", "sampled": 8})
    assert "expected reward" in both
    assert "* mean reward of 8 sampled completions" in " ".join(both.split())
    assert "a/share *" in both


@pytest.mark.parametrize("reward", ["exact", "share"])
def test_other_models_are_shown_the_rules_in_english(
    make_policy: Callable[..., Policy], monkeypatch: pytest.MonkeyPatch, reward: str
) -> None:
    """Words of the world say nothing to them."""
    task = parse_rules("strings:reverse+rotate", reward)
    seen: set[str] = set()
    encode, encode_all = Policy.encode, Policy.encode_all
    monkeypatch.setattr(Policy, "encode", lambda self, context, p: seen.add(context) or encode(self, context, p))
    monkeypatch.setattr(
        Policy, "encode_all", lambda self, pairs: seen.update(c for c, _ in pairs) or encode_all(self, pairs)
    )
    for template, told in [
        ("world", "reverse rotate"),
        ("plain", "; then ".join(STRINGS.explained[word] for word in task.rules)),
    ]:
        seen.clear()
        policy = replace(make_policy(max_position_embeddings=256), template=template)
        (row,) = measure_tasks(policy, [task], problems=2)
        assert seen == {"", told}
        assert "told" in row


def test_the_table_has_every_rule_and_the_one_without_a_word() -> None:
    names = [task.name for task in table_tasks()]
    assert len(names) == len(set(names))
    assert {"strings:reverse", "digits:sums", "star_graph:forward", "star_graph:unnamed"} <= set(names)
