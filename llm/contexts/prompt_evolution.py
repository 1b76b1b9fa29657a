r"""The fast channel: a population of contexts, evolved by GEPA on the present policy.

A round (before every T-th slow step): (1) score the population again on fresh validation problems, because the weights
have moved; (2) draw one member by its share of the per-instance Pareto front and let `gepa.optimize` evolve it within a
budget of rollouts; (3) keep at most K contexts of the front. Nothing is remembered from one round to the next but the
population: no run directory, no cache (within a round the weights stand still, so a rollout is not repeated).
The best context of each task is kept in the population's archive: it competes again when its task comes back.
Source: 2507.19457 and 2605.12484.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gepa.api import optimize
from gepa.core.adapter import EvaluationBatch
from gepa.core.result import GEPAResult
from gepa.gepa_utils import remove_dominated_programs, select_program_candidate_from_pareto_front

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.contexts.proposals import UnusableProposal
from fstsim.llm.contexts.reflection import Reflector, SelfReflection
from fstsim.llm.contexts.reuse import Reusable, join
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.types import Population, Problem, Task
from fstsim.settings import check_types

_COMPONENT = "context"
UNUSABLE = "unusable"
"""Key, in what a round says of itself, of why proposals could not be used: text, kept beside the contexts and not in a row."""


class _Silent:
    """A logger for GEPA: rounds are recorded as prompts, not as text."""

    def log(self, message: str) -> None:
        """Say nothing."""


@dataclass
class PolicyAdapter:
    """GEPA's view of a policy on a task: one rollout a problem, feedback in words.

    ``samples`` counts every rollout; (context, problem) pairs already scored in this round are not rolled out again.
    Never raises for one example: what cannot be scored scores 0.
    """

    policy: Policy
    task: Task
    reflector: Reflector
    rng: np.random.Generator
    max_new_tokens: int
    temperature: float = 1.0
    samples: int = 0
    reflections: int = 0
    unusable: list[str] = field(default_factory=list)
    failure: Exception | None = None
    unfit: set[str] = field(default_factory=set)
    seen: dict[tuple[str, str], tuple[str, float, str]] = field(default_factory=dict)
    drawn: list[tuple[str, list[str], Rollouts]] = field(default_factory=list)
    # GEPA leaves mutation out, silently, for an adapter without this name
    propose_new_texts: Any = None

    def scores(self, context: str, problems: Sequence[Problem]) -> list[tuple[str, float, str]]:
        """``(completion, reward, feedback)`` of one rollout of each problem in ``context``."""
        missing = [p for p in problems if (context, p.uid) not in self.seen]
        missing = list({p.uid: p for p in missing}.values())
        if missing:
            generator = torch.Generator(self.policy.device).manual_seed(int(self.rng.integers(2**62)))
            try:
                rollouts = self.policy.sample(
                    [self.policy.encode(context, p) for p in missing],
                    1,
                    generator,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                )
                texts = self.policy.decode(rollouts)
                self.samples += len(missing)
                self.drawn.append((context, [p.uid for p in missing], rollouts))
            except InputError as error:  # a context that does not fit the model is a bad context, not a crash
                self.unfit.add(context)
                texts = [""] * len(missing)
                for p in missing:
                    self.seen[context, p.uid] = ("", 0.0, str(error))
            for p, text in zip(missing, texts, strict=True):
                if (context, p.uid) not in self.seen:
                    score = self.task.score(p, text)
                    self.seen[context, p.uid] = (text, score.reward, score.feedback)
        return [self.seen[context, p.uid] for p in problems]

    def reusable(self, contexts: Sequence[str], problems: Sequence[Problem]) -> Reusable | None:
        """This round's rollouts of ``problems`` in ``contexts``, None if there are none."""
        number = {p.uid: k for k, p in enumerate(problems)}
        pairs: list[tuple[str, int]] = []
        parts = []
        for context, uids, rollouts in self.drawn:
            rows = [k for k, uid in enumerate(uids) if uid in number] if context in contexts else []
            if rows:
                parts.append(rollouts.take(torch.tensor(rows, device=self.policy.device)))
                pairs += [(context, number[uids[k]]) for k in rows]
        if not parts:
            return None
        return Reusable(self.task.name, tuple(problems), tuple(pairs), join(parts), self.max_new_tokens)

    def evaluate(
        self, batch: list[Problem], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[Any, str]:
        """Scores of a candidate on a batch, in GEPA's form."""
        scored = self.scores(candidate[_COMPONENT], batch)
        traces = list(zip(batch, scored, strict=True)) if capture_traces else None
        return EvaluationBatch([text for text, *_ in scored], [reward for _, reward, _ in scored], traces)

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],  # noqa: ARG002 -- the traces have it all
        eval_batch: EvaluationBatch[Any, str],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What was asked, what was written, what the environment said."""
        records = [
            {"Inputs": problem.question, "Generated Outputs": text, "Feedback": feedback}
            for problem, (text, _, feedback) in eval_batch.trajectories or []
        ]
        return dict.fromkeys(components_to_update, records)

    def propose(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """New texts, from the reflector."""
        new = {}
        for name in components_to_update:
            try:
                text, cost = self.reflector.propose(self.policy, candidate[name], reflective_dataset[name], self.rng)
            except UnusableProposal as error:  # the round goes on
                text, cost = candidate[name], error.cost
                self.unusable.append(str(error))
            except Exception as error:  # GEPA would log it and go on without a reflector
                self.failure = error
                raise
            self.samples += cost
            self.reflections += 1
            new[name] = text
        return new


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
        least = self.validation * self.contexts + self.validation + _try_rollouts(1)
        if self.rollout_budget < least:
            raise InputError(
                f"rollout_budget must be at least {least} rollouts: contexts x validation = {self.validation * self.contexts} "
                f"to score the population, {self.validation + _try_rollouts(1)} to try one new context; got {self.rollout_budget}"
            )

    def step(
        self, weights: Weights, context: Population, task: Task, rng: np.random.Generator
    ) -> tuple[Population, StepInfo]:
        """One round; ``samples`` counts every rollout, reflections of the policy included."""
        pool = list(task.problems("train" if self.reuse else "validation"))
        drawn = [pool[i] for i in rng.choice(len(pool), size=min(len(pool), 2 * self.validation + 64), replace=False)]
        scored = max(1, min(self.validation, len(drawn) // 2))  # a small world has fewer
        validation, train = drawn[:scored], drawn[scored:] or drawn
        adapter = PolicyAdapter(weights.policy, task, self.reflector, rng, self.max_new_tokens)
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
                seed_candidate={_COMPONENT: seed},
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
                prompt = candidate[_COMPONENT]
                if prompt not in table:
                    table[prompt] = [result.val_subscores[index][k] for k in range(len(validation))]
                    above = result.parents[index][0]
                    parents[prompt] = seed if above is None else result.candidates[above][_COMPONENT]
        fits = {prompt: scores for prompt, scores in table.items() if prompt not in adapter.unfit}
        kept = _keep(fits or table, self.contexts)
        means = {prompt: float(np.mean(table[prompt])) for prompt in kept}
        lineage = {**dict(context.lineage), **parents}
        population = Population(
            tuple(kept),
            tuple(means.values()),
            tuple((child, lineage[child]) for child in kept if child in lineage),
            tuple({**archive, task.name: kept[0]}.items()),
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
