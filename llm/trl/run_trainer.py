"""The trainer of a run of ours on TRL's engine: problems drawn as in our loop, tasks one after the other, our columns.

The columns are those of `fstsim.llm.learners.policy_gradient`, over all processes: sums of each pass are kept and brought
together once a slow step, which with several updates of a batch is as many optimizer steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import Sampler
from transformers import PrinterCallback

from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.divergence import inside
from fstsim.llm.trl.fast_slow import FastSlowGRPOTrainer
from fstsim.llm.types import Problem, Score, Split, Task


@dataclass(frozen=True)
class TaskSequence:
    """``tasks`` trained one after the other, ``steps`` slow steps each, as one task of the trainer: its problems are all of theirs."""

    tasks: Sequence[Task]
    steps: int
    every: int
    """slow steps between fast rounds"""
    name: str = "tasks in turn"
    exact: bool = False

    def problems(self, split: Split) -> list[Problem]:
        """Those of all tasks, one task's after the other's."""
        return [problem for task in self.tasks for problem in task.problems(split)]

    def score(self, problem: Problem, completion: str) -> Score:
        """That of the first task, for who knows of no other; the trainer goes by the problem's number."""
        return self.tasks[0].score(problem, completion)

    def number_at(self, step: int) -> int:
        """Number of the task that slow step number ``step`` (from 0) trains."""
        return min(step // self.steps, len(self.tasks) - 1)

    def numbers(self, task: int) -> range:
        """Numbers of the train problems of task number ``task`` among those of all."""
        ends = [0, *itertools.accumulate(len(each.problems("train")) for each in self.tasks)]
        return range(ends[task], ends[task + 1])

    def drawn(self, step: int, count: int, seed: int) -> list[int]:
        """Numbers of the ``count`` problems of slow step number ``step``: a function of these numbers alone, whatever was before."""
        numbers, rng = self.numbers(self.number_at(step)), np.random.default_rng((seed, 2, step))
        return [numbers[i] for i in rng.choice(len(numbers), size=count, replace=count > len(numbers))]


class _Steps(Sampler[int]):
    """Every row of the run in order: each step's problems, each as often as its group is large, once for every pass over them."""

    def __init__(self, plan: TaskSequence, learner: PolicyGradient, passes: int, seed: int) -> None:
        self._plan, self._learner, self._passes, self._seed = plan, learner, passes, seed
        self._total = plan.steps * len(plan.tasks)

    def __len__(self) -> int:
        return self._total * self._learner.problems * self._learner.rollouts * self._passes

    def __iter__(self) -> Iterator[int]:
        for step in range(self._total):
            drawn = self._plan.drawn(step, self._learner.problems, self._seed)
            rows = [k for k in drawn for _ in range(self._learner.rollouts)]
            for _ in range(self._passes):
                yield from rows


class RunTrainer(FastSlowGRPOTrainer):
    """A `FastSlowGRPOTrainer` of ``plan`` that tells what each slow step of ``learner`` was like (`step_metrics`)."""

    def __init__(self, model: Any, plan: TaskSequence, args: Any, *, learner: PolicyGradient, **more: Any) -> None:
        self._plan, self._learner = plan, learner
        self._passes = learner.updates * int(args.steps_per_generation)
        self._starts = [plan.numbers(k).stop for k in range(len(plan.tasks))]
        self._batch: dict[str, float] = {}
        self._tokens = 1.0
        self._scored: tuple[Any, Any] = (None, None)
        self._norms: list[float] = []
        super().__init__(model, plan, args, every=plan.every * learner.updates, **more)
        self.beta = learner.leash_loss
        self.remove_callback(PrinterCallback)
        self._sums = self._zeros()

    def _zeros(self) -> torch.Tensor:
        # loss, capped tokens, entropy, tokens that entropy was taken of; gloo and NCCL know float64, MPS does not
        return torch.zeros(4, dtype=torch.float64, device=self.accelerator.device)

    def _get_train_sampler(self, dataset: Any = None) -> Any:  # noqa: ARG002 -- as the trainer calls it
        return _Steps(self._plan, self._learner, self._passes, self.args.seed)

    def _task_of_round(self, step: int) -> Task | None:
        slow, within = divmod(step, self._learner.updates)
        due = within == 0 and slow % self._plan.steps % self._plan.every == 0
        return self._plan.tasks[self._plan.number_at(slow)] if due else None

    def _score(self, k: int, text: str) -> float:
        task = next(number for number, end in enumerate(self._starts) if k < end)
        return self._plan.tasks[task].score(self._problems[k], text).reward

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        told = self._metrics["train"]
        self._batch = {
            "train_reward": told["reward"][-1],
            "dead_share": float(self._dead.float().mean()),
            "length": told["completions/mean_length"][-1],
        }
        self._tokens = float(output["num_items_in_batch"])
        first = self.accelerator.process_index * len(inputs)
        output["live"] = ~self._dead.repeat_interleave(self._size)[first : first + len(inputs)]
        told.clear()  # nobody logs them
        return output

    def _get_per_token_logps_and_entropies(self, *args: Any, **named: Any) -> Any:
        parent: Any = super()
        scored = parent._get_per_token_logps_and_entropies(*args, **named)
        if scored[1] is not None:
            self._scored = (scored[0].detach(), scored[1].detach())
        return scored

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        parent: Any = super()
        loss = parent._compute_loss(model, inputs)
        logps, entropies = self._scored
        mask = inputs["completion_mask"].bool()
        if self.beta == 0.0:  # then groups without signal are left out, as our loop leaves them out
            mask = mask & inputs["live"][:, None]
        old = inputs.get("old_per_token_logps", logps)
        capped = (torch.exp(logps - old) > self._learner.ratio_cap) & mask
        passed = (loss.detach(), capped.sum(), inside(entropies, mask).sum(), mask.sum())
        self._sums += torch.stack([each.double() for each in passed])
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        parent: Any = super()
        norm = parent._clip_grad_norm(model)
        self._norms.append(math.nan if norm is None else float(norm))
        return norm

    def step_metrics(self) -> dict[str, float]:
        """Columns of the slow step that has just been made, over all processes, which call it together."""
        loss, capped, entropy, seen = self.accelerator.reduce(self._sums, reduction="sum").tolist()
        updates = self._learner.updates
        metrics = {
            **self._batch,
            "loss": loss / self.accelerator.num_processes / updates,
            "grad_norm": float(np.mean(self._norms)),
            "capped_share": capped / (self._tokens * updates),
            "train_entropy": entropy / seen if seen else math.nan,
        }
        self._sums, self._norms = self._zeros(), []
        return metrics

    def gathered(self, held: Any) -> list[Any]:
        """What each process ``held``, on all processes."""
        return list(gather_object([held]))
