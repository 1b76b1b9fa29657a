r"""Claims about fine-tuning with a leash to the base in either direction (`fstsim.llm.learners.sequence_leash`).

Components of the mixture are answers here, and do not overlap. ``forward`` KL(base || policy) is replay of the base
(`replay-forward-leash`): the policy rests at \((new + \eta\,base) / (1 + \eta)\). Under ``reverse`` KL(policy || base) the mass of all but
the new answer rests at the separated root of `replay-forward-reverse-leash`, shared out as in the base. Both are predicted per
prompt from the base's masses, then averaged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.method_losses import Direction
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.claim import Chapter, Claim, settled
from fstsim.llm.validation.equilibria import PROBLEMS, TASK
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Array, BaseMasses, Prediction, measure_base
from fstsim.theory import kl_leash_equilibrium

STRENGTHS = {"smoke": (1.0, 0.25), "small": (2.0, 1.0, 0.5, 0.25), "paper": (2.0, 1.0, 0.5, 0.25)}
"""eta, nats of loss a nat of KL, the same for both directions."""
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse")
_SLOW = 0.25
"""Strength of the reverse leash that is tried again at a tenth of the learning rate, in three times the steps; asked after the
first runs, in which it ended below its law."""
_STATEMENTS = {"forward": "replay-forward-leash", "reverse": "replay-forward-reverse-leash"}
_STEPS = {"smoke": 80, "small": 240, "paper": 400}
_MARGIN = 0.04
_LEAST, _MOST = 1e-12, 1.0 - 1e-12


def rests(base: BaseMasses, eta: float, direction: Direction) -> tuple[Array, Array]:
    r"""New and old mass per problem where \(-\log q(new) + \eta\,\mathrm{KL}\) is least, all other answers as in the base.

    Where both answers are one text, both are its mass. ``eta`` above 0.
    """
    new = np.clip(base.new, _LEAST, _MOST)
    s = np.log1p(-new) - np.log(new)  # log-odds of all that is not the new answer
    rest = kl_leash_equilibrium(s, eta, None, direction)
    return 1.0 - rest, np.where(base.same, 1.0 - rest, base.old * rest / (1.0 - new))


def sequence_leashes(scale: Scale, base: Policy) -> Chapter:
    """Where fine-tuning with a leash rests: new and old mass, for both directions at equal strengths; then slowly."""
    masses = measure_base(base, parse_rules(TASK), PROBLEMS[scale])
    claims, runs = [], []
    asked: list[tuple[Direction, float, bool]] = [(way, eta, False) for way in DIRECTIONS for eta in STRENGTHS[scale]]
    asked.append(("reverse", _SLOW, True))
    for direction, eta, slow in asked:
        name = f"sft-leash{'-slow' if slow else ''}-{direction}-{eta:g}"
        runs.append(Planned(name, _config(scale, direction, eta, slow)))
        which = "KL(base || policy)" if direction == "forward" else "KL(policy || base)"
        for what, column, mass in zip(
            ("new", "old"), ("reward", "old_mass"), rests(masses, eta, direction), strict=True
        ):
            value = float(mass.mean())
            predicted = Prediction(
                f"{name}-{what}",
                Label("sft-leash-slow" if slow else f"sft-leash-{direction}", run=name, x=eta, law=what),
                _STATEMENTS[direction],
                f"{what} mass after SFT with a leash {which} of {eta:g}{', a tenth of the learning rate' if slow else ''}",
                value,
                value - _MARGIN,
                value + _MARGIN,
                0.1,
            )
            claims.append(Claim(predicted, (name,), settled(name, column)))
    return Chapter(tuple(claims), tuple(runs))


def _config(scale: Scale, direction: Direction, eta: float, slow: bool) -> TrainConfig:
    learner = SupervisedFineTuning(problems=64, leash_loss=eta, leash_direction=direction)
    probe = ProbeConfig(every=10, problems=PROBLEMS[scale], exam=16)
    config = TrainConfig(method="sft", tasks=(TASK,), steps=_STEPS[scale], learner=learner, probe=probe)
    return replace(config, lr=config.lr / 10.0, steps=3 * config.steps) if slow else config
