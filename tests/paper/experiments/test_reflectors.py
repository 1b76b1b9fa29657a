"""A frozen reflector beside the policy as its own: numbers of made-up runs, the table, and that the two arms differ in nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fstsim.llm.experiments import CONTINUAL, REFLECTORS
from fstsim.llm.experiments.reflectors import FROZEN
from fstsim.paper.claims.claim import Outcome
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.fast_slow import CLAIMS
from fstsim.paper.experiments.reflectors import (
    at_once,
    draw_reflectors,
    pooled_difference,
    read_pairs,
    reflectors_table,
)
from fstsim.records import write_json, write_rows

(CLAIM,) = (claim for claim in CLAIMS if "reflector" in claim.text)


def test_the_arms_differ_in_the_reflector_alone() -> None:
    runs = REFLECTORS.runs("small")
    assert [run.config for run in runs[::2]] == [run.config for run in CONTINUAL.runs("small") if run.method == "fst"]
    for own, frozen in zip(runs[::2], runs[1::2], strict=True):
        assert frozen.config == replace(own.config, reflector=FROZEN)
        assert (own.kind, frozen.kind) == ("self", "frozen")


def _record(out: Path, gains: tuple[float, float, float]) -> None:
    """Two seeds; at once .5 and .6 in a stage of the own arm, and ``gains[stage]`` more of the frozen one; later 1 in both."""
    for run in REFLECTORS.runs("small"):
        for seed in (0, 1):
            rows = [{"step": 0, "samples": 0, "task": 0, "reward": 0.5 + 0.1 * seed, "drift": 0.0}]
            for stage in range(3):
                first = 0.5 + 0.1 * seed + (gains[stage] if run.kind == "frozen" else 0.0)
                for k, reward in enumerate((first, 1.0)):
                    step = 10 * stage + k + 1
                    rows.append({"step": step, "samples": 100 * step, "task": stage, "reward": reward, "drift": 0.25})
            rows[0]["reward"] = rows[1]["reward"]
            place = out / "runs" / run.name / f"seed-{seed}"
            write_rows(place / "metrics.jsonl", rows)
            write_json(place / "summary.json", {"last": rows[-1], "prompts": [""]})


def test_numbers_table_and_picture(tmp_path: Path) -> None:
    _record(tmp_path, (0.0, 0.1, -0.2))
    pairs = list(read_pairs(tmp_path))
    assert [lr for lr, *_ in pairs] == [run.lr for run in REFLECTORS.runs("small")[::2]]
    assert at_once(pairs[0][2], 2) == pytest.approx([0.3, 0.4])
    for stage, gain in ((1, 0.1), (2, -0.2)):
        found = pooled_difference(tmp_path, stage)
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((gain, gain, gain))
    table = reflectors_table(tmp_path)
    last = [str(cell) for cell in list(table.columns)[5].cells]
    assert last[1].startswith(f"{(0.35 + 1.0) / 2:.3g} ± ")
    assert str(list(table.columns[4].cells)[-1]).startswith("-0.2")
    assert draw_reflectors(tmp_path, tmp_path / "r.png") == tmp_path / "r.png"


@pytest.mark.parametrize(("gain", "outcome"), [(0.2, Outcome.HOLDS), (-0.2, Outcome.FAILS), (math.nan, Outcome.OPEN)])
def test_the_claim(gain: float, outcome: Outcome, tmp_path: Path) -> None:
    assert CLAIM.find(Evidence(tmp_path)).outcome is Outcome.UNTESTABLE
    _record(tmp_path / "experiments", (0.0, 0.0, 0.0 if math.isnan(gain) else gain))
    assert CLAIM.find(Evidence(tmp_path)).outcome is outcome
