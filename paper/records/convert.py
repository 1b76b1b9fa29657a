"""Bring recorded files to the form that the code writes now: ``python -m fstsim.paper.records.convert [DIR]``.

Configurations hold the one learner that ran (`fstsim.llm.runs.convert`), predictions a label. No number is touched, and a
second time nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.llm.runs.convert import convert
from fstsim.paper import DATA
from fstsim.places import published
from fstsim.reading import understood
from fstsim.records import plain, read_json, write_json


@dataclass(frozen=True)
class Config:
    """Bring the records below a directory to today's form."""

    directory: tyro.conf.Positional[Path] = DATA
    """run directories, or a directory that holds some: of train, experiment or validate"""


def convert_predictions(directory: Path) -> int:
    """Label the rows of ``predictions.json`` and ``validation.json`` that have none; returns their number.

    The label of a name is the one that the prediction of that name gets today at the recorded scale. Raises InputError,
    before anything is written, where there is no record or no prediction of that name is made any more.
    """
    written = directory / "predictions.json"
    if not written.exists():
        raise InputError(f"no {written}: make it with fstsim validate --out {directory}")
    record = read_json(written)
    judged = directory / "validation.json"
    verdicts = read_json(judged) if judged.exists() else []
    lacking = [row for row in (*record["predictions"], *verdicts) if "label" not in row]
    if not lacking:
        return 0
    labels = _labels(record["scale"], record["model"])
    unknown = sorted({row["name"] for row in lacking} - labels.keys())
    if unknown:
        raise InputError(f"{directory}: no prediction is called {', '.join(unknown)} any more")
    for row in lacking:
        row["label"] = labels[row["name"]]
    write_json(written, record)
    if verdicts:
        write_json(judged, verdicts)
    return len(lacking)


def _labels(scale: Any, model: str) -> Mapping[str, Mapping[str, Any]]:
    from transformers.utils import logging

    from fstsim.llm.policy.policy import Policy
    from fstsim.llm.validation.validate import all_chapters

    logging.disable_progress_bar()
    base = Policy.load(model)
    base.model.eval()
    claims = [claim for chapter in all_chapters(scale, base).values() for claim in chapter.claims]
    return {claim.prediction.name: plain(asdict(claim.prediction.label)) for claim in claims}


def bring_up_to_date(config: Config) -> int:
    """Convert, and say how much there was to convert."""
    if not config.directory.is_dir():
        raise InputError(f"{config.directory} is not a directory")
    rewritten = len(convert([config.directory]))
    for path in sorted(config.directory.rglob("*/seed-*/config.json")):
        held = read_json(path)
        if held != published(held):
            write_json(path, published(held))
            rewritten += 1
    labelled = 0
    for path in sorted(config.directory.rglob("predictions.json")):
        with understood(path.parent):
            labelled += convert_predictions(path.parent)
    show(f"{config.directory}: {rewritten} configurations rewritten, labels added to {labelled} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.convert", Config, bring_up_to_date))
