"""Claims of core parameter isolation (2508.21741) and of references that are tied anew (ProRL, 2505.24864)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fstsim.number_text import short_number
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Array, Evidence
from fstsim.paper.experiments.numbers import estimate
from fstsim.records import read_json

_SETS = ("families", "conflict")
_SAVED = 1.0 / 3.0
"""Share of the first task's loss that freezing has to save, as was written down before the runs."""


def _runs(e: Evidence, name: str, variant: str) -> dict[int, Mapping[str, Any]]:
    """The recorded runs of a variant by seed."""
    path = e.data / "isolation" / f"{name}.json"
    found = read_json(path)["runs"] if path.exists() else {}
    return {run["seed"]: run for run in found.get(variant, ())}


def _pairs(e: Evidence, name: str, one: str, other: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    first, second = _runs(e, name, one), _runs(e, name, other)
    return [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]


def _ends(run: Mapping[str, Any]) -> Array:
    return np.array(run["blocks"][-1]["rewards"])


def _lost(run: Mapping[str, Any]) -> float:
    """What the first task loses from the end of its own stage to the end of the run."""
    return float(run["blocks"][1]["rewards"][0] - run["blocks"][-1]["rewards"][0])


def _freezing(e: Evidence) -> Finding:
    parts: list[str] = []
    holds: list[bool | None] = []
    for name in _SETS:
        pairs = _pairs(e, name, "freeze", "stages")
        if not pairs:
            continue
        saved = estimate([1.0 - _lost(frozen) / _lost(plain) for frozen, plain in pairs])
        cores = estimate([float((_ends(a) - _ends(b)).mean()) for a, b in _pairs(e, name, "full", "random")])
        parts.append(
            f"{name}: share of the first task's loss that is saved {saved} (n = {saved.count}); mean reward of the whole method less that with random cores {cores} (n = {cores.count})"
        )
        holds.append(above(saved.low, saved.high, _SAVED))
    if not parts:
        return Finding("–", Outcome.UNTESTABLE, "no run of core isolation is recorded")
    return Finding("; ".join(parts), all_of(holds))


def _against_joint(e: Evidence) -> Finding:
    parts: list[str] = []
    by: dict[str, list[bool | None]] = {"stages": [], "joint": []}
    for name in _SETS:
        for other, held in by.items():
            pairs = _pairs(e, name, "full", other)
            if not pairs:
                continue
            gain = estimate([float(_ends(a).min() - _ends(b).min()) for a, b in pairs])
            parts.append(f"{name}, against {other} {gain} (n = {gain.count})")
            held.append(above(gain.low, gain.high, 0.0))
    if not parts:
        return Finding("–", Outcome.UNTESTABLE, "no run of core isolation is recorded")
    said = f"smallest reward of the three tasks, whole method less the other: {'; '.join(parts)}"
    outcome = all_of([*by["stages"], *by["joint"]])
    if all_of(by["stages"]) is Outcome.HOLDS and not any(by["joint"]):
        return Finding(
            said, Outcome.PARTLY, "it is compared with tuning in stages: joint tuning on the same data is no worse"
        )
    return Finding(said, outcome)


def _resets(e: Evidence) -> Finding:
    path = e.data / "resets" / "resets.json"
    held = read_json(path) if path.exists() else {}
    runs = held.get("runs", {}).get("resets", ())
    if not runs:
        return Finding("–", Outcome.UNTESTABLE, "no run with resets is recorded")
    periods = range(1, len(held["predicted"]))
    at = {name: [_at(runs, k * held["period"], name) for k in periods] for name in ("reward", "kl_to_base")}
    rewards, kls = ([estimate(values) for values in at[name]] for name in ("reward", "kl_to_base"))
    said = f"reward after each period {', '.join(map(str, rewards))}; KL(now ‖ base) {', '.join(map(str, kls))} nats; predicted rewards {', '.join(short_number(x) for x in held['predicted'][1:])}"
    grows = [above(b.low - a.high, b.high - a.low, 0.0) for a, b in itertools.pairwise(rewards)]
    if without := held["runs"].get("none"):
        last = estimate(_at(without, periods[-1] * held["period"], "reward"))
        said += f"; without resets at the end {last}"
        grows.append(above(rewards[-1].low - last.high, rewards[-1].high - last.low, 0.0))
    outcome = all_of(grows)
    why = "the distance from the base may grow with it: a leash tied anew delays forgetting and does not bound it"
    return Finding(said, Outcome.PARTLY if outcome is Outcome.HOLDS else outcome, why)


def _at(runs: Sequence[Mapping[str, Any]], step: int, column: str) -> list[float]:
    return [next(row[column] for row in run["rows"] if row["step"] == step) for run in runs]


CLAIMS = (
    Claim(
        "Freezing the core parameters of earlier tasks protects them",
        "2508.21741",
        "a task of each family, and two that conflict, tuned in turn with and without the 1 % of weights frozen that moved furthest; the whole method with random cores",
        "a third of the loss is not saved, and random cores do as well: 1 % of the weights holds 1 % of the drive ([isolation-clock](theory/21-frozen-weights.md#isolation-clock))",
        _freezing,
    ),
    Claim(
        "Isolated and merged cores are better than joint tuning and than tuning in stages",
        "2508.21741",
        "the same sets, as many demonstrations in every arm",
        "what retains is the sample of all tasks",
        _against_joint,
    ),
    Claim(
        "With its reference reset from time to time RL goes on learning under a leash",
        "ProRL 2505.24864",
        "digits:negate under an exact leash of strength 1, tied anew after every 60 steps",
        "log-odds + 1/τ in every period ([exp-family-unification-fixed-point](theory/11-methods-as-maps.md#exp-family-unification-fixed-point))",
        _resets,
    ),
)
