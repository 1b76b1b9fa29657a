"""Claims with runs of their own, and those of SDFT: from runs written by hand, the outcomes that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fstsim.paper.claims import channels, rivals, self_distillation, skills
from fstsim.paper.claims.claim import Claim, Finding, Outcome
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.recorded import CLAIM_RUNS
from fstsim.paper.records.claim_runs import CHANNELS, EDITS, ORDERS, SETS, SWITCH, TWO_RULES, edits_name
from fstsim.records import write_json, write_rows

SPREAD = (-0.01, 0.0, 0.01)
"""Of three seeds about what is asked: an interval of half a width of .025."""


def put(data: Path, name: str, where: str = CLAIM_RUNS, **columns: float | Sequence[float]) -> None:
    """Three seeds that end at a number, or have these numbers at their measurements, each with its spread."""
    table = {key: value if isinstance(value, Sequence) else (0.0, value) for key, value in columns.items()}
    count = max(map(len, table.values()))
    for seed, off in enumerate(SPREAD):
        place = data / where / "runs" / name / f"seed-{seed}"
        rows = [
            {"step": k, "samples": 100 * k, "reward": 0.0} | {key: values[k] + off for key, values in table.items()}
            for k in range(count)
        ]
        write_rows(place / "metrics.jsonl", rows)
        write_json(place / "summary.json", {"last": rows[-1]})


def finding(claims: Sequence[Claim], words: str, data: Path) -> Finding:
    (claim,) = (claim for claim in claims if words in claim.text)
    return claim.find(Evidence(data))


@pytest.mark.parametrize("claims", [rivals.CLAIMS, skills.CLAIMS, channels.CLAIMS])
def test_without_its_runs_a_claim_is_not_tested(claims: Sequence[Claim], tmp_path: Path) -> None:
    for claim in claims:
        found = claim.find(Evidence(tmp_path))
        assert (found.measured, found.outcome) == ("–", Outcome.UNTESTABLE)


@pytest.mark.parametrize(
    ("bare", "kl", "rescued", "costs"),
    [
        (0.9, 12.0, Outcome.HOLDS, Outcome.HOLDS),
        (0.02, 12.0, Outcome.OPEN, Outcome.HOLDS),
        (0.9, 0.2, Outcome.HOLDS, Outcome.FAILS),
    ],
)
def test_dead_groups(bare: float, kl: float, rescued: Outcome, costs: Outcome, tmp_path: Path) -> None:
    """P2O is read without context, RL as it is, and fast-slow training in its own context."""
    put(tmp_path, "dead-groups-rl", reward=(0.0, 0.0, 0.01))
    p2o = {"reward": (0.0, 0.0, 1.0), "reward_no_context": (0.0, 0.0, bare), "kl_to_base_no_context": (0.0, 0.0, kl)}
    fst = {"reward": (0.0, 0.0, 1.0), "reward_no_context": (0.0, 0.0, 0.0), "kl_to_base_no_context": (0.0, 0.0, 0.4)}
    put(tmp_path, "dead-groups-p2o", **p2o, drift=(0.0, 0.0, 0.3 if kl > 0.3 else 0.0))
    put(tmp_path, "dead-groups-fst", **fst, drift=(0.0, 0.0, 0.1))
    assert finding(rivals.CLAIMS, "gain over RL", tmp_path).outcome is rescued
    assert finding(rivals.CLAIMS, "P2O writes", tmp_path).outcome is costs


@pytest.mark.parametrize(
    ("one", "four", "many", "stalls", "tied"),
    [
        (0.1, 0.95, 0.95, Outcome.HOLDS, Outcome.OPEN),  # equal, but intervals are wider than the tie
        (0.1, 0.95, 0.5, Outcome.HOLDS, Outcome.HOLDS),
        (0.9, 0.95, 0.99, Outcome.PARTLY, Outcome.OPEN),
        (0.9, 0.3, 0.9, Outcome.FAILS, Outcome.FAILS),
    ],
)
def test_edits(one: float, four: float, many: float, stalls: Outcome, tied: Outcome, tmp_path: Path) -> None:
    for task in (TWO_RULES, SWITCH):
        put(tmp_path, edits_name(f"{task}-population"), reward=many)
        put(tmp_path, edits_name(f"{task}-{EDITS[-1]}"), reward=four)
    put(tmp_path, edits_name(f"{TWO_RULES}-{EDITS[0]}"), reward=one)
    assert finding(rivals.CLAIMS, "stalls", tmp_path).outcome is stalls
    assert finding(rivals.CLAIMS, "One document", tmp_path).outcome is tied


@pytest.mark.parametrize(
    ("random", "outcome"),
    [(4.0, Outcome.HOLDS), (5.0, Outcome.OPEN), (8.0, Outcome.FAILS), (20.0, Outcome.FAILS)],
)
def test_an_order_of_practice_is_held_to_half(random: float, outcome: Outcome, tmp_path: Path) -> None:
    """Ten skills by novelty: half of them at random is the limit."""
    for order in ORDERS:
        put(tmp_path, f"curriculum-{order}", skills=random if order == "random" else 10.0, skills_false=0.0)
    assert finding(skills.CLAIMS, "at random", tmp_path).outcome is outcome


def test_false_skills_are_not_counted(tmp_path: Path) -> None:
    for order in ORDERS:
        free = order.endswith("no-gate")
        put(tmp_path, f"curriculum-{order}", skills=20.0 if free else 15.0, skills_false=0.5 if free else 0.0)
    for family in ("strings", "digits"):
        for arm in ("full", "no_gate"):
            put(tmp_path, f"skills-{family}-{arm}", "systems", skills=2.0, skills_false=0.5, reward=1.0)
    found = finding(skills.CLAIMS, "self-verification", tmp_path)
    assert found.outcome is Outcome.HOLDS
    assert found.measured.startswith("right skills after 40 steps of practice by novelty: 15")


@pytest.mark.parametrize(
    ("cases", "soft", "outcome"),
    [(2.0, 2.0, Outcome.HOLDS), (60.0, 2.0, Outcome.PARTLY), (60.0, 60.0, Outcome.PARTLY)],
)
def test_a_channel_is_slower_beyond_half_as_many_steps_again(
    cases: float, soft: float, outcome: Outcome, tmp_path: Path
) -> None:
    for name in CHANNELS:
        after = {"cases": cases, "soft": soft}.get(name, 2.0)
        own = {} if name == "sft" else {"relearn_state": (2.0, after)}
        put(tmp_path, f"channel-{name}", reward=(0.0, 1.0), relearn=(7.0, 20.0 if name == "sft" else 7.0), **own)
    found = finding(channels.CLAIMS, "own channel", tmp_path)
    assert found.outcome is outcome
    assert ("cases" in found.verdict) == (cases > 2.0)
    assert finding(channels.CLAIMS, "bare weights", tmp_path).outcome is Outcome.HOLDS


def test_dense_can_forget_more_if_one_training_says_so_and_none_says_less(tmp_path: Path) -> None:
    for family in ("digits", "strings"):
        for lr in ("0.0001", "0.0003"):
            alone = (family, lr) == ("digits", "0.0001")
            for method, lost in {"sdft": 0.3 if alone else 0.1, "rl": 0.1, "sft": 0.3}.items():
                put(tmp_path, f"forgetting-{family}-{method}-lr{lr}", "experiments", drift=lost)
    assert finding(self_distillation.CLAIMS, "can forget more", tmp_path).outcome is Outcome.HOLDS
    assert finding(self_distillation.CLAIMS, "forgets less than SFT", tmp_path).outcome is Outcome.OPEN


def test_runs_are_told_apart_by_name_and_by_settings() -> None:
    planned = [run for runs in SETS.values() for run in runs]
    assert len({run.name for run in planned}) == len(planned)
    assert len({run.config for run in planned}) == len(planned)
