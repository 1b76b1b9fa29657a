"""What a slow learner is: settings that are the fields of a frozen dataclass, and one step on the weights.

A new one is a file here and a line in `fstsim.llm.learners.LEARNERS`: its flags, their help, which method takes them and
what a configuration records are derived from its fields. A field that is no flag says so in its metadata (`NO_FLAG`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fstsim.fast_slow import StepInfo
from fstsim.llm.policy.policy import Policy
from fstsim.llm.types import Population

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
    """whether its weights need a second copy that moves with the run (`fstsim.llm.learners.shadow`)"""
    rate: ClassVar[float] = 3e-4
    """learning rate of the presets"""
    deploys: ClassVar[bool] = False
    """whether it leaves the model as it is and trains a system beside it (`deploy`)"""

    @property
    def shows_old(self) -> bool:
        """Whether it shows old answers of problems of the train split."""
        return False

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
