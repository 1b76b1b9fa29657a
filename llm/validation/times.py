"""Claims about how long it takes: forgetting curves, escapes from near zero, relearning (predictions P1, P10, P11).

The theory names the geometry in which the log-odds move; the models are moved by AdamW. Every time is therefore predicted
twice, by the theory's own clock and by that of a normalised optimizer, and both verdicts stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import logit

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.claim import Chapter, Claim, Records, Rows, curve, steps_to
from fstsim.llm.validation.equilibria import PROBLEMS, TASK
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import (
    Array,
    BaseMasses,
    Prediction,
    measure_base,
    old_token_masses,
    shared_escape_time,
)
from fstsim.llm.validation.response import adam_direction, old_mass_response, response_forgetting
from fstsim.theory import sequence_clock, sequence_forgetting
from fstsim.theory.sequences import SequenceLaw

NEW_ONLY = "sft-new-only"
"""Run of supervised fine-tuning on new data of `TASK` alone."""
CURVES = {"smoke": {NEW_ONLY: TASK}, "small": {NEW_ONLY: TASK, "sft-new-strings": "strings:rotate"}}
CALIBRATED = 0.8
"""The clock of a forgetting law is set where the old mass is first below this share of its start."""
ESCAPES = {
    "digits": ("digits:negate", "digits:plus", "digits:triple", "digits:flip"),
    "strings": ("strings:rotate", "strings:sort", "strings:mirror"),
}
"""Single rules, the easiest of each family first: base success from .19 down to .006 without context."""
DRIFTS = (4, 8, 12)
"""Slow steps on the first task, before the conflicting one is learned."""
AGAIN = "digits:negate"
GROUP = 8
LEVEL = 0.5


@dataclass(frozen=True)
class Law:
    """A clock of supervised fine-tuning, what it takes for the old behaviour, its statement, and its kind among predictions.

    ``tokens``: every token of the old answer is a decision of its own (on the clock of Fisher and Rao that only changes the
    unit of time). ``rest``: all that is not new counts as the old mode, as in a mixture of two, where the model has other
    behaviours besides copying.
    """

    name: str
    title: str
    clock: SequenceLaw
    old: Literal["answer", "tokens", "rest"]
    statement: str
    kind: str


LAWS = (
    Law("logit", "logit", "logit", "answer", "mass-forgetting", "forgetting"),
    Law("fisher", "Fisher", "fisher", "answer", "mass-forgetting-geometry", "forgetting"),
    Law("adam", "AdamW", "adam", "answer", "adam-clock", "forgetting-adam"),
    Law("logit-tokens", "logit, by token", "logit", "tokens", "sequence-logit", "forgetting"),
    Law("adam-tokens", "AdamW, by token", "adam", "tokens", "sequence-adam", "forgetting-adam"),
    Law("logit-rest", "logit, all but new", "logit", "rest", "mass-forgetting", "forgetting-rest"),
    Law("fisher-rest", "Fisher, all but new", "fisher", "rest", "mass-forgetting-geometry", "forgetting-rest"),
    Law("adam-rest", "AdamW, all but new", "adam", "rest", "adam-clock", "forgetting-rest"),
)
DISTANCES = np.linspace(0.0, 8e-3, 81)
"""Along Adam's direction, in units of the learning rate's: 8e-3 is 80 steps at 1e-4."""
CLOCKS = {"group": "group-normalised-escape", "adam": "adam-clock"}
"""Statement of each clock for RL."""


def forgetting(scale: Scale, base: Policy) -> Chapter:
    """P1: the old mass under SFT on new data alone, by each clock that theory offers."""
    claims, runs = [], []
    for name, task in CURVES.get(scale, CURVES["small"]).items():
        tokens = old_token_masses(base, parse_rules(task), PROBLEMS[scale])
        learner = SupervisedFineTuning(problems=64)
        config = TrainConfig(
            method="sft",
            tasks=(task,),
            steps={"smoke": 40, "small": 80, "paper": 160}[scale],
            lr=1e-4,
            learner=learner,
            probe=ProbeConfig(every=2, problems=PROBLEMS[scale], exam=16),
        )
        runs.append(Planned(name, config))
        new = measure_base(base, parse_rules(task), PROBLEMS[scale]).new
        shapes = {"answer": tokens.prod(-1, keepdims=True), "tokens": tokens, "rest": 1.0 - new[:, None]}
        claims += [_curve_claim(name, law, shapes[law.old]) for law in LAWS]
        claims.append(_response_claim(name, task, learner, PROBLEMS[scale]))
    return Chapter(tuple(claims), tuple(runs))


def calibration_step(steps: Array, mass: Array) -> tuple[int, int] | None:
    """Places of the first measurement below `CALIBRATED` of the start, and of the first at three times its step; None if absent."""
    below = np.flatnonzero(mass < CALIBRATED * mass[0])
    if not len(below):
        return None
    later = np.flatnonzero(steps >= 3 * steps[below[0]])
    return (int(below[0]), int(later[0])) if len(later) else None


def _old_mass(rows: Rows) -> tuple[Array, Array]:
    return curve(rows, "old_mass")


def _rest(rows: Rows) -> tuple[Array, Array]:
    """Mass of all that is not the new behaviour: the old mode, where everything is divided in two."""
    steps, reward = curve(rows, "reward")
    return steps, 1.0 - reward


def _curve_claim(name: str, law: Law, tokens: Array) -> Claim:
    what, read = ("the mass of all but the new", _rest) if law.old == "rest" else ("the old mass", _old_mass)
    clipped = law.clock == "adam"
    calibration = f"the step at which {what} is first below {CALIBRATED} of its start"
    if clipped:
        calibration += f", and the norm of the first gradient (it is clipped at {TrainConfig.clip:g})"
    blank = Prediction(
        f"{name}-{law.name}", Label(law.kind, run=name, law=law.name), law.statement,
        f"log of {what} at three times the calibration step, {law.name} clock ({name})",
        np.nan, np.nan, np.nan, 1.5, calibration,
    )  # fmt: skip

    def calibrated(records: Records) -> Prediction:
        values = []
        for rows in records.rows(name):
            steps, mass = read(rows)
            if (at := calibration_step(steps, mass)) is None:
                continue
            clip = (
                min(1.0, TrainConfig.clip / next(row["grad_norm"] for row in rows if "grad_norm" in row))
                if clipped
                else 1.0
            )
            # shares of the start: what is no decision between the two behaviours drops out
            start = float(tokens.prod(-1).mean())
            after = start * float(mass[at[0]] / mass[0])
            clock = sequence_clock(tokens, float(steps[at[0]]), after, law.clock, clip=clip)
            later = sequence_forgetting(tokens, steps[at[1]], law.clock, clock=clock, clip=clip).mean()
            values.append(float(np.log(later / start * mass[0])))
        value = float(np.mean(values)) if values else np.nan
        return replace(blank, value=value, low=value - 0.3, high=value + 0.3)

    return Claim(blank, (name,), _log_mass_later(name, read), calibrated)


def _response_claim(name: str, task: str, demonstrations: SupervisedFineTuning, problems: int) -> Claim:
    """Distance by Adam's clock; what a distance does to the old mass is measured along Adam's direction from the base."""
    rule = parse_rules(task)
    blank = Prediction(
        f"{name}-response", Label("forgetting-response", run=name, law="response"), "adam-clock",
        f"log of the old mass at three times the calibration step, the base's response along Adam's direction ({name})",
        np.nan, np.nan, np.nan, 1.5, f"the step at which the old mass is first below {CALIBRATED} of its start",
    )  # fmt: skip

    def calibrated(records: Records) -> Prediction:
        direction = adam_direction(records.base, rule, demonstrations)
        masses = old_mass_response(records.base, rule, problems, direction, DISTANCES)
        values = []
        for rows in records.rows(name):
            steps, mass = curve(rows, "old_mass")
            if (at := calibration_step(steps, mass)) is None:
                continue
            start = float(masses[0].mean())
            after = start * float(mass[at[0]] / mass[0])
            later = response_forgetting(DISTANCES, masses, float(steps[at[0]]), after, steps[at[1]])
            values.append(float(np.log(later / start * mass[0])))
        value = float(np.nanmean(values)) if values else np.nan
        return replace(blank, value=value, low=value - 0.6, high=value + 0.6)

    return Claim(blank, (name,), _log_mass_later(name, _old_mass), calibrated)


def _log_mass_later(name: str, read: Callable[[Rows], tuple[Array, Array]]) -> Callable[[Records], list[float]]:
    """Log of a mass at three times the calibration step, a number a seed."""

    def measured(records: Records) -> list[float]:
        found = []
        for rows in records.rows(name):
            steps, mass = read(rows)
            at = calibration_step(steps, mass)
            found.append(np.nan if at is None else float(np.log(max(mass[at[1]], 1e-30))))
        return found

    return measured


def _escape(scale: Scale, task: str, **settings: object) -> TrainConfig:
    config = TrainConfig(
        tasks=(task,),
        steps={"smoke": 40, "small": 160, "paper": 400}[scale],
        lr=5e-5,
        learner=PolicyGradient(problems=32 if scale == "smoke" else 48, rollouts=GROUP),
        probe=ProbeConfig(every=2, problems=PROBLEMS[scale], exam=16),
    )
    return replace(config, **settings)  # type: ignore[arg-type]


def _log_odds(masses: BaseMasses) -> Array:
    return np.asarray(logit(np.clip(masses.new, 1e-12, 1 - 1e-12)))


def log_time_ratios(x: Array, reference: Array, level: float = LEVEL, group: int = GROUP) -> dict[str, float]:
    """Log of the escape time from ``x`` to a reward over that from ``reference``, by each clock."""
    times, others = shared_escape_time(x, level, group), shared_escape_time(reference, level, group)
    return {clock: float(np.log(t / o)) for clock, t, o in zip(CLOCKS, times, others, strict=True)}


def measured_time_ratio(name: str, reference: str, level: float = LEVEL) -> Callable[[Records], list[float]]:
    """Log of steps to a reward of the run ``name`` over the mean of the run ``reference``, a number a seed."""

    def read(records: Records) -> list[float]:
        against = np.nanmean([np.log(steps_to(rows, level)) for rows in records.rows(reference)])
        return [float(np.log(steps_to(rows, level)) - against) for rows in records.rows(name)]

    return read


def escapes(scale: Scale, base: Policy) -> Chapter:
    """P10: escape times of RL over more than a decade of base success, each over that of its family's easiest task.

    The ratio is free of the learning rate. Every prompt has its own log-odds and all move by one shift.
    """
    claims, runs = [], []
    for family, tasks in ESCAPES.items():
        if scale == "smoke" and family != "digits":
            continue
        chosen = tasks[:2] if scale == "smoke" else tasks
        x = {task: _log_odds(measure_base(base, parse_rules(task), PROBLEMS[scale])) for task in chosen}
        names = {task: f"escape-{task.split(':')[1]}" for task in chosen}
        runs += [Planned(names[task], _escape(scale, task)) for task in chosen]
        for task in chosen[1:]:
            p0 = float((1.0 / (1.0 + np.exp(-x[task]))).mean())
            for clock, value in log_time_ratios(x[task], x[chosen[0]]).items():
                quantity = (
                    f"log of steps to reward {LEVEL} over those of {chosen[0]}, {task}, p0 {p0:.3g}, {clock} clock"
                )
                needs = (names[task], names[chosen[0]])
                label = Label(f"escape-{clock}", *needs, law=clock)
                near = (value, value - 0.25, value + 0.25)
                prediction = Prediction(f"{names[task]}-{clock}", label, CLOCKS[clock], quantity, *near, 1.5)
                claims.append(Claim(prediction, needs, measured_time_ratio(*needs)))
    return Chapter(tuple(claims), tuple(runs))


def relearning(scale: Scale, base: Policy) -> Chapter:
    """P11: RL on a task after some steps on a conflicting one (same prompts, other answers), over RL on it from the base.

    What the first stage did to the second task's log-odds is measured where the second begins; the time follows.
    """
    if scale == "smoke":
        return Chapter(())
    start = _log_odds(measure_base(base, parse_rules(AGAIN), PROBLEMS[scale]))
    reference = f"escape-{AGAIN.split(':')[1]}"
    claims, runs = [], [Planned(reference, _escape(scale, AGAIN))]
    for steps in DRIFTS:
        first, again = f"drift-{steps}", f"relearn-{steps}"
        runs += [
            Planned(first, _escape(scale, TASK, steps=steps, lr=1e-4)),
            Planned(again, _escape(scale, AGAIN), after=first),
        ]
        for clock, slug in CLOCKS.items():
            blank = Prediction(
                f"{again}-{clock}",
                Label(f"relearn-{clock}", run=again, against=reference, x=steps, law=clock),
                "plasticity-relearning-time" if clock == "group" else slug,
                f"log of steps to reward {LEVEL} on {AGAIN} after {steps} steps on {TASK} over those from the base, {clock} clock",
                np.nan, np.nan, np.nan, 1.5, "log-odds of the second task at the end of the first",
            )  # fmt: skip
            claims.append(
                Claim(
                    blank,
                    (first, again, reference),
                    measured_time_ratio(again, reference),
                    _from_drift(blank, first, clock, start, PROBLEMS[scale]),
                )
            )
    return Chapter(tuple(claims), tuple(runs))


def _from_drift(
    blank: Prediction, first: str, clock: str, start: Array, problems: int
) -> Callable[[Records], Prediction]:
    def calibrated(records: Records) -> Prediction:
        values = []
        for seed in range(records.seeds):
            masses = measure_base(records.trained(first, seed), parse_rules(AGAIN), problems)
            values.append(log_time_ratios(_log_odds(masses), start)[clock])
        value = float(np.mean(values))
        return replace(blank, value=value, low=value - 0.25, high=value + 0.25)

    return calibrated
