"""``python -m fstsim.paper.records.record_forecasts SOURCE TARGET``: forecasts of a validation, cut down to what pages and figures read.

A file a forecast: its configuration and the commit that made it, its numbers with intervals, its cost, and the predicted
change of every old prompt. Where runs of it are finished and have been held against it, their numbers, the changes that were
measured, the ceiling and, with ``--league``, what other predictors say of the same runs. Made first without any run, and again when there are some:
the forecast in it does not change, and that is checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.llm.forecast.agreement import r_squared
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.result import Forecast
from fstsim.llm.validation.forecasts import FORECASTS, ceiling
from fstsim.paper.records.record_runs import rounded
from fstsim.places import published
from fstsim.reading import understood
from fstsim.records import plain, read_json, read_rows, write_json


@dataclass(frozen=True)
class Config:
    """Record the forecasts of a validation, and the runs that were held against them."""

    source: tyro.conf.Positional[Path]
    """directory of `fstsim validate`"""
    target: tyro.conf.Positional[Path]
    """directory to write a file a forecast to"""
    league: bool = False
    """compute what other predictors say of the same runs; takes a minute a forecast"""


SAID = ("name", "config", "start", "rows", "lost", "cost", "changes")
"""What was there before the runs, and must not change; the commit is that of the first record."""


def alike(before: Any, now: Any) -> bool:
    """Whether a forecast made again says the same: numbers to a thousandth, as another processor rounds, all else exactly.

    >>> alike({"rows": [1.0, "a"]}, {"rows": [1.0004, "a"]}), alike([1.0], [1.01]), alike([1], [1, 2])
    (True, False, False)
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return before.keys() == now.keys() and all(alike(before[key], now[key]) for key in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(alike, before, now))
    if isinstance(before, float) or isinstance(now, float):
        return before is not None and now is not None and math.isclose(before, now, rel_tol=1e-3, abs_tol=1e-4)
    return bool(before == now)


def said(place: Path) -> tuple[Forecast, dict[str, Any]]:
    """The forecast in ``place``, and what is recorded of it before any run."""
    config = ForecastConfig.from_dict(read_json(place / "config.json"))
    whole = read_json(place / "forecast.json")
    found = Forecast.from_dict(config, whole)
    environs = read_json(place / "environment.json")
    cost = {k: v for k, v in whole["cost"].items() if k != "seconds"}
    return found, {
        "name": place.name,
        "config": published(read_json(place / "config.json")),
        "commit": environs.get("git_commit", environs.get("commit")),
        "start": whole["start"],
        "rows": whole["rows"],
        "lost": whole["lost"],
        "cost": cost | {"replicates": len(found.replicates)},
        "changes": {str(s): {k: v.tolist() for k, v in found.change(s).items()} for s in found.steps},
    }


def measured(source: Path, name: str, steps: tuple[int, ...]) -> dict[str, Any]:
    """Numbers of the runs by step, a number a seed, and the ceiling; empty where no run was held against the forecast."""
    held = [read_json(place) for place in sorted((source / FORECASTS).glob(f"{name}-seed-*.json"))]
    if not held:
        return {}
    found: dict[str, Any] = {}
    for k, step in enumerate(steps):
        rows = [each["rows"][k] for each in held]
        found[str(step)] = {
            "means": {name: [row["means"][name]["run"] for row in rows] for name in rows[0]["means"]},
            "inside": {name: [row["means"][name]["inside"] for row in rows] for name in rows[0]["means"]},
            "r2": [row["prompts"]["all"]["r2"] for row in rows],
            "rank": [row["prompts"]["all"]["rank"] for row in rows],
            "ceiling": ceiling(held, step),
            "r2_mean": _against_the_mean(rows),
            "changes": {skill: [row["changes"][skill]["run"] for row in rows] for skill in rows[0]["changes"]},
        }
    return {"seeds": len(held), "steps": found}


def _against_the_mean(rows: list[dict[str, Any]]) -> float:
    """R2 of the forecast against the mean change over the seeds: what is noise of single runs weighs less."""
    skills = list(rows[0]["changes"])
    forecast = np.concatenate([rows[0]["changes"][skill]["forecast"] for skill in skills])
    runs = np.concatenate([np.mean([row["changes"][skill]["run"] for row in rows], axis=0) for skill in skills])
    return r_squared(forecast, runs)


def verdicts(source: Path, name: str) -> list[dict[str, Any]]:
    """Judged predictions about the run, as they stand in ``validation.json``; none where it is not there."""
    place = source / "validation.json"
    return [row for row in read_json(place) if row["label"]["run"] == name] if place.exists() else []


def losses(rows: list[dict[str, Any]], rate: float, steps: tuple[int, ...]) -> dict[int, float]:
    """Sum of rate times root of the loss over the steps before each of ``steps``."""
    each = np.sqrt([max(row["loss"], 0.0) for row in rows if row.get("loss") is not None])
    return {step: float(rate * each[:step].sum()) for step in steps}


def league_of(source: Path, name: str, found: Forecast) -> dict[str, Any]:
    """Entries of the league, means over the seeds, and the overlap of every old prompt."""
    from fstsim.llm.forecast.forecast import Given
    from fstsim.llm.forecast.league import at_base, league
    from fstsim.llm.forecast.rule import Rule

    base = at_base(Given.of(found.config))
    train = found.config.train
    rates = Rule.of(train).rates
    distance = {step: float(rates[:step].sum()) for step in found.steps}
    every = []
    for place in sorted((source / FORECASTS).glob(f"{name}-seed-*.json")):
        run = source / "runs" / name / place.stem.removeprefix(f"{name}-")
        loss = losses(read_rows(run / "metrics.jsonl"), train.lr, found.steps) if train.method == "sft" else None
        every.append(league(base, read_json(place), distance, loss))
    entries = {
        entries[0].name: {
            "fitted": entries[0].fitted,
            "r2": [e.r2 for e in entries],
            "rank": [e.rank for e in entries],
        }
        for entries in zip(*every, strict=True)
    }
    return {"entries": entries, "at_base": {k: {s: v.tolist() for s, v in h.items()} for k, h in asdict(base).items()}}


def record(config: Config) -> list[Path]:
    """Write a file a forecast; InputError where there is none, or where one that is recorded says something else."""
    places = sorted(p for p in (config.source / FORECASTS).glob("*") if (p / "forecast.json").exists())
    if not places:
        raise InputError(f"{config.source} holds no finished forecast in {FORECASTS}/: make them with fstsim validate")
    config.target.mkdir(parents=True, exist_ok=True)
    written = []
    for place in places:
        found, now = said(place)
        target = config.target / f"{place.name}.json"
        whole = rounded(plain(now))
        if target.exists():
            before = read_json(target)
            changed = [key for key in SAID if not alike(before[key], whole[key])]
            if changed:
                raise InputError(f"{target} was recorded before the runs with another {changed[0]}: it is not replaced")
            whole = before
        runs = measured(config.source, place.name, found.steps)
        if runs:
            whole["verdicts"] = rounded(verdicts(config.source, place.name))
            whole["runs"] = rounded(plain(runs))
            if config.league:
                whole["league"] = rounded(plain(league_of(config.source, place.name, found)))
        write_json(target, whole)
        written.append(target)
    return written


def record_and_show(config: Config) -> int:
    """Record, and say what was written."""
    with understood(config.source):
        written = record(config)
    show(*(f"{path}: {path.stat().st_size / 1e3:.0f} kB" for path in written))
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.record_forecasts", Config, record_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
