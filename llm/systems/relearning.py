"""Plasticity of a system's own channel: its learner's steps on another task; at the start of a run, those from an empty state."""

from __future__ import annotations

from typing import Any

import numpy as np

from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.systems.measure import system_rewards
from fstsim.llm.systems.system import Asked, Deployed
from fstsim.llm.systems.weights import SystemWeights, trainable
from fstsim.llm.types import Population, Task


def relearn_state(
    config: TrainConfig, base: Policy, state: Deployed, task: Task, *, most: int = 60, held_out: int = 32
) -> int:
    """Steps of the run's learner until the system reaches half of the rewards of ``task`` on ``held_out`` problems.

    From a copy of ``state``, with a fresh optimizer. ``most + 1`` stands for "not within ``most`` steps".
    """
    assert config.learner is not None
    system = config.learner.deploy(base, config.seed)
    system.restore({name: value.detach().clone() for name, value in state.tensors().items()}, state.notes())
    optimizer = config.optimizer.build(trainable(system), config.lr, config.seed)
    weights: Any = SystemWeights(base, base, optimizer, config.clip, system=system)
    asked: list[Asked] = [("", p) for p in list(task.problems("test"))[:held_out]]
    rng = np.random.default_rng(0)
    for step in range(most + 1):
        values, _ = system_rewards(system, task, asked, 0, config.probe.max_new_tokens)
        if values.mean() >= 0.5:
            return step
        if step < most:
            weights, _ = config.learner.step(weights, Population(), task, rng)
    return most + 1
