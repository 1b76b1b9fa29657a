"""Who samples and updates in a training run: the loop of `fstsim.llm.runs.run`, or TRL's trainer (`fstsim.llm.trl.run`)."""

from __future__ import annotations

from typing import Literal

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.policy_gradient import PolicyGradient

Engine = Literal["own", "trl"]


def check_trl(method: str, learner: Learner | None, fast: PromptEvolution | None, device: str) -> None:
    """InputError for the first setting that TRL's trainer cannot carry out as the loop of this laboratory does."""
    if type(learner) is not PolicyGradient:
        raise InputError(
            f"--engine trl trains by methods rl and fst; method is {method}: choose one of them, or leave --engine out"
        )
    for flag, value, allowed in (
        ("--loss", learner.loss, "cispo"),
        ("--advantage", learner.advantage, "normalised"),
        ("--dead-groups", learner.dead_groups, "skip"),
    ):
        if value != allowed:
            raise InputError(f"--engine trl has {flag} {allowed} alone, got {value}")
    leashed = learner.leash_loss > 0.0 and learner.kl_estimator != "k3"
    if learner.leash_reward > 0.0 or learner.reset_every or leashed:
        raise InputError(
            "--engine trl has one leash, TRL's own beta: --leash-loss with --kl-estimator k3, without --leash-reward and --reset-every"
        )
    if fast is not None and fast.reuse:
        raise InputError("--engine trl samples its own rollouts: leave --reuse out")
    if device not in ("cpu", "cuda"):
        raise InputError(f"--engine trl takes --device cpu or cuda (each process its own GPU), got {device!r}")
