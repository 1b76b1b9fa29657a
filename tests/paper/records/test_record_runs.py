"""A record of a run gives the totals that the run gives: counts of steps that no probe measured stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fstsim.paper.experiments.numbers import totals
from fstsim.paper.records.record_runs import Config, record
from fstsim.records import read_rows, write_json, write_rows


def _run(out: Path, steps: int, every: int) -> None:
    """Every step shows 24 demonstrations, every sixth begins with a fast round; few steps are measured."""
    place = out / "runs" / "one" / "seed-0"
    rows = [
        {"step": k, "samples": 10 * k, "task": 0, "loss": 0.5}
        | ({"shown": 24} if k else {})
        | ({"fast_rollouts": 100 + k} if k % 6 == 1 else {})
        | ({"reward": 0.25} if k % every == 0 else {})
        for k in range(steps + 1)
    ]
    for name, held in {"config": {}, "environment": {}, "summary": {"seconds": 1.0}}.items():
        write_json(place / f"{name}.json", held)
    write_rows(place / "metrics.jsonl", rows)


def test_totals_of_a_record_are_those_of_the_run(tmp_path: Path) -> None:
    _run(tmp_path / "run", steps=20, every=10)
    record(Config(tmp_path / "run", tmp_path / "record"))
    for column, total in {"shown": 20 * 24, "fast_rollouts": 4 * 100 + 1 + 7 + 13 + 19, "reused": 0}.items():
        for place in ("run", "record"):
            np.testing.assert_array_equal(totals(tmp_path / place, "one", column), [total])
    rows = read_rows(tmp_path / "record" / "runs" / "one" / "seed-0" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [0, 10, 20]  # of the others counts alone


def test_a_total_of_missing_steps_is_none(tmp_path: Path) -> None:
    """As records were once kept: measured rows alone."""
    _run(tmp_path, steps=20, every=10)
    place = tmp_path / "runs" / "one" / "seed-0" / "metrics.jsonl"
    write_rows(place, [row for row in read_rows(place) if "reward" in row])
    assert np.isnan(totals(tmp_path, "one", "shown")).all()
    np.testing.assert_array_equal(totals(tmp_path, "one", "reused"), [0.0])
