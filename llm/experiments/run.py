"""Makes the runs of experiments and validations, several at a time; what is finished is only loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from fstsim.cluster_worker import check_wanted
from fstsim.errors import InputError
from fstsim.llm.experiments.decomposition import decompose
from fstsim.llm.experiments.experiment import Experiment
from fstsim.llm.experiments.plan import Planned
from fstsim.llm.experiments.spread import Jobs, spread
from fstsim.llm.learners.weights import Diverged
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.recorded import read_summary
from fstsim.llm.runs.run import run_training
from fstsim.llm.runs.run_input import with_tasks
from fstsim.records import check_contents, check_directory, working_in


def seed_config(planned: Planned, seed: int, out: Path) -> TrainConfig:
    """Configuration of one seed of a planned run; InputError if the run that it starts from is not finished."""
    config = replace(planned.config, seed=seed)
    if planned.after is None:
        return config
    before = out / "runs" / planned.after / f"seed-{seed}"
    if not (before / "summary.json").exists():
        raise InputError(
            f"{planned.name} starts from {planned.after}, which is not finished in {out / 'runs'}: "
            "run what makes it first (experiment core for plasticity and distill)"
        )
    config = replace(config, model=str(before / "model"))
    if config.method == "distill":  # the teacher's context is the one that evolved
        config = replace(config, context=read_summary(before)["prompts"][0])
    return config


def run_planned(
    planned: Planned, seed: int, out: Path, progress: Callable[[int, str], None] | None = None
) -> list[dict[str, Any]]:
    """Run, continue or load one planned run with one seed; returns its rows."""
    place = out / "runs" / planned.name / f"seed-{seed}"
    return run_training(seed_config(planned, seed, out), place, progress, write_model=planned.write_model)


def on_device(planned: Sequence[Planned], device: str) -> list[Planned]:
    """The same runs on another torch device."""
    return [replace(p, config=replace(p.config, device=device)) for p in planned]


def recorded(experiment: Experiment, out: Path) -> bool:
    """Whether ``out`` holds a finished run of the experiment."""
    return any(
        next((out / "runs" / planned.name).glob("seed-*/summary.json"), None) is not None
        for planned in experiment.runs("small")  # has the runs of every scale
    )


def check_shown(experiments: Sequence[Experiment], out: Path) -> None:
    """InputError unless ``out`` holds a finished run of one of the experiments."""
    if not out.is_dir():
        raise InputError(f"no directory at {out}")
    if not any(recorded(experiment, out) for experiment in experiments):
        raise InputError(f"{out} holds no finished run of experiment {' or '.join(e.name for e in experiments)}")


def run_all(planned: Sequence[Planned], seeds: int, out: Path, jobs: Jobs = -1) -> Iterator[tuple[str, str]]:
    """All runs, ``jobs`` at a time and one thread each; yields ``(what, failure)`` as they end, failure empty when done.

    On two cores two runs side by side take half the time of one run on both: the models are small. Raises InputError, before
    anything is written, if a directory holds something else or a run that one of these starts from is not finished.
    """
    check_runs(planned, seeds, out, jobs)
    with working_in(out):
        pieces = [(p, seed, out) for p in planned for seed in range(seeds)]
        yield from spread(_run_one, pieces, [_name(p, seed) for p, seed, _ in pieces], jobs)


def check_runs(planned: Sequence[Planned], seeds: int, out: Path, jobs: Jobs) -> None:
    """InputError unless `run_all` can begin; ``out`` may hold runs, a forecast, predictions and pictures, and nothing else."""
    if jobs == 0:
        raise InputError("jobs must not be 0: give a number of workers, or -1 for every core")
    ours = ("runs", "forecast", "predictions.json", "validation.json", "base_masses.json", "forecasts")
    check_contents(out, "training runs", lambda p: p.name in ours or p.suffix == ".png")
    for p in planned:
        for seed in range(seeds):
            place = out / "runs" / p.name / f"seed-{seed}"
            config = with_tasks(seed_config(p, seed, out))[0]
            check_directory(place, asdict(config), "training run", asdict(TrainConfig(method=p.config.method)))


def _name(planned: Planned, seed: int) -> str:
    return f"{planned.name} seed {seed}"


def _run_one(planned: Planned, seed: int, out: Path) -> tuple[str, str]:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    what = _name(planned, seed)
    try:
        rows = run_planned(planned, seed, out, check_wanted)
    except Diverged as error:
        return what, str(error)
    if planned.config.method == "fst" and len(planned.config.tasks) == 1 and planned.write_model:
        decompose(out / "runs" / planned.name / f"seed-{seed}")
    return f"{what}: reward {rows[-1]['reward']:.2f}", ""
