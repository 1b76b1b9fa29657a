r"""The fast channel: a population of contexts, evolved by GEPA on the present policy.

A round (before every T-th slow step): (1) score the population again on fresh validation problems, because the weights
have moved; (2) draw one member by its share of the per-instance Pareto front and let `gepa.optimize` evolve it within a
budget of rollouts; (3) keep at most K contexts of the front. Nothing is remembered from one round to the next but the
population: no run directory, no cache (within a round the weights stand still, so a rollout is not repeated).
The best context of each task is kept in the population's archive: it competes again when its task comes back.
Source: 2507.19457 and 2605.12484.

With ``edits`` the population is one document that is edited within bounds (`fstsim.llm.contexts.skill_edits`); with ``dead_only`` a
round sees the problems alone that no rollout without context solved in the slow steps since the last round.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gepa.api import optimize
from gepa.core.result import GEPAResult
from gepa.gepa_utils import remove_dominated_programs, select_program_candidate_from_pareto_front

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.contexts.policy_adapter import COMPONENT, PolicyAdapter
from fstsim.llm.contexts.reflection import Reflector, SelfReflection
from fstsim.llm.contexts.skill_edits import SkillEdits, improve_skill
from fstsim.llm.learners.weights import Weights
from fstsim.llm.types import UNUSABLE, Population, Problem, Task
from fstsim.settings import check_types


class _Silent:
    """A logger for GEPA: rounds are recorded as prompts, not as text."""

    def log(self, message: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class PromptEvolution:
    """Fast learner: ``contexts`` prompts (K), each round within ``rollout_budget`` rollouts.

    ``validation`` problems score a context, ``shown`` failures go to the reflector at a time. Problems come from the
    validation split, or from the train split if the weights are to learn on them (``reuse``): the test split is never seen.
    """

    contexts: int = 4
    """contexts in the population (K)"""
    rollout_budget: int = 192
    """most rollouts of a round, re-scoring included"""
    validation: int = 16
    """problems on which a context is scored"""
    shown: int = 6
    """problems shown to the reflector at a time"""
    max_new_tokens: int = 8
    """longest completion"""
    reuse: bool = False
    """leave the rollouts that scored the contexts kept to the next slow step (see `fstsim.llm.contexts.reuse` for what that biases)"""
    edits: int = 0
    """most words that a new context may differ by from the one that it is written from (SkillOpt): then there is one context, and
    only what is strictly better on fixed validation problems takes its place; 0: a population (GEPA)"""
    edits_end: int = 2
    """what --edits has fallen to after --edit-rounds, along a cosine"""
    edit_rounds: int = 0
    """rounds in which --edits falls; 0: it stays"""
    dead_only: bool = False
    """evolve contexts on the problems of the train split that slow steps found unsolved without context (P2O; --dead-groups context)"""
    reflector: Reflector = field(default_factory=SelfReflection, metadata={"flag": False})
    """who writes new contexts"""

    def __post_init__(self) -> None:
        check_types(self)
        if not callable(getattr(self.reflector, "propose", None)):
            raise InputError(f"reflector must have a method propose, got {type(self.reflector).__name__}")
        if self.contexts < 1:
            raise InputError(f"contexts must be at least 1, got {self.contexts}")
        if self.validation < 2 or self.shown < 1:
            raise InputError(
                f"validation must be at least 2 and shown at least 1, got {self.validation} and {self.shown}"
            )
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.edits > 0:
            if self.reuse or self.dead_only:
                raise InputError("edits goes without reuse and dead_only: its selection problems are fixed")
            self.skill.check(self.rollout_budget)
            return
        if min(self.edits, self.edit_rounds) < 0 or self.edits_end < 1:
            raise InputError("edits and edit_rounds must be at least 0, edits_end at least 1")
        if self.edit_rounds:
            raise InputError("edit_rounds needs edits above 0")
        if self.reuse and self.dead_only:
            raise InputError("reuse goes without dead_only: rollouts without context are no rollouts of a kept one")
        least = self.validation * self.contexts + self.validation + _try_rollouts(1)
        if self.rollout_budget < least:
            raise InputError(
                f"rollout_budget must be at least {least} rollouts: contexts x validation = {self.validation * self.contexts} "
                f"to score the population, {self.validation + _try_rollouts(1)} to try one new context; got {self.rollout_budget}"
            )

    @property
    def skill(self) -> SkillEdits:
        """How one document is edited."""
        return SkillEdits(self.edits, self.edits_end, self.edit_rounds, self.validation, self.shown)

    def step(
        self, weights: Weights, context: Population, task: Task, rng: np.random.Generator
    ) -> tuple[Population, StepInfo]:
        """One round; ``samples`` counts every rollout, reflections of the policy included."""
        adapter = PolicyAdapter(weights.policy, task, self.reflector, rng, self.max_new_tokens)
        if self.edits:
            return improve_skill(self.skill, adapter, context, self.rollout_budget)
        pool = self._pool(weights, task)
        if len(pool) < 2:
            return context, StepInfo()
        drawn = [pool[i] for i in rng.choice(len(pool), size=min(len(pool), 2 * self.validation + 64), replace=False)]
        scored = max(1, min(self.validation, len(drawn) // 2))  # a small world has fewer
        validation, train = drawn[:scored], drawn[scored:] or drawn
        archive = dict(context.archive)
        running = dict.fromkeys((*context.prompts, archive.get(task.name, context.prompts[0])))  # a task may come back
        while len(running) > 1 and (len(running) + 1) * scored + _try_rollouts(1) > self.rollout_budget:
            running.popitem()  # contexts of another run, or of an archive, beyond what the budget can score
        table = {prompt: [s[1] for s in adapter.scores(prompt, validation)] for prompt in running}
        parents: dict[str, str] = {}
        dice = random.Random(int(rng.integers(2**62)))
        # a population that solves everything is left alone
        if min(max(scores[i] for scores in table.values()) for i in range(len(validation))) < 1.0:
            names = list(table)
            seed = names[
                select_program_candidate_from_pareto_front(
                    _front(list(table.values())), [float(np.mean(s)) for s in table.values()], dice
                )
            ]
            # a new context is tried only where the rollouts are left that showing, writing and scoring it can take
            left = self.rollout_budget - adapter.samples - scored
            shown = max(k for k in range(1, min(self.shown, len(train)) + 1) if k == 1 or _try_rollouts(k) <= left)
            result: GEPAResult[Any, Any] = optimize(
                seed_candidate={COMPONENT: seed},
                trainset=train,
                valset=validation,
                adapter=adapter,
                custom_candidate_proposer=adapter.propose,
                reflection_minibatch_size=shown,
                stop_callbacks=lambda state: (
                    adapter.failure is not None
                    or adapter.samples + _try_rollouts(shown) + scored > self.rollout_budget
                    or state.i >= self.rollout_budget
                ),
                skip_perfect_score=True,
                cache_evaluation=False,
                run_dir=None,
                logger=_Silent(),
                seed=dice.randrange(2**31),
                raise_on_exception=True,
            )
            if adapter.failure is not None:
                raise adapter.failure
            for index, candidate in enumerate(result.candidates):
                prompt = candidate[COMPONENT]
                if prompt not in table:
                    table[prompt] = [result.val_subscores[index][k] for k in range(len(validation))]
                    above = result.parents[index][0]
                    parents[prompt] = seed if above is None else result.candidates[above][COMPONENT]
        fits = {prompt: scores for prompt, scores in table.items() if prompt not in adapter.unfit}
        kept = _keep(fits or table, self.contexts)
        means = {prompt: float(np.mean(table[prompt])) for prompt in kept}
        lineage = {**dict(context.lineage), **parents}
        population = Population(
            tuple(kept),
            tuple(means.values()),
            tuple((child, lineage[child]) for child in kept if child in lineage),
            tuple({**archive, task.name: kept[0]}.items()),
            context.rejected,
            context.rounds,
        )
        if self.reuse:
            handed = adapter.reusable(kept, validation)
            weights.reusable[:] = [] if handed is None else [handed]
        info = {
            "fast_best": max(means.values()),
            "fast_mean": float(np.mean(list(means.values()))),
            "fast_candidates": len(table),
            "fast_reflections": adapter.reflections,
            "fast_rollouts": adapter.samples,
            **({"fast_unusable": len(adapter.unusable), UNUSABLE: adapter.unusable} if adapter.unusable else {}),
        }
        return population, StepInfo(adapter.samples, info)

    def _pool(self, weights: Weights, task: Task) -> list[Problem]:
        """The problems that a round may draw."""
        if not self.dead_only:
            return list(task.problems("train" if self.reuse else "validation"))
        unsolved = set(weights.unsolved)
        return [p for p in task.problems("train") if p.uid in unsolved]


def _try_rollouts(shown: int) -> int:
    """Most rollouts that a new context takes before it is scored: the failures shown, one to write it, the same problems again."""
    return 2 * shown + 1


def _front(scores: Sequence[Sequence[float]]) -> dict[int, set[int]]:
    """For each problem the contexts that are best on it."""
    table = np.asarray(scores)
    return {j: set(np.flatnonzero(table[:, j] == table[:, j].max()).tolist()) for j in range(table.shape[1])}


def _keep(table: Mapping[str, Sequence[float]], most: int) -> list[str]:
    """At most ``most`` contexts of the per-instance Pareto front, the best on average first."""
    names = list(table)
    means = [float(np.mean(table[name])) for name in names]
    # among equals the earlier is removed first, whatever order GEPA meets them in
    front = remove_dominated_programs(_front(list(table.values())), [m + 1e-12 * k for k, m in enumerate(means)])
    there = sorted({k for best in front.values() for k in best}, key=lambda k: (-means[k], k))
    return [names[k] for k in there[:most]]
