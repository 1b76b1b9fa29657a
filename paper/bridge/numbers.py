"""What the bridge figure shows of the language model and of the theory: numbers read from one validation directory.

The model's points of replay, leash and escape are the judged rows of ``validation.json``, so that figure and verdicts cannot
differ. Theory gets what was measured on the base before the runs: masses per prompt, success probabilities.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.intervals import Interval, student_interval
from fstsim.llm.policy.loading import SHIPPED
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import BaseMasses, measure_base, old_token_masses
from fstsim.llm.validation.times import CALIBRATED, LAWS, NEW_ONLY, Law
from fstsim.paper.experiments.numbers import Curves, read_curves
from fstsim.records import read_json
from fstsim.theory import sequence_clock, sequence_forgetting

Array = NDArray[np.float64]
FORGETTING = {law.name: law for law in LAWS if law.old != "rest"}
"""Laws of the old mass under supervised fine-tuning, by the name in the labels of their judged rows."""
RECORDED_MASSES = "base_masses.json"
_NEED_MASSES = ("replay", "replay-batches", "tilt-new", "tilt-old", "escape-group", "escape-adam")
_NEED_TOKENS = ("forgetting", "forgetting-adam")


@dataclass(frozen=True)
class Verdict:
    """One judged row of ``validation.json``; the 95 % interval of the measurement is nan below three seeds."""

    name: str
    label: Label
    statement: str
    quantity: str
    value: float
    low: float
    high: float
    measured: float
    measured_low: float
    measured_high: float
    seeds: int
    verdict: str


def read_verdicts(directory: Path) -> tuple[Verdict, ...]:
    """Rows of ``directory/validation.json``; InputError if it is missing, malformed or lacks a column."""
    path = directory / "validation.json"
    if not path.exists():
        raise InputError(f"no {path}: make it with fstsim validate --out {directory}")
    found = read_json(path)
    names = [field.name for field in fields(Verdict)]
    rows = []
    for k, row in enumerate(found if isinstance(found, list) else [None]):
        if not isinstance(row, Mapping) or not row.keys() >= set(names):
            missing = sorted(set(names) - set(row)) if isinstance(row, Mapping) else names
            raise InputError(
                f"{path}, row {k}: no {', '.join(missing)}; it must be the table that fstsim validate wrote"
            )
        filled: dict[str, Any] = {name: np.nan if row[name] is None else row[name] for name in names}
        try:
            rows.append(Verdict(**filled | {"label": Label(**row["label"])}))
        except (InputError, TypeError) as error:
            raise InputError(f"{path}, row {k}: {error}") from error
    return tuple(rows)


def of_kind(rows: Sequence[Verdict], kind: str) -> tuple[Array, list[Verdict]]:
    """The rows of one kind with a number `Label.x`, and these numbers, in their order."""
    chosen = sorted(
        (row.label.x, k) for k, row in enumerate(rows) if row.label.kind == kind and row.label.x is not None
    )
    return np.array([x for x, _ in chosen]), [rows[k] for _, k in chosen]


def config_of(directory: Path, name: str) -> Mapping[str, Any]:
    """Configuration of the first seed of a run."""
    paths = sorted((directory / "runs" / name).glob("seed-*/config.json"))
    if not paths:
        raise InputError(f"{directory / 'runs' / name} holds no run, but validation.json speaks of it")
    config: Mapping[str, Any] = read_json(paths[0])
    return config


@functools.lru_cache(maxsize=64)
def _measured(model: str, task: str, problems: int) -> BaseMasses | None:
    """Masses on the test problems of a task, from the weights; None where they are not on this machine."""
    policy = _policy(model)
    return None if policy is None else measure_base(policy, parse_rules(task), problems)


@functools.lru_cache(maxsize=1)
def _policy(model: str) -> Policy | None:
    if model != SHIPPED and not Path(model).exists():
        return None
    policy = Policy.load(model)
    policy.model.eval()
    return policy


def base_masses(directory: Path, name: str) -> BaseMasses:
    """Masses of new and old answer per prompt on the base of run ``name``: recorded, or measured from its weights.

    Where there are neither, those of one mean prompt, from the first rows of the run.
    """
    config = config_of(directory, name)
    task = config["tasks"][0]
    if (directory / RECORDED_MASSES).exists() and task in (found := read_json(directory / RECORDED_MASSES)):
        new, old, same = (np.array(found[task][column]) for column in ("new", "old", "same"))
        return BaseMasses(new, old, same.astype(np.bool_))
    measured = _measured(config["model"], task, config["probe"]["problems"])
    if measured is not None:
        return measured
    curves = _curves(directory, name)
    return BaseMasses(curves["reward"][:1, 0], curves["old_mass"][:1, 0], np.array([False]))


def old_decisions(directory: Path, name: str) -> Array:
    """Masses ``(P, L)`` of the tokens of the old answer on the base, recorded or measured; one token an answer without the weights."""
    config = config_of(directory, name)
    task = config["tasks"][0]
    if (directory / RECORDED_MASSES).exists() and "tokens" in (found := read_json(directory / RECORDED_MASSES)).get(
        task, {}
    ):
        return np.array(found[task]["tokens"])
    policy = _policy(config["model"])
    if policy is not None:
        return old_token_masses(policy, parse_rules(task), config["probe"]["problems"])
    base = base_masses(directory, name)
    return base.old[~base.same][:, None]


def masses_to_record(directory: Path) -> dict[str, dict[str, Any]]:
    """``{task: {new, old, same}}`` (and ``tokens`` for fine-tuning on new data alone) of the runs that the figure needs them of, so that it can be drawn without the weights."""
    found: dict[str, dict[str, Any]] = {}
    labels = [row.label for row in read_verdicts(directory)]
    tokens = {label.run for label in labels if label.kind in _NEED_TOKENS}
    masses = {run for label in labels if label.kind in _NEED_MASSES for run in (label.run, label.against) if run}
    for run in sorted(tokens | masses):
        config = config_of(directory, run)
        measured = _measured(config["model"], config["tasks"][0], config["probe"]["problems"])
        if measured is not None:
            columns = {"new": measured.new, "old": measured.old, "same": measured.same}
            task = found.setdefault(config["tasks"][0], {})
            task |= {name: values.tolist() for name, values in columns.items()}
            if run in tokens:
                task["tokens"] = old_decisions(directory, run).tolist()
    return found


def _curves(directory: Path, name: str) -> Curves:
    curves = read_curves(directory, name)
    if curves is None:
        raise InputError(f"{directory / 'runs' / name} holds no finished run")
    return curves


@dataclass(frozen=True)
class Escape:
    """One task whose reward rises to 1/2 under RL: its base success, the judged rows of it (one a clock; none for the
    easiest task of a family, to which the others are compared), and what the toy needs: masses per prompt, batch shape.
    """

    run: str
    family: str
    p0: float
    rows: Mapping[str, Verdict]
    new: Array
    group: int
    problems: int

    def ratio(self, column: str, clock: str = "") -> float:
        """``exp`` of a column of the judged rows (any clock: the measurement is the same); 1 for the easiest task."""
        row = self.rows[clock] if clock else next(iter(self.rows.values()), None)
        return 1.0 if row is None else float(np.exp(getattr(row, column)))


def read_escapes(directory: Path, rows: Sequence[Verdict]) -> list[list[Escape]]:
    """Escape runs that were judged, a list a task family, the easiest task (which the others are compared with) first."""
    judged = [row for row in rows if row.label.kind in ("escape-group", "escape-adam")]
    families: dict[str, dict[str, dict[str, Verdict]]] = {}
    for row in judged:
        families.setdefault(row.label.against, {}).setdefault(row.label.run, {})[row.label.law] = row
    return [
        [
            _read_escape(directory, easiest, {}),
            *sorted((_read_escape(directory, run, found) for run, found in runs.items()), key=lambda e: -e.p0),
        ]
        for easiest, runs in families.items()
    ]


def _read_escape(directory: Path, run: str, rows: Mapping[str, Verdict]) -> Escape:
    config, p0 = config_of(directory, run), float(_curves(directory, run)["reward"][:, 0].mean())
    slow, family = config["learner"], parse_rules(config["tasks"][0]).family
    new = base_masses(directory, run).new
    return Escape(run, family, p0, rows, new, slow["rollouts"], slow["problems"])


@dataclass(frozen=True)
class Forgetting:
    """Old mass under fine-tuning on new data alone: ``step (T,)``; ``mass``, ``low``, ``high (T,)`` geometric mean over seeds
    with its 95 % interval; ``clock`` (time a step, mean over seeds) and ``theory`` (on ``grid``) of each law; ``clip``, the
    largest gradient that got through, over the first one; the step at which the clock is set, by a third of that at which the law is judged.
    """

    step: Array
    mass: Array
    low: Array
    high: Array
    grid: Array
    theory: Mapping[str, Array]
    clock: Mapping[str, float]
    clip: float
    calibrated: float


def log_interval(values: Array) -> Interval:
    """Geometric mean over the first axis (seeds) and its 95 % Student interval in the logarithm; nan bounds for one seed."""
    return Interval(*map(np.exp, student_interval(np.log(np.maximum(values, 1e-300)))))


def _clip_share(curves: Curves) -> float:
    """Largest gradient that clipping lets through, over the first one, which it clipped; 1 where nothing was clipped."""
    norms = curves.columns.get("grad_norm")
    first = np.nan if norms is None else float(np.nanmean(norms[:, 1:2]))
    return min(1.0, TrainConfig.clip / first) if np.isfinite(first) else 1.0


def decisions_of(law: Law, tokens: Array) -> Array:
    """What a law of `FORGETTING` takes the old answers ``tokens (P, L)`` to be: all their tokens, or one decision each."""
    return tokens if law.old == "tokens" else tokens.prod(axis=-1, keepdims=True)


def read_forgetting(directory: Path, tokens: Array, name: str = NEW_ONLY) -> Forgetting | None:
    """Curves of the runs ``name`` and of every law, each seed with its own clock from its first updates; None if not run."""
    curves = read_curves(directory, name)
    if curves is None:
        return None
    step, mass = curves["step"][0], curves["old_mass"]
    low = mass < CALIBRATED * mass[:, :1]
    if not low.any(axis=1).all():
        return None
    first = low.argmax(axis=1)
    clip = _clip_share(curves)
    grid = np.arange(step[-1] + 1.0)
    clocks, theory = {}, {}
    start = float(tokens.prod(axis=-1).mean())
    for name, law in FORGETTING.items():
        if law.old == "tokens" and tokens.shape[-1] == 1:
            continue  # nothing is known of the tokens
        decisions = decisions_of(law, tokens)
        through = clip if law.clock == "adam" else 1.0
        # shares of the start, as in `llm.validation.times`: what is no decision between the behaviours drops out
        rates = [
            sequence_clock(decisions, float(step[k]), start * float(m[k] / m[0]), law.clock, clip=through)
            for m, k in zip(mass, first, strict=True)
        ]
        predicted = [
            sequence_forgetting(decisions, grid, law.clock, clock=rate, clip=through).mean(axis=-1) / start * m[0]
            for rate, m in zip(rates, mass, strict=True)
        ]
        clocks[name], theory[name] = float(np.mean(rates)), np.exp(np.mean(np.log(predicted), axis=0))
    middle, lower, upper = log_interval(mass)
    return Forgetting(
        step,
        middle,
        lower,
        upper,
        grid,
        theory,
        clocks,
        clip,
        float(step[first].mean()),
    )
