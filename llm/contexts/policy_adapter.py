"""A policy on a task as the fast channel sees it: one rollout a problem, feedback in words, every rollout counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gepa.core.adapter import EvaluationBatch

from fstsim.errors import InputError
from fstsim.llm.contexts.proposals import UnusableProposal
from fstsim.llm.contexts.reflection import Reflector
from fstsim.llm.contexts.reuse import Reusable, join
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.types import Problem, Task

COMPONENT = "context"
"""What GEPA calls the one text that it evolves."""


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
        scored = self.scores(candidate[COMPONENT], batch)
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
