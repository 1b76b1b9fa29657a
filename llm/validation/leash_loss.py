r"""Claims about the leash that GRPO really has: a KL taken as a loss along sampled tokens, with two kinds of advantages.

As a loss the leash lacks the gradient through the prefixes: the policy rests at the prefix law (`leash-loss-prefix`), with that
gradient (``leash_loss_prefix``) at the sequence tilt. A centred reward is scaled by (G - 1) / G and such a leash is not, and
group-normalised advantages weaken it by more (`leash-loss-baseline`, `leash-loss-baseline-normalised`). The leash in the reward
keeps its strength. Everything is predicted per prompt from the base's token masses alone, then averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.losses import Advantage
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.claim import Chapter, Claim, settled
from fstsim.llm.validation.equilibria import PROBLEMS
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.kl_leashes import answer_token_masses
from fstsim.llm.validation.prediction import Array, Prediction
from fstsim.theory import effective_tau, leash_loss_answer, normalised_leash_answer

TASKS = ("digits:plus", "strings:next")
STRENGTHS = (1.0, 0.7, 0.5, 0.35, 0.25)
"""tau, nats of reward a nat of KL, of centred advantages."""
NORMALISED = (2.0, 1.4, 1.0, 0.7, 0.5)
"""The same of normalised ones, which weaken the leash about twofold: at .25 nothing would be left to be measured."""
BESIDE = (0.5, 0.25)
"""Strengths at which the leash in the reward, and that with its gradient through the prefixes, stand beside it."""
GROUP = 8
LEARNING_RATE = 1e-4
_STEPS = {"smoke": 80, "small": 200, "paper": 400}
_SIZE = {"smoke": 24, "small": 48, "paper": 48}
_MARGIN, _RESOLUTION = 0.04, 0.15
_TELLS = 0.06
"""Least distance between two laws at which the wrong one is written down beside the right one."""


@dataclass(frozen=True)
class Leashed:
    """One run: the task, where its leash is (``reward``, ``loss`` or ``prefix``), the advantages, and tau."""

    task: str
    place: str
    advantage: Advantage
    tau: float

    @property
    def name(self) -> str:
        """Of the run."""
        kind = "" if self.advantage == "centred" else f"-{self.advantage}"
        return f"rl-leash-{self.place}-{parse_rules(self.task).rules[0]}{kind}-{self.tau:g}"

    def learner(self, problems: int) -> PolicyGradient:
        """As it is trained: REINFORCE, so that the leash is weighed against a mean over sequences."""
        leash = {"leash_reward" if self.place == "reward" else "leash_loss": self.tau}
        return PolicyGradient(
            loss="reinforce",
            problems=problems,
            rollouts=GROUP,
            advantage=self.advantage,
            leash_loss_prefix=self.place == "prefix",
            **leash,  # type: ignore[arg-type]
        )


def asked(scale: Scale) -> tuple[Leashed, ...]:
    """The runs of a scale, all of them at each: they are the chapter."""
    del scale
    found = []
    for task in TASKS:
        found += [Leashed(task, "loss", "centred", tau) for tau in STRENGTHS]
        found += [Leashed(task, "loss", "normalised", tau) for tau in NORMALISED]
        found += [Leashed(task, place, "centred", tau) for place in ("prefix", "reward") for tau in BESIDE]
    return tuple(found)


def config_of(scale: Scale, task: str, learner: PolicyGradient) -> TrainConfig:
    """A run of these chapters: small steps, and what it rests at measured often."""
    probe = ProbeConfig(every=_STEPS[scale] // 10, problems=PROBLEMS[scale], exam=4, early=1000, relearn=0)
    return TrainConfig(tasks=(task,), steps=_STEPS[scale], lr=LEARNING_RATE, learner=learner, probe=probe)


def tilt_of_answer(token_masses: Array, tau: float) -> Array:
    """Success per problem at the sequence tilt of strength ``tau``; ``token_masses (n, L)``."""
    return np.asarray(expit(logit(token_masses.prod(axis=1)) + 1.0 / tau))


def at_rest(run: Leashed, token_masses: Array) -> tuple[Array, Array]:
    """Success per problem where the run rests, and where it would if its leash were the other one, of the same strength in effect."""
    if run.place == "reward":
        return tilt_of_answer(token_masses, run.tau), leash_loss_answer(token_masses, run.tau)
    if run.advantage == "normalised":
        laws = [normalised_leash_answer(token_masses, run.tau, GROUP, prefix=prefix) for prefix in (False, True)]
    else:
        tau = float(effective_tau(run.tau, GROUP, "centred", "loss"))
        laws = [leash_loss_answer(token_masses, tau), tilt_of_answer(token_masses, tau)]
    return (laws[0], laws[1]) if run.place == "loss" else (laws[1], laws[0])


_PLACES = {
    "reward": ("in the reward", "exp-family-unification"),
    "loss": ("as a loss", "leash-loss-prefix"),
    "prefix": ("as a loss with its prefixes", "exp-family-unification"),
}
_WRONG = {"reward": "loss", "loss": "tilt", "prefix": "loss"}


def near(name: str, label: Label, statement: str, quantity: str, value: float) -> Prediction:
    """A mass with the margins of these chapters."""
    low, high = max(value - _MARGIN, 0.0), min(value + _MARGIN, 1.0)
    return Prediction(name, label, statement, quantity, value, low, high, _RESOLUTION)


def leash_losses(scale: Scale, base: Policy) -> Chapter:
    """New mass at rest at five strengths, two tasks and two advantages; the wrong law beside it where the two are apart."""
    masses = {task: answer_token_masses(base, parse_rules(task), PROBLEMS[scale])[0] for task in TASKS}
    claims, runs = [], []
    for run in asked(scale):
        runs.append(Planned(run.name, config_of(scale, run.task, run.learner(_SIZE[scale])), write_model=False))
        right, wrong = (float(law.mean()) for law in at_rest(run, masses[run.task]))
        where, statement = _PLACES[run.place]
        if run.place == "loss" and run.advantage == "normalised":
            statement = "leash-loss-baseline-normalised"
        quantity = f"new mass of {run.task} under RL with a KL leash of {run.tau:g} {where}, {run.advantage}"
        kind = "normalised" if run.advantage == "normalised" else run.place
        label = Label(f"rl-leash-{kind}", run=run.name, x=run.tau)
        claims.append(
            Claim(near(run.name, label, statement, quantity, right), (run.name,), settled(run.name, "reward"))
        )
        if abs(right - wrong) > _TELLS:
            other = _WRONG[run.place]
            label = Label("rl-leash-other", run=run.name, x=run.tau, law=other)
            rival = near(f"{run.name}-{other}", label, statement, f"{quantity}, were it the {other}", wrong)
            claims.append(Claim(rival, (run.name,), settled(run.name, "reward")))
    return Chapter(tuple(claims), tuple(runs))
