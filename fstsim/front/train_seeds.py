"""The seeds of `fstsim train`: one after the other in this process, or one a worker on a dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fstsim.cluster import Cluster, Lost
from fstsim.cluster_worker import check_wanted
from fstsim.front.console import Progress, complain
from fstsim.front.tables import measurement_heading, measurement_line

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Seeds:
    """What is trained: a configuration with seeds 0, 1, ..., into ``seed-k`` of a directory."""

    config: Any
    count: int
    out: Path
    write_model: bool

    @property
    def total(self) -> int:
        """Slow steps of one seed."""
        return int(self.config.steps * len(self.config.tasks))

    def piece(self, seed: int) -> tuple[Any, Path, bool]:
        """What one run is made of."""
        return replace(self.config, seed=seed), self.out / f"seed-{seed}", self.write_model


@contextlib.contextmanager
def seeds_on(address: str | None, out: Path, config: Any) -> Iterator[tuple[Any, Cluster | None]]:
    """The configuration with the device that is meant, and the cluster whose scheduler is at ``address``, if one is named."""
    from fstsim.llm.experiments.spread import AUTO, runs_on, usable_device

    if address is None:
        yield replace(config, device=usable_device(AUTO)) if config.device == AUTO else config, None
        return
    with runs_on("dask", address, -1, out, config.device, complain) as (cluster, device):
        assert isinstance(cluster, Cluster)
        yield replace(config, device=device), cluster


def train_here(seeds: Seeds, run_training: Callable[..., Rows], progress: Progress) -> list[Rows]:
    """Rows of every seed, trained one after the other; says in one line what one fails of, and then returns those before it."""
    from fstsim.llm.contexts.reflection import ReflectorDown
    from fstsim.llm.learners.weights import Diverged

    runs: list[Rows] = []
    for seed in range(seeds.count):
        config, place, write_model = seeds.piece(seed)
        at = lambda step, note, k=seed: progress.at(k * seeds.total + step, f"seed {k}: {note}")  # noqa: E731
        say = lambda row, k=seed: _say(progress, k, row, heading=k == 0 and row["step"] == 0)  # noqa: E731
        try:
            runs.append(run_training(config, place, at, write_model=write_model, measured=say))
        except (Diverged, ReflectorDown) as error:
            _complain_of(error, place)
            return runs
        progress.at((seed + 1) * seeds.total)
    return runs


def train_on(seeds: Seeds, cluster: Cluster, progress: Progress) -> list[Rows]:
    """Rows of every seed, one a worker; says in a line for each that fails what it fails of, and then returns fewer."""
    names = [f"seed {seed}" for seed in range(seeds.count)]
    places = [seeds.piece(seed)[1] / "metrics.jsonl" for seed in range(seeds.count)]

    def tick() -> None:
        progress.at(sum(map(_steps, places)))

    found: dict[int, Rows] = {}
    for seed, result in cluster.work_through(_train_seed, [seeds.piece(k) for k in range(seeds.count)], names, tick):
        if isinstance(result, (Lost, Exception)):
            _complain_of(result, seeds.piece(seed)[1])
            continue
        for row in result:
            if "reward" in row:
                _say(progress, seed, row, heading=not found and row["step"] == 0)
        found[seed] = result
        tick()
    return [found[seed] for seed in sorted(found)]


def _steps(metrics: Path) -> int:
    """Slow steps that a run has written down."""
    try:
        return max(0, metrics.read_bytes().count(b"\n") - 1)  # the first row is that of before them
    except OSError:
        return 0


def _train_seed(config: Any, place: Path, write_model: bool) -> Rows | Exception:
    """On a worker: the rows of a run, or what it failed of."""
    import torch

    from fstsim.front.command import quiet
    from fstsim.llm.contexts.reflection import ReflectorDown
    from fstsim.llm.learners.weights import Diverged
    from fstsim.llm.runs.run import run_training

    quiet()
    torch.set_num_threads(1)
    try:
        return run_training(config, place, check_wanted, write_model=write_model)
    except (Diverged, ReflectorDown) as error:
        return error


def _say(progress: Progress, seed: int, row: dict[str, Any], heading: bool) -> None:
    if heading:
        progress.aside(measurement_heading(row))
    progress.aside(measurement_line(seed, row))


def _complain_of(error: Lost | Exception, run: Path) -> None:
    from fstsim.llm.contexts.reflection import ReflectorTooSmall
    from fstsim.llm.learners.weights import Diverged

    hint = "the same command continues"
    if isinstance(error, Diverged):
        hint = "train anew with a lower --lr in another --out"
    elif isinstance(error, ReflectorTooSmall):
        hint = "train anew with another --reflector-model"
    kept = (run / "checkpoint.safetensors").exists() or any(run.glob("trl/checkpoint-*/record.json"))
    where = f"the last checkpoint is kept in {run}" if kept else f"{run} holds no checkpoint yet"
    complain(f"error: {error}; {where}: {hint}")
