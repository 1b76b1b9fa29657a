"""The claim on low layers: shares from rows written by hand, and the outcomes that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fstsim.paper.claims.claim import Finding, Outcome
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.layers import CLAIMS, read_restored
from fstsim.paper.pages.layers import layers_block
from fstsim.paper.records.layers.overview import save_layers_overview
from fstsim.paper.records.layers.runs import SETS
from fstsim.records import write_json


def put(data: Path, name: str, layers: list[list[float]], lost: float = 0.4) -> None:
    """A run a list: what is lost on old skills with each layer restored; .9 of reward .1 to .9 is kept by every layer."""
    runs = []
    for seed, left in enumerate(layers):
        rows: list[dict[str, Any]] = [
            {"part": "nothing", "kind": "none", "depth": 0, "reward": 0.9, "old_skills_drift": lost},
            {"part": "everything", "kind": "all", "depth": 0, "reward": 0.1, "old_skills_drift": 0.0},
        ]
        rows += [
            {"part": f"layer {k}", "kind": "layer", "depth": k, "reward": 0.82, "old_skills_drift": value}
            for k, value in enumerate(left)
        ]
        runs.append({"run": f"seed-{seed}", "rows": rows})
    found = {
        "method": "sft",
        "tasks": ["digits:plus"],
        "config": {"model": "base", "old": ["strings:sort"]},
        "runs": runs,
    }
    write_json(data / "layers" / f"{name}.json", found)


def outcome(data: Path) -> Finding:
    (claim,) = CLAIMS
    return claim.find(Evidence(data))


def test_shares_and_the_difference_of_halves(tmp_path: Path) -> None:
    put(tmp_path, "a", [[0.1, 0.3, 0.4, 0.4, 0.4], [0.1, 0.2, 0.4, 0.3, 0.4], [0.1, 0.3, 0.0, 0.4, 0.4]])
    (found,) = read_restored(tmp_path)
    assert found.back[0] == pytest.approx([0.75, 0.25, 0, 0, 0])
    assert found.kept == pytest.approx(0.9)
    assert found.difference[0] == pytest.approx(
        (0.5 + (0.625 - 0.125) + 0.5) / 3
    )  # the middle layer is in neither half
    assert outcome(tmp_path).outcome is Outcome.HOLDS
    assert outcome(tmp_path).measured.endswith(f"(most that one layer gives back: {(0.75 + 0.75 + 0.75) / 3:.3g})")
    assert save_layers_overview([found], tmp_path / "picture.png").stat().st_size > 10_000


def test_outcomes_follow_the_intervals(tmp_path: Path) -> None:
    assert outcome(tmp_path).outcome is Outcome.UNTESTABLE
    put(tmp_path, "high", [[0.4, 0.1], [0.4, 0.11], [0.4, 0.1]])
    assert outcome(tmp_path).outcome is Outcome.FAILS
    put(tmp_path, "low", [[0.1, 0.4], [0.1, 0.41], [0.1, 0.4]])
    assert outcome(tmp_path).outcome is Outcome.PARTLY
    put(tmp_path, "nothing", [[0.0, 0.0]] * 3, lost=0.001)  # nothing was lost: says nothing
    assert outcome(tmp_path).outcome is Outcome.PARTLY
    put(tmp_path, "wide", [[0.1, 0.4], [0.4, 0.1], [0.1, 0.3]])
    assert outcome(tmp_path).outcome is Outcome.OPEN


def test_recorded_sets_are_those_that_are_declared() -> None:
    recorded = {found.name for found in read_restored(Evidence().data)}
    assert recorded <= SETS.keys()
    assert layers_block().count("seeds |") == len(recorded)
