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
from fstsim.llm.forecast.result import Forecast, quantities
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.validation.claim import Ahead, Chapter, Claim, Records
from fstsim.llm.validation.forecasts.foretold import made
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.scale import BARE, SIZES, SKILL, run_config
from fstsim.llm.validation.prediction import Prediction
from fstsim.records import read_json

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
    return Chapter(tuple(forecast_claims(scale, config.steps)), (planned,))


def forecast_config(scale: Scale, config: TrainConfig) -> ForecastConfig:
    """The forecast of the run ``config``: at half of it and at its end."""
    size = SIZES[scale]
    settings = ForecastSettings(
        tolerance=0.5, batches=1, most_batches=2, control=8 if scale == "smoke" else 24, replicates=size.replicates
    )
    return ForecastConfig(config, (config.steps // 2, config.steps), settings)


def forecast_claims(scale: Scale, steps: int) -> list[Claim]:
    """What the forecast, made before the run, says of its end; of an earlier step where it has lost its way.

    Margins: a tenth of what is forecast to change, beside the forecast's own interval; prompt by prompt at least half of the
    variance of changes is to be explained (R² of the numbers themselves, no line is fitted).
    """
    held, after = Compared(), f"after {steps} steps of SFT"
    explained = "R² of changes of the log-probability of"
    mass, old_mass, skill = (Label(f"training-{kind}") for kind in ("reward", "log-old-mass", "skill"))
    by_skill, by_old = (Label("training-prompts", law=law) for law in ("skill", "old"))
    entries: tuple[tuple[str, Label, str, float, Numbers, Measured], ...] = (
        ("reward", mass, f"new mass {after} on {BARE}, forecast", 0.3, _quantity("reward"), held.mean("reward")),
        ("log-old-mass", old_mass, f"log old mass {after} on {BARE}, forecast", 4.0, _quantity("log_old_mass"),
         held.mean("log_old_mass")),
        ("skill-change", skill, f"change of the log-probability of {SKILL} {after}, forecast", 4.0, _skill_change,
         held.change(SKILL)),
        ("skill-prompts", by_skill, f"{explained} {SKILL}, prompt by prompt", 0.5, _explained, held.agreement(SKILL)),
        ("old-prompts", by_old, f"{explained} the old answers, prompt by prompt", 0.5, _explained, held.agreement(OLD)),
    )  # fmt: skip
    claims = []
    for name, label, what, resolution, numbers, measured in entries:
        blank = Prediction(
            f"{SFT}-{name}", replace(label, run=SFT, x=steps), "coarse-adam-steps", what, np.nan, np.nan, np.nan,
            resolution,
        )  # fmt: skip
        claims.append(Claim(blank, (SFT,), measured, ahead=_ahead(scale, blank, numbers)))
    return claims


Numbers = Callable[[Forecast, int], tuple[float, float, float]]
"""Value and interval that a forecast claims at a step."""
Measured = Callable[[Records], list[float]]


def _ahead(scale: Scale, blank: Prediction, numbers: Numbers) -> Callable[[Ahead], Prediction]:
    def before(ahead: Ahead) -> Prediction:
        asked = forecast_config(scale, ahead.runs[SFT].config)
        found = made(asked, ahead.out / FORECAST)
        if not found.steps:
            return blank  # nothing is claimed
        step = found.steps[-1]
        what = blank.quantity.replace(f"after {asked.train.steps} steps", f"after {step} steps")
        value, low, high = numbers(found, step)
        return replace(blank, label=replace(blank.label, x=step), quantity=what, value=value, low=low, high=high)

    return before


def _quantity(name: str) -> Numbers:
    def numbers(found: Forecast, step: int) -> tuple[float, float, float]:
        of = quantities(found.base)[name]
        held = found.value(of, step)
        margin = 0.1 * abs(held.value - of(found.base))
        return held.value, held.low - margin, held.high + margin

    return numbers


def _skill_change(found: Forecast, step: int) -> tuple[float, float, float]:
    value = float(found.change(step)[SKILL].mean())
    margin = 0.25 * abs(value) + 0.1
    return value, value - margin, value + margin


def _explained(found: Forecast, step: int) -> tuple[float, float, float]:  # noqa: ARG001 -- the same of every forecast
    return 1.0, 0.5, 1.0


class Compared:
    """The forecast of a validation beside what each seed's run came to at its last step; every seed is read once."""

    def __init__(self) -> None:
        """Nothing is read before a number is asked for."""
        self._rows: dict[Path, dict[str, Any]] = {}

    def rows(self, records: Records) -> list[dict[str, Any]]:
        """`fstsim.llm.forecast.compare.compare` at the last step, a row a seed."""
        for seed in range(records.seeds):
            place = records.place(SFT, seed)
            if place not in self._rows:
                there = records.out / FORECAST
                asked = ForecastConfig.from_dict(read_json(there / "config.json"))
                self._rows[place] = compare(forecast(asked, there), place)["rows"][-1]
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
