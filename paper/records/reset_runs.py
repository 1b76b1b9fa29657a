"""The recorded runs of a leash that is tied anew (``python -m fstsim.paper.records.reset_runs``): what is predicted, then the runs.

The prediction is exact: with p0 the base's success probability on each test problem and strength tau, after k settled periods
the mean of sigma(logit p0 + k / tau) (statement `exp-family-unification-fixed-point`, a = 1). ``--predict`` writes it and makes no run.
Runs that are recorded are kept, and those that are missing are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.front.command import Directory
from fstsim.front.console import Progress, show
from fstsim.front.entry import run_module
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.rules import parse_rules
from fstsim.paper import DATA
from fstsim.records import read_json, write_json

TASK = "digits:negate"
TAU = 1.0
PERIOD, PERIODS = 60, 3
SEEDS = (1, 2, 3)
PROBLEMS = 64
RECORD = "resets.json"


def config_of(seed: int, *, resets: bool) -> TrainConfig:
    """A run of three periods, with resets between them or without."""
    learner = PolicyGradient(
        loss="reinforce",
        problems=24,
        advantage="leave-one-out",
        leash_loss=TAU,
        leash_loss_prefix=True,
        reset_every=PERIOD if resets else 0,
    )
    probe = ProbeConfig(every=PERIOD // 3, problems=PROBLEMS, exam=8, relearn=0, early=PERIOD)
    return TrainConfig("rl", (TASK,), steps=PERIOD * PERIODS, seed=seed, learner=learner, probe=probe)


def predicted() -> list[float]:
    """Mean success on the test problems at the base and after 1, 2, ... settled periods."""
    task = parse_rules(TASK)
    problems = list(task.problems("test"))[:PROBLEMS]
    logp = answer_logprobs(Policy.load(), [""], problems, [task.answer(p) for p in problems])[0]
    start = logp - np.log(-np.expm1(logp))  # log-odds
    return [float(expit(start + k / TAU).mean()) for k in range(PERIODS + 1)]


@dataclass(frozen=True)
class Config:
    """Write what is predicted of a leash that is tied anew, make the runs, and write what they did, to paper/data/resets."""

    out: Directory = Path("out/resets")
    """where the run directories are"""
    predict: bool = False
    """write the prediction only"""


def record(config: Config) -> int:
    """Do it; what stands in the record as predicted is never written again."""
    place = DATA / "resets" / RECORD
    held: dict[str, Any] = read_json(place) if place.exists() else {"predicted": predicted()}
    now = (TAU, PERIOD, config_of(0, resets=True))
    if "config" in held and (held["tau"], held["period"], TrainConfig.from_dict(held["config"])) != now:
        raise InputError(f"{place} holds runs of other settings; move it away to record anew")
    held |= {"tau": TAU, "period": PERIOD, "config": asdict(now[-1])}
    write_json(place, held)
    show(f"predicted rewards after 0, 1, ... periods: {', '.join(f'{value:.3f}' for value in held['predicted'])}")
    if config.predict:
        return 0
    runs: dict[str, list[dict[str, Any]]] = held.setdefault("runs", {"resets": [], "none": []})
    todo = missing(runs)
    progress = Progress("resets", len(todo), "runs")
    for done, (name, seed) in enumerate(todo):
        resets = name == "resets"
        rows = run_training(config_of(seed, resets=resets), config.out / name / f"seed-{seed}", write_model=False)
        columns = ("step", "reward", "old_mass", "kl_to_base", "kl_from_base", "drift")
        kept = [{key: row[key] for key in columns} for row in rows if "reward" in row]
        slack = [row["step"] for row in rows if row.get("leash_kl") == 0.0]
        runs[name].append({"seed": seed, "rows": kept, **({"slack": slack} if resets else {})})
        write_json(place, held)
        progress.at(done + 1, f"{name}, seed {seed}")
    progress.close()
    return 0


def missing(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, int]]:
    """Kind (with resets, without) and seed of the runs that are not there."""
    return [(name, seed) for name, own in runs.items() for seed in SEEDS if seed not in {run["seed"] for run in own}]


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.reset_runs", Config, record))
