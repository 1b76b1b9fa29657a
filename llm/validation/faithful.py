r"""Predictions on chains: what SFT and RL do to the mass of writing a chain, and to whether its steps are followed.

From `chain-mass` and the scratch base alone. Answers alone (\(\lambda = 0\)) take the mass to 0, a share \(\lambda\) of chains
rests at \(\lambda\), chains alone take it to 1; RL on the answer leaves its log-odds where both routes pay (2 rules) and raises
them where the chain alone does (4 rules). Corrupted steps are followed less after answers alone on few rules, and as before after
everything else. Margins are declared here, before the runs; the models write with Adam and share all weights, which theory does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fstsim.llm.experiments.plan import Planned
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Prediction

MODEL = "scratch"
FAMILY = "strings"
LAMBDA = 0.25
"""Share of chains in the arms with replay."""
RESTS = 0.06
"""Margin of a mass that rests: batches of 24 demonstrations."""
FOLLOWED = 0.1
"""Margin of what is followed as before."""
LOG_ODDS = 0.5
"""Margin of log-odds that do not move, nats."""
_STEPS = 32
_RL_STEPS = 24
_PROBE = ProbeConfig(every=8, problems=24, exam=8, max_new_tokens=32, early=4, relearn=0)


@dataclass(frozen=True)
class Arm:
    """A run, and what theory says of it: ``rest`` of the mass of chains under SFT, ``gap`` of RL is 0 or positive, None: neither."""

    name: str
    about: str
    config: TrainConfig
    rules: int
    rest: float | None = None
    gap: bool | None = None
    forgets_following: bool = False

    @property
    def planned(self) -> Planned:
        """As a planned run."""
        return Planned(self.name, self.config)


def _sft(name: str, about: str, task: str, share: float, rules: int, rest: float | None) -> Arm:
    learner = SupervisedFineTuning(24, share)
    config = TrainConfig("sft", (task,), old=_old(rules), model=MODEL, steps=_STEPS, learner=learner, probe=_PROBE)
    return Arm(name, about, config, rules, rest, forgets_following=rest == 0.0 and rules <= 3)


def _old(rules: int) -> tuple[str, ...]:
    return (f"scratch:{FAMILY}:any{rules}/mass",)


def _rl(name: str, about: str, rules: int, gap: bool) -> Arm:
    learner = PolicyGradient(problems=12, rollouts=6, max_new_tokens=32)
    task = f"scratch:{FAMILY}:any{rules}"
    config = TrainConfig("rl", (task,), old=_old(rules), model=MODEL, steps=_RL_STEPS, learner=learner, probe=_PROBE)
    return Arm(name, about, config, rules, gap=gap)


def arms() -> tuple[Arm, ...]:
    """All arms. Tasks have random rules in every problem, so that rules are read and not learned by heart."""
    strings, digits = f"scratch:{FAMILY}:any", "scratch:digits:any"
    return (
        _sft("sft-2", "SFT on answers, 2 rules", f"{strings}2", 0.0, 2, 0.0),
        _sft("sft-4", "SFT on answers, 4 rules", f"{strings}4", 0.0, 4, 0.0),
        _sft("sft-2-replay", "SFT on answers with chain replay, 2 rules", f"{strings}2", LAMBDA, 2, LAMBDA),
        _sft("sft-4-replay", "SFT on answers with chain replay, 4 rules", f"{strings}4", LAMBDA, 4, LAMBDA),
        _sft("sft-3-chain", "SFT on chains, 3 rules", f"{strings}3/chain", 0.0, 3, 1.0),
        _sft("sft-digits", "SFT on answers of another family, 3 rules", f"{digits}3", 0.0, 3, None),
        _rl("rl-2", "RL on the answer, 2 rules", 2, False),
        _rl("rl-4", "RL on the answer, 4 rules", 4, True),
    )


def measured_tasks() -> tuple[str, ...]:
    """Scratch tasks on which an arm's faithfulness is measured: 3 rules, and 4, where there is no shortcut."""
    return (f"scratch:{FAMILY}:any3", f"scratch:{FAMILY}:any4")


def predictions() -> dict[str, Prediction]:
    """By name; intervals are theory's value with the declared margins, no number is taken from a run."""
    found: dict[str, Prediction] = {}
    for arm in arms():
        mass = Label("chain-mass", arm.name)
        if arm.rest is not None:
            low, high = max(0.0, arm.rest - RESTS), min(1.0, arm.rest + RESTS)
            said = f"mass of writing a chain after {arm.about}"
            found[f"{arm.name}: mass"] = Prediction(
                f"{arm.name}: mass", mass, "chain-mass", said, arm.rest, low, high, 0.2
            )
        if arm.gap is not None:
            value, low, high = (1.0, LOG_ODDS / 2.0, math.inf) if arm.gap else (0.0, -LOG_ODDS, LOG_ODDS)
            label, name = replace(mass, kind="chain-log-odds"), f"{arm.name}: log-odds"
            said = f"change of the log-odds of writing a chain after {arm.about}"
            high = 20.0 if math.isinf(high) else high  # JSON has no infinity
            found[name] = Prediction(name, label, "chain-mass-paid", said, value, low, high, 2.0)
        label, name = replace(mass, kind="chain-followed"), f"{arm.name}: followed"
        said = f"change of the probability that a corrupted step is followed, 3 rules, after {arm.about}"
        value, low, high = (-0.3, -1.0, -0.05) if arm.forgets_following else (0.0, -FOLLOWED, FOLLOWED)
        found[name] = Prediction(name, label, "chain-mass", said, value, low, high, 0.3)
    return found


def measured_mass(rows: Sequence[Mapping[str, float]], arm: Arm) -> list[float]:
    """The mass of writing a chain at each measurement of a run."""
    column = f"old_skill_scratch_{FAMILY}_any{arm.rules}_mass"
    return [row[column] for row in rows if row.get(column) is not None]
