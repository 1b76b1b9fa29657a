"""Validation: predictions written down before the runs, the runs, and the verdicts.

Every check has a prediction from the base (`predictions`), runs of `experiments`' kind, and a measurement read from their
rows. ``validation.json`` keeps all three; rows that are falsified stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.llm.experiments import Planned, Scale, run_all
from fstsim.llm.policy import Policy
from fstsim.llm.predictions import (
    BaseMasses,
    Judged,
    Prediction,
    escape_ratio,
    forgetting_curves,
    initial_clock,
    judge,
    measure_base,
    predict_dead_groups,
    predict_replay,
    predict_tilt,
)
from fstsim.llm.probes import ProbeConfig
from fstsim.llm.slow import PolicyGradient, SupervisedFineTuning
from fstsim.llm.train_run import TrainConfig
from fstsim.llm.types import Population
from fstsim.llm.world import RuleTask, parse_task
from fstsim.records import plain, read_rows, write_json

Rows = list[dict[str, Any]]
TASK = "digits:plus"
ESCAPES = ("digits:negate", "digits:plus", "digits:lead", "digits:triple", "digits:flip")
"""Single rules of one family, whose base success spans more than a decade."""
SHARES = {"smoke": (0.1, 0.3), "small": (0.02, 0.05, 0.1, 0.2, 0.5), "paper": (0.02, 0.05, 0.1, 0.2, 0.5)}
TEMPERATURES = {"smoke": (0.5,), "small": (1.0, 0.7, 0.5, 0.35, 0.25), "paper": (1.0, 0.7, 0.5, 0.35, 0.25)}
GROUP = 8
LEVEL = 0.5


@dataclass(frozen=True)
class Check:
    """Predictions about the runs ``planned``, and how each number is read from the rows of one seed."""

    predictions: tuple[Prediction, ...]
    planned: Planned
    measure: tuple[Callable[[Rows], float], ...]


def _settled(column: str) -> Callable[[Rows], float]:
    """Mean over the last quarter of the measurements."""

    def read(rows: Rows) -> float:
        values = [row[column] for row in rows if row.get(column) is not None]
        return float(np.mean(values[-max(1, len(values) // 4) :]))

    return read


def replay_checks(scale: Scale, base: BaseMasses, problems: int) -> list[Check]:
    """P2: old mass after supervised fine-tuning with replay."""
    steps = {"smoke": 80, "small": 240, "paper": 400}[scale]
    checks = []
    for share in SHARES[scale]:
        config = TrainConfig(
            method="sft",
            tasks=(TASK,),
            steps=steps,
            demonstrations=SupervisedFineTuning(problems=64, replay=share),
            probe=ProbeConfig(every=10, problems=problems, exam=16),
        )
        checks.append(
            Check((predict_replay(base, share),), Planned(f"replay-{share:g}", config), (_settled("old_mass"),))
        )
    return checks


def tilt_checks(scale: Scale, base: BaseMasses, problems: int) -> list[Check]:
    """Where RL with a KL leash in the reward settles: the exponential tilt of the base, per prompt."""
    steps = {"smoke": 80, "small": 240, "paper": 600}[scale]
    checks = []
    for temperature in TEMPERATURES[scale]:
        slow = PolicyGradient(
            loss="reinforce", problems=32 if scale == "smoke" else 48, advantage="centred", leash_reward=temperature
        )
        config = TrainConfig(
            tasks=(TASK,), steps=steps, slow=slow, probe=ProbeConfig(every=10, problems=problems, exam=16)
        )
        planned = Planned(f"tilt-{temperature:g}", config)
        checks.append(Check(predict_tilt(base, temperature), planned, (_settled("reward"), _settled("old_mass"))))
    return checks


def forgetting_check(scale: Scale, problems: int) -> Check:
    """P1: the old mass under SFT on new data alone; the runs that both clocks are compared on."""
    config = TrainConfig(
        method="sft",
        tasks=(TASK,),
        steps={"smoke": 40, "small": 80, "paper": 160}[scale],
        lr=1e-4,
        demonstrations=SupervisedFineTuning(problems=64),
        probe=ProbeConfig(every=2, problems=problems, exam=16),
    )
    return Check((), Planned("sft-new-only", config), ())


def judge_forgetting(base: BaseMasses, rows_of_seeds: Sequence[Rows]) -> list[Judged]:
    """Log of the old mass at three times the calibration step, for both laws, each with its own clock.

    The clock is fixed by the first measurement at which the mass is below 0.8 of its start: the one calibrated number.
    """
    judged = []
    old = base.old[~base.same]
    for law, slug in (("logit", "mass-forgetting"), ("fisher", "mass-forgetting-geometry")):
        predicted, measured = [], []
        for rows in rows_of_seeds:
            curve = [(row["step"], row["old_mass"]) for row in rows if row.get("old_mass") is not None]
            start = curve[0][1]
            at = next((k for k, (_, mass) in enumerate(curve) if mass < 0.8 * start), None)
            if at is None:
                continue
            step, mass = curve[at]
            later = next(((s, m) for s, m in curve if s >= 3 * step), None)
            if later is None:
                continue
            clock = initial_clock(old, mass, float(step), law)
            predicted.append(float(np.log(forgetting_curves(old, clock, np.array([float(later[0])]))[law][0])))
            measured.append(float(np.log(max(later[1], 1e-30))))
        if not measured:
            continue
        value = float(np.mean(predicted))
        prediction = Prediction(
            f"sft-curve-{law}", slug, f"log old mass at three times the calibration step, {law} clock",
            value, value - 0.3, value + 0.3, 1.5,
        )  # fmt: skip
        judged.append(judge(prediction, measured))
    return judged


def escape_checks(scale: Scale, policy: Policy, problems: int) -> list[tuple[float, Planned]]:
    """P10: runs of RL from base success over more than a decade; ``(p0, run)``."""
    found = []
    for name in ESCAPES if scale != "smoke" else ESCAPES[:2]:
        p0 = float(measure_base(policy, parse_task(name), problems).new.mean())
        config = TrainConfig(
            tasks=(name,),
            steps={"smoke": 40, "small": 160, "paper": 400}[scale],
            lr=1e-4,
            slow=PolicyGradient(problems=32 if scale == "smoke" else 48),
            probe=ProbeConfig(every=2, problems=problems, exam=16),
        )
        found.append((p0, Planned(f"escape-{name.split(':')[1]}", config)))
    return found


def escape_prediction(p0: float, easiest: float, name: str) -> Prediction:
    """Log of the escape time over that of the easiest task."""
    value = float(np.log(escape_ratio(p0, easiest, LEVEL, GROUP)))
    quantity = f"log of steps to reward {LEVEL} over those of the easiest task, {name}, p0 {p0:.3g}"
    return Prediction(name, "group-normalised-escape", quantity, value, value - 0.25, value + 0.25, 1.5)


def steps_to(level: float) -> Callable[[Rows], float]:
    """Slow steps until the held-out reward reaches ``level``; one more than the run has if it never does."""

    def read(rows: Rows) -> float:
        curve = [(row["step"], row["reward"]) for row in rows if row.get("reward") is not None]
        return float(next((step for step, reward in curve if reward >= level), curve[-1][0] + 1))

    return read


def measure_dead_groups(policy: Policy, task: RuleTask, problems: int, seeds: int) -> list[float]:
    """Share of groups without signal among real rollouts of the base, a number a seed."""
    gradient = PolicyGradient(rollouts=GROUP)
    shares = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        held_out = list(task.problems("test"))[:problems]
        rollouts, groups = gradient.roll_out(policy, Population(), held_out, rng)
        texts = policy.decode(rollouts)
        rewards = np.array([task.score(held_out[g], x).reward for g, x in zip(groups.tolist(), texts, strict=True)])
        each = rewards.reshape(-1, GROUP)
        shares.append(float((each.min(1) == each.max(1)).mean()))
    return shares


@dataclass(frozen=True)
class Event:
    """Something is done: ``what``, of ``runs`` in all; the last one has the verdicts."""

    what: str
    runs: int
    judged: tuple[Judged, ...] = ()


def validate(scale: Scale, model: str, seeds: int, out: Path, jobs: int = -1) -> Iterator[Event]:
    """Predict, write, run, judge: one event when the predictions are written, one a run, and last the verdicts."""
    policy = Policy.load(model)
    policy.model.eval()
    problems = {"smoke": 64, "small": 128, "paper": 256}[scale]
    task = parse_task(TASK)
    base = measure_base(policy, task, problems)
    checks = [*replay_checks(scale, base, problems), *tilt_checks(scale, base, problems)]
    curve = forgetting_check(scale, problems)
    escapes = escape_checks(scale, policy, problems)
    easiest = max(p0 for p0, _ in escapes)
    escape_predictions = [escape_prediction(p0, easiest, planned.name) for p0, planned in escapes if p0 < easiest]
    dead = predict_dead_groups(base, GROUP)
    written = [dead, *(p for check in checks for p in check.predictions), *escape_predictions]
    place = out / "predictions.json"
    if not place.exists():  # before the first run; never again
        write_json(place, plain({"model": model, "scale": scale, "predictions": [p.to_dict() for p in written]}))
    everything = [*(c.planned for c in checks), curve.planned, *(planned for _, planned in escapes)]
    everything = [replace(p, config=replace(p.config, model=model)) for p in everything]
    runs = len(everything) * seeds
    yield Event("predictions written", runs)
    for what, failure in run_all(everything, seeds, out, jobs):
        if failure:
            raise RuntimeError(f"{what}: {failure}")
        yield Event(what, runs)

    def rows(planned: Planned) -> list[Rows]:
        return [read_rows(out / "runs" / planned.name / f"seed-{seed}" / "metrics.jsonl") for seed in range(seeds)]

    judged = [judge(dead, measure_dead_groups(policy, task, problems, seeds))]
    for check in checks:
        for prediction, read in zip(check.predictions, check.measure, strict=True):
            judged.append(judge(prediction, [read(r) for r in rows(check.planned)]))
    judged += judge_forgetting(base, rows(curve.planned))
    fastest = next(planned for p0, planned in escapes if p0 == easiest)
    reference = float(np.mean(np.log([steps_to(LEVEL)(r) for r in rows(fastest)])))
    for prediction, (_, planned) in zip(escape_predictions, [e for e in escapes if e[0] < easiest], strict=True):
        judged.append(judge(prediction, [float(np.log(steps_to(LEVEL)(r)) - reference) for r in rows(planned)]))
    write_json(
        out / "validation.json",
        plain([{**j.prediction.to_dict(), "measured": j.measured, "measured_low": j.low, "measured_high": j.high,
                "seeds": j.seeds, "verdict": j.verdict} for j in judged]),
    )  # fmt: skip
    yield Event("judged", runs, tuple(judged))
