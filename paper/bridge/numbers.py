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
from fstsim.llm.tasks.rules import parse_task
from fstsim.llm.validation.prediction import BaseMasses, measure_base, old_token_masses
from fstsim.llm.validation.times import CALIBRATED
from fstsim.paper.experiments.numbers import Curves, read_curves
from fstsim.records import read_json
from fstsim.theory import sequence_clock, sequence_forgetting
from fstsim.theory.sequences import SequenceLaw

Array = NDArray[np.float64]
LAWS: Mapping[str, SequenceLaw] = {
    "logit": "logit",
    "fisher": "fisher",
    "adam": "adam",
    "logit-tokens": "logit",
    "adam-tokens": "adam",
}
"""Clocks of supervised fine-tuning, as their judged rows are called; ``-tokens``: every token of the old answer decides."""
RECORDED_MASSES = "base_masses.json"
_NEED_MASSES = ("replay-", "tilt-", "escape-", "sft-new-")


@dataclass(frozen=True)
class Verdict:
    """One judged row of ``validation.json``; the 95 % interval of the measurement is nan below three seeds."""

    name: str
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

    @property
    def parameter(self) -> float:
        """The number that the name ends with, ``replay-0.1`` for example."""
        return float(self.name.rpartition("-")[2])


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
        rows.append(Verdict(**filled))
    return tuple(rows)


def named(rows: Sequence[Verdict], prefix: str) -> list[Verdict]:
    """Rows called ``prefix`` and a number, by that number."""
    chosen = [row for row in rows if row.name.startswith(prefix) and _is_number(row.name[len(prefix) :])]
    return sorted(chosen, key=lambda row: row.parameter)


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


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
    return None if policy is None else measure_base(policy, parse_task(task), problems)


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
        return old_token_masses(policy, parse_task(task), config["probe"]["problems"])
    base = base_masses(directory, name)
    return base.old[~base.same][:, None]


def masses_to_record(directory: Path) -> dict[str, dict[str, Any]]:
    """``{task: {new, old, same}}`` (and ``tokens`` for fine-tuning on new data alone) of the runs that the figure needs them of, so that it can be drawn without the weights."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((directory / "runs").glob("*")):
        if path.name.startswith(_NEED_MASSES):
            config = config_of(directory, path.name)
            measured = _measured(config["model"], config["tasks"][0], config["probe"]["problems"])
            if measured is not None:
                columns = {"new": measured.new, "old": measured.old, "same": measured.same}
                task = found.setdefault(config["tasks"][0], {})
                task |= {name: values.tolist() for name, values in columns.items()}
                if path.name.startswith("sft-new-"):
                    task["tokens"] = old_decisions(directory, path.name).tolist()
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
    """Escape runs that were judged, a list a task family, the easiest task first."""
    families: dict[str, list[Escape]] = {}
    for path in sorted((directory / "runs").glob("escape-*")):
        config, p0 = config_of(directory, path.name), float(_curves(directory, path.name)["reward"][:, 0].mean())
        judged = {row.name: row for row in rows if row.name == path.name or row.name.startswith(f"{path.name}-")}
        clocks = {"group" if name == path.name else name.rpartition("-")[2]: row for name, row in judged.items()}
        slow, family = config["slow"], config["tasks"][0].partition(":")[0]
        new = base_masses(directory, path.name).new
        found = Escape(path.name, family, p0, clocks, new, slow["rollouts"], slow["problems"])
        families.setdefault(family, []).append(found)
    ordered = [sorted(family, key=lambda e: -e.p0) for family in families.values()]
    return [[family[0], *(e for e in family[1:] if e.rows)] for family in ordered if any(e.rows for e in family[1:])]


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


def decisions_of(law: str, tokens: Array) -> Array:
    """What a law of `LAWS` takes the old answers ``tokens (P, L)`` to be: all their tokens, or one decision each."""
    return tokens if law.endswith("-tokens") else tokens.prod(axis=-1, keepdims=True)


def read_forgetting(directory: Path, tokens: Array, name: str = "sft-new-only") -> Forgetting | None:
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
    for law, kind in LAWS.items():
        if law.endswith("-tokens") and tokens.shape[-1] == 1:
            continue  # nothing is known of the tokens
        decisions = decisions_of(law, tokens)
        through = clip if kind == "adam" else 1.0
        # shares of the start, as in `llm.claims_times`: what is no decision between the behaviours drops out
        rates = [
            sequence_clock(decisions, float(step[k]), start * float(m[k] / m[0]), kind, clip=through)
            for m, k in zip(mass, first, strict=True)
        ]
        predicted = [
            sequence_forgetting(decisions, grid, kind, clock=rate, clip=through).mean(axis=-1) / start * m[0]
            for rate, m in zip(rates, mass, strict=True)
        ]
        clocks[law], theory[law] = float(np.mean(rates)), np.exp(np.mean(np.log(predicted), axis=0))
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
