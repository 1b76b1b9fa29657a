"""``python -m fstsim.paper.records.forecast_intervals``: recorded forecasts made again for their intervals, and how many numbers of runs lie within.

A forecast from its recorded configuration draws the same batches; integrator and interval are those of the code as it is now.
Where it says the same to a thousandth, ``same`` is true. Runs were known when the interval was written: nothing in it is fitted
to them, but it is no prediction. Beside the interval of all paths stands that of each path alone, as ``--replicates 1`` gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.forecast import forecast
from fstsim.llm.forecast.result import Forecast
from fstsim.paper import DATA
from fstsim.paper.pages.forecast import coverage_of, recorded_forecasts
from fstsim.paper.records.record_forecasts import alike
from fstsim.paper.records.record_runs import rounded
from fstsim.records import plain, write_json

ASKED = ("reward", "log_old_mass")


@dataclass(frozen=True)
class Config:
    """Make recorded forecasts again and hold their runs against the intervals of today."""

    data: Path = DATA
    """directory with forecast/, as record_forecasts wrote it"""
    target: Path = DATA / "forecast-intervals.json"
    """file to write"""
    work: Path = Path("out/forecast-intervals")
    """directory of the forecasts, which can be interrupted"""
    only: tuple[str, ...] = ()
    """names of forecasts; empty for all that have runs"""


def entry(recorded: Mapping[str, Any], found: Forecast) -> dict[str, Any]:
    """Intervals by step of one forecast, of all paths and of each alone, beside the runs and what was recorded before them."""
    alone = [replace(found, replicates=[path]) for path in found.replicates]
    steps = {}
    for row in (row for row in recorded["rows"] if row["step"] in found.steps):
        now = found.row(row["step"])
        measured = recorded["runs"]["steps"][str(row["step"])]["means"]
        held = {}
        for name in ASKED:
            one = [{k: each.row(row["step"])[name][k] for k in ("low", "high")} for each in alone]
            held[name] = {**now[name], "before": row[name], "one_path": one, "runs": measured[name]}
        steps[str(row["step"])] = held
    same = all(alike(each["before"]["value"], each["value"]) for held in steps.values() for each in held.values())
    cost = found.cost["gradients"] / len(found.replicates)
    return {"name": recorded["name"], "same": same, "steps": steps, "gradients_of_a_path": cost}


def record_and_show(config: Config) -> int:
    """Forecast again, write, and say how many numbers of runs lie within."""
    chosen = [found for found in recorded_forecasts(config.data) if "runs" in found]
    if unknown := set(config.only) - {found["name"] for found in chosen}:
        raise InputError(f"{config.data / 'forecast'} holds no forecast with runs of the name {min(unknown)}")
    entries = []
    for recorded in chosen:
        if not config.only or recorded["name"] in config.only:
            asked = ForecastConfig.from_dict(recorded["config"])
            entries.append(entry(recorded, forecast(asked, config.work / recorded["name"])))
            show(_line(entries[-1:], recorded["name"]))
    write_json(config.target, rounded(plain(entries)))
    show(_line(entries, "all"))
    return 0


def _line(entries: Sequence[Mapping[str, Any]], name: str) -> str:
    inside, count, one, many = coverage_of(entries)
    return f"{name}: {inside} of {count} numbers of runs within, of one path alone {one} of {many}"


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.forecast_intervals", Config, record_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
