"""Proxy-tuning: a small expert is trained, and what that did to it steers the large model (`fstsim.llm.systems.proxy`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.through import Through
from fstsim.llm.measure.loading import check_tokenizers
from fstsim.llm.policy.policy import Policy
from fstsim.llm.systems.proxy import ProxyPolicy
from fstsim.llm.types import Population, Task

if TYPE_CHECKING:
    from fstsim.llm.systems.weights import SystemWeights

TunedOn = Literal["own", "combined"]


@dataclass(frozen=True)
class ProxyTuning(Through):
    """Train an expert that starts as ``expert_base``; deployed is the model, steered by ``alpha`` times the change of the expert.

    ``own``: the expert learns as a model of its own, and the large one is not run in training (the paper). ``combined``:
    the step is made on the combination's own samples and log-probabilities, with gradients in the expert alone (ours).
    Source: 2401.08565.
    """

    about: ClassVar[str] = "proxy-tuning: a small expert is trained, its change of logits steers the frozen model"
    deploys: ClassVar[bool] = True
    rate: ClassVar[float] = (
        1e-3  # of 3e-4, 1e-3, 3e-3, 1e-2 the best after 10, 20 and 40 steps of strings:rotate, seed 0
    )

    alpha: float = 1.0
    """strength of the expert's change in the large model's logits; 0: none, above 1: more than it learned"""
    expert_base: str = "tiny"
    """small model that the expert starts as and that stays as the anti-expert: tiny (shipped, of the same world as base), or
    any model with the tokenizer of --model"""
    other_alphas: tuple[float, ...] = ()
    """other strengths at which reward and old behaviour of the same expert are measured, in columns of their own"""
    tuned_on: TunedOn = "own"
    """own: the expert is trained alone; combined: through the combination that is deployed"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for alpha in (self.alpha, *self.other_alphas):
            if not math.isfinite(alpha):
                raise InputError(f"alpha must be finite, got {alpha}")
        if self.tuned_on not in get_args(TunedOn):
            raise InputError(f"tuned_on must be one of {', '.join(get_args(TunedOn))}; got {self.tuned_on!r}")
        if self.tuned_on == "combined" and self.alpha == 0.0:
            raise InputError(
                "tuned_on combined needs an alpha other than 0: at 0 the expert has no part in the combination"
            )

    def check_models(self, model: str) -> None:
        """InputError unless the small model is there and has the tokenizer of ``model``."""
        check_tokenizers("--expert-base", self.expert_base, model)

    def check(self, policy: Policy, context: str, task: Task) -> None:
        """InputError unless the small model can be had and fits ``policy``, and ``task`` has what the step shows."""
        super().check(policy, context, task)
        self.deploy(policy, 0)

    def deploy(self, base: Policy, seed: int) -> ProxyPolicy:  # noqa: ARG002 -- nothing is drawn
        """``base`` to the bit: the expert is what it started as."""
        small = Policy.load(self.expert_base, str(base.device))
        system = ProxyPolicy.start(base, small, self.alpha, self.expert_base)
        return replace(system, others=self.other_alphas)

    def step(
        self, weights: SystemWeights, context: Population, task: Any, rng: np.random.Generator
    ) -> tuple[SystemWeights, StepInfo]:
        """One step of the inner learner on the expert, in place."""
        system = weights.system
        assert isinstance(system, ProxyPolicy)
        own = self.tuned_on == "own"
        held = replace(weights, policy=system.expert if own else system.acting, base=system.anti if own else system.big)
        _, info = self.inner().step(held, context, task, rng)
        return weights, info
