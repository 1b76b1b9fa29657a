"""Probes of a deployed system: the columns of a run with the state left on, and beside them those of the bare weights.

``reward`` is the system's, ``reward_no_context`` that of its bare weights, as a run with contexts has them; ``old_mass`` and
``drift`` are measured with the state removed, ``old_mass_deployed`` and ``drift_deployed`` with the state left on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fstsim.llm.runs.behaviour import behaviour, excess, mean_se
from fstsim.llm.runs.probes import Probe
from fstsim.llm.runs.skills import TaskSkills
from fstsim.llm.systems.measure import SystemExam, answer_scores, deployed_kl, system_rewards
from fstsim.llm.systems.system import Asked, Bare, Beside, Deployed
from fstsim.llm.types import Answered, Demonstrated, Measured, Population, rule_words

_OF_BARE = ("reward", "kl_to_base", "kl_from_base", "entropy")
"""Columns that the system has as well: those of its bare weights get the ending _no_context."""


@dataclass
class SystemProbe:
    """Measures a system beside the ``probe`` of its bare weights; what never changes is computed once."""

    probe: Probe
    exam: SystemExam | None = None
    _exams: dict[str, SystemExam] = field(init=False, default_factory=dict)
    _bare_row: dict[str, Any] = field(init=False, default_factory=dict)
    _base_logps: np.ndarray | None = field(init=False, default=None)

    @classmethod
    def of(cls, probe: Probe) -> SystemProbe:
        """With the exam of the world where the base is of one."""
        base = probe.base
        return cls(probe, SystemExam.of(base, probe.config.exam) if base.template == "world" else None)

    def _asked(self, contexts: Sequence[str]) -> list[Asked]:
        return [(contexts[i % len(contexts)], p) for i, p in enumerate(self.probe.problems)]

    @torch.no_grad()
    def measure(self, system: Deployed, population: Population) -> dict[str, Any]:
        """One row; the context of the population stands beside what the system itself has."""
        probe, contexts = self.probe, population.prompts
        row = self._bare(system)
        row |= self.reward(system, contexts)
        here, base = self._asked(contexts), Bare(probe.base)
        most, seed = probe.config.max_new_tokens, probe.seed
        told = contexts != ("",)
        bare = self._asked(("",))
        to_base, entropy = deployed_kl(system, base, (here, here), seed, most)
        from_base, _ = deployed_kl(base, system, (here, here), seed, most)
        to_bare, from_bare = to_base, from_base
        if told:
            to_bare, _ = deployed_kl(system, base, (here, bare), seed, most)
            from_bare, _ = deployed_kl(base, system, (bare, here), seed, most)
        row["kl_to_base"], row["kl_to_base_se"] = mean_se(to_base)
        row["kl_from_base"], row["kl_from_base_se"] = mean_se(from_base)
        row["entropy"], row["entropy_se"] = mean_se(entropy)
        row |= behaviour(to_bare, from_bare)
        row |= self._excess(system, here, to_bare)
        row |= self._old(system)
        for name, other in system.beside().items():
            row |= self._of_other(name, other, contexts)
        row |= system.measured(probe.task, here)
        size = system.size
        return row | {"numbers_trained": size.trained, "bytes_stored": size.stored}

    def reward(self, system: Deployed, contexts: Sequence[str], tail: str = "") -> dict[str, float]:
        """Mean reward of the system on held-out problems, exactly for exact tasks."""
        probe = self.probe
        values, _ = system_rewards(system, probe.task, self._asked(contexts), probe.seed, probe.config.max_new_tokens)
        mean, error = mean_se(values)
        return {f"reward{tail}": mean, f"reward{tail}_se": error}

    def _bare(self, system: Deployed) -> dict[str, Any]:
        """The row of the bare weights; of frozen ones it is measured once: they are the base itself."""
        frozen = system.bare.model is self.probe.base.model
        if not (frozen and self._bare_row):
            row = self.probe.measure(system.bare, Population())
            for name in list(row):
                stem = next((stem for stem in _OF_BARE if name == stem or name.startswith(f"{stem}_")), None)
                if stem is not None:
                    row[f"{stem}_no_context{name.removeprefix(stem)}"] = row.pop(name)
            self._bare_row = row
        return dict(self._bare_row)

    def _excess(self, system: Deployed, here: Sequence[Asked], to_bare: np.ndarray) -> dict[str, float]:
        task = self.probe.task
        if not (task.exact and isinstance(task, Answered)):
            return {}
        answers = [task.answer(p) for p in self.probe.problems]
        if self._base_logps is None:
            self._base_logps = answer_scores(Bare(self.probe.base), self._asked(("",)), answers)[0]
        return excess(to_bare, answer_scores(system, here, answers)[0], self._base_logps)

    def _of_other(self, name: str, other: Beside, contexts: Sequence[str]) -> dict[str, float]:
        """Reward and old behaviour of a system that is measured beside, and how far it is from its own start."""
        probe, row = self.probe, self.reward(other.system, contexts, f"_{name}")
        row |= self._old_behaviour(other.system, f"_{name}")
        if other.start is None:
            return row
        here = self._asked(contexts)
        kl, _ = deployed_kl(other.system, Bare(other.start), (here, here), probe.seed, probe.config.max_new_tokens)
        row[f"kl_to_base_{name}"], row[f"kl_to_base_{name}_se"] = mean_se(kl)
        if self.exam is not None:
            if name not in self._exams:
                self._exams[name] = SystemExam.of(other.start, probe.config.exam)
            exam = self._exams[name]
            row[f"drift_{name}"] = exam.base - exam.accuracy(other.system)
        return row

    def _old_behaviour(self, system: Deployed, tail: str) -> dict[str, float]:
        """Mass of the old behaviour on ambiguous prompts, and its log-odds against the right answer, mean over problems."""
        task = self.probe.task
        if not isinstance(task, Demonstrated):
            return {}
        problems, asked = self.probe.problems, self._asked(("",))
        old, _ = answer_scores(system, asked, [task.old_answer(p) for p in problems])
        right, _ = answer_scores(system, asked, [task.answer(p) for p in problems])
        mass, error = mean_se(np.exp(old))
        return {
            f"old_mass{tail}": mass,
            f"old_mass{tail}_se": error,
            f"old_log_odds{tail}": float((old - right).mean()),
        }

    def _old(self, system: Deployed) -> dict[str, float]:
        """Old behaviour and old skills with the state left on."""
        row = self._old_behaviour(system, "_deployed")
        if self.exam is not None:
            row["drift_deployed"] = self.exam.base - self.exam.accuracy(system)
        for skills in self.probe.skills:
            if isinstance(skills, TaskSkills):
                row |= _old_tasks(system, skills)
        return row


def _old_tasks(system: Deployed, skills: TaskSkills) -> dict[str, float]:
    """Mean reward on the tasks of --old, each in its own context, with the state left on; texts that are read are left out."""
    values = []
    for task in skills.tasks:
        if isinstance(task, Measured):
            continue
        context = rule_words(task, system.bare.template) or ""
        asked = [(context, p) for p in list(task.problems("test"))[: skills.config.problems]]
        values.append(float(system_rewards(system, task, asked, skills.seed, skills.config.max_new_tokens)[0].mean()))
    return {"old_skills_deployed": float(np.mean(values))} if values else {}
