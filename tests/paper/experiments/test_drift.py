"""Relearning against drift: cuts and lines on made-up points, the table on the records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fstsim.errors import InputError
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.experiments.drift import DRIFTS, TASKS, Config, best_cut, line_r2, points, table_and_picture


def test_a_threshold_and_an_exponential_are_told_apart(rng: np.random.Generator) -> None:
    x = rng.uniform(size=200)
    noise = np.exp(0.1 * rng.normal(size=200))
    steep, smooth = np.where(x < 0.4, 2.0, 20.0) * noise, np.exp(3.0 * x) * noise
    cut, explained = best_cut(x, steep)
    assert cut == pytest.approx(0.4, abs=0.02)
    assert explained > 0.95 > line_r2(x, steep)
    assert line_r2(x, smooth) > 0.95 > best_cut(x, smooth)[1]
    every = [
        (k, 1.0 - sum(((part - part.mean()) ** 2).sum() for part in np.split(np.log(smooth)[np.argsort(x)], [k])) / 200 / np.log(smooth).var())
        for k in range(5, 196)
    ]  # fmt: skip
    assert best_cut(x, smooth)[1] == pytest.approx(max(r2 for _, r2 in every))
    assert np.isnan(best_cut(x[:8], steep[:8])[0])
    assert np.isnan(line_r2(np.ones(9), steep[:9]))


def test_on_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = Evidence()
    held = points(evidence.ends, TASKS[0], DRIFTS["old mass lost"])
    assert len(held.steps) > 100
    assert held.drift.max() <= 1.0
    assert table_and_picture(Config(out=tmp_path / "drift.png")) == 0
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "…" not in said
    with pytest.raises(InputError, match="no finished runs"):
        table_and_picture(Config(data=tmp_path, out=tmp_path / "none.png"))
