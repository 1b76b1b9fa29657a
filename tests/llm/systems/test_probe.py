"""Columns of a system against the policy that it is: a bank with one plan is the base with that plan in its context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import world_items
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.probes import Probe, ProbeConfig
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.systems.cases import Cases, Reading
from fstsim.llm.systems.probe import SystemProbe
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population

PLAN = "reverse"
CONFIG = ProbeConfig(problems=6, exam=2, relearn=0)


@pytest.fixture(scope="module")
def measured() -> tuple[Policy, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The base, its own row, its row in the context, and the row of the system."""
    base = Policy.load()
    base.model.requires_grad_(False)
    task: Any = parse_task("strings:sort")
    probe = Probe(base, task, CONFIG, 0, old_skills(base, (), CONFIG, 0))
    system = Cases(base, Reading(read="similarity", retrieved=1, capacity=0))
    system.add(system.states([("", task.problems("train")[0])]), [PLAN], [1.0])
    rows = [probe.measure(base, Population((context,))) for context in ("", PLAN)]
    return base, rows[0], rows[1], SystemProbe.of(probe).measure(system, Population())


def test_behaviour_is_that_of_the_base_in_the_context(measured: Any) -> None:
    """K2 in both directions and what success does not need; the bare base stands on the other side."""
    _, _, told, row = measured
    assert row["kl_deployed"] != pytest.approx(row["kl_deployed_from"], rel=0.05)
    for name in ("reward", "kl_deployed", "kl_deployed_from", "kl_excess"):
        assert row[name] == pytest.approx(told[name], rel=1e-4, abs=1e-6), name
    # nothing is asked in words here, so that the same context, none, is on both sides of K1
    assert row["kl_to_base"] == row["kl_deployed"]
    assert row["kl_from_base"] == row["kl_deployed_from"]


def test_bare_columns_are_the_bases_to_the_bit(measured: Any) -> None:
    _, bare, _, row = measured
    assert row["reward_no_context"] == bare["reward"]
    assert row["kl_to_base_no_context"] == row["kl_from_base_no_context"] == 0.0
    for name in ("old_mass", "drift"):
        assert row[name] == bare[name]


def test_old_behaviour_with_the_state_left_on(measured: Any) -> None:
    """Old mass in the plan's context; the exam's rules are asked with the plan after them."""
    base, bare, _, row = measured
    task: Any = parse_task("strings:sort")
    problems = list(task.problems("test"))[: CONFIG.problems]
    old = np.exp(answer_logprobs(base, (PLAN,), problems, [task.old_answer(p) for p in problems])).mean()
    assert row["old_mass_deployed"] == pytest.approx(old, rel=1e-4)
    assert row["old_mass_deployed"] < 0.1 * bare["old_mass"]
    with_plan, without = [], []
    for name, items in world_items(base.tokenizer, base.sizes, CONFIG.exam):
        if name.startswith("accuracy"):
            for found, more in ((with_plan, [PLAN]), (without, [])):
                right = [
                    _greedy(base, " ".join([*words.split(), *more]), problem) == answer.replace(" ", "")
                    for words, problem, answer in items
                ]
                found.append(np.mean(right))
    assert row["drift_deployed"] == pytest.approx(np.mean(without) - np.mean(with_plan), abs=1e-12)
    assert row["drift_deployed"] > 0.3


def _greedy(policy: Policy, context: str, problem: Any) -> str:
    wrote = policy.sample(
        [policy.encode(context, problem)], 1, torch.Generator().manual_seed(0), max_new_tokens=8, temperature=0.0
    )
    return policy.decode(wrote)[0].replace(" ", "")


def test_size_is_what_is_stored(measured: Any) -> None:
    *_, row = measured
    assert row["numbers_trained"] == 0
    assert row["bytes_stored"] > 128 * 4
