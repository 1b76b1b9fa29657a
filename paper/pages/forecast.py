"""Tables of the recorded forecasts: what was said before the runs, what they did, what it cost, and the league of predictors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.errors import InputError
from fstsim.number_text import short_number
from fstsim.paper import DATA
from fstsim.paper.pages.blocks import table
from fstsim.records import read_json

LEAGUE = {
    "forecast": "forecast (coarse Adam)",
    "kernel": "one step of Adam's direction at the base",
    "cosine": "cosine of the gradients at the base",
    "overlap": "overlap of old and new outputs",
    "kl": "KL(now‖base) on the new prompts, measured in the run",
    "loss": "sum of rate × √loss, measured in the run",
}
"""Predictors, as `fstsim.llm.forecast.league` calls them."""


def recorded_forecasts(data: Path = DATA) -> list[dict[str, Any]]:
    """Every recorded forecast; InputError where there is none."""
    places = sorted((data / "forecast").glob("*.json"))
    if not places:
        raise InputError(
            f"{data / 'forecast'} holds no forecasts: record them with python -m fstsim.paper.records.record_forecasts"
        )
    return [read_json(place) for place in places]


def title_of(found: dict[str, Any]) -> str:
    """Method, task and what is unusual about a run, in words."""
    train = found["config"]["train"]
    learner = train["learner"]
    extra = [f"{train['lr']:g}", f"{learner['problems']} a step"]
    if learner.get("replay_share"):
        extra.append(f"replay {learner['replay_share']:g}")
    extra += [f"leash {learner[name]:g}" for name in ("leash_loss", "leash_reward") if learner.get(name)]
    extra += [train[name] for name in ("context", "adapter") if train.get(name)]
    if train.get("optimizer", {}).get("schedule", "constant") != "constant":
        extra.append(train["optimizer"]["schedule"])
    return f"{train['method'].upper()} {train['tasks'][0]}, {', '.join(extra)}"


def _several(values: Sequence[float | None]) -> str:
    return ", ".join("–" if value is None else short_number(value) for value in values)


def _interval(value: dict[str, float]) -> str:
    return f"{short_number(value['value'])} ({short_number(value['low'])} to {short_number(value['high'])})"


def forecast_table(data: Path = DATA) -> str:
    """A row a run and step: forecast with its interval, the seeds, R2 over old prompts with its ceiling, and against the seeds' mean."""
    rows = []
    for found in recorded_forecasts(data):
        for row in found["rows"]:
            runs = found.get("runs", {}).get("steps", {}).get(str(row["step"]))
            cells = [title_of(found), str(row["step"]), _interval(row["reward"])]
            cells.append(_several(runs["means"]["reward"]) if runs else "–")
            cells.append(_interval(row["log_old_mass"]))
            cells.append(_several(runs["means"]["log_old_mass"]) if runs else "–")
            numbers = (runs["ceiling"], runs["r2_mean"]) if runs else ()
            cells += [_several(runs["r2"]), *map(short_number, numbers)] if runs else ["–", "–", "–"]
            rows.append(cells)
    head = [
        "run (learning rate, batch)", "step", "reward: forecast", "seeds", "log old mass: forecast", "seeds",
        "R² over old prompts, by seed", "ceiling", "R² against the seeds' mean",
    ]  # fmt: skip
    return table(head, rows)


def cost_table(data: Path = DATA) -> str:
    """A row a run: gradients of one path, of all replicates, and of the run."""
    rows = []
    for found in recorded_forecasts(data):
        cost = found["cost"]
        path = cost["gradients"] / cost["replicates"]
        share = f"{path / cost['run_gradients']:.0%}"
        rows.append(
            [title_of(found), short_number(path), str(cost["gradients"]), str(cost["run_gradients"]), share]
        )  # fmt: skip
    return table(["run", "gradients of a path", "of all replicates", "of the run", "a path, share of the run"], rows)


def afterwards_table(data: Path = DATA) -> str:
    """A row a recorded run and step: what a forecast from its configuration alone says of a run that was made before it."""
    rows = []
    for place in sorted((data / "validation" / "forecast").glob("*.json")):
        found = read_json(place)
        for row in found["rows"]:
            runs = found["runs"][str(row["step"])]
            cells = [found["name"], title_of(found), str(row["step"])]
            for name in ("reward", "log_old_mass"):
                cells += [_interval(row[name]), _several(runs[name])] if name in runs else ["–", "–"]
            rows.append(cells)
        if found["lost"] is not None:
            rows.append([found["name"], title_of(found), f"from {found['lost']} on: nothing claimed", *["–"] * 4])
    if not rows:
        return "No recorded run has been forecast afterwards yet.\n"
    return table(["run", "what", "step", "reward: forecast", "seeds", "log old mass: forecast", "seeds"], rows)


WORDS = {
    "forecast-reward": "reward within .05",
    "forecast-old": "log old mass within 15 % or half a nat",
    "forecast-r2": "R² over old prompts of at least .9",
}
"""What the margins of a verdict are, by kind of prediction."""


def verdict_rows(data: Path = DATA) -> str:
    """A row a kind of prediction: how many stood, and which were falsified."""
    judged = [row for found in recorded_forecasts(data) for row in found.get("verdicts", [])]
    if not judged:
        return "No prediction has been judged yet.\n"
    rows = []
    for kind, words in WORDS.items():
        own = [row for row in judged if row["label"]["kind"] == kind]
        counts = Counter(row["verdict"] for row in own)
        failed = [
            f"{row['label']['run']} step {row['label']['x']:g} ({short_number(row['value'])}, measured {short_number(row['measured'])})"
            for row in own
            if row["verdict"] == "falsified"
        ]
        cells = [str(counts[verdict]) for verdict in ("confirmed", "falsified", "undecided")]
        rows.append([words, *cells, "; ".join(failed) or "–"])
    return table(["prediction", "confirmed", "falsified", "undecided", "falsified rows (predicted, measured)"], rows)


def coverage(data: Path = DATA) -> tuple[int, int]:
    """How many numbers of runs (reward, log old mass) lie in the forecast's own interval, and how many there are."""
    inside = [
        held
        for found in recorded_forecasts(data)
        for row in found.get("runs", {}).get("steps", {}).values()
        for name in ("reward", "log_old_mass")
        for held in row["inside"][name]
    ]
    return sum(inside), len(inside)


def coverage_line(data: Path = DATA) -> str:
    """The coverage in words."""
    inside, count = coverage(data)
    if not count:
        return "No run has been held against a forecast yet.\n"
    said = f"{inside} of {count} rewards and log old masses of single runs lie within the interval that was written before them."
    place = data / "forecast-intervals.json"
    if place.exists():
        now, whole, one, many = coverage_of(read_json(place))
        said += (
            f" With the interval as it is now, which was defined afterwards and fitted to none of them, {now} of {whole} do; of the "
            f"interval of one path alone {one} of {many}."
        )
    return f"{said}\n"


def coverage_of(entries: Sequence[Mapping[str, Any]]) -> tuple[int, int, int, int]:
    """How many numbers of runs lie in the intervals of forecasts, of how many; the same of each path alone."""
    whole: list[bool] = []
    alone: list[bool] = []
    for found in entries:
        for step in found["steps"].values():
            for held in step.values():
                for value in held["runs"]:
                    whole.append(held["low"] <= value <= held["high"])
                    alone += [each["low"] <= value <= each["high"] for each in held["one_path"]]
    return sum(whole), len(whole), sum(alone), len(alone)


def league_table(data: Path = DATA) -> str:
    """A row a predictor, a column a run: R2 over prompts and steps, and the mean rank correlation within a step."""
    recorded = [found for found in recorded_forecasts(data) if "league" in found]
    if not recorded:
        return "No league has been recorded yet.\n"
    rows = []
    for name, words in LEAGUE.items():
        entries = [found["league"]["entries"].get(name) for found in recorded]
        fitted = next((entry["fitted"] for entry in entries if entry), 0)
        rows.append([words, str(fitted), *(_entry(entry) for entry in entries)])
    return table(["predictor", "numbers fitted to the run", *(title_of(found) for found in recorded)], rows)


def _entry(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "–"
    r2 = short_number(float(np.mean(entry["r2"])))
    ranks = [value for value in entry["rank"] if value is not None]
    return f"{r2}; {short_number(float(np.mean(ranks)))}" if ranks else f"{r2}; –"


def forecast_blocks() -> str:
    """All of it, as it stands on the page of forecasts."""
    return "\n".join(
        (forecast_table(), verdict_rows(), coverage_line(), cost_table(), league_table(), afterwards_table())
    )
