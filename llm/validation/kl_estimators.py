r"""Claims about what a leash of k1, k2 or k3 along sampled tokens does as a loss (`kl-estimators-loss`, `kl-estimators-ratio`).

k1 has a gradient of mean zero and holds nothing; k2 has that of the exact KL and rests where the leash as a loss does; k3, the
KL term of GRPO, has that of KL(base || policy) and rests at `kl-estimators-rest`, short of it; times the importance ratio
k3 has that of the exact KL again. Predicted per prompt from the base's token masses, then averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.losses import KLEstimator
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.claim import Chapter, Claim, settled
from fstsim.llm.validation.equilibria import PROBLEMS, TASK
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.kl_leashes import answer_token_masses
from fstsim.llm.validation.leash_loss import GROUP, config_of, near
from fstsim.llm.validation.prediction import Array, measure_base
from fstsim.theory import effective_tau, k3_loss_answer, leash_loss_answer

TAU = 0.25
"""Strength at which the two directions of the KL rest furthest apart."""
_SIZE = {"smoke": 24, "small": 48, "paper": 48}


@dataclass(frozen=True)
class Estimated:
    """One run: the estimator, times the ratio or not, the statement it tests, and success at rest from token masses and tau."""

    estimator: KLEstimator
    ratio: bool
    statement: str
    law: Callable[[Array, float], Array] | None
    """None: nothing holds"""

    @property
    def name(self) -> str:
        """Of the run."""
        return f"kl-estimator-{self.estimator}{'-ratio' if self.ratio else ''}"


RUNS = (
    Estimated("k1", False, "kl-estimators-loss", None),
    Estimated("k2", False, "kl-estimators-loss", leash_loss_answer),
    Estimated("k3", False, "kl-estimators-rest", k3_loss_answer),
    Estimated("k3", True, "kl-estimators-ratio", leash_loss_answer),
)


def both_at_rest(
    law: Callable[[Array, float], Array], token_masses: Array, parted: Array, old: Array, tau: float
) -> tuple[Array, Array]:
    r"""New and old mass per problem at rest: ``law(token_masses, tau)`` is success to come, for every rest of the answer.

    Up to where the old answer parts from the new one both share its tokens, \(q_t = V_t / V_{t+1}\); at the parting the old one
    keeps its share of \(1 - q_t\), and behind it nothing is to be won. ``token_masses (n, L)``, ``parted`` and ``old (n,)``.
    """
    length = token_masses.shape[1]
    to_come = np.stack([law(token_masses[:, t:], tau) for t in range(length)] + [np.ones(len(old))], axis=1)
    rows = np.arange(len(old))
    q = to_come[:, :-1] / to_come[:, 1:]
    with np.errstate(divide="ignore"):
        shared = np.where(np.arange(length) < parted[:, None], np.log(q / token_masses), 0.0).sum(axis=1)
        left = np.log1p(-q[rows, parted]) - np.log1p(-token_masses[rows, parted])
    return to_come[:, 0], np.asarray(old * np.exp(shared + left))


def kl_estimators(scale: Scale, base: Policy) -> Chapter:
    """New and old mass at rest under k1, k2, k3 as a loss and k3 times the ratio, one strength, centred advantages."""
    task = parse_rules(TASK)
    masses, parted = answer_token_masses(base, task, PROBLEMS[scale])
    old = measure_base(base, task, PROBLEMS[scale]).old
    tau = float(effective_tau(TAU, GROUP, "centred", "loss"))
    claims, runs = [], []
    for run in RUNS:
        learner = PolicyGradient(
            loss="reinforce",
            problems=_SIZE[scale],
            rollouts=GROUP,
            advantage="centred",
            leash_loss=TAU,
            kl_estimator=run.estimator,
            kl_estimator_ratio=run.ratio,
        )
        runs.append(Planned(run.name, config_of(scale, TASK, learner), write_model=False))
        at = (np.ones(1), np.zeros(1)) if run.law is None else both_at_rest(run.law, masses, parted, old, tau)
        for what, column, mass in zip(("new", "old"), ("reward", "old_mass"), at, strict=True):
            what_is_it = f"{run.estimator}{' times the ratio' if run.ratio else ''}"
            quantity = f"{what} mass under RL with a leash of {TAU:g} as a loss by {what_is_it}"
            label = Label(f"kl-estimator-{what}", run=run.name, law=what_is_it)
            predicted = near(f"{run.name}-{what}", label, run.statement, quantity, float(mass.mean()))
            claims.append(Claim(predicted, (run.name,), settled(run.name, column)))
    return Chapter(tuple(claims), tuple(runs))
