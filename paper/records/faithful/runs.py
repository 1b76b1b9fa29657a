"""The recorded arms of faithfulness (``python -m fstsim.paper.records.faithful.runs``): predictions, runs, what is kept of them, verdicts.

``paper/data/faithful/predictions.json`` is written first (``--predict``, committed before any run); then three seeds of every arm are
trained, measured by `fstsim.llm.measure.faithful.run` against the scratch base, and ``arms.json`` and ``verdicts.json`` written. The run
directories stay where they were made: a stopped recording goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.special import logit

from fstsim.errors import InputError
from fstsim.front.command import Directory
from fstsim.front.console import Progress, show
from fstsim.front.entry import run_module
from fstsim.llm.experiments.run import run_planned
from fstsim.llm.measure.faithful.run import FaithfulConfig, run_faithful
from fstsim.llm.runs.recorded import read_metrics
from fstsim.llm.validation.faithful import MODEL, Arm, arms, measured_mass, measured_tasks, predictions
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Prediction, judge
from fstsim.paper import DATA
from fstsim.paper.records.record_runs import rounded
from fstsim.places import published
from fstsim.reading import understood
from fstsim.records import environment, plain, read_json, write_json

SEEDS = 3
PLACE = DATA / "faithful"
_KEPT = ("reward", "kl_to_base", "kl_from_base", "drift")


@dataclass(frozen=True)
class Config:
    """Make the recorded arms of faithfulness, or go on with them, and write paper/data/faithful."""

    out: Directory = Path("out/faithful-arms")
    """where the runs go"""
    predict: bool = False
    """write the predictions and nothing else: before the first run"""
    only: tuple[str, ...] = ()
    """these arms only"""
    problems: int = 48
    """test problems of each measurement"""


def predict() -> Path:
    """Write the predictions; InputError if there are others already."""
    path = PLACE / "predictions.json"
    said = {
        "model": MODEL,
        "commit": environment()["commit"],
        "predictions": [p.to_dict() for p in predictions().values()],
    }
    if path.exists() and read_json(path)["predictions"] != plain(said["predictions"]):
        raise InputError(f"{path} has other predictions: what was said before a run does not change")
    if not path.exists():
        write_json(path, plain(said))
    return path


def written() -> list[Prediction]:
    """The predictions as they stand in the record."""
    path = PLACE / "predictions.json"
    with understood(path):
        rows = read_json(path)["predictions"]
        return [Prediction(**{**row, "label": Label(**row["label"])}) for row in rows]


def measure_arm(arm: Arm, out: Path, problems: int) -> dict[str, Any]:
    """Measure a finished arm against its base; what is kept of it."""
    place = out / "runs" / arm.name
    rows = [read_metrics(place / f"seed-{k}") for k in range(SEEDS)]
    config = FaithfulConfig(str(place), tasks=measured_tasks(), problems=problems)
    found = run_faithful(config, out / "measured" / arm.name)
    masses = [measured_mass(each, arm) for each in rows]
    probed = [row["step"] for row in rows[0] if "reward" in row]
    ends = [{name: each[-1].get(name) for name in _KEPT} for each in rows]
    return {
        "name": arm.name,
        "about": arm.about,
        "rules": arm.rules,
        "config": asdict(arm.config),
        "steps": probed,
        "chain_mass": masses,
        "ends": ends,
        "faithful": {key: found[key] for key in ("base", "models", "moved", "tasks")},
    }


def read_arm(record: dict[str, Any], prediction: Prediction) -> list[float]:
    """What a record says of a prediction, a number a seed; nan where a score is not measurable, before the training or after it."""
    kind = prediction.label.kind
    if kind == "chain-mass":
        return [mass[-1] for mass in record["chain_mass"]]
    if kind == "chain-log-odds":
        return [float(logit(mass[-1]) - logit(mass[0])) for mass in record["chain_mass"]]
    task = next(t for t in record["faithful"]["tasks"] if t["rules"] == 3)
    base, *after = (_score(row, "corruption_followed") for row in task["models"])
    return [value - base for value in after]


def _score(row: dict[str, Any], name: str) -> float:
    value = row["scores"][name]["mean"]
    return float("nan") if row["not_measurable"] or value is None else float(value)


def record(config: Config) -> int:
    """Do it."""
    path = predict()
    if config.predict:
        show(f"predictions: {path}")
        return 0
    chosen = [arm for arm in arms() if not config.only or arm.name in config.only]
    records = []
    with contextlib.closing(Progress("faithful arms", len(chosen) * (SEEDS + 1), "parts")) as progress:
        for arm in chosen:
            for seed in range(SEEDS):
                run_planned(arm.planned, seed, config.out)
                progress.add(1, f"{arm.name} seed {seed}")
            records.append(measure_arm(arm, config.out, config.problems))
            progress.add(1, f"{arm.name} measured")
    kept = {row["name"]: row for row in _recorded()} | {row["name"]: row for row in records}
    ordered = [kept[arm.name] for arm in arms() if arm.name in kept]
    write_json(
        PLACE / "arms.json",
        rounded(plain(published({"commit": environment()["commit"], "seeds": SEEDS, "arms": ordered}))),
    )
    write_json(PLACE / "verdicts.json", rounded(plain(verdicts(ordered))))
    show(f"{len(ordered)} arms: {PLACE}")
    return 0


def verdicts(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The recorded predictions beside what the recorded arms measured."""
    held = {row["name"]: row for row in records}
    judged = [judge(p, read_arm(held[p.label.run], p)) for p in written() if p.label.run in held]
    return [
        {
            **j.prediction.to_dict(),
            "measured": j.measured,
            "measured_low": j.low,
            "measured_high": j.high,
            "seeds": j.seeds,
            "verdict": j.verdict,
        }
        for j in judged
    ]


def _recorded() -> list[dict[str, Any]]:
    path = PLACE / "arms.json"
    return list(read_json(path)["arms"]) if path.exists() else []


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.faithful.runs", Config, record)


if __name__ == "__main__":
    raise SystemExit(main())
