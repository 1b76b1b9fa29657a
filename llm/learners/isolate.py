r"""Core parameter isolation: find each task's core by a short tuning, merge the copies, tune on with earlier cores frozen.

(1) A copy of the start is tuned on each task; its core is the share p of entries that moved furthest. (2) Tasks whose cores
overlap are one group; groups follow each other at random. (3) One model: every task's own values in its core, everything else
merged by SLERP. (4) Tuning on a small balanced sample of all tasks, group by group, the cores of earlier groups frozen. Every
arm shows as many demonstrations as supervised fine-tuning on the same tasks, the probes of (1) included.
Source: 2508.21741; what it leaves open is a setting. What a frozen core can do: statement `isolation-clock`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.isolate_cores import (
    Backbone,
    Contested,
    Merging,
    SlerpOn,
    core,
    drive_shares,
    jaccard,
    merge,
    overlap_groups,
    random_core,
    share_of,
    union,
)
from fstsim.llm.learners.isolate_weights import IsolatedWeights, copy_of, put
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.sft import SupervisedFineTuning, show
from fstsim.llm.learners.weights import Weights, sample_problems, share_out
from fstsim.llm.policy.adapters import own_weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import check_batch
from fstsim.llm.types import Answered, Population, Problem, Task
from fstsim.settings import check_types

_MEASURED = 64  # demonstrations of a task on which shares of the drive are measured

ArmName = Literal[
    "full", "joint", "stages", "freeze", "sample",
    "no-transplant", "no-slerp", "no-freeze", "no-sample", "random",
]  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """Which parts of the method run. ``first``: what each task's own steps are made on, if it has some."""

    first: Literal["copies", "in turn", "none"]
    then: Literal["sample", "group", "all", "none"]
    """what is shown afterwards: the small sample of all tasks, all of the group's, all of all tasks, nothing"""
    transplant: bool = False
    slerp: bool = False
    freeze: bool = False
    random: bool = False
    """cores of random entries"""

    @property
    def cores(self) -> bool:
        """Whether cores are of any use."""
        return self.transplant or self.freeze


ARMS: Mapping[str, Arm] = {
    "full": Arm("copies", "sample", transplant=True, slerp=True, freeze=True),
    "joint": Arm("none", "all"),
    "stages": Arm("in turn", "none"),
    "freeze": Arm("in turn", "none", freeze=True),
    "sample": Arm("in turn", "sample"),
    "no-transplant": Arm("copies", "sample", slerp=True, freeze=True),
    "no-slerp": Arm("copies", "sample", transplant=True, freeze=True),
    "no-freeze": Arm("copies", "sample", transplant=True, slerp=True),
    "no-sample": Arm("copies", "group", transplant=True, slerp=True, freeze=True),
    "random": Arm("copies", "sample", transplant=True, slerp=True, freeze=True, random=True),
}


@dataclass(frozen=True)
class Block:
    """Steps ``first`` to ``first + steps - 1`` of a run: on task ``index`` alone, or ``then``, on what its arm shows afterwards."""

    tasks: tuple[Task, ...]
    index: int
    first: int
    steps: int
    then: bool

    @property
    def name(self) -> str:
        """That of its task."""
        return self.tasks[self.index].name


@dataclass(frozen=True)
class Isolation(Learner):
    """Supervised fine-tuning on several tasks, whose core parameters are kept apart."""

    about: ClassVar[str] = "core parameter isolation: tasks tuned apart, merged, their cores frozen"
    shadowed: ClassVar[bool] = True

    arm: ArmName = "full"
    """full; joint: all tasks together; stages: one after the other; freeze: so, earlier cores frozen; sample: stages, then the
    small sample; full without transplant, SLERP, freezing or sample; random: full, with cores of random entries"""
    problems: int = 48
    """demonstrations a step"""
    core_share: float = 0.01
    """share of all weights in a task's core, 0 to 1"""
    overlap: float = 0.1
    """overlap of two cores (Jaccard) from which on their tasks are one group, above 0; that of random ones is p / (2 - p)"""
    first_share: float = 0.5
    """share of a task's steps that its own tuning takes; the others are made after the merge"""
    sample: int = 16
    """demonstrations of each task in the small sample"""
    omega: float = 0.5
    """weight of every other copy in the merge, 1 - omega that of the backbone"""
    slerp_on: SlerpOn = "weights"
    """what SLERP turns: weights, or their differences from the start"""
    backbone: Backbone = "last"
    """what copies are merged into: that of the last stage, or the start"""
    contested: Contested = "larger"
    """value of an entry in several cores: of the task that moved it furthest, or their mean"""
    flat_angle: float = 1e-4
    """angle below which SLERP is linear, radians, at least 0 and below pi (3: the merge is linear)"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.arm not in get_args(ArmName):
            raise InputError(f"arm must be one of {', '.join(get_args(ArmName))}; got {self.arm!r}")
        if self.problems < 1 or self.sample < 1:
            raise InputError(f"problems and sample must be at least 1, got {self.problems} and {self.sample}")
        check_batch(self.problems)
        if not 0.0 <= self.core_share <= 1.0:
            raise InputError(f"core_share must lie in [0, 1], got {self.core_share}")
        if not 0.0 < self.overlap <= 1.0:
            raise InputError(f"overlap must be above 0 and at most 1, got {self.overlap}")
        if not 0.0 < self.first_share < 1.0:
            raise InputError(f"first_share must lie above 0 and below 1, got {self.first_share}")
        self.merging  # noqa: B018 -- checks its own settings

    @property
    def parts(self) -> Arm:
        """What runs."""
        return ARMS[self.arm]

    @property
    def merging(self) -> Merging:
        """How copies become one model."""
        arm = self.parts
        turn = self.omega, self.slerp_on, self.backbone, self.contested, self.flat_angle
        return Merging(arm.transplant, arm.slerp, *turn)

    def copies(self, tasks: int) -> int:
        """The start, and every tuned copy until they are merged."""
        return 1 + (tasks if self.parts.first == "copies" else 1)

    def hold(self, weights: Weights) -> Weights:
        """With copies, cores and stages."""
        return IsolatedWeights.begin(weights)

    def check(self, policy: Policy, context: str, task: Task) -> None:  # noqa: ARG002 -- what is shown depends on the task
        """InputError unless ``task`` has the answers that are to be shown."""
        if not isinstance(task, Answered):
            raise InputError(f"method isolate shows right answers, but {task.name} has none; choose another --method")

    def plan(self, tasks: Sequence[Task], steps: int) -> tuple[list[Any], list[int]]:
        """A block of own steps for each task, where the arm has some, then one of the steps left over for each."""
        own = {"copies": round(self.first_share * steps), "in turn": round(self.first_share * steps), "none": 0}
        first = steps if self.parts.then == "none" else own[self.parts.first]
        if first == 0 < own[self.parts.first] or (first == 0 and self.parts.first != "none"):
            raise InputError(f"first_share {self.first_share} of {steps} steps leaves none for a task's own tuning")
        lengths = [(count, then) for count, then in ((first, False), (steps - first, True)) if count]
        blocks, at = [], 0
        for count, then in lengths:
            for index in range(len(tasks)):
                blocks.append(Block(tuple(tasks), index, at, count, then))
                at += count
        return blocks, [block.steps for block in blocks]

    def step(
        self, weights: IsolatedWeights, context: Population, task: Block, rng: np.random.Generator
    ) -> tuple[IsolatedWeights, StepInfo]:
        """One demonstration batch of the block; copies, cores and the merge at the ends of blocks."""
        columns: dict[str, Any] = {}
        if weights.age == task.first:
            weights, columns = self._begin(weights, context, task, rng)
        if not task.then:
            plain = SupervisedFineTuning(self.problems)
            _, info = plain.step(weights, context, task.tasks[task.index], rng)  # type: ignore[arg-type]  # `check` has seen it
        else:
            info = self._show_mixed(weights, context, self._shown(weights, task), rng)
        weights = replace(weights, age=weights.age + 1)
        if not task.then and weights.age == task.first + task.steps:
            weights, at_end = self._finish(weights, context, task, rng)
            columns |= at_end
        return weights, StepInfo(0, {**info.metrics, **columns})

    def _begin(
        self, weights: IsolatedWeights, context: Population, block: Block, rng: np.random.Generator
    ) -> tuple[IsolatedWeights, dict[str, Any]]:
        """Before a block's first step: the start for a copy, the merged model, which entries are frozen; and columns."""
        arm = self.parts
        columns: dict[str, Any] = {}
        if arm.first == "copies" and not block.then and block.index > 0:
            put(weights, weights.start)
            weights.forget_moments()
        if block.then and block.index == 0 and arm.first != "none":
            weights, columns = self._merged(weights, rng)
        if not arm.freeze or (arm.first == "copies" and not block.then):
            return weights, columns
        earlier = self._earlier(weights, block)
        if not earlier:
            return replace(weights, frozen=None), columns
        frozen = union(weights.start, [weights.cores[i] for i in earlier])
        weights = replace(weights, frozen=frozen)
        return weights, {
            **columns,
            "frozen_share": share_of(frozen),
            **self._driven(weights, context, block, frozen, "drive_share"),
        }

    def _earlier(self, weights: IsolatedWeights, block: Block) -> list[int]:
        """Tasks whose cores are frozen in ``block``: of stages before its own."""
        if not block.then:
            return list(range(block.index))
        stage = self._stage(weights, block)
        return [i for group in weights.stages[:stage] for i in group]

    @staticmethod
    def _stage(weights: IsolatedWeights, block: Block) -> int:
        """Number of the stage that a block after the merge belongs to: each has as many blocks as tasks."""
        return [k for k, group in enumerate(weights.stages) for _ in group][block.index]

    def _merged(self, weights: IsolatedWeights, rng: np.random.Generator) -> tuple[IsolatedWeights, dict[str, Any]]:
        """Groups in their order, and the policy as the merge of all copies, where the arm has them; and columns."""
        columns: dict[str, Any] = {}
        if self.parts.first != "copies":
            return replace(weights, tuned=()), columns
        groups = overlap_groups(weights.cores, self.overlap)
        stages = tuple(tuple(groups[k]) for k in rng.permutation(len(groups)))
        for j, later in enumerate(weights.cores):
            for i, earlier in enumerate(weights.cores[:j]):
                columns[f"core_overlap_{i}_{j}"] = jaccard(earlier, later)
        columns["core_groups"] = len(groups)
        order = [i for stage in stages for i in stage]
        copies, cores = [weights.tuned[i] for i in order], [weights.cores[i] for i in order]
        put(weights, merge(weights.start, copies, cores, self.merging))
        weights.forget_moments()
        return replace(weights, tuned=(), stages=stages), columns

    def _finish(
        self, weights: IsolatedWeights, context: Population, block: Block, rng: np.random.Generator
    ) -> tuple[IsolatedWeights, dict[str, Any]]:
        """After a task's own tuning: its copy, and its core; and columns."""
        arm, now = self.parts, copy_of(weights)
        if arm.first == "copies":
            before, tuned = weights.start, (*weights.tuned, now)
        else:
            before, tuned = weights.tuned[-1] if weights.tuned else weights.start, (now,)
        if not arm.cores and arm.first != "copies":
            return weights, {}
        seed = int(rng.integers(2**62)) if arm.random else 0
        mask = random_core(before, self.core_share, seed) if arm.random else core(before, now, self.core_share)
        columns = self._driven(weights, context, block, mask, "core_drive_share")
        return replace(weights, tuned=tuned, cores=(*weights.cores, mask)), columns

    def _driven(
        self, weights: IsolatedWeights, context: Population, block: Block, mask: Mapping[str, Any], column: str
    ) -> dict[str, float]:
        """`drive` of ``mask`` on what ``block`` shows, as the columns ``column`` and ``column_squared``."""
        share, squared = self.drive(weights, context, self._shown(weights, block), mask)
        return {column: share, f"{column}_squared": squared}

    def drive(
        self,
        weights: IsolatedWeights,
        context: Population,
        shown: Sequence[tuple[Task, int | None]],
        mask: Mapping[str, Any],
    ) -> tuple[float, float]:
        """`drive_shares` of ``mask`` in the gradient of the start of the run on demonstrations of ``shown``; nothing is changed."""
        now = copy_of(weights)
        put(weights, weights.start)
        pairs = [(task, p) for task, count in shown for p in _pool(task, min(count or _MEASURED, _MEASURED))]
        prompts = [weights.policy.encode(context.prompts[0], p) for _, p in pairs]
        answers = [weights.policy.encode_answer(task.answer(p)) for task, p in pairs]  # type: ignore[attr-defined]
        show(weights, prompts, answers, "the demonstrations on which the drive is measured")
        gradient = {name: p.grad for name, p in own_weights(weights.policy).items() if p.grad is not None}
        shares = drive_shares(gradient, mask)
        weights.optimizer.zero_grad(set_to_none=True)
        put(weights, now)
        return shares

    def _shown(self, weights: IsolatedWeights, block: Block) -> list[tuple[Task, int | None]]:
        """Tasks that a block shows, and how many problems of each: None for all."""
        if not block.then:
            return [(block.tasks[block.index], None)]
        if self.parts.then == "group":
            return [(block.tasks[i], None) for i in weights.stages[self._stage(weights, block)]]
        return [(task, self.sample if self.parts.then == "sample" else None) for task in block.tasks]

    def _show_mixed(
        self,
        weights: IsolatedWeights,
        context: Population,
        shown: Sequence[tuple[Task, int | None]],
        rng: np.random.Generator,
    ) -> StepInfo:
        """Show equally many demonstrations of each task, update in place."""
        policy = weights.policy
        pairs = [
            (task, p)
            for (task, count), part in zip(shown, share_out(self.problems, len(shown), rng), strict=True)
            for p in sample_problems(_pool(task, count), part, rng)
        ]
        which = rng.integers(len(context.prompts), size=len(pairs))
        prompts = [policy.encode(context.prompts[k], p) for k, (_, p) in zip(which, pairs, strict=True)]
        answers = [policy.encode_answer(task.answer(p)) for task, p in pairs]  # type: ignore[attr-defined]
        what = f"{', '.join(task.name for task, _ in shown)}, problems {pairs[0][1].text}..."
        value = show(weights, prompts, answers, what)
        return StepInfo(0, {"loss": value, "grad_norm": weights.apply(what)})


def _pool(task: Task, count: int | None) -> Sequence[Problem]:
    """Problems of the train split, the first ``count``, or all: splits are in no order."""
    problems = task.problems("train")
    return problems if count is None else problems[:count]
