r"""Claims of forecasts: reward, log old mass, and every old prompt's change of log p, at steps of runs that nobody has made.

Each run is forecast from the base alone (`fstsim.llm.forecast`) before it starts; the numbers stand in ``predictions.json``,
the forecast itself in ``forecasts/NAME``. The declared margins are the aims of the forecast: log old mass within 15 % or .5
nat, reward within .05, and :math:`R^2 \ge .9` over old prompts, whatever the forecast says of its own error. Runs keep weights
at their end alone: each is made again from its recorded configuration, and read at the steps of the forecast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.llm.experiments.plan import Planned
from fstsim.llm.forecast.compare import compare
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.forecast import forecast
from fstsim.llm.forecast.reading import Reading
from fstsim.llm.forecast.result import Forecast, quantities
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.validation.claim import Ahead, Chapter, Claim, Records
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Prediction
from fstsim.records import plain, read_json, write_json

FORECASTS = "forecasts"
"""Directory of the forecasts in that of a validation."""
SHARE, NATS, REWARD, R2 = 0.15, 0.5, 0.05, 0.9
"""The aims: of log old mass the larger of a share and of nats, of reward, and the least R2."""
STATEMENT = "coarse-adam-order"


@dataclass(frozen=True)
class Foretold:
    """A run that is forecast at steps ``at``, and how closely."""

    name: str
    config: TrainConfig
    at: tuple[int, ...]
    settings: ForecastSettings = field(default_factory=ForecastSettings)


def chapter(chosen: Sequence[Foretold]) -> Chapter:
    """Claims and runs of what is foretold."""
    claims = [claim for each in chosen for step in each.at for claim in claims_of(each, step)]
    return Chapter(tuple(claims), tuple(Planned(each.name, each.config, write_model=False) for each in chosen))


def claims_of(told: Foretold, step: int) -> list[Claim]:
    """Reward, log old mass and R2 at one step."""
    what = f"{told.config.method} on {told.config.tasks[0]} at step {step}, forecast before the run"
    found = []
    for kind, quantity, read in (
        ("forecast-reward", "held-out reward", _mean("reward", step)),
        ("forecast-old", "log of the old mass", _mean("log_old_mass", step)),
        ("forecast-r2", "R2 of the change of log p of every old prompt", _r2(step)),
    ):
        blank = Prediction(
            f"{told.name}-{kind.removeprefix('forecast-')}-{step}", Label(kind, run=told.name, x=step), STATEMENT,
            f"{quantity}: {what}", np.nan, np.nan, np.nan, RESOLUTION[kind],
        )  # fmt: skip
        found.append(Claim(blank, (told.name,), _measured(told, read), ahead=_ahead(told, step, blank)))
    return found


RESOLUTION = {"forecast-reward": 0.3, "forecast-old": 3.0, "forecast-r2": 0.3}


@functools.lru_cache(maxsize=1)  # the claims of a run come one after the other
def made(asked: ForecastConfig, place: Path) -> Forecast:
    """The forecast in ``place``, made if it is not there."""
    return forecast(asked, place)


def forecast_of(told: Foretold, ahead: Ahead) -> Forecast:
    """The forecast in ``ahead.out``, made if it is not there."""
    asked = ForecastConfig(ahead.runs[told.name].config, told.at, told.settings)
    return made(asked, ahead.out / FORECASTS / told.name)


def _ahead(told: Foretold, step: int, blank: Prediction) -> Callable[[Ahead], Prediction]:
    def numbers(ahead: Ahead) -> Prediction:
        found = forecast_of(told, ahead)
        if step not in found.steps:
            return blank  # the forecast has lost its way before: nothing is claimed
        if blank.label.kind == "forecast-r2":
            return replace(blank, value=(1.0 + R2) / 2.0, low=R2, high=1.0)
        name = "reward" if blank.label.kind == "forecast-reward" else "log_old_mass"
        value = found.value(quantities(found.base)[name], step).value
        margin = REWARD if name == "reward" else max(NATS, SHARE * abs(value))
        return replace(blank, value=value, low=value - margin, high=value + margin)

    return numbers


def held(records: Records, told: Foretold, seed: int, readings: Mapping[int, Reading] | None = None) -> dict[str, Any]:
    """The forecast against one seed of the run, by step, as `fstsim.llm.forecast.compare.compare` says; kept beside the forecast.

    The run is made again for it, unless ``readings`` were taken while it was made.
    """
    directory = records.out / FORECASTS / told.name
    place = records.out / FORECASTS / f"{told.name}-seed-{seed}.json"
    if not place.exists():
        config = ForecastConfig.from_dict(read_json(directory / "config.json"))
        found = compare(forecast(config, directory), records.place(told.name, seed), rerun=True, readings=readings)
        write_json(place, plain({**found, "run": f"runs/{told.name}/seed-{seed}"}))
    result: dict[str, Any] = read_json(place)
    return result


Read = Callable[[dict[str, Any]], float | None]


def _at(found: dict[str, Any], step: int) -> dict[str, Any]:
    row: dict[str, Any] = next((row for row in found["rows"] if row["step"] == step), {})
    return row


def _mean(name: str, step: int) -> Read:
    return lambda found: _at(found, step).get("means", {}).get(name, {}).get("run")


def _r2(step: int) -> Read:
    return lambda found: _at(found, step).get("prompts", {}).get("all", {}).get("r2")


def _measured(told: Foretold, read: Read) -> Callable[[Records], list[float]]:
    def measured(records: Records) -> list[float]:
        values = [read(held(records, told, seed)) for seed in range(records.seeds)]
        return [np.nan if value is None else float(value) for value in values]

    return measured


def ceiling(measured: list[dict[str, Any]], step: int) -> float:
    """Mean R2 of one seed of a run against another over all old prompts: what a forecast can reach; nan of one seed."""
    from fstsim.llm.forecast.agreement import r_squared

    changes = [np.concatenate([v["run"] for v in _at(found, step)["changes"].values()]) for found in measured]
    pairs = [r_squared(a, b) for i, a in enumerate(changes) for j, b in enumerate(changes) if i != j]
    return float(np.mean(pairs)) if pairs else float("nan")
