"""Claims about conflicting tasks in turn and about SDFT's rate, on rows whose dynamics are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from fstsim.llm.experiments.plan import Scale
from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.claim import Chapter, Claim, Records
from fstsim.llm.validation.methods import OWN_RATES, RATE_STEPS, RATES, sdft_rates
from fstsim.llm.validation.prediction import judge
from fstsim.llm.validation.sequences import BUDGET, PAIRS, STAGES, alternating, stalls
from fstsim.paper import DATA
from fstsim.records import read_json
from fstsim.theory import sdft_retention_time_bounds


@pytest.fixture(scope="module")
def base() -> Policy:
    policy = Policy.load("base")
    policy.model.eval()
    return policy


def put(out: Path, name: str, rows: list[dict[str, Any]], seeds: int = 3) -> None:
    for seed in range(seeds):
        place = out / "runs" / name / f"seed-{seed}"
        place.mkdir(parents=True)
        (place / "metrics.jsonl").write_text("".join(json.dumps({"samples": 0, **row}) + "\n" for row in rows))
        (place / "summary.json").write_text("{}")


def at_constant_speed(first: float, second: float, speed: float) -> list[dict[str, Any]]:
    """Two behaviours on one logit x, driven by ``speed`` log-odds a step, the other way after each stage."""
    rows, x = [], logit(first)
    offset = logit(second) + logit(
        first
    )  # log-odds of the second are those of the first with the sign changed, shifted
    for step in range(STAGES * BUDGET + 1):
        stage = max(step - 1, 0) // BUDGET
        if step:
            x += speed if stage % 2 == 0 else -speed
        own, other = (x, offset - x) if stage % 2 == 0 else (offset - x, x)
        rows.append({"step": step, "reward": float(expit(own)), f"reward_task{1 - stage % 2}": float(expit(other))})
    return rows


def judged(claims: tuple[Claim, ...], name: str, records: Records) -> Any:
    claim = next(c for c in claims if c.prediction.name == name)
    prediction = claim.calibrated(records) if claim.calibrated else claim.prediction
    return judge(prediction, claim.measured(records))


def test_both_clocks_agree_on_one_logit_at_constant_speed(base: Policy, tmp_path: Path) -> None:
    """There period two and the constant speed are one law, and every claim about it is confirmed to rounding."""
    chapter = alternating("small", base)
    for first, second in PAIRS:
        name = f"alternate-{first.split(':')[1]}-rl"
        start = next(c.prediction.value for c in chapter.claims if c.prediction.name == f"{name}-2")
        put(tmp_path, name, at_constant_speed(0.1, start, 0.17))
        records = Records(tmp_path, 3, base)
        for tail in ("2", "3", "4", "2-adam"):
            row = judged(chapter.claims, f"{name}-{tail}", records)
            assert row.verdict == "confirmed", (second, tail)
            assert row.measured == pytest.approx(row.prediction.value, rel=1e-9), (second, tail)


def test_weights_that_learn_what_a_context_could_are_found(base: Policy, tmp_path: Path) -> None:
    chapter = alternating("small", base)
    rows = {"rl": {"kl_to_base": 4.0}, "fst": {"kl_to_base": 0.1, "kl_to_base_no_context": 1.0}}
    for method, row in rows.items():
        put(tmp_path, f"alternate-plus-{method}", [{"step": 3 * BUDGET, "reward": 1.0, **row}])
    row = judged(chapter.claims, "alternate-plus-kl-saved", Records(tmp_path, 3, base))
    assert (row.measured, row.verdict) == (0.75, "falsified")
    assert alternating("smoke", base).runs == ()


def test_a_stage_without_signal_is_predicted_from_what_is_left(base: Policy, tmp_path: Path) -> None:
    """Groups drawn from a policy that does not move: the share of steps without signal is the one predicted."""
    rng, left, budget = np.random.default_rng(0), 0.002, 32
    chapter = stalls("small", base)
    for seed in range(3):
        successes = rng.binomial(8, left, (4000, 48))
        silent = ((successes == 0) | (successes == 8)).mean(1)
        place = tmp_path / "runs" / "stall-plus-32" / f"seed-{seed}"
        place.mkdir(parents=True)
        rows = [{"step": budget, "reward": 1.0, "reward_task1": left, "dead_share": 0.3}]
        rows += [{"step": budget + 1 + k, "dead_share": float(x)} for k, x in enumerate(silent)]
        (place / "metrics.jsonl").write_text("".join(json.dumps({"samples": 0, **row}) + "\n" for row in rows))
    row = judged(chapter.claims, "stall-plus-32", Records(tmp_path, 3, base))
    assert 0.3 < row.measured < 0.6
    assert row.measured == pytest.approx(row.prediction.value, abs=4.0 * np.sqrt(0.25 / 12_000))


def test_the_bound_of_sdft_is_the_theorem_s(base: Policy) -> None:
    """The statement's lower bound on the time, solved for the mass, lies above ours: F(s0) >= F(l) is given away."""
    names = [*(f"sdft-rate-{r:g}" for r in RATES["small"]), *(f"sdft-rate-own-{r:g}" for r in OWN_RATES["small"])]
    for claim, name in zip(sdft_rates("small", base).claims, names, strict=True):
        assert claim.prediction.low == claim.prediction.value
        assert claim.prediction.high == 0.0
        assert claim.prediction.name == name
    s0, tilt = np.array([-0.5, 1.0]), np.array([6.0, 3.0])
    low = s0 - tilt * (1.0 + 0.03 * RATE_STEPS)
    earliest, _ = sdft_retention_time_bounds(s0, tilt, np.full(2, 0.03), expit(low))
    assert (np.asarray(earliest) >= RATE_STEPS).all()


def test_old_mass_below_the_bound_falsifies(base: Policy, tmp_path: Path) -> None:
    chapter = sdft_rates("small", base)
    name = chapter.claims[0].prediction.name
    put(tmp_path, name, [{"step": 0, "old_mass": 0.3}, {"step": RATE_STEPS, "old_mass": 1e-9}])
    assert judged(chapter.claims, name, Records(tmp_path, 3, base)).verdict == "falsified"


@pytest.mark.parametrize("chapter", [alternating, stalls])
def test_recorded_runs_are_those_that_the_chapter_plans(
    chapter: Callable[[Scale, Policy], Chapter], base: Policy
) -> None:
    """A verdict on record is of the runs that the code describes: as many steps, on the same tasks, at the same rate."""
    recorded = DATA / "validation"
    planned = chapter(read_json(recorded / "predictions.json")["scale"], base).runs
    assert planned
    for run in planned:
        held = read_json(recorded / "runs" / run.name / "seed-0" / "config.json")
        now = run.config
        assert (held["steps"], tuple(held["tasks"]), held["lr"]) == (now.steps, now.tasks, now.lr), run.name
