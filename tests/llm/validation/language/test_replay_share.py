"""Replay on a chat model: what is read from rows, and what is planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fstsim.llm.validation.claim import Records
from fstsim.llm.validation.language.replay_share import replay, share_at_end
from fstsim.llm.validation.language.scale import SIZES, moved, old_among_both

NO_BASE: Any = None


def test_shares_and_changes_are_read_from_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": 0, "samples": 0, "reward": 0.1, "old_mass": 0.3},
        {"step": 1, "samples": 0, "reward": None},
        {"step": 2, "samples": 0, "reward": 0.2, "old_mass": 0.2},
        {"step": 4, "samples": 0, "reward": 0.3, "old_mass": 0.1},
    ]
    assert old_among_both(rows) == pytest.approx([0.75, 0.5, 0.25])
    place = tmp_path / "runs" / "a" / "seed-0"
    place.mkdir(parents=True)
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = Records(tmp_path, 1, NO_BASE)
    assert share_at_end("a")(records) == pytest.approx([0.375])
    assert moved("a", old_among_both)(records) == pytest.approx([-0.25])


def test_replay_is_predicted_and_planned_without_a_model() -> None:
    chapter = replay("smoke", NO_BASE)
    shares = SIZES["smoke"].shares
    assert len(shares) >= 3
    values = [c.prediction.value for c in chapter.claims if c.prediction.label.kind == "replay-share"]
    assert values == list(shares)
    for share, run in zip(shares, chapter.runs, strict=True):
        assert run.config.learner.replay_share == share  # type: ignore[union-attr]
        assert run.config.clip > 1e6
        assert not run.write_model
        measured = [step for step in range(run.config.steps + 1) if step == 0 or run.config.probe.due(step)]
        assert measured == [0, 1, round(0.75 * run.config.steps)], "and the end of the run, which always is"
