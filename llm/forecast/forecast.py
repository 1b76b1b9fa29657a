"""A forecast of a training run, in memory or as a directory: it can be killed after any piece and continued to the same numbers.

A directory holds ``config.json``, ``environment.json``, while it is made ``replicate-k.safetensors`` (weights, moments, aim,
generator and readings of each path, written after every piece) and at the end ``forecast.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path as File
from typing import Any

import numpy as np
import torch

from fstsim.llm.forecast.aim import Aim
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.control import Control, control_of
from fstsim.llm.forecast.path import Field, Path
from fstsim.llm.forecast.reading import Reader
from fstsim.llm.forecast.result import Forecast, Look, Replicate, replicate_dict, replicate_from
from fstsim.llm.forecast.rule import Piece, Rule, Station
from fstsim.llm.forecast.shadow import held_still, shadow_of
from fstsim.llm.forecast.start import moving, policy_and_base, put_back, starting
from fstsim.llm.learners.weights import Diverged, Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.checkpoint import Tensors, read_checkpoint, write_checkpoint
from fstsim.llm.runs.run_input import check_tasks, with_tasks
from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.types import Population, Task
from fstsim.reading import understood
from fstsim.records import claimed_directory, environment, plain, read_json, write_json

Notes = Callable[[int, str], None]
KIND = "forecast"


@dataclass(frozen=True)
class Given:
    """What a forecast works on: its configuration with names and hashes of tasks, the policy that moves, base, task, old skills."""

    config: ForecastConfig
    policy: Policy
    base: Policy
    task: Task
    old: tuple[Task, ...]

    @classmethod
    def of(cls, config: ForecastConfig, task: Task | None = None, old: tuple[Task, ...] | None = None) -> Given:
        """Load and check everything; tasks from their names where not given. Raises InputError before any work."""
        train, tasks, skills = with_tasks(config.train, None if task is None else [task], old)
        policy, base = policy_and_base(train)
        check_tasks(train, policy, tasks, skills)
        assert train.learner is not None
        train.learner.check(policy, train.context, tasks[0])
        errors = VerifierErrors()
        return cls(
            replace(config, train=train),
            policy,
            base,
            guarded(tasks[0], errors),
            tuple(guarded(skill, errors) for skill in skills),
        )

    def reader(self) -> Reader:
        """Reads the policy in the contexts of the run."""
        return Reader(self.base, self.task, self.old, self.config.train, self.population.prompts)

    @property
    def population(self) -> Population:
        """The contexts of the run."""
        train = self.config.train
        assert train.learner is not None
        return Population(self.config.contexts or (train.learner.begin(train.context)[1],))

    @cached_property
    def field(self) -> Field:
        """The moving weights and what moves them, in the precision of the run."""
        train = self.config.train
        assert train.learner is not None
        never = torch.optim.SGD(moving(self.policy), lr=0.0)  # aims put a recorder in its place
        weights: Any = held_still(train.learner.hold(Weights(self.policy, self.base, never, train.clip)))
        if train.precision == "bfloat16":
            parts = {entry.name: getattr(weights, entry.name) for entry in fields(weights)}
            half = {name: replace(held, bfloat16=True) for name, held in parts.items() if isinstance(held, Policy)}
            weights = replace(weights, **half)
        learner: Any = train.learner.begin(train.context)[0]
        return Field(weights, learner, self.population, self.task)

    @cached_property
    def control(self) -> Control:
        """What the error of a piece is measured on; of a task without answers, what the base writes."""
        count, context = self.config.settings.control, self.population.prompts[0]
        reader = self.reader()
        return control_of(
            self.policy, self.task, self.old, context, count, lambda: reader.base_logprobs(self.policy)
        )  # fmt: skip

    def path(self, replicate: int) -> Path:
        """The path of a replicate, at its start: the policy gets the weights that a run begins with."""
        settings = self.config.settings
        put_back(self.policy, starting(self.config.train, self.base, settings.seed + replicate))
        shadow = shadow_of(self.field.weights)
        station = Station.start(moving(self.policy), shadowed=bool(shadow))
        for own, wanted in zip(shadow, station.shadow, strict=True):
            own.data.copy_(wanted)
        rng = np.random.default_rng([settings.seed, replicate])
        return Path(self.field, Rule.of(self.config.train), settings, self.control, rng, station)


def forecast(config: ForecastConfig, out: File | None = None, progress: Notes | None = None, **tasks: Any) -> Forecast:
    """Forecast the run of ``config``; with ``out`` as a directory that is continued, or only loaded.

    ``tasks``: ``task`` and ``old`` may be given as objects (`Given.of`). ``progress(step, note)`` is called after every
    piece, steps counted over all replicates. Raises InputError before any work.
    """
    given = Given.of(config, **tasks)
    if out is None:
        return _forecast(given, None, progress)
    environs = environment(given.config.settings.seed, given.config.train.device)
    with claimed_directory(out, given.config.to_dict(), environs, KIND):
        if (out / "forecast.json").exists():
            with understood(out / "forecast.json"):
                return Forecast.from_dict(given.config, read_json(out / "forecast.json"))
        found = _forecast(given, out, progress)
        write_json(out / "forecast.json", plain(found.to_dict()))
        for k in range(given.config.settings.replicates):
            (out / f"replicate-{k}.safetensors").unlink(missing_ok=True)
    return found


def _forecast(given: Given, out: File | None, progress: Notes | None) -> Forecast:
    reader, made = given.reader(), []
    base = reader.read(given.base)
    for k in range(given.config.settings.replicates):
        file = None if out is None else out / f"replicate-{k}.safetensors"
        note = None if progress is None else _shifted(progress, k * given.config.train.steps)
        made.append(_replicate(given, reader, k, file, note))
    return Forecast(given.config, base, made)


def _shifted(progress: Notes, first: int) -> Notes:
    return lambda step, note: progress(first + step, note)


def _replicate(given: Given, reader: Reader, number: int, file: File | None, note: Notes | None) -> Replicate:
    config = given.config
    path, held = given.path(number), Replicate()
    if file is not None and file.exists():
        held = load_path(file, path)
    started, before = time.perf_counter(), held.seconds
    last = config.at[-1]
    while path.station.step < last and held.lost is None:
        try:
            piece = path.next_piece(last)
        except Diverged as error:
            held.lost, held.said = path.station.step, str(error)
            break
        here = path.station.step
        for step in config.at:
            if here < step <= here + piece.length:
                held.looks.append(_look(given, reader, path, piece, step))
        path.advance(piece)
        held.spent, held.pieces, held.lost = path.spent, path.made, path.lost
        assert path.start is not None
        held.control = given.control.layout(path.start)
        if held.lost is not None:
            held.said = (
                f"the error of a piece of {config.settings.shortest} steps is above the tolerance of "
                f"{config.settings.tolerance:g} nats; a larger tolerance, or shortest 1, goes on"
            )
        held.seconds = before + time.perf_counter() - started
        if file is not None:
            save_path(file, path, held)
        if note is not None:
            note(path.station.step, f"{path.spent.gradients} gradients, pieces of {path.length} steps")
    held.looks = [look for look in held.looks if held.lost is None or look.step <= held.lost]
    return held


def _look(given: Given, reader: Reader, path: Path, piece: Piece, step: int) -> Look:
    """Readings at ``step``, which lies within ``piece``: predicted, then corrected."""
    length = step - path.station.step
    found = []
    for way in (Piece(piece.start, length), replace(piece, length=length)):
        path.stay_at(way)
        found.append(reader.read(given.policy))
    return Look(step, found[1], found[0])


def save_path(file: File, path: Path, held: Replicate) -> None:
    """Write a path between two pieces, with what it has found, whole or not at all."""
    assert path.aim is not None
    assert path.start is not None
    station, aim = path.station, path.aim
    groups = {
        "weights": station.weights,
        "first": station.first,
        "second": station.second,
        "g": aim.g,
        "q": aim.q,
        "apart": aim.apart,
    }
    groups["shadow"] = station.shadow
    tensors = {f"{name}.{k}": tensor for name, group in groups.items() for k, tensor in enumerate(group)}
    meta = {
        "step": station.step,
        "age": station.age,
        "aim": [aim.updates, aim.batches, aim.samples],
        "length": path.length,
        "start": path.start.tolist(),
        "generator": path.rng.bit_generator.state,
        "held": replicate_dict(held),
    }
    write_checkpoint(file, tensors, meta)


def load_path(file: File, path: Path) -> Replicate:
    """Put what `save_path` wrote into the fresh ``path``; returns what it had found. Raises InputError if it is no checkpoint."""
    tensors, meta = read_checkpoint(file)
    with understood(file):
        return _loaded(path, tensors, meta)


def _loaded(path: Path, tensors: Tensors, meta: dict[str, Any]) -> Replicate:
    station = path.station
    for name in ("weights", "first", "second", "shadow"):
        _fill(tensors, name, getattr(station, name))
    for own, wanted in zip(shadow_of(path.field.weights), station.shadow, strict=True):
        own.data.copy_(wanted)
    g, q = ([torch.empty_like(t) for t in station.weights] for _ in range(2))
    _fill(tensors, "g", g)
    _fill(tensors, "q", q)
    station.step, station.age = meta["step"], meta["age"]
    apart = [torch.empty_like(t) for t in station.weights] if "apart.0" in tensors else []
    _fill(tensors, "apart", apart)
    updates, batches, samples = meta["aim"]
    path.aim = Aim(g, q, updates, batches, samples, apart)
    path.length, path.start = meta["length"], np.array(meta["start"])
    path.rng.bit_generator.state = meta["generator"]
    held = replicate_from(meta["held"])
    path.spent, path.made = replace(held.spent), held.pieces
    return held


def _fill(tensors: Tensors, name: str, group: list[torch.Tensor]) -> None:
    for k, target in enumerate(group):
        target.copy_(tensors[f"{name}.{k}"])
