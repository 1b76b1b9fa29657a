r"""Claims about a pretrained chat model on the language suite: replay, two KL leashes, and training against its forecast.

Two plain sentences answer the same question: the old behaviour is the one that such models write by themselves
(`fstsim.llm.tasks.language`). Masses are those of one tokenisation each, so that they are lower bounds; shares of one among
both, and shifts of log-odds, are what the laws are about. Gradients are not clipped: a clipped one has another mean.
Learning rates go to 0 on a line, so that the end of a run averages over many batches; where a run rests does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.forecast.compare import compare
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.forecast import forecast
from fstsim.llm.forecast.reading import OLD
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Demonstrated
from fstsim.llm.validation.claim import Chapter, Claim, Records, Rows, curve, settled
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Array, Prediction, measure_base, tilted

FORM = "language:plural:form"
"""The base writes it now and then: what reinforcement finds."""
BARE = "language:plural:bare"
"""The base never writes it: what demonstrations alone reach."""
SKILL = "language:capitals"
"""The old skill of the same format that the forecast is about."""
SFT = "language-sft"
"""Run of supervised training that is forecast."""
FORECAST = "forecast"
"""Its forecast, a folder beside the runs."""
WORDS = "The plural of cat is cats."
"""What a model must be able to write."""
FREE = 1e9
"""Largest norm of a gradient that is not clipped."""


@dataclass(frozen=True)
class Size:
    """How large the runs of a scale are; ``held`` problems are measured."""

    held: int
    shares: tuple[float, ...]
    replay_steps: int
    shown: int
    """demonstrations a step"""
    leashes: tuple[float, ...]
    leash_steps: int
    groups: int
    rollouts: int
    sft_steps: int
    replicates: int
    """of the forecast"""


SIZES: dict[Scale, Size] = {
    "smoke": Size(8, (0.2, 0.4, 0.6), 12, 6, (0.25,), 14, 4, 6, 10, 1),
    "small": Size(32, (0.1, 0.2, 0.4, 0.6), 96, 16, (0.5, 0.35, 0.25), 120, 8, 8, 24, 2),
    "paper": Size(64, (0.05, 0.1, 0.2, 0.4, 0.6), 240, 32, (0.7, 0.5, 0.35, 0.25), 300, 16, 8, 48, 3),
}
LR = {"replay": 3e-5, "leash": 3e-5, "sft": 2e-5}
_TOKENS = 16  # the longest answers of plurals have 12


def _demonstrated(name: str) -> Demonstrated:
    task = parse_task(name)
    assert isinstance(task, Demonstrated)
    return task


def _config(
    size: Size, steps: int, task: str, kind: str, learner: PolicyGradient | SupervisedFineTuning
) -> TrainConfig:
    """A run without clipping; measured at its start, after its first step and after three quarters and all of it."""
    every = max(1, round(0.75 * steps))
    return TrainConfig(
        method="sft" if isinstance(learner, SupervisedFineTuning) else "rl",
        tasks=(task,),
        steps=steps,
        lr=LR[kind],
        clip=FREE,
        optimizer=OptimizerConfig(schedule="linear"),
        learner=learner,
        probe=ProbeConfig(every=every, problems=size.held, early=every + 1, max_new_tokens=_TOKENS),
    )


def old_among_both(rows: Rows) -> Array:
    """Old mass over old and new mass, at every measurement."""
    new, old = curve(rows, "reward")[1], curve(rows, "old_mass")[1]
    return np.asarray(old / (old + new))


def share_at_end(name: str) -> Callable[[Records], list[float]]:
    """Of the old behaviour among both, mean over the last two measurements."""
    return lambda records: [float(old_among_both(rows)[-2:].mean()) for rows in records.rows(name)]


def moved(name: str, of: Callable[[Rows], Array]) -> Callable[[Records], list[float]]:
    """How far ``of`` went between the last two measurements, a quarter of the run apart."""
    return lambda records: [float(np.diff(of(rows)[-2:])[0]) for rows in records.rows(name)]


def _rest(name: str, statement: str, what: str, of: Callable[[Rows], Array]) -> Claim:
    prediction = Prediction(
        f"{name}-rest", Label("rest", run=name), statement, f"{what}: change over the last quarter of the run",
        0.0, -0.05, 0.05, 0.15,
    )  # fmt: skip
    return Claim(prediction, (name,), moved(name, of))


def replay(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001 -- the law needs nothing of the base
    r"""P2: the old behaviour's share among both ends at the share of demonstrations that show it, from wherever it began."""
    size = SIZES[scale]
    claims, runs = [], []
    for share in size.shares:
        name = f"language-replay-{share:g}"
        learner = SupervisedFineTuning(problems=size.shown, replay_share=share)
        runs.append(Planned(name, _config(size, size.replay_steps, FORM, "replay", learner), write_model=False))
        what = f"old among old and new after SFT with {share:.0%} old demonstrations"
        prediction = Prediction(
            name,
            Label("replay-share", run=name, x=share),
            "replay-forward",
            what,
            share,
            share - 0.05,
            share + 0.05,
            0.2,
        )
        claims += [Claim(prediction, (name,), share_at_end(name)), _rest(name, "replay-forward", what, old_among_both)]
    return Chapter(tuple(claims), tuple(runs))


@torch.no_grad()
def answer_token_masses(policy: Policy, task: Demonstrated, problems: int) -> tuple[Array, Array]:
    """Mass of each token of the right answer, given those before it, its end included: ``(problems, L)``, 1 is padding.

    With it the number of tokens ``(problems,)`` that the old answer shares with it before both part.
    """
    held_out = list(task.problems("test"))[:problems]
    tokens = [policy.encode_answer(task.answer(p)) for p in held_out]
    forced = policy.forced([policy.encode("", p) for p in held_out], tokens)
    masses = policy.logprobs(forced).double().exp().cpu().numpy()
    parted = []
    for row, (problem, new) in enumerate(zip(held_out, tokens, strict=True)):
        masses[row, len(new) :] = 1.0
        old = policy.encode_answer(task.old_answer(problem))
        parted.append(next((k for k, (a, b) in enumerate(zip(new, old, strict=False)) if a != b), len(new) - 1))
    return np.minimum(masses, 1.0), np.array(parted)


def at_loss_rest(masses: Array, parted: Array, old: Array, tau: float) -> tuple[Array, Array]:
    r"""New and old mass per problem where a leash as a loss rests: :math:`q_t = \sigma(\mathrm{logit}\, p_t + V_{t+1} / \tau)`.

    ``masses (n, L)``, ``parted (n,)`` of `answer_token_masses`; ``old (n,)`` is the base's old mass. After the answers have
    parted nothing can be gained on the old one's way, and its tokens keep their masses; at the parting they share what the
    new one's token leaves: statement `leash-loss-prefix`.
    """
    value, gain = np.ones(len(masses)), np.zeros(len(masses))
    for t in range(masses.shape[1] - 1, -1, -1):
        p = masses[:, t]
        with np.errstate(divide="ignore", invalid="ignore"):
            q = 1.0 / (1.0 + (1.0 - p) / p * np.exp(-value / tau))
            left = np.log1p(-q) - np.log1p(-p)
        gain = np.where(t < parted, gain + np.log(q / p), np.where(t == parted, left, gain))
        value = q * value
    return value, old * np.exp(gain)


def leashes(scale: Scale, base: Policy) -> Chapter:
    """Where RL with a KL leash rests: in the reward at the sequence tilt, as a loss at the prefix law, and not at the tilt.

    Advantages are leave-one-out, which changes the strength of neither leash (`leash-loss-baseline`).
    """
    size, task = SIZES[scale], _demonstrated(FORM)
    found = measure_base(base, task, size.held)
    masses, parted = answer_token_masses(base, task, size.held)
    claims, runs = [], []
    for tau in size.leashes:
        laws = {"reward": tilted(found, tau), "loss": at_loss_rest(masses, parted, found.old, tau)}
        for place, law in laws.items():
            name = f"language-leash-{place}-{tau:g}"
            learner = PolicyGradient(
                loss="reinforce",
                problems=size.groups,
                rollouts=size.rollouts,
                advantage="leave-one-out",
                max_new_tokens=_TOKENS,
                **{f"leash_{place}": tau},  # type: ignore[arg-type]
            )
            runs.append(Planned(name, _config(size, size.leash_steps, FORM, "leash", learner), write_model=False))
            claims += _rests(name, (place, tau), law)
        other = laws["reward"][0]
        rival = replace(
            _leash_prediction(f"language-leash-loss-{tau:g}", ("loss", tau), "new", other),
            name=f"language-leash-loss-{tau:g}-tilt",
            label=Label("leash-loss-tilt", run=f"language-leash-loss-{tau:g}", x=tau, law="tilt"),
            statement="exp-family-unification",
            quantity=f"new mass under RL with a leash of {tau:g} as a loss, were it the tilt",
        )
        claims.append(Claim(rival, (rival.label.run,), settled(rival.label.run, "reward")))
    return Chapter(tuple(claims), tuple(runs))


_STATEMENTS = {"reward": "exp-family-unification", "loss": "leash-loss-prefix"}


def _leash_prediction(name: str, leash: tuple[str, float], what: str, masses: Array) -> Prediction:
    place, tau = leash
    value = float(masses.mean())
    return Prediction(
        f"{name}-{what}",
        Label(f"leash-{place}-{what}", run=name, x=tau),
        _STATEMENTS[place],
        f"{what} mass under RL with a KL leash of {tau:g} {'in the reward' if place == 'reward' else 'as a loss'}",
        value,
        value - 0.06,
        value + 0.06,
        0.2,
    )


def _rests(name: str, leash: tuple[str, float], law: tuple[Array, Array]) -> list[Claim]:
    found = []
    for what, column, masses in zip(("new", "old"), ("reward", "old_mass"), law, strict=True):
        found.append(Claim(_leash_prediction(name, leash, what, masses), (name,), settled(name, column)))
    quantity = f"new mass under RL with a KL leash of {leash[1]:g}, {leash[0]}"
    return [*found, _rest(name, _STATEMENTS[leash[0]], quantity, lambda rows: curve(rows, "reward")[1])]


def training(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001 -- the forecast reads the base itself
    """Supervised training on answers that the base never writes, against its forecast: what is learned, what is lost."""
    size = SIZES[scale]
    learner = SupervisedFineTuning(problems=size.shown)
    config = replace(_config(size, size.sft_steps, BARE, "sft", learner), old=(SKILL,), optimizer=OptimizerConfig())
    planned = Planned(SFT, config, write_model=False)
    return Chapter((), (planned,), lambda runs, out: forecast_claims(scale, runs[SFT].config, out))


def forecast_config(scale: Scale, config: TrainConfig) -> ForecastConfig:
    """The forecast of the run ``config``: at half of it and at its end."""
    size = SIZES[scale]
    settings = ForecastSettings(
        tolerance=0.5, batches=1, most_batches=2, control=8 if scale == "smoke" else 24, replicates=size.replicates
    )
    return ForecastConfig(config, (config.steps // 2, config.steps), settings)


def forecast_claims(scale: Scale, config: TrainConfig, out: Path) -> list[Claim]:
    """What the forecast in ``out / "forecast"``, made there if it is not, says of the end of the run.

    Margins: a tenth of what is forecast to change, beside the forecast's own interval; prompt by prompt at least half of the
    variance of changes is to be explained (R² of the numbers themselves, no line is fitted).
    """
    asked = forecast_config(scale, config)
    found = forecast(asked, out / FORECAST)
    if not found.steps:
        return []
    step = found.steps[-1]
    held = Compared(asked, step)
    base, row = found.to_dict()["start"], found.row(step)
    claims = []
    titles = {"reward": ("new mass", 0.3), "log_old_mass": ("log old mass", 4.0)}
    for name, (what, resolution) in titles.items():
        value, low, high = row[name]["value"], row[name]["low"], row[name]["high"]
        margin = 0.1 * abs(value - base[name])
        prediction = Prediction(
            f"{SFT}-{name.replace('_', '-')}", Label(f"training-{name.replace('_', '-')}", run=SFT, x=step),
            "coarse-adam-steps", f"{what} after {step} steps of SFT on {BARE}, forecast",
            value, low - margin, high + margin, resolution,
        )  # fmt: skip
        claims.append(Claim(prediction, (SFT,), held.mean(name)))
    for name, what in ((SKILL, f"log-probability of {SKILL}"), (OLD, "log-probability of the old answers")):
        change = found.change(step)[name]
        margin = 0.25 * abs(float(change.mean())) + 0.1
        value = float(change.mean())
        label = "skill" if name == SKILL else "old"
        mean = Prediction(
            f"{SFT}-{label}-change", Label(f"training-{label}", run=SFT, x=step), "coarse-adam-steps",
            f"change of the {what} after {step} steps of SFT, forecast", value, value - margin, value + margin, 4.0,
        )  # fmt: skip
        prompts = Prediction(
            f"{SFT}-{label}-prompts", Label("training-prompts", run=SFT, x=step, law=label), "coarse-adam-steps",
            f"R² of changes of the {what}, prompt by prompt", 1.0, 0.5, 1.0, 0.5,
        )  # fmt: skip
        if label == "skill":
            claims.append(Claim(mean, (SFT,), held.change(name)))
        claims.append(Claim(prompts, (SFT,), held.agreement(name)))
    return claims


class Compared:
    """The forecast ``asked`` beside what each seed's run came to at ``step``; every seed is read once."""

    def __init__(self, asked: ForecastConfig, step: int) -> None:
        """Nothing is read before a number is asked for."""
        self.asked, self.step = asked, step
        self._rows: dict[Path, dict[str, Any]] = {}

    def rows(self, records: Records) -> list[dict[str, Any]]:
        """`fstsim.llm.forecast.compare.compare` at the step, a row a seed."""
        for seed in range(records.seeds):
            place = records.place(SFT, seed)
            if place not in self._rows:
                held = compare(forecast(self.asked, records.out / FORECAST), place)
                self._rows[place] = next(row for row in held["rows"] if row["step"] == self.step)
        return [self._rows[records.place(SFT, seed)] for seed in range(records.seeds)]

    def mean(self, name: str) -> Callable[[Records], list[float]]:
        """A quantity of the runs."""
        return lambda records: [row["means"][name]["run"] for row in self.rows(records)]

    def change(self, name: str) -> Callable[[Records], list[float]]:
        """Mean change of log-probabilities of the runs."""
        return lambda records: [float(np.mean(row["changes"][name]["run"])) for row in self.rows(records)]

    def agreement(self, name: str) -> Callable[[Records], list[float]]:
        """R² over prompts."""
        return lambda records: [row["prompts"][name]["r2"] for row in self.rows(records)]
