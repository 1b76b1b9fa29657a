"""Old skills: tasks that are not trained, measured by every probe, so that what a training costs elsewhere is seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import ExamSkills
from fstsim.llm.runs.probes import ProbeConfig, rewards
from fstsim.llm.types import Skills, Task, rule_words


@dataclass(frozen=True)
class TaskSkills:
    """Held-out reward on each of ``tasks`` in its own context (its rule in words; none where no words say it).

    Exactly the mean success probability for exact tasks, else the mean reward of one sample a problem. ``base`` is the
    mean over tasks for the model at the start.
    """

    tasks: tuple[Task, ...]
    config: ProbeConfig
    seed: int
    base: float

    @classmethod
    def of(cls, base: Policy, tasks: Sequence[Task], config: ProbeConfig, seed: int) -> TaskSkills:
        """The skills of ``base``."""
        fresh = cls(tuple(tasks), config, seed, 0.0)
        return cls(fresh.tasks, config, seed, fresh.measure(base)["old_skills"])

    @property
    def columns(self) -> tuple[str, ...]:
        """``old_skill_NAME`` of each task, with letters, digits and _ alone; numbered where two would be the same."""
        names = [f"old_skill_{re.sub(r'[^A-Za-z0-9]+', '_', task.name).strip('_')}" for task in self.tasks]
        return tuple(name if names.count(name) == 1 else f"{name}_{k}" for k, name in enumerate(names))

    def measure(self, policy: Policy) -> dict[str, float]:
        """A column for each task, ``old_skills``, their mean, and ``old_skills_drift``, what the mean lost since the start."""
        row = {name: self._reward(policy, task) for name, task in zip(self.columns, self.tasks, strict=True)}
        mean = float(np.mean(list(row.values())))
        return {**row, "old_skills": mean, "old_skills_drift": self.base - mean}

    def _reward(self, policy: Policy, task: Task) -> float:
        problems = list(task.problems("test"))[: self.config.problems]
        context = rule_words(task, policy.template) or ""
        return float(rewards(policy, task, problems, (context,), self.seed, self.config.max_new_tokens).mean())


def old_skills(base: Policy, old: Sequence[Task], config: ProbeConfig, seed: int) -> list[Skills]:
    """What every probe of a run from ``base`` measures: the exam of the world, if it is of one, and the tasks ``old``."""
    found: list[Skills] = [ExamSkills.of(base, config.exam)] if base.template == "world" else []
    if old:
        found.append(TaskSkills.of(base, old, config, seed))
    return found
