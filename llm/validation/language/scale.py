"""What the chapters about chat models have in common: the tasks, how large the runs of a scale are, and where a run rests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fstsim.llm.experiments.plan import Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Demonstrated
from fstsim.llm.validation.claim import Claim, Records, Rows, curve
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Array, Prediction

FORM = "language:plural:form"
"""The base writes it now and then: what reinforcement finds."""
BARE = "language:plural:bare"
"""The base never writes it: what demonstrations alone reach."""
OWN = "language:plural"
"""What the base writes by itself, as a task: on the prompts of `FORM`, with other answers."""
SKILL = "language:capitals"
"""The old skill of the same format that the forecast is about."""
FREE = 1e9
"""Largest norm of a gradient that is not clipped."""
TOKENS = 16
"""Longest completion; the longest answers of plurals have 12 tokens."""


@dataclass(frozen=True)
class Size:
    """How large the runs of a scale are; ``held`` problems are measured (plurals have 35)."""

    held: int
    shares: tuple[float, ...]
    replay_steps: int
    shown: int
    """demonstrations a step, replay"""
    leashes: tuple[float, ...]
    leash_steps: int
    leash_groups: int
    """problems a step under a leash"""
    groups: int
    """problems a step of reinforcement without a leash"""
    rollouts: int
    free_steps: int
    """of reinforcement without a leash"""
    sft_steps: int
    taught: int
    """demonstrations a step of the run that is forecast"""
    replicates: int
    """of the forecast"""


SIZES: dict[Scale, Size] = {
    "smoke": Size(8, (0.2, 0.4, 0.6), 24, 24, (), 0, 4, 4, 8, 12, 16, 12, 1),
    "small": Size(32, (0.1, 0.2, 0.4, 0.6), 96, 24, (0.25,), 120, 8, 8, 8, 60, 40, 16, 2),
    "paper": Size(35, (0.05, 0.1, 0.2, 0.4, 0.6), 240, 32, (0.7, 0.5, 0.35, 0.25), 300, 16, 16, 8, 120, 80, 32, 3),
}
"""Twelve steps of 6 demonstrations, and 40 of 32 rollouts under a leash in the reward, were too few to settle: three seeds spread
over most of what there is. A step of 24 demonstrations costs twice that of 6; leashes take more than a smoke run has."""
LR = {"replay": 3e-5, "leash": 2e-5, "sft": 1e-5, "free": 1.5e-5}


def demonstrated(name: str) -> Demonstrated:
    """A task of the language suite, which has answers."""
    task = parse_task(name)
    assert isinstance(task, Demonstrated)
    return task


def run_config(
    size: Size, steps: int, task: str, kind: str, learner: PolicyGradient | SupervisedFineTuning
) -> TrainConfig:
    """A run without clipping; measured at its start, after its first step and after three quarters and all of it."""
    every = max(1, round(0.75 * steps))
    return TrainConfig(
        method="sft" if isinstance(learner, SupervisedFineTuning) else "rl",
        tasks=(task,),
        steps=steps,
        lr=LR[kind],
        clip=FREE,
        optimizer=OptimizerConfig(schedule="linear"),
        learner=learner,
        probe=ProbeConfig(every=every, problems=size.held, early=every + 1, max_new_tokens=TOKENS),
    )


def free_config(size: Size, learner: PolicyGradient, tasks: tuple[str, ...] = (FORM,)) -> TrainConfig:
    """A run of RL as people make them, clipped and at a constant learning rate; measured every other step."""
    config = run_config(size, size.free_steps, FORM, "free", learner)
    probe = ProbeConfig(every=2, problems=size.held, max_new_tokens=TOKENS)
    return replace(config, tasks=tasks, clip=TrainConfig.clip, optimizer=OptimizerConfig(), probe=probe)


def old_among_both(rows: Rows) -> Array:
    """Old mass over old and new mass, at every measurement."""
    new, old = curve(rows, "reward")[1], curve(rows, "old_mass")[1]
    return np.asarray(old / (old + new))


def moved(name: str, of: Callable[[Rows], Array]) -> Callable[[Records], list[float]]:
    """How far ``of`` went between the last two measurements, a quarter of the run apart."""
    return lambda records: [float(np.diff(of(rows)[-2:])[0]) for rows in records.rows(name)]


def rest_claim(name: str, statement: str, what: str, of: Callable[[Rows], Array]) -> Claim:
    """That a run has come to rest: ``of`` its rows goes nowhere over the last quarter."""
    prediction = Prediction(
        f"{name}-rest", Label("rest", run=name), statement, f"{what}: change over the last quarter of the run",
        0.0, -0.05, 0.05, 0.15,
    )  # fmt: skip
    return Claim(prediction, (name,), moved(name, of))
