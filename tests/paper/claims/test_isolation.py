"""Claims on core isolation and on resets: from runs written by hand, and the outcomes that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fstsim.paper.claims.claim import Finding, Outcome
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.isolation import CLAIMS
from fstsim.records import write_json

FREEZING, JOINT, RESETS = range(3)


def run(seed: int, *rewards: tuple[float, float]) -> dict[str, Any]:
    """Rewards of two tasks at the end of each block."""
    return {"seed": seed, "blocks": [{"rewards": list(pair)} for pair in ((0.0, 0.0), *rewards)]}


def put(data: Path, **ends: list[float]) -> None:
    """For every variant the first task's reward at the end, by seed: it was 1 after its own block."""
    runs = {
        name.replace("_", "-"): [run(k, (1.0, 0.0), (end, 1.0)) for k, end in enumerate(values)]
        for name, values in ends.items()
    }
    for name in ("families", "conflict"):
        write_json(data / "isolation" / f"{name}.json", {"runs": runs})


def finding(which: int, data: Path) -> Finding:
    return CLAIMS[which].find(Evidence(data))


@pytest.mark.parametrize(
    ("freeze", "outcome"),
    [
        ([0.80, 0.82, 0.81], Outcome.HOLDS),  # of a loss of .6 two thirds are saved
        ([0.40, 0.41, 0.39], Outcome.FAILS),
        ([0.90, 0.40, 0.50], Outcome.OPEN),
    ],
)
def test_freezing_has_to_save_a_third(freeze: list[float], outcome: Outcome, tmp_path: Path) -> None:
    put(tmp_path, stages=[0.40, 0.41, 0.39], freeze=freeze, full=[0.9, 0.9, 0.9], random=[0.9, 0.9, 0.9])
    found = finding(FREEZING, tmp_path)
    assert found.outcome is outcome
    assert "with random cores 0 ± 0 (n = 3)" in found.measured


def test_one_seed_resolves_nothing_and_no_seed_is_said(tmp_path: Path) -> None:
    assert finding(FREEZING, tmp_path).outcome is Outcome.UNTESTABLE
    assert finding(JOINT, tmp_path).outcome is Outcome.UNTESTABLE
    assert finding(RESETS, tmp_path).outcome is Outcome.UNTESTABLE
    put(tmp_path, stages=[0.4], freeze=[0.9], full=[0.9], random=[0.9], joint=[0.5])
    assert finding(FREEZING, tmp_path).outcome is Outcome.OPEN
    assert finding(JOINT, tmp_path).outcome is Outcome.OPEN


@pytest.mark.parametrize(
    ("joint", "outcome"), [([0.5, 0.51, 0.49], Outcome.HOLDS), ([0.99, 0.98, 0.99], Outcome.PARTLY)]
)
def test_the_whole_method_against_both(joint: list[float], outcome: Outcome, tmp_path: Path) -> None:
    put(tmp_path, stages=[0.4, 0.41, 0.39], full=[0.9, 0.91, 0.9], joint=joint)
    found = finding(JOINT, tmp_path)
    assert found.outcome is outcome
    assert ("joint tuning" in found.verdict) == (outcome is Outcome.PARTLY)


@pytest.mark.parametrize(
    ("third", "none", "outcome"),
    [(0.8, [], Outcome.PARTLY), (0.6, [], Outcome.OPEN), (0.8, [0.4], Outcome.PARTLY), (0.8, [0.8], Outcome.OPEN)],
)
def test_resets(third: float, none: list[float], outcome: Outcome, tmp_path: Path) -> None:
    def of(rewards: tuple[float, ...]) -> list[dict[str, Any]]:
        return [
            {"rows": [{"step": 10 * (k + 1), "reward": r + s, "kl_to_base": float(k)} for k, r in enumerate(rewards)]}
            for s in (0.0, 0.01, 0.02)
        ]

    runs = {"resets": of((0.4, 0.6, third)), "none": of((0.4, 0.4, none[0])) if none else []}
    write_json(tmp_path / "resets" / "resets.json", {"period": 10, "predicted": [0.2, 0.4, 0.6, 0.8], "runs": runs})
    found = finding(RESETS, tmp_path)
    assert found.outcome is outcome
    assert ("without resets" in found.measured) == bool(none)
