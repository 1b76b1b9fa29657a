r"""Predictions for a language model, from numbers measured on the base alone, and the rule by which they are judged.

A prediction is written to ``prediction.json`` before any run starts. What theory needs and the base cannot tell (a clock)
is taken from the first updates, and said so. The rule of judgement, fixed here before the runs:

- *confirmed*: the 95 % interval of the measurement (over seeds) meets the predicted interval;
- *falsified*: it does not;
- *undecided*: fewer than 3 seeds, or the measurement's interval is wider than ``resolution``.

A predicted interval is the theory's value with the standard error of what was measured on the base, and with the
declared ``margin`` for what the theory leaves out (finite batches), never with anything fitted to the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from fstsim.intervals import student_interval
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.types import Demonstrated
from fstsim.llm.validation.kinds import Label
from fstsim.theory import dead_group_probability
from fstsim.theory.group_normalised import drift_at

Array = NDArray[np.float64]
Verdict = Literal["confirmed", "falsified", "undecided"]


@dataclass(frozen=True)
class Prediction:
    """One number that a run is going to be compared with; ``statement`` is the slug of the theorem it comes from."""

    name: str
    label: Label
    statement: str
    quantity: str
    value: float
    low: float
    high: float
    resolution: float
    """widest interval of a measurement that still decides"""
    calibration: str = ""
    """the number that is taken from the runs' beginning, where theory cannot do without; empty for most"""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True)
class Judged:
    """A prediction beside its measurement: mean over seeds and its 95 % interval."""

    prediction: Prediction
    measured: float
    low: float
    high: float
    seeds: int
    verdict: Verdict


def judge(prediction: Prediction, measured: Sequence[float]) -> Judged:
    """Apply the rule of this module to one measurement a seed; seeds that have none (nan) do not count."""
    x = np.asarray(measured, dtype=np.float64)
    x = x[np.isfinite(x)]
    mean = float(x.mean()) if len(x) else np.nan
    if len(x) < 3 or not np.isfinite(prediction.value):
        return Judged(prediction, mean, np.nan, np.nan, len(x), "undecided")
    _, low, high = map(float, student_interval(x))
    verdict: Verdict
    if high - low > prediction.resolution:
        verdict = "undecided"
    else:
        verdict = "confirmed" if low <= prediction.high and high >= prediction.low else "falsified"
    return Judged(prediction, mean, low, high, len(x), verdict)


@dataclass(frozen=True)
class BaseMasses:
    """What is measured on the base: per test problem, without context, the mass of the new answer and of the old one."""

    new: Array
    old: Array
    same: NDArray[np.bool_]
    """problems on which both answers are the same text"""


@torch.no_grad()
def measure_base(policy: Policy, task: Demonstrated, problems: int) -> BaseMasses:
    """Masses of the task's answer and of the old behaviour's on test problems, exactly."""
    held_out = list(task.problems("test"))[:problems]
    right, old = [task.answer(p) for p in held_out], [task.old_answer(p) for p in held_out]
    new_mass = np.exp(answer_logprobs(policy, ("",), held_out, right))[0]
    old_mass = np.exp(answer_logprobs(policy, ("",), held_out, old))[0]
    return BaseMasses(new_mass, old_mass, np.array([a == b for a, b in zip(right, old, strict=True)]))


def predict_replay(base: BaseMasses, share: float, margin: float = 0.04) -> Prediction:
    r"""P2: with a share \(\lambda\) of old demonstrations the old mass ends at \(\lambda\), whatever it was.

    The population optimum of forward KL is the training mixture itself: mass \(\lambda\) on the old answer, and 1 where
    the new answer is the same text.
    """
    value = float(np.where(base.same, 1.0, share).mean())
    quantity = f"old mass after SFT with {share:.0%} old demonstrations"
    name = f"replay-{share:g}"
    label = Label("replay", run=name, x=share)
    return Prediction(name, label, "replay-forward", quantity, value, value - margin, value + margin, 0.1)


def predict_dead_groups(base: BaseMasses, group: int) -> Prediction:
    r"""Share of groups without signal on the base: \((1-p)^G + p^G\), averaged over problems."""
    each = dead_group_probability(base.new, group)
    error = float(np.std(each, ddof=1) / np.sqrt(len(each)))
    value = float(np.mean(each))
    return Prediction(
        f"dead-groups-{group}",
        Label("without-signal", x=group),
        "group-normalised-dead",
        f"share of groups of {group} without signal before training",
        value,
        value - 2 * error,
        value + 2 * error,
        0.1,
    )


def tilted(base: BaseMasses, leash: float) -> tuple[Array, Array]:
    r"""Masses of the new and the old answer at the optimum of \(E[r] - \tau KL(\pi \| \pi_0)\), per problem.

    The optimum is the exponential tilt \(\pi_0 e^{r/\tau}\), normalised for each prompt; averages are taken afterwards.
    """
    log_gain = 1.0 / leash
    new = expit(logit(np.clip(base.new, 1e-300, 1 - 1e-16)) + log_gain)
    old = np.where(base.same, new, base.old * (1.0 - new) / (1.0 - base.new))
    return new, old


def predict_tilt(base: BaseMasses, leash: float, margin: float = 0.04) -> tuple[Prediction, Prediction]:
    """RL with a KL leash of a given strength: where the new and the old mass end."""
    found = []
    for name, mass in zip(("new", "old"), tilted(base, leash), strict=True):
        value = float(mass.mean())
        found.append(
            Prediction(
                f"tilt-{name}-{leash:g}",
                Label(f"tilt-{name}", run=f"tilt-{leash:g}", x=leash),
                "exp-family-unification",
                f"{name} mass under RL with a KL leash of {leash:g}",
                value,
                value - margin,
                value + margin,
                0.15,
            )
        )
    return found[0], found[1]


@torch.no_grad()
def old_token_masses(policy: Policy, task: Demonstrated, problems: int) -> Array:
    """Probability of each token of the old answer, given those before it, on problems with two answers: ``(problems, L)``.

    Tokens up to the first at which the answers differ, the end, and padding are no decisions between the two behaviours:
    they are 1. Their product over a row is the mass of the old answer where the base is sure of what is shared.
    """
    held_out = [p for p in list(task.problems("test"))[:problems] if task.answer(p) != task.old_answer(p)]
    tokens = [policy.encode_answer(task.old_answer(p)) for p in held_out]
    forced = policy.forced([policy.encode("", p) for p in held_out], tokens)
    masses = policy.logprobs(forced).double().exp().cpu().numpy()
    for row, (problem, old) in enumerate(zip(held_out, tokens, strict=True)):
        new = policy.encode_answer(task.answer(problem))
        same = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        masses[row, :same] = 1.0
        masses[row, len(old) - 1 :] = 1.0
    return np.asarray(masses)


def shared_escape_time(log_odds: Array, level: float, group: int) -> tuple[float, float]:
    r"""Time of group-normalised RL until the mean reward of many prompts is ``level``; and the same at constant speed.

    The prompts' log-odds \(x_i\) move by one common shift \(u\), driven by the mean of their groups' signals:
    \(T = \int_0^{u^*} du / \overline{m(x_i + u)}\) with \(\overline{\sigma(x_i + u^*)}\) = ``level`` (for equal prompts
    this is `group-normalised-escape`). At constant speed, as a normalised optimizer goes while its gradient has a
    direction, \(T = u^*\) (`adam-clock`). Units: of the inverse learning rate; 0 where ``level`` is reached at once.
    """
    x = np.asarray(log_odds, dtype=np.float64)

    def excess(u: float) -> float:
        return float(expit(x + u).mean()) - level

    if excess(0.0) >= 0.0:
        return 0.0, 0.0
    shift = float(brentq(excess, 0.0, 1.0 + logit(level) - float(x.min())))
    nodes, weights = np.polynomial.legendre.leggauss(64)
    pieces = max(1, int(np.ceil(shift)))
    edges = np.linspace(0.0, shift, pieces + 1)
    half = np.diff(edges) / 2.0
    u = ((edges[:-1] + edges[1:]) / 2.0)[:, None] + half[:, None] * nodes
    speed = drift_at(x[:, None, None] + u, np.array(group)[..., None]).mean(0)
    return float((half[:, None] * weights / speed).sum()), shift
