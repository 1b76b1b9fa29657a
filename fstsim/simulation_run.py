"""One simulation as a run directory, written in segments: it can be killed at any moment and continued.

A directory holds ``config.json``, ``environment.json``, ``metrics.jsonl`` (one row a step, the initial state included)
and ``checkpoint.npz`` (the trajectory so far and, in the same file, the state of the generator and what AdamW
remembers, so that they can never disagree). Whoever calls `run_simulation` again with the same configuration gets, to
the last bit, what an uninterrupted call would have given.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fstsim.errors import InputError
from fstsim.objectives import ForwardKL, Objective, ReverseKL
from fstsim.optimizers import SGD, AdamMoments, AdamW, Geometry, GradientDescent, GradientFlow, Optimizer, Trained
from fstsim.reading import is_there, understood
from fstsim.records import claimed_directory, environment, keep_text, row_line, write_text
from fstsim.settings import type_hints
from fstsim.simulate import Part, adam_moments, simulate
from fstsim.trajectory import Trajectory
from fstsim.two_mode import TwoModeProblem, TwoModeState

_SEGMENTS = 50  # checkpoints of a run by default
_LARGEST_HISTORY = 50_000_000  # numbers kept of all states: 400 MB
_LARGEST_BATCH = 10_000_000  # numbers drawn in one step: 80 MB
FARTHEST = 40.0  # of any two means at the start; the integrals are exact up to 64
_LONGEST_TIME = 1e12  # of a flow

Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class SimulationConfig:
    """What is minimised, where the learner starts, and how it learns."""

    objective: Literal["forward", "reverse"] = "forward"
    """forward: KL(train || learner), supervised fine-tuning; reverse: KL(learner || target), reinforcement learning"""
    old_fraction: float = 0.0
    """share of old data in the training set of the forward objective, 0 to 1 (0: new data only)"""
    alpha: float = 0.5
    """weight of the old mode in the target of the reverse objective, between 0 and 1"""
    separation: float = 3.0
    """Mahalanobis distance of the old and the new mean, standard deviations"""
    dimension: int = 1
    """dimension of a sample"""
    beta0: float = 0.5
    """weight of the old mode in the learner at the start, between 0 and 1"""
    new_error: float = 0.0
    """error of the learner's new mean at the start, standard deviations; positive is away from the old mean"""
    optimizer: Literal["flow", "descent", "sgd", "adamw"] = "sgd"
    """flow: exact gradient flow; descent: exact gradients in steps; sgd: gradients of finite batches; adamw: the optimizer
    of the language models, on such batches or on exact gradients"""
    geometry: Geometry = "logit"
    """metric in which the weight moves: its logit, its probability (prob), complete data (em) or Fisher-Rao (fisher)"""
    train: Trained = "all"
    """train the weight and both means, or hold the means fixed"""
    lr: float = 0.1
    """learning rate; a flow is recorded at times lr, 2 lr, ..., so that its rows compare with those of descent and sgd"""
    growth: float = 1.0
    """each time interval of a flow is this factor longer than the one before; above 1 for power laws"""
    steps: int = 500
    """number of steps; each is a row of metrics.jsonl"""
    batch: int = 32
    """samples in one step of sgd or adamw; 0 gives adamw exact gradients"""
    beta1: float = 0.9
    """adamw: decay of the running mean of gradients, at least 0 and below 1"""
    beta2: float = 0.999
    """adamw: decay of the running mean of squared gradients, at least 0 and below 1"""
    eps: float = 1e-8
    """adamw: added to the root of the running mean of squared gradients"""
    weight_decay: float = 0.0
    """adamw: each step shrinks log-odds and whitened means by lr times this"""
    replicates: int = 1
    """independent learners, each with its own batches; a row is then their mean, with its standard error"""
    seed: int = 0
    """seed of the batches"""

    def __post_init__(self) -> None:
        """Raise InputError, naming the field and what is allowed, unless the run makes sense."""
        hints = type_hints(SimulationConfig)
        for name, kind in hints.items():
            value = getattr(self, name)
            if kind is int:
                if isinstance(value, bool) or not isinstance(value, int):
                    raise InputError(f"{name} must be an integer, got {value!r}")
            elif kind is float:
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise InputError(f"{name} must be a number, got {value!r}")
                object.__setattr__(self, name, float(value))
            elif value not in get_args(kind):
                raise InputError(f"{name} must be one of {', '.join(get_args(kind))}; got {value!r}")
        self._check_ranges()
        self._check_combinations()

    def _check_ranges(self) -> None:
        for name, low, high in (
            ("dimension", 1, 1000),
            ("steps", 1, 100_000),
            ("batch", 0 if self.optimizer == "adamw" else 1, 1_000_000),
            ("replicates", 1, 10_000),
            ("seed", 0, 2**63 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must lie in {low}..{high}, got {getattr(self, name)}")
        if not 0.0 <= self.old_fraction <= 1.0:
            raise InputError(f"old_fraction must lie in [0, 1], got {self.old_fraction}")
        for name in ("alpha", "beta0"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise InputError(f"{name} must lie strictly between 0 and 1, got {getattr(self, name)}")
        if not 0.0 < self.separation <= FARTHEST:
            raise InputError(f"separation must lie in (0, {FARTHEST:g}], got {self.separation}")
        if not self.separation + abs(self.new_error) <= FARTHEST:
            raise InputError(f"separation + |new_error| must be at most {FARTHEST:g}, got new_error {self.new_error}")
        if not 0.0 < self.lr <= 1e6:
            raise InputError(f"lr must lie in (0, 1e6], got {self.lr}")
        if not 1.0 <= self.growth <= 10.0:
            raise InputError(f"growth must lie in [1, 10], got {self.growth}")
        AdamW(1.0, self.beta1, self.beta2, self.eps, self.weight_decay)

    def _check_combinations(self) -> None:
        draws = self.optimizer == "sgd" or (self.optimizer == "adamw" and self.batch > 0)
        if not draws and self.replicates != 1:
            exact = "exact adamw (batch 0)" if self.optimizer == "adamw" else f"optimizer {self.optimizer}"
            raise InputError(
                f"replicates must be 1 with {exact}: replicates differ in their batches, and this draws none"
            )
        if self.optimizer == "adamw" and self.geometry != "logit":
            raise InputError(
                f"geometry must be logit with optimizer adamw, which scales its own steps; got {self.geometry}"
            )
        if self.optimizer != "flow" and self.growth != 1.0:
            raise InputError(f"growth must be 1 with optimizer {self.optimizer}: only a flow has uneven times")
        if self.objective == "reverse" and self.old_fraction != 0.0:
            raise InputError(
                "old_fraction is used by objective forward only; leave it at 0, or choose objective forward"
            )
        if self.objective == "reverse" and draws and self.batch < 2:
            raise InputError("batch must be at least 2 with the reverse objective: its baseline leaves one sample out")
        with np.errstate(over="ignore"):
            last = self.flow().times(self.steps, self.steps)[0] if self.optimizer == "flow" else 0.0
        if not last <= _LONGEST_TIME:
            raise InputError(f"the flow must end by time {_LONGEST_TIME:g}, got {last:g}: lower steps, growth or lr")
        kept = (self.steps + 1) * self.replicates * (2 * self.dimension + 1)
        if kept > _LARGEST_HISTORY:
            raise InputError(
                f"steps x replicates x (2 dimension + 1) must be at most {_LARGEST_HISTORY:,}, got {kept:,}"
            )
        drawn = self.batch * self.replicates * self.dimension
        if draws and drawn > _LARGEST_BATCH:
            raise InputError(f"batch x replicates x dimension must be at most {_LARGEST_BATCH:,}, got {drawn:,}")

    def problem(self) -> TwoModeProblem:
        """Unit covariance, the old mean at 0, the new one on the first axis."""
        return TwoModeProblem.separated(self.separation, self.alpha, self.dimension)

    def objective_of(self, problem: TwoModeProblem) -> Objective:
        """The objective of this run on ``problem``."""
        return ForwardKL(problem, self.old_fraction) if self.objective == "forward" else ReverseKL(problem)

    def initial_of(self, problem: TwoModeProblem) -> TwoModeState:
        """State of one learner at the start: its old component is right."""
        return problem.initial(self.beta0, self.new_error * np.eye(self.dimension)[0])

    def flow(self) -> GradientFlow:
        """The gradient flow that a run follows, or is compared with."""
        return GradientFlow(self.lr, self.growth, self.geometry, self.train)

    def optimizer_of(self) -> Optimizer:
        """The optimizer of this run."""
        if self.optimizer == "flow":
            return self.flow()
        if self.optimizer == "descent":
            return GradientDescent(self.lr, self.geometry, self.train)
        if self.optimizer == "adamw":
            batch = self.batch or None
            return AdamW(self.lr, self.beta1, self.beta2, self.eps, self.weight_decay, batch, self.train)
        return SGD(self.lr, self.batch, self.geometry, self.train)


def run_simulation(
    config: SimulationConfig, out: Path, progress: Progress | None = None, segment: int | None = None
) -> Trajectory:
    """Run, continue or only load the simulation in directory ``out``; its trajectory so far is safe after each segment.

    ``segment`` is the number of steps between checkpoints (a fiftieth of the run by default); a flow restarts its
    solver there, so it belongs to the run like a field of ``config``. ``progress(k, old_mass)`` is called with the
    steps done and the mean old mass at the last checkpoint. Returns early, with status ``diverged``, when a
    learner leaves the domain. Raises InputError when ``out`` holds another run, or something else.
    """
    every = segment if segment is not None else -(-config.steps // _SEGMENTS)
    if every < 1:
        raise InputError(f"segment must be at least 1, got {every}")
    wanted = {**dataclasses.asdict(config), "segment": every}
    with claimed_directory(out, wanted, environment(config.seed), "simulation"):
        return _run_on(config, out, every, progress)


def _run_on(config: SimulationConfig, out: Path, every: int, progress: Progress | None) -> Trajectory:
    problem = config.problem()
    objective, optimizer, rng = config.objective_of(problem), config.optimizer_of(), np.random.default_rng(config.seed)
    checkpoint = out / "checkpoint.npz"
    moments: AdamMoments | None = None
    if is_there(checkpoint):
        trajectory, moments = _load(checkpoint, config, rng)
    else:
        start = config.initial_of(problem)
        if config.replicates > 1:
            shape = (config.replicates, config.dimension)
            means = (np.broadcast_to(m, shape) for m in (start.mean_old, start.mean_new))
            start = TwoModeState(np.full(config.replicates, start.log_odds), *means)
        trajectory = simulate(problem, objective, start, optimizer, 0, rng)
    if moments is None:
        moments = adam_moments(trajectory.state(0))
    lines = _lines(trajectory, 0, 0)
    for done in range(0, trajectory.steps, every):
        # by segments as they were written: sums over blocks of another length could round differently
        lines += _lines(trajectory, done + 1, min(done + every, trajectory.steps))
    while trajectory.steps < config.steps and trajectory.status == "completed":
        done, mass = trajectory.steps, float(trajectory.old_mass[-1].mean())
        report = None if progress is None else lambda k, d=done, m=mass: progress(d + k, m)
        steps = min(every, config.steps - done)
        trajectory = trajectory.then(
            simulate(
                problem,
                objective,
                trajectory.state(),
                optimizer,
                steps,
                rng,
                part=Part(progress=report, start=done, moments=moments),
            )
        )
        trajectory.save(checkpoint, generator=_pack(rng, moments))
        lines += _lines(trajectory, done + 1, trajectory.steps)
        write_text(out / "metrics.jsonl", "".join(lines))
    keep_text(out / "metrics.jsonl", "".join(lines))  # killed between the last checkpoint and its rows
    return trajectory


def _load(
    checkpoint: Path, config: SimulationConfig, rng: np.random.Generator
) -> tuple[Trajectory, AdamMoments | None]:
    """The trajectory so far and AdamW's memory; InputError if they cannot be of the run that ``config`` describes."""
    with understood(checkpoint):
        trajectory = Trajectory.load(checkpoint)
        with np.load(checkpoint, allow_pickle=False) as data:
            moments = _unpack(str(data["generator"]), rng)
        batch = () if config.replicates == 1 else (config.replicates,)
        rows, wanted = trajectory.step.size, config.problem()
        shapes = [(rows,), (rows,), (rows,), (rows, *batch), *2 * [(rows, *batch, config.dimension)]]
        names = ("step", "time", "samples", "log_odds", "mean_old", "mean_new")
        arrays = [np.asarray(getattr(trajectory, name)) for name in names]
        if [array.shape for array in arrays] != shapes or any(array.dtype.kind not in "if" for array in arrays):
            raise ValueError("its arrays are not those of this run")
        if not np.array_equal(trajectory.step, np.arange(rows)) or rows > config.steps + 1:
            raise ValueError("its steps are not those of this run")
        if trajectory.status not in ("completed", "diverged"):
            raise ValueError(f"its status is {trajectory.status!r}")
        same = all(
            np.array_equal(getattr(trajectory.problem, name), getattr(wanted, name))
            for name in ("alpha", "mean_old", "mean_new", "covariance")
        )
        if not same:
            raise ValueError("its problem is not that of this run")
        if trajectory.status == "completed" and not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("some of its numbers are not finite")
    return trajectory, moments


def _pack(rng: np.random.Generator, moments: AdamMoments) -> str:
    """Generator and, once it has stepped, AdamW's memory, as text that keeps every bit."""
    kept = {"generator": rng.bit_generator.state}
    if moments.step:
        both = np.stack([moments.first, moments.second]).astype("<f8")
        kept["adamw"] = {
            "step": moments.step,
            "shape": both.shape,
            "moments": base64.b64encode(both.tobytes()).decode(),
        }
    return json.dumps(kept)


def _unpack(text: str, rng: np.random.Generator) -> AdamMoments | None:
    """Put the generator back; the memory of AdamW, or None if it has none."""
    kept = json.loads(text)
    rng.bit_generator.state = kept["generator"]
    if "adamw" not in kept:
        return None
    memory = kept["adamw"]
    both = np.frombuffer(base64.b64decode(memory["moments"]), "<f8").reshape(memory["shape"])
    return AdamMoments(memory["step"], both[0], both[1])


def _lines(trajectory: Trajectory, first: int, last: int) -> list[str]:
    """Rows ``first..last`` of metrics.jsonl; over replicates, means with standard errors in ``<column>_se``."""
    rows = np.r_[0, max(first, 1) : last + 1]  # the base comes along: the KL columns refer to it
    names = ("step", "time", "samples", "log_odds", "mean_old", "mean_new")
    part = Trajectory(trajectory.problem, *(getattr(trajectory, name)[rows] for name in names))
    table = {}
    for name, values in part.columns().items():
        if values.ndim == 1:
            table[name] = values
        else:
            table[name] = values.mean(axis=1)
            table[f"{name}_se"] = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    return [row_line({name: values[i] for name, values in table.items()}) for i in range(first > 0, rows.size)]
