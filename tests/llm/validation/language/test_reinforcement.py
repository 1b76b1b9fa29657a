"""RL on a chat model: the allocation law for a context that stands still, and what is read from rows of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, rel_entr

from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.claim import Records
from fstsim.llm.validation.distance import kl_saved
from fstsim.llm.validation.language.reinforcement import BARE_RUN, MATCHED, _saved, conflict, context
from fstsim.llm.validation.language.scale import FORM, OWN, SIZES

NO_BASE: Any = None


@pytest.mark.parametrize(("start", "told"), [(-3.6, -1.9), (-5.0, -4.9), (-1.0, 3.0)])
def test_a_context_saves_what_two_bernoullis_say(start: float, told: float) -> None:
    """The weights go from the base as far as the reward asks beyond what the context carries; KL as rel_entr computes it."""

    def kl(end: float) -> float:
        p, q = expit(end), expit(start)
        return float(rel_entr(p, q) + rel_entr(1 - p, 1 - q))

    target = float(np.log(MATCHED / (1 - MATCHED)))
    needed = max(start, start + target - told)
    prediction = _saved(start, told)
    assert prediction.value == pytest.approx(1 - kl(needed) / kl(target), abs=1e-12)
    assert prediction.low <= prediction.value <= prediction.high <= 1.0


def write_run(place: Path, rows: list[dict[str, Any]]) -> None:
    place.mkdir(parents=True)
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_kl_is_compared_where_both_runs_have_the_reward(tmp_path: Path) -> None:
    """Without a context the only KL is that without context; rewards are joined on a line of log-odds."""
    for name, end in (("alone", 2.0), ("told", 0.5)):
        rows: list[dict[str, Any]] = [
            {"step": 0, "samples": 0, "reward": 0.1},
            {"step": 2, "samples": 9, "reward": 0.9},
        ]
        for row, kl in zip(rows, (0.0, end), strict=True):
            row["kl_to_base"] = kl
            if name == "told":
                row["kl_to_base_no_context"] = kl
                row["kl_to_base"] = 7.0
        write_run(tmp_path / "runs" / name / "seed-0", rows)
    records = Records(tmp_path, 1, NO_BASE)
    assert kl_saved("alone", "told", 0.5)(records) == pytest.approx([1 - 0.25 / 1.0])


def test_conflict_asks_two_behaviours_on_the_same_prompts(tmp_path: Path) -> None:
    chapter = conflict("smoke", NO_BASE)
    (claim,), (run,) = chapter.claims, chapter.runs
    assert run.config.tasks == (FORM, OWN)
    steps = SIZES["smoke"].free_steps
    rows = [{"step": k + 1, "samples": 0, "dead_share": 1.0 if k % 2 else 0.5} for k in range(2 * steps)]
    rows[steps - 1] |= {"reward": 0.9, "reward_task1": 0.01}
    write_run(tmp_path / "runs" / BARE_RUN / "seed-0", rows)
    records = Records(tmp_path, 1, NO_BASE)
    assert claim.measured(records) == [0.5]
    assert claim.calibrated is not None
    told = claim.calibrated(records)
    groups, size = SIZES["smoke"].groups, SIZES["smoke"].rollouts
    assert told.value == pytest.approx((0.99**size + 0.01**size) ** groups, rel=1e-12)


@pytest.mark.pretrained
def test_the_context_carries_a_part_of_the_gain(smollm2: Policy) -> None:
    chapter = context("smoke", smollm2)
    bare, told = chapter.runs
    assert not bare.config.context
    assert conflict("smoke", smollm2).runs == (bare,), "a run of both chapters"
    assert "plural form" in told.config.context
    saved = next(c.prediction for c in chapter.claims if c.prediction.label.kind == "context-kl-saved")
    assert 0.2 < saved.value < 1.0
