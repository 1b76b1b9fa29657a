"""Plasticity of a system's own channel: from a state that can already, from one that cannot, and as a plain loop of steps counts it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.llm.learners.skills import SkillLibrary
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.systems.cases import Cases, Reading
from fstsim.llm.systems.library import Skill
from fstsim.llm.systems.measure import answer_scores
from fstsim.llm.systems.relearning import relearn_state
from fstsim.llm.systems.skills import Skills
from fstsim.llm.systems.weights import SystemWeights, trainable
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population

NEXT = "strings:sort"


@pytest.fixture(scope="module")
def base() -> Policy:
    policy = Policy.load()
    policy.model.requires_grad_(False)
    return policy


def config_of(method: str, **settings: Any) -> TrainConfig:
    config = TrainConfig(method, ("strings:rotate",), lr=3e-2, probe=ProbeConfig(max_new_tokens=8))
    return replace(config, learner=replace(config.learner, **settings))  # type: ignore[type-var]


def same(system: Any, tensors: dict[str, torch.Tensor], notes: Any) -> bool:
    return system.notes() == notes and all(torch.equal(v, tensors[k]) for k, v in system.tensors().items())


def test_a_bank_with_the_right_plan_needs_no_step_and_no_memory_never_learns(base: Policy) -> None:
    task: Any = parse_task(NEXT)
    config = config_of("cases", read="similarity", problems=8)
    system = Cases(base, Reading(read="similarity"))
    system.add(system.states([("", task.problems("train")[0])]), ["sort"], [1.0])
    before, notes = {k: v.clone() for k, v in system.tensors().items()}, copy.deepcopy(system.notes())
    assert relearn_state(config, base, system, task, most=2, held_out=8) == 0
    assert relearn_state(config, base, Cases(base, Reading(read="similarity")), task, most=1, held_out=8) > 0
    silent = config_of("cases", read="none", problems=8)
    assert relearn_state(silent, base, Cases(base, Reading(read="none")), task, most=2, held_out=8) == 3
    assert same(system, before, notes), "the run's own state is left alone"


def test_a_library_with_the_skill_needs_one_attempt(base: Policy) -> None:
    """The skill is found for examples of the next task; another one in its place is of no use in one attempt."""
    task: Any = parse_task("strings:sort+next+rotate+mirror")
    config = config_of("skills")
    for program, steps in ((("sort", "next", "rotate", "mirror"), 1), (("riffle",), 2)):
        system = Skills(base)
        known = program if program != ("riffle",) else ("mirror",)
        system.library.store(Skill("strings", known, "given", right=True))
        notes = copy.deepcopy(system.notes())
        assert relearn_state(config, base, system, task, most=1, held_out=8) == steps
        assert system.notes() == notes
    assert isinstance(config.learner, SkillLibrary)


@pytest.mark.parametrize("trained", [False, True])
def test_soft_tokens_as_a_plain_loop_counts(trained: bool, base: Policy) -> None:
    """A fresh optimizer from the state as it is; the loop by hand gives the same number."""
    task: Any = parse_task("strings:rotate")
    config = config_of("soft", problems=24, thoughts="bias")
    assert config.learner is not None

    def steps(system: Any, most: int) -> int:
        optimizer = config.optimizer.build(trainable(system), config.lr, config.seed)
        weights: Any = SystemWeights(base, base, optimizer, config.clip, system=system)
        rng = np.random.default_rng(0)
        problems = list(task.problems("test"))[:16]
        for step in range(most + 1):
            logps, _ = answer_scores(system, [("", p) for p in problems], [task.answer(p) for p in problems])
            if np.exp(logps).mean() >= 0.5:
                return step
            if step < most:
                weights, _ = config.learner.step(weights, Population(), task, rng)  # type: ignore[union-attr]
        return most + 1

    system: Any = config.learner.deploy(base, 0)
    if trained:
        system.projection.bias.data += 0.05
    before, notes = {k: v.clone() for k, v in system.tensors().items()}, system.notes()
    found = relearn_state(config, base, system, task, most=12, held_out=16)
    assert same(system, before, notes)
    assert found == steps(system, 12)


def test_a_run_tells_both_ends(tmp_path: Any) -> None:
    """Of an empty bank at the start, of the run's own at the end; the bare weights relearn as the base does, both times."""
    probe = ProbeConfig(every=3, problems=2, exam=1, relearn=2, early=100)
    config = TrainConfig("cases", ("strings:rotate",), steps=1, probe=probe)
    config = replace(config, learner=replace(config.learner, problems=6, updates=1))  # type: ignore[type-var]
    rows = run_training(config, tmp_path / "run", write_model=False)
    first, last = rows[0], rows[-1]
    assert first["relearn"] == last["relearn"]
    assert {first["relearn_state"], last["relearn_state"]} <= {0, 1, 2, 3}
