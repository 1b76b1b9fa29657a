"""Case memory: a frozen model that remembers what it tried and what came of it, and learns which memory to read (2508.16153)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.weights import Diverged, generator_from, sample_problems
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import check_batch
from fstsim.llm.pretraining.corpus import EXAMPLES
from fstsim.llm.systems.cases import Cases, Read, Reading
from fstsim.llm.systems.contexts import joined
from fstsim.llm.systems.plans import write_plans
from fstsim.llm.systems.start import started
from fstsim.llm.types import Answered, Demonstrated, Population, Problem, Task
from fstsim.settings import check_types

if TYPE_CHECKING:
    from fstsim.llm.systems.weights import SystemWeights

_EXAMPLES_KEPT = 256
"""Problems with their right answers that are remembered, the last ones."""
_PLAYS_KEPT = 2048
"""Episodes that the router learns from, the last ones."""
_PLAYS_A_BATCH = 128


@dataclass(frozen=True)
class CaseMemory(Learner):
    """A step plays ``problems`` episodes: read a case, act on its plan, be scored, write the new case; then update the router.

    With probability ``write`` (always while the bank is empty) an episode acts on a new plan in place of a case that was
    read: what the model writes of the four remembered examples that are nearest to the problem. Problems are of the train split.
    """

    about: ClassVar[str] = (
        "case memory: weights frozen, plans that worked are read by similarity or by a learned router"
    )
    deploys: ClassVar[bool] = True

    problems: int = 48
    """episodes a step"""
    max_new_tokens: int = 8
    """longest completion"""
    read: Read = "softmax"
    """how a case is chosen: similarity, the nearest that succeeded; top, those of highest learned Q; softmax, by e^(Q/alpha); none,
    no memory"""
    alpha: float = 0.1
    """temperature of softmax reading, in units of reward"""
    retrieved: int = 4
    """cases that are read, in equal parts, by similarity and top"""
    capacity: int = 64
    """cases kept, those of lowest Q leave first (0: all are kept)"""
    write: float = 0.25
    """share of episodes that act on a newly written plan"""
    updates: int = 8
    """updates of the router a step"""
    bank: str = ""
    """run directory of method cases in whose bank this run begins"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.read not in get_args(Read):
            raise InputError(f"read must be one of {', '.join(get_args(Read))}, got {self.read!r}")
        if min(self.problems, self.max_new_tokens, self.retrieved, self.updates) < 1:
            raise InputError("problems, max_new_tokens, retrieved and updates must be at least 1")
        check_batch(self.problems)
        if not 1e-6 <= self.alpha < np.inf:
            raise InputError(f"alpha must be finite and at least 1e-6, got {self.alpha}")
        if self.capacity < 0:
            raise InputError(f"capacity must be at least 0 (all cases are kept), got {self.capacity}")
        if not 0.0 <= self.write <= 1.0:
            raise InputError(f"write must lie in [0, 1], got {self.write}")

    def check(self, policy: Policy, context: str, task: Task) -> None:  # noqa: ARG002 -- plans are put after any context
        """InputError unless ``task`` shows right answers to remember, and ``bank`` is one of this model."""
        if not isinstance(task, Answered):
            raise InputError(f"method cases remembers right answers, but {task.name} has none; choose another --method")
        self.deploy(policy, 0)

    def deploy(self, base: Policy, seed: int) -> Cases:
        """An empty bank, or that of the run ``bank``."""
        return started(self.bank, "--bank", self._empty(base, seed))

    def _empty(self, base: Policy, seed: int) -> Cases:
        return Cases(base, Reading(self.read, self.alpha, self.retrieved, self.capacity), seed)

    def step(
        self, weights: SystemWeights, context: Population, task: Answered, rng: np.random.Generator
    ) -> tuple[SystemWeights, StepInfo]:
        """Play, write, update in place."""
        system = weights.system
        assert isinstance(system, Cases)
        policy = system.policy
        problems = sample_problems(task.problems("train"), self.problems, rng)
        asked = [(context.prompts[i % len(context.prompts)], p) for i, p in enumerate(problems)]
        states = system.states(asked)
        chosen, plans, written = self._plans(system, states, rng)
        told = [joined(policy, c, plan or "") for (c, _), plan in zip(asked, plans, strict=True)]
        prompts = policy.encode_all(list(zip(told, problems, strict=True)))
        wrote = policy.sample(prompts, 1, generator_from(rng, policy), max_new_tokens=self.max_new_tokens)
        rewards = [task.score(p, text).reward for p, text in zip(problems, policy.decode(wrote), strict=True)]
        metrics: dict[str, Any] = {
            "train_reward": float(np.mean(rewards)),
            "length": float(wrote.mask.sum(-1).float().mean()),
        }
        if self.read != "none":
            self._remember(system, states, chosen, rewards)
            acted = [i for i, plan in enumerate(plans) if plan is not None]
            system.add(states[acted], [str(plans[i]) for i in acted], [rewards[i] for i in acted])
            _keep_examples(system, states, [_pair(policy, task, p) for p in problems])
            metrics |= self._update(weights, system, rng, f"{task.name}, problems {problems[0].text}...")
            metrics |= {
                "cases": len(system.held),
                "plans": len({case.plan for case in system.held}),
                "reflections": written,
            }
        return weights, StepInfo(len(problems) + written, metrics)

    def _plans(
        self, system: Cases, states: torch.Tensor, rng: np.random.Generator
    ) -> tuple[list[int | None], list[str | None], int]:
        """Which case each episode reads, the plan that it acts on (None: none), and how many plans were written."""
        count = len(states)
        chosen: list[int | None] = [None] * count
        plans: list[str | None] = [None] * count
        if self.read == "none":
            return chosen, plans, 0
        mu = system.masses(states).cpu().numpy()
        new = (rng.random(count) < self.write) | (mu.sum(1) == 0.0)
        dice = rng.random(count)
        for i in np.flatnonzero(~new).tolist():
            sums = mu[i].cumsum()
            case = int(np.searchsorted(sums, dice[i] * sums[-1], side="right"))
            chosen[i], plans[i] = case, system.held[case].plan
        writers = [int(i) for i in np.flatnonzero(new)] if len(system.examples) >= EXAMPLES else []
        if writers:
            near = (states[writers] @ system.examples_at.T).sort(dim=-1, descending=True, stable=True).indices
            shown = [[system.examples[e] for e in row[:EXAMPLES]] for row in near.tolist()]
            for i, plan in zip(writers, write_plans(system.policy, shown, rng), strict=True):
                plans[i] = plan
        return chosen, plans, len(writers)

    def _remember(self, system: Cases, states: torch.Tensor, chosen: list[int | None], rewards: list[float]) -> None:
        """Episodes that have read a case are plays; a plan that was just written has no reward of its own to be read by."""
        rows = [i for i, case in enumerate(chosen) if case is not None]
        if system.router is None or not rows:
            return
        played = system.features[[case for case in chosen if case is not None]]
        got = torch.tensor([rewards[i] for i in rows], device=states.device)
        new = (states[rows] * system.scale, played, got)
        one, two, three = (torch.cat(pair)[-_PLAYS_KEPT:] for pair in zip(system.plays, new, strict=True))
        system.plays = (one, two, three)

    def _update(
        self, weights: SystemWeights, system: Cases, rng: np.random.Generator, what: str
    ) -> Mapping[str, float]:
        """Cross-entropy of Q on plays drawn from the buffer: one-step rewards, so that no target network is needed."""
        states, cases, rewards = system.plays
        if system.router is None or not len(rewards):
            return {}
        losses, norm = [], 0.0
        for _ in range(self.updates):
            rows = torch.from_numpy(rng.integers(len(rewards), size=min(_PLAYS_A_BATCH, len(rewards))))
            rows = rows.to(states.device)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                system.router.pairs(states[rows], cases[rows]), rewards[rows]
            )
            if not torch.isfinite(loss):
                raise Diverged(f"loss is {float(loss.detach())} on {what}")
            loss.backward()
            norm = weights.apply(what)
            losses.append(float(loss.detach()))
        return {"loss": float(np.mean(losses)), "grad_norm": norm}


def _pair(policy: Policy, task: Answered, problem: Problem) -> tuple[str, str]:
    """What an example shows: start list and answer in the world, where the start list is the old answer; else question and answer."""
    if policy.template == "world" and isinstance(task, Demonstrated):
        return task.old_answer(problem), task.answer(problem)
    return problem.question, task.answer(problem)


def _keep_examples(system: Cases, states: torch.Tensor, pairs: list[tuple[str, str]]) -> None:
    """The last examples, each once."""
    system.examples_at = torch.cat((system.examples_at, states))
    system.examples += pairs
    last = {pair: e for e, pair in enumerate(system.examples)}
    kept = sorted(last.values())[-_EXAMPLES_KEPT:]
    system.examples_at = system.examples_at[kept]
    system.examples = [system.examples[e] for e in kept]
