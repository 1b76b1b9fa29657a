r"""Claims about replay of the policy's own right answers (`fstsim.llm.learners.own_replay`; On-Policy Replay, 2605.29495).

The old mass is predicted to rest below its share, as low as the tries make it (`replay-forward-own`), and to be lost where the
share does not pay for them. A task of the world has one right old answer: own answers have the text of declared ones, and the
KL to the base is predicted from where the two masses rest, beside the source's claim that own answers forget less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.claim import Chapter, Claim, Records, settled
from fstsim.llm.validation.equilibria import PROBLEMS, SHARES, TASK, replay
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import BaseMasses, Prediction, measure_base
from fstsim.theory import own_replay_equilibrium

SETTINGS = {
    "smoke": ((0.3, 8), (0.3, 4), (0.6, 1), (0.3, 1)),
    "small": ((0.2, 16), (0.2, 8), (0.5, 2), (0.2, 2)),
    "paper": ((0.2, 16), (0.2, 8), (0.5, 2), (0.2, 2)),
}
"""Share and tries of each run; the first has the share of a run of ordinary replay, with which its KL is compared."""
SLOW = {"smoke": ((0.3, 8), (0.6, 1)), "small": ((0.2, 8), (0.5, 2)), "paper": ((0.2, 8), (0.5, 2))}
"""The same again at a tenth of the learning rate, in three times the steps; asked after the first runs: at the usual rate the
first steps carry the old mass so low that batches find no own answer, and what is not found pulls nothing back."""
_MARGIN = 0.04
"""of a resting mass, as for ordinary replay"""
_LESS = 0.9
"""of the KL of ordinary replay: at most that counts as less drift"""


def _rest(masses: BaseMasses, share: float, tries: int) -> float:
    return float(np.where(masses.same, 1.0, own_replay_equilibrium(share, tries)).mean())


def kl_at_share(masses: BaseMasses, share: float) -> float:
    r"""KL(now || base), nats, of a policy that writes the old answer with ``share`` and the new one else, mean over problems.

    \(\beta \log(\beta / \beta_b) + (1 - \beta) \log((1 - \beta) / \nu_b)\) with the base's masses of the two answers: the least that
    such a policy can have. ``share`` in [0, 1].
    """
    new, old = (np.maximum(mass, 1e-300) for mass in (masses.new, masses.old))
    entropy = -sum(p * np.log(p) for p in (share, 1.0 - share) if p > 0.0)
    kl = np.where(masses.same, -np.log(old), -share * np.log(old) - (1.0 - share) * np.log(new) - entropy)
    return float(kl.mean())


def _ratio(own: str, declared: str) -> Callable[[Records], list[float]]:
    def read(records: Records) -> list[float]:
        pairs = zip(*(settled(name, "kl_to_base")(records) for name in (own, declared)), strict=True)
        return [a / b for a, b in pairs]

    return read


def own_replay(scale: Scale, base: Policy) -> Chapter:
    """Old mass at rest under own replay, for shares and tries; and its KL beside that of ordinary replay at one share."""
    masses = measure_base(base, parse_rules(TASK), PROBLEMS[scale])
    ordinary = {run.name: run for run in replay(scale, base).runs}
    claims, runs = [], []
    usual = _config(ordinary[f"replay-{SHARES[scale][0]:g}"].config)
    slow = replace(usual, lr=usual.lr / 10.0, steps=3 * usual.steps)
    for tail, config, settings in (("", usual, SETTINGS[scale]), ("-slow", slow, SLOW[scale])):
        for share, tries in settings:
            name = f"own-replay{tail}-{share:g}-{tries}"
            runs.append(Planned(name, _with(config, share, tries)))
            value = _rest(masses, share, tries)
            quantity = f"old mass after SFT with {share:.0%} own old answers, {tries} {'tries' if tries > 1 else 'try'}"
            quantity += ", a tenth of the learning rate" if tail else ""
            label = Label(f"own-replay{tail}", run=name, x=share)
            low, high = max(value - _MARGIN, 0.0), value + _MARGIN
            predicted = Prediction(name, label, "replay-forward-own", quantity, value, low, high, 0.1)
            claims.append(Claim(predicted, (name,), settled(name, "old_mass")))
    share, tries = SETTINGS[scale][0]
    own, other = runs[0].name, f"replay-{share:g}"
    value = kl_at_share(masses, _rest(masses, share, tries)) / kl_at_share(masses, share)
    laws = (("one right answer", value, value - 0.1, value + 0.1), ("less drift", _LESS, 0.0, _LESS))
    for tail, (law, near, low, high) in zip(("", "-less"), laws, strict=True):
        quantity = f"KL(now || base) after own replay of {share:.0%} over that of declared old answers, {law}"
        label = Label(f"own-replay-kl{tail}", run=own, against=other, x=share, law=law)
        predicted = Prediction(f"{own}-kl{tail}", label, "replay-forward-own", quantity, near, low, high, 0.3)
        claims.append(Claim(predicted, (own, other), _ratio(own, other)))
    return Chapter(tuple(claims), (*runs, ordinary[other]))


def _config(ordinary: TrainConfig) -> TrainConfig:
    """A run of ordinary replay with answers of its own."""
    assert isinstance(ordinary.learner, SupervisedFineTuning)
    return replace(ordinary, learner=replace(ordinary.learner, replay="own"))


def _with(config: TrainConfig, share: float, tries: int) -> TrainConfig:
    assert isinstance(config.learner, SupervisedFineTuning)
    return replace(config, learner=replace(config.learner, replay_share=share, replay_tries=tries))
