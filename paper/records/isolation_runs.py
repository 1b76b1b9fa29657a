"""The recorded runs of core isolation: which they are, and what is kept of them (``python -m fstsim.paper.records.isolation_runs``).

Every arm on two sets of tasks, three seeds, at the size of the preset smoke; ``paper/data/isolation/SET.json`` keeps what was measured
at the end of every block, and the shares of the drive. What is recorded is kept and what is missing is run; a stopped run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.front.command import Directory
from fstsim.front.console import Progress
from fstsim.front.entry import run_module
from fstsim.llm.learners.isolate import ARMS, Isolation
from fstsim.llm.runs.config import PRESETS, TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.paper import DATA
from fstsim.records import plain, read_json, read_rows, write_json

SETS: Mapping[str, tuple[str, ...]] = {
    "families": ("strings:reverse", "digits:shift", "star_graph:roll"),
    "conflict": ("strings:reverse", "strings:rotate", "digits:shift"),
}
"""One task a family; and two tasks of one family, which ask for different answers to the same prompts, with a third."""
SEEDS = (1, 2, 3)
"""Not 0, with which the program had been tried before the predictions were written."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    **{arm: {"arm": arm} for arm in ARMS},
    "linear": {"arm": "full", "flat_angle": 3.0},
    "vectors": {"arm": "full", "slerp_on": "vectors"},
}
"""Every arm; the full method with a linear merge, and with SLERP of differences from the start."""
FIRST = (("stages", "freeze"), ("full", "random"), ("sample", "joint"))
"""Variants that are recorded with all seeds, in this order, before the others have more than the first one."""
_ENDS = ("reward", "old_mass", "drift", "kl_to_base", "kl_from_base")


def config_of(variant: str, tasks: Sequence[str], seed: int) -> TrainConfig:
    """One run: preset smoke, measured at the beginning and the end of every block."""
    preset = PRESETS["smoke"]
    probe = ProbeConfig(every=preset.steps, problems=32, exam=8, early=preset.steps + 1, relearn=0)
    learner = Isolation(problems=preset.problems, **VARIANTS[variant])
    return TrainConfig("isolate", tuple(tasks), steps=preset.steps, seed=seed, learner=learner, probe=probe)


def kept(config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is recorded of a run: rewards of all tasks and distances at the ends of its blocks, and what blocks said of cores."""
    assert isinstance(config.learner, Isolation)
    named: list[Any] = [Named(name) for name in config.tasks]
    steps = config.learner.plan(named, config.steps)[1]
    ends = [0]
    for count in steps:
        ends.append(ends[-1] + count)
    said = []
    for row in rows:
        found = {k: v for k, v in row.items() if k.startswith(("core_", "drive_", "frozen_"))}
        said += [{"step": row["step"], "task": row["task"], **found}] if found else []
    own = len(config.tasks) * (len(ends) > 1 + len(config.tasks))  # blocks before the others, where there are others
    return {
        "seed": config.seed,
        "blocks": [_end(rows[step], len(config.tasks)) for step in ends],
        **({"merged": _end(rows[ends[own] + 1], len(config.tasks))} if own else {}),
        "said": said,
    }


def _end(row: Mapping[str, Any], tasks: int) -> dict[str, Any]:
    rewards = [row["reward"] if k == row["task"] else row[f"reward_task{k}"] for k in range(tasks)]
    return {"step": row["step"], "task": row["task"], "rewards": rewards, **{key: row[key] for key in _ENDS[1:]}}


@dataclass(frozen=True)
class Named:
    """A task of which a plan needs the name alone."""

    name: str


@dataclass(frozen=True)
class Config:
    """Make the recorded runs of core isolation, or go on with them, and write paper/data/isolation."""

    out: Directory = Path("out/isolation")
    """where the run directories are"""
    collect: bool = False
    """make no run: record those that are finished"""


def record(config: Config) -> int:
    """Do it, and write what is there after every run."""
    held = {name: recorded_runs(name, tasks) for name, tasks in SETS.items()}
    todo = missing(held)
    progress = Progress("isolation", len(todo), "runs")
    for done, (seed, name, variant) in enumerate(todo):
        run, place = config_of(variant, SETS[name], seed), config.out / name / variant / f"seed-{seed}"
        if (place / "summary.json").exists():
            rows = read_rows(place / "metrics.jsonl")
        elif config.collect:
            continue
        else:
            rows = run_training(run, place, write_model=False)
        runs = held[name].setdefault(variant, [])
        runs.append(plain(kept(run, rows)))
        runs.sort(key=lambda one: one["seed"])
        progress.at(done + 1, f"{name} {variant}, seed {seed}")
        shared = plain(asdict(config_of("full", SETS[name], 0)))
        write_json(DATA / "isolation" / f"{name}.json", {"tasks": SETS[name], "config": shared, "runs": held[name]})
    progress.close()
    return 0


def missing(held: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> list[tuple[int, str, str]]:
    """Seed, set and variant of the runs that are not in ``held``, by set and variant, in the order in which they are made."""
    todo = [
        (seed, name, variant)
        for name in SETS
        for seed in SEEDS
        for variant in VARIANTS
        if seed not in {run["seed"] for run in held[name].get(variant, ())}
    ]
    return sorted(todo, key=lambda one: next((k for k, own in enumerate(FIRST) if one[2] in own), len(FIRST)))


def recorded_runs(name: str, tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The recorded runs of a set by variant. Raises InputError if they were made with other settings than those of today."""
    place = DATA / "isolation" / f"{name}.json"
    if not place.exists():
        return {}
    found = read_json(place)
    made = TrainConfig.from_dict(found["config"])
    assert isinstance(made.learner, Isolation)
    # until 2026-11-27 the configuration that was written had the merge of the variant that ended last
    whole = replace(made.learner, slerp_on=Isolation.slerp_on, flat_angle=Isolation.flat_angle)
    if replace(made, learner=whole) != config_of("full", tasks, 0):
        raise InputError(f"{place} holds runs of other settings; move it away to record anew")
    runs: dict[str, list[dict[str, Any]]] = found["runs"]
    return runs


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.isolation_runs", Config, record))
