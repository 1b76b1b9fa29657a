"""Soft tokens: a projection is trained whose vectors stand in the prompt of the frozen model (`fstsim.llm.systems.soft`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.through import Through
from fstsim.llm.measure.loading import check_tokenizers
from fstsim.llm.policy.policy import Policy
from fstsim.llm.systems.soft import Place, SoftPolicy, Thoughts, check_place
from fstsim.llm.types import Population, Task

if TYPE_CHECKING:
    from fstsim.llm.systems.weights import SystemWeights

_MOST = 256  # vectors: more than prompts of the world have tokens


@dataclass(frozen=True)
class SoftTokens(Through):
    """Train ``vectors`` soft tokens, a linear projection of an assistant's hidden states, in the prompts of a frozen model.

    ``full``: a vector depends on the problem; ``bias``: it does not (prompt tuning); ``zero``: vectors of zeros, nothing is
    trained; ``shuffled``: the hidden states are those of another problem of the batch. Source: 2502.12134.
    """

    about: ClassVar[str] = (
        "soft tokens (SoftCoT): a projection of an assistant's hidden states into the prompt of the frozen model"
    )
    deploys: ClassVar[bool] = True
    rate: ClassVar[float] = (
        3e-2  # of 3e-3, 1e-2, 3e-2, 1e-1 the best of bias after 40 steps of strings:reverse+next, seed 0
    )

    vectors: int = 4
    """soft tokens in every prompt while training, 0 to 256"""
    test_vectors: int | None = None
    """soft tokens where the system is measured and deployed; as in training where it is not given"""
    place: Place = "context"
    """context: where the rules in words stand; thought: after the problem (the paper)"""
    thoughts: Thoughts = "full"
    """full: of the problem at hand; bias: the same for every problem; zero: vectors of zeros, nothing is trained; shuffled: of
    another problem"""
    assistant: str = ""
    """frozen model that reads the problem for the vectors: a name or folder with the tokenizer of --model; none: --model itself"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vectors", "test_vectors"):
            if not 0 <= (getattr(self, name) or 0) <= _MOST:
                raise InputError(f"{name} must lie in 0..{_MOST}, got {getattr(self, name)}")
        check_place(self.place)
        if self.thoughts not in get_args(Thoughts):
            raise InputError(f"thoughts must be one of {', '.join(get_args(Thoughts))}; got {self.thoughts!r}")
        if self.test_vectors and not self.vectors:
            raise InputError("test_vectors above 0 needs vectors above 0: a vector in use is one of training")

    def check_models(self, model: str) -> None:
        """InputError unless the assistant is there and has the tokenizer of ``model``."""
        if self.assistant:
            check_tokenizers("--assistant", self.assistant, model)

    def check(self, policy: Policy, context: str, task: Task) -> None:
        """InputError unless the assistant can be had and fits ``policy``, prompts have room, and ``task`` has what the step shows."""
        super().check(policy, context, task)
        system = self.deploy(policy, 0)
        longest = max(self.vectors, self.test_vectors or 0)
        wide = replace(system.trained_as, vectors=longest)
        for problem in list(task.problems("train"))[:1]:
            wide._check_length(len(wide.encode(context, problem)), self.max_new_tokens)

    def deploy(self, base: Policy, seed: int) -> SoftPolicy:
        """Vectors that are embeddings of random tokens, drawn by ``seed``."""
        assistant = Policy.load(self.assistant, str(base.device)) if self.assistant else base
        system = SoftPolicy.start(base, assistant, self.vectors, seed, self.assistant)
        return replace(system, place=self.place, thoughts=self.thoughts, shown=self.test_vectors)

    def step(
        self, weights: SystemWeights, context: Population, task: Any, rng: np.random.Generator
    ) -> tuple[SystemWeights, StepInfo]:
        """One step of the inner learner through the frozen model, on the projection, in place; none where nothing is trained."""
        system = weights.system
        assert isinstance(system, SoftPolicy)
        if not system.parameters():
            return weights, StepInfo(0, {})
        held = replace(weights, policy=system.trained_as, base=system.base)
        _, info = self.inner().step(held, context, task, rng)
        return weights, info
