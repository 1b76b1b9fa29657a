"""Supervised training of a chat model on answers that it never writes, against its forecast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.forecast.compare import compare
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.forecast import forecast
from fstsim.llm.forecast.reading import OLD
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.validation.claim import Chapter, Claim, Records
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.scale import BARE, SIZES, SKILL, run_config
from fstsim.llm.validation.prediction import Prediction

SFT = "language-sft"
"""Run of supervised training that is forecast."""
FORECAST = "forecast"
"""Its forecast, a folder beside the runs."""


def training(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001 -- the forecast reads the base itself
    """Supervised training on answers that the base never writes, against its forecast: what is learned, what is lost."""
    size = SIZES[scale]
    learner = SupervisedFineTuning(problems=size.taught)
    config = replace(run_config(size, size.sft_steps, BARE, "sft", learner), old=(SKILL,), optimizer=OptimizerConfig())
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
    change = found.change(step)[SKILL]
    value = float(change.mean())
    margin = 0.25 * abs(value) + 0.1
    mean = Prediction(
        f"{SFT}-skill-change", Label("training-skill", run=SFT, x=step), "coarse-adam-steps",
        f"change of the log-probability of {SKILL} after {step} steps of SFT, forecast",
        value, value - margin, value + margin, 4.0,
    )  # fmt: skip
    claims.append(Claim(mean, (SFT,), held.change(SKILL)))
    for name, label, what in ((SKILL, "skill", SKILL), (OLD, "old", "the old answers")):
        prompts = Prediction(
            f"{SFT}-{label}-prompts", Label("training-prompts", run=SFT, x=step, law=label), "coarse-adam-steps",
            f"R² of changes of the log-probability of {what}, prompt by prompt", 1.0, 0.5, 1.0, 0.5,
        )  # fmt: skip
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
