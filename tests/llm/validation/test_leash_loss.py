"""Where leashes as a loss are predicted to rest, against flows of the expected updates; and what the chapter runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.kinds import KINDS
from fstsim.llm.validation.leash_loss import GROUP, Leashed, asked, at_rest, leash_losses
from fstsim.llm.validation.prediction import measure_base
from fstsim.theory import ALL_STATEMENTS, group_normalised_drift


def rest_by_flow(run: Leashed, masses: np.ndarray) -> float:
    """Success where the expected update of the logits of two right tokens in a row vanishes: advantages and leash as trained."""
    x0 = logit(masses)

    def slope(_: float, x: np.ndarray) -> np.ndarray:
        q = expit(x)
        success = q.prod()
        kl = q * (np.log(q) - np.log(masses)) + (1.0 - q) * (np.log1p(-q) - np.log1p(-masses))
        reward = success * (1.0 - q)  # d success / dx
        visits = np.array([1.0, q[0]])
        leash = visits * q * (1.0 - q) * (x - x0)
        if run.place != "loss":
            leash[0] += q[0] * (1.0 - q[0]) * kl[1]  # the prefix is visited more often
        if run.advantage == "normalised":
            reward = reward / (success * (1.0 - success)) * float(group_normalised_drift(success, GROUP))
            return reward - run.tau * leash
        shrink = (GROUP - 1.0) / GROUP
        return shrink * reward - run.tau * leash * (shrink if run.place == "reward" else 1.0)

    found = solve_ivp(slope, (0.0, 4e3), x0, method="LSODA", rtol=1e-9, atol=1e-11)
    return float(expit(found.y[:, -1]).prod())


@pytest.mark.parametrize(
    "run",
    [
        Leashed("digits:plus", "loss", "centred", 0.35),
        Leashed("digits:plus", "loss", "normalised", 1.0),
        Leashed("digits:plus", "loss", "normalised", 0.6),
        Leashed("digits:plus", "prefix", "centred", 0.35),
        Leashed("digits:plus", "prefix", "normalised", 0.8),
        Leashed("digits:plus", "reward", "centred", 0.35),
    ],
    ids=lambda run: f"{run.place}-{run.advantage}-{run.tau}",
)
def test_rests_are_those_of_the_expected_update(run: Leashed) -> None:
    masses = np.array([0.3, 0.45])
    right, _ = at_rest(run, np.array([[*masses, 1.0]]))
    assert float(right[0]) == pytest.approx(rest_by_flow(run, masses), rel=1e-6)


def test_the_chapter_asks_five_strengths_of_two_advantages_on_two_tasks() -> None:
    runs = asked("smoke")
    assert len({run.name for run in runs}) == len(runs)
    for task in ("digits:plus", "strings:next"):
        for advantage in ("centred", "normalised"):
            here = [r for r in runs if (r.task, r.place, r.advantage) == (task, "loss", advantage)]
            assert len({r.tau for r in here}) == 5
        assert {r.place for r in runs if r.task == task} == {"loss", "prefix", "reward"}


def test_predictions_are_of_runs_statements_and_kinds_that_exist() -> None:
    base = Policy.load("base")
    base.model.eval()
    chapter = leash_losses("smoke", base)
    names = {run.name for run in chapter.runs}
    slugs = {statement.slug for statement in ALL_STATEMENTS}
    assert len({claim.prediction.name for claim in chapter.claims}) == len(chapter.claims)
    for claim in chapter.claims:
        assert set(claim.needs) <= names
        assert claim.prediction.statement in slugs
        assert claim.prediction.label.kind in KINDS
    for run in chapter.runs:
        assert run.config.learner.leash_loss > 0.0 or run.config.learner.leash_reward > 0.0  # type: ignore[union-attr]
    # the base's own mass is where no leash of any kind rests
    start = float(measure_base(base, parse_rules("digits:plus"), 64).new.mean())
    assert all(c.prediction.value > start + 0.04 for c in chapter.claims if "digits:plus" in c.prediction.quantity)
