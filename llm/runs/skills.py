"""Old skills: tasks that are not trained, measured by every probe, so that what a training costs elsewhere is seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import ExamSkills
from fstsim.llm.runs.behaviour import rewards
from fstsim.llm.runs.old_prompts import OldPrompts, task_prompts, world_prompts
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.types import Measured, Skills, Task, rule_words


@dataclass(frozen=True)
class TaskSkills:
    """Held-out reward on each of ``tasks`` in its own context (its rule in words; none where no words say it).

    Exactly the mean success probability for exact tasks, else the mean reward of one sample a problem; what a task that
    is `Measured` says of itself. ``base`` is the mean over tasks for the model at the start, of those with rewards or
    probabilities; texts that are read, in nats a token, are no part of a mean.
    """

    tasks: tuple[Task, ...]
    config: ProbeConfig
    seed: int
    base: float

    @classmethod
    def of(cls, base: Policy, tasks: Sequence[Task], config: ProbeConfig, seed: int) -> TaskSkills:
        """The skills of ``base``."""
        fresh = cls(tuple(tasks), config, seed, 0.0)
        return cls(fresh.tasks, config, seed, fresh.measure(base).get("old_skills", 0.0))

    @property
    def columns(self) -> tuple[str, ...]:
        """``old_skill_NAME`` of each task, with letters, digits and _ alone; numbered where two would be the same."""
        names = [f"old_skill_{re.sub(r'[^A-Za-z0-9]+', '_', task.name).strip('_')}" for task in self.tasks]
        return tuple(name if names.count(name) == 1 else f"{name}_{k}" for k, name in enumerate(names))

    def measure(self, policy: Policy) -> dict[str, float]:
        """A column for each task, ``old_skills``, the mean of rewards, and ``old_skills_drift``, what the mean lost since the start."""
        row, rewarded = {}, []
        for name, task in zip(self.columns, self.tasks, strict=True):
            kind, row[name] = self._value(policy, task)
            if kind == "nll":
                row[name.replace("old_skill_", "old_nll_", 1)] = row.pop(name)
            else:
                rewarded.append(row[name])
        if not rewarded:
            return row
        mean = float(np.mean(rewarded))
        return {**row, "old_skills": mean, "old_skills_drift": self.base - mean}

    def _value(self, policy: Policy, task: Task) -> tuple[str, float]:
        if isinstance(task, Measured):
            kind, values = task.measure(policy, self.config.problems)
            return kind, float(values.mean())
        problems = list(task.problems("test"))[: self.config.problems]
        context = rule_words(task, policy.template) or ""
        values = rewards(policy, task, problems, (context,), self.seed, self.config.max_new_tokens)
        return "reward", float(values.mean())


def old_skills(base: Policy, old: Sequence[Task], config: ProbeConfig, seed: int) -> list[Skills]:
    """What every probe of a run from ``base`` measures: the exam of the world, if it is of one, the tasks ``old``, and KL on both."""
    found: list[Skills] = []
    asked = task_prompts(base, old, config.problems)
    if base.template == "world":
        found.append(ExamSkills.of(base, config.exam))
        asked = [*world_prompts(base, config.exam), *asked]
    if old:
        found.append(TaskSkills.of(base, old, config, seed))
    if len(asked) > 1:  # one has no standard error
        found.append(OldPrompts(base, asked, config, seed))
    return found
