"""``python -m fstsim.paper.records.forecast_recorded SOURCE TARGET --runs NAME...``: forecasts of runs that were made before them.

A forecast takes the configuration of a recorded run and nothing else of it. Beside it stand what the seeds measured at the
same steps. Not a prediction, since the numbers were known: a question to the integrator, whether it has what a law left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.llm.forecast.compare import measured_means
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.forecast import Given, forecast
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.runs.config import TrainConfig
from fstsim.paper.records.record_runs import rounded
from fstsim.places import published
from fstsim.reading import understood
from fstsim.records import plain, read_json, read_rows, write_json


@dataclass(frozen=True)
class Config:
    """Forecast recorded runs from their configuration, and write what they measured beside it."""

    source: tyro.conf.Positional[Path]
    """recorded validation or experiment: a directory with runs/NAME/seed-k"""
    target: tyro.conf.Positional[Path]
    """directory to write NAME.json to"""
    runs: tuple[str, ...]
    """names of runs"""
    at: tuple[int, ...]
    """steps that are looked at; the runs must have been measured there"""
    work: Path = Path("out/forecast-recorded")
    """directory of the forecasts themselves, which can be interrupted"""
    tolerance: float = ForecastSettings.tolerance
    """nats between predicted and corrected in a piece"""
    batches: int = ForecastSettings.batches
    """batches at each aim"""
    most_batches: int = ForecastSettings.most_batches
    """batches at an aim whose mean gradient is within its noise"""
    shortest: int = ForecastSettings.shortest
    """steps of the shortest piece; 1 where one step moves answers by more than the tolerance"""
    replicates: int = ForecastSettings.replicates
    """independent forecasts"""


def record(config: Config, name: str) -> Path:
    """Forecast one run and write it beside its seeds; InputError where there is no such run, or it was measured at other steps."""
    places = sorted((config.source / "runs" / name).glob("seed-*"))
    if not places:
        raise InputError(f"{config.source} holds no run {name} in runs/")
    settings = ForecastSettings(
        tolerance=config.tolerance,
        batches=config.batches,
        most_batches=max(config.batches, config.most_batches),
        shortest=config.shortest,
        replicates=config.replicates,
    )
    with understood(places[0] / "config.json"):
        train = TrainConfig.from_dict(read_json(places[0] / "config.json"))
    asked = ForecastConfig(replace(train, seed=0), config.at, settings)
    every = [read_rows(place / "metrics.jsonl") for place in places]
    for rows in every:
        if missing := set(config.at) - {row["step"] for row in rows if "reward" in row}:
            raise InputError(f"{name} was not measured at step {min(missing)}: choose other steps with --at")
    found = forecast(asked, config.work / name)
    given = Given.of(found.config)
    seeds = [measured_means(found, given, rows, config.at) for rows in every]
    whole = {
        "name": name,
        "config": published(asdict(found.config)),
        "start": found.to_dict()["start"],
        "rows": [found.row(step) for step in found.steps],
        "lost": found.lost,
        "cost": {k: v for k, v in found.cost.items() if k != "seconds"},
        "runs": {str(step): {key: [seed[step][key] for seed in seeds] for key in seeds[0][step]} for step in config.at},
    }
    write_json(config.target / f"{name}.json", rounded(plain(whole)))
    return config.target / f"{name}.json"


def record_and_show(config: Config) -> int:
    """Forecast, write, and say log old mass and reward of both."""
    config.target.mkdir(parents=True, exist_ok=True)
    for name in config.runs:
        place = record(config, name)
        held: dict[str, Any] = read_json(place)
        for row in held["rows"]:
            runs = held["runs"][str(row["step"])]
            shown = ", ".join(
                f"{key} {row[key]['value']:.3f} ({row[key]['low']:.3f} to {row[key]['high']:.3f}), runs {' '.join(f'{x:.3f}' for x in runs[key])}"
                for key in ("reward", "log_old_mass")
                if key in row and key in runs
            )
            show(f"{name} step {row['step']}: {shown}")
        if held["lost"] is not None:
            show(f"{name}: from step {held['lost']} on the forecast claims nothing")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.forecast_recorded", Config, record_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
