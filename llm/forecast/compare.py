"""A forecast held against a run that was made afterwards: means at every measured step, prompts wherever its weights are.

A run directory keeps its weights at the end alone. ``rerun`` makes the steps again, without probes, and reads prompts at each
step of the forecast; that the run was the same one is checked at its end, by its own last row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import FastSlowState, FrozenFast, Schedule, fast_slow
from fstsim.llm.forecast.agreement import agreement
from fstsim.llm.forecast.forecast import Given
from fstsim.llm.forecast.reading import OLD, Reading
from fstsim.llm.forecast.result import Forecast, quantities
from fstsim.llm.forecast.start import put_back, starting, trained
from fstsim.llm.measure.layers import weights_hash
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import set_rate
from fstsim.llm.runs.run import _weights
from fstsim.llm.runs.skills import TaskSkills
from fstsim.places import published
from fstsim.records import plain, read_json, read_rows

Notes = Callable[[int, str], None]

_MAY_DIFFER = {"seed", "device", "probe", "old", "steps"}
_SAME = 1e-3  # of a number measured twice, on two kinds of machine


def check_same(config: TrainConfig, run: Path) -> TrainConfig:
    """The configuration of ``run``. InputError, which names the setting, if the forecast is of another run."""
    found = read_json(run / "config.json")
    try:
        was = TrainConfig.from_dict(found)
    except (InputError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{run / 'config.json'} is not the configuration of a training run") from error
    wanted, have = plain(asdict(config)), plain(asdict(was))
    for name, value in wanted.items():
        if name == "problems_sha256":
            began = dict(map(tuple, have[name]))
            for task, digest in value:
                if began.get(task, digest) != digest:
                    raise InputError(f"{run} was made with other problems of {task} than the forecast")
        elif name not in _MAY_DIFFER and have[name] != value:
            raise InputError(f"{run} was made with {_differing(name, have[name], value)}")
    if was.steps != config.steps and config.optimizer.schedule != "constant":
        raise InputError(f"{run} was made with steps {was.steps}, the forecast is of {config.steps}")
    if config.probe.problems != was.probe.problems:
        raise InputError(
            f"{run} was measured on {was.probe.problems} problems, the forecast on {config.probe.problems}: take the same --preset"
        )
    if not (run / "summary.json").exists():
        raise InputError(f"{run} is not finished: the same train command continues it")
    return was


def _differing(name: str, have: Any, value: Any) -> str:
    if isinstance(have, dict) and isinstance(value, dict):
        for key in value:
            if have.get(key) != value[key]:
                return f"{name}.{key} {have.get(key)}, the forecast with {value[key]}"
    return f"{name} {have}, the forecast with {value}"


def compare(
    found: Forecast,
    run: Path,
    *,
    rerun: bool = False,
    readings: Mapping[int, Reading] | None = None,
    progress: Notes | None = None,
) -> dict[str, Any]:
    """Rows by step: ``means`` (forecast with interval, run), and ``prompts`` (agreement by skill) where weights are there.

    ``readings`` are by step what the forecast's reader (`forecast.Given.reader`) said of the weights while the run was made;
    with them it is not made again.
    Raises InputError if the run was made with other data, model or settings, or measures otherwise at its first step.
    """
    was = check_same(found.config.train, run)
    given = Given.of(found.config)
    rows = {row["step"]: row for row in read_rows(run / "metrics.jsonl")}
    columns = _columns(found, given)
    start = {name: found.to_dict()["start"][name] for name in columns}
    for name, column in columns.items():
        mine, theirs = start[name], _measured(name, rows[0], column, rows[0])
        if theirs is not None and not abs(mine - theirs) <= _SAME * max(1.0, abs(mine)):
            raise InputError(
                f"{run} began at {column} {theirs:.6g}, the forecast at {mine:.6g}: another model or other problems"
            )
    measured = readings or dict(_readings(given, run, was, found.steps, rerun=rerun, progress=progress))
    result = []
    for step in found.steps:
        row: dict[str, Any] = {"step": step, "means": {}}
        held = found.row(step)
        for name, column in columns.items():
            value = _measured(name, rows[step], column, rows[0]) if step in rows else None
            if value is None and step in measured:
                value = _scalar(found, name, measured[step])
            if value is not None:
                row["means"][name] = {
                    **held[name],
                    "run": value,
                    "inside": held[name]["low"] <= value <= held[name]["high"],
                }
        if step in measured:
            change = {k: measured[step].old[k] - then for k, then in found.base.old.items()}
            row["prompts"] = {k: asdict(v) for k, v in agreement(found.change(step), change).items()}
            row["changes"] = {
                k: {"forecast": found.change(step)[k].tolist(), "run": v.tolist()} for k, v in change.items()
            }
        result.append(row)
    return plain({"run": published(str(run)), "seed": was.seed, "rerun": rerun, "rows": result, "lost": found.lost})


def measured_means(
    found: Forecast, given: Given, rows: Sequence[dict[str, Any]], steps: Sequence[int]
) -> dict[int, dict[str, float]]:
    """What the ``rows`` of a run have of the forecast's quantities, by step: nothing but measurements that were made then."""
    columns, by_step = _columns(found, given), {row["step"]: row for row in rows}
    held: dict[int, dict[str, float]] = {}
    for step in steps:
        values = {name: _measured(name, by_step[step], column, rows[0]) for name, column in columns.items()}
        held[step] = {name: value for name, value in values.items() if value is not None}
    return held


def _columns(found: Forecast, given: Given) -> dict[str, str]:
    """Quantities of the forecast that a run's rows have, and the column there."""
    columns = {"reward": "reward", "kl_to_base": "kl_to_base", "kl_from_base": "kl_from_base"}
    if found.config.train.context or found.config.contexts:
        columns = {"reward": "reward"}
        columns |= {"kl_to_base": "kl_to_base_no_context", "kl_from_base": "kl_from_base_no_context"}
    if OLD in found.base.old:
        # the run's is over all prompts: where the right answer is the old one on some, weights alone tell
        whole = len(found.base.old[OLD]) == len(found.base.reward)
        columns["log_old_mass"] = "old_mass" if whole else ""
    if given.old:
        skills = TaskSkills(given.old, found.config.train.probe, found.config.train.seed, 0.0)
        for task, column in zip(given.old, skills.columns, strict=True):
            columns[f"forgotten {task.name}"] = column
    return columns


def _measured(name: str, row: dict[str, Any], column: str, first: dict[str, Any]) -> float | None:
    value = row.get(column)
    if value is None:
        return None
    if name == "log_old_mass":
        return float(np.log(value)) if value > 0.0 else -np.inf
    return float(first[column] - value) if name.startswith("forgotten ") else float(value)


def _scalar(found: Forecast, name: str, reading: Reading) -> float:
    return quantities(found.base)[name](reading)


def _readings(
    given: Given, run: Path, was: TrainConfig, steps: tuple[int, ...], *, rerun: bool, progress: Notes | None
) -> Iterator[tuple[int, Reading]]:
    """Steps and readings of the run's weights: at its end, or at every step when it is made again."""
    reader = given.reader()
    if not rerun:
        # a recorded run has its numbers, and no weights
        if was.steps in steps and (run / "checkpoint.safetensors").exists():
            yield was.steps, reader.read(trained(was, given.base, run))
        return
    assert was.learner is not None
    policy = given.policy
    put_back(policy, starting(was, given.base, was.seed))
    weights = _weights(was, policy, given.base)
    state: Any = FastSlowState(weights, given.population)
    slow: Any = was.learner.begin(was.context)[0]
    rng = np.random.default_rng(was.seed)
    set_rate(weights.optimizer, was.optimizer.rate(was.lr, 0, was.steps))
    for now in fast_slow([given.task], slow, FrozenFast(), state, Schedule(was.steps, was.slow_steps_per_round), rng):
        if now.step in steps:
            yield now.step, reader.read(policy)
        if progress is not None:
            progress(now.step, "the run is made again")
        set_rate(weights.optimizer, was.optimizer.rate(was.lr, now.step, was.steps))
    if weights_hash(policy.model) != weights_hash(trained(was, given.base, run).model):
        theirs, mine = (reader.log_right(p).mean() for p in (trained(was, given.base, run), policy))
        if not abs(theirs - mine) <= _SAME * max(1.0, abs(theirs)):
            raise InputError(
                f"{run} made again here ends elsewhere than it did: compare without --rerun, or where it was made"
            )
