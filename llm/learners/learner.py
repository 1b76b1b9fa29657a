"""What a slow learner is: settings that are the fields of a frozen dataclass, and one step on the weights.

A new one is a file here and a line in `fstsim.llm.learners.LEARNERS`: its flags, their help, which method takes them and
what a configuration records are derived from its fields. A field that is no flag says so in its metadata (`NO_FLAG`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.types import Population, Task

if TYPE_CHECKING:
    from fstsim.llm.systems.system import Deployed

NO_FLAG: Mapping[str, Any] = {"flag": False}
"""Metadata of a field that the run itself fills in."""


@dataclass(frozen=True)
class Learner(ABC):
    """A slow learner; what a run asks of it has a default here where most learners answer alike."""

    about: ClassVar[str]
    """what it does, in one phrase, for help and tables"""
    shadowed: ClassVar[bool] = False
    """whether it always needs a copy of the weights beside policy and base (`fstsim.llm.learners.shadow`)"""
    rate: ClassVar[float] = 3e-4
    """learning rate of the presets"""
    deploys: ClassVar[bool] = False
    """whether it leaves the model as it is and trains a system beside it (`deploy`)"""

    @property
    def shows_old(self) -> bool:
        """Whether it shows old answers of problems of the train split."""
        return False

    def copies(self, tasks: int) -> int:  # noqa: ARG002 -- most hold as many whatever the number of tasks
        """Copies of the trained weights that a run on so many tasks holds at most, beside policy and base."""
        return int(self.shadowed)

    def follows(self, made: int) -> float:  # noqa: ARG002 -- most have no shadow, or one that is put elsewhere
        """Share of the way to the policy that the shadow goes after the slow step number ``made``, counted from 1; 1 makes it the policy.

        A shadowed learner that says so can be forecast (`fstsim.llm.forecast`).
        """
        return 0.0

    def hold(self, weights: Weights) -> Weights:
        """``weights`` with what this learner keeps beside policy and base: a shadow where it needs one."""
        return ShadowedWeights.start(weights) if self.shadowed else weights

    def plan(self, tasks: Sequence[Task], steps: int) -> tuple[list[Any], list[int]]:
        """What the slow steps of a run are made on, in order, and how many on each: every task, ``steps`` each.

        A learner may have blocks of its own in place of the tasks: their number is a multiple of that of the tasks, block k is
        measured as task k modulo their number, and all steps together are as many.
        """
        return list(tasks), [steps] * len(tasks)

    def check_models(self, model: str) -> None:  # noqa: B027 -- most need no other model
        """InputError, before any weights are loaded, unless other models that it needs are there and fit the one called ``model``."""

    @abstractmethod
    def step(self, weights: Any, context: Population, task: Any, rng: np.random.Generator) -> tuple[Any, StepInfo]:
        """One update of the weights on ``task``; see `fstsim.fast_slow.SlowLearner`."""

    def check(self, policy: Policy, context: str, task: Any) -> None:  # noqa: B027 -- most need nothing
        """InputError, before any work, if ``policy`` cannot learn ``task`` in ``context`` with these settings."""

    def deploy(self, base: Policy, seed: int) -> Deployed:
        """The system at the start of a run on the frozen ``base``; asked of learners that ``deploys``. ``seed`` draws what is random in it."""
        raise NotImplementedError(f"{type(self).__name__} deploys nothing beside its model")

    def begin(self, context: str) -> tuple[Learner, str]:
        """The learner of a run whose configuration names ``context``, and the context that its policy starts in."""
        return self, context
