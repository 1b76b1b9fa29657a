"""Sweeps: a grid of settings times seeds, vectorised inside a process, spread over processes or machines by joblib.

All settings of a chunk advance together, whatever their separations: modes lie on one axis, so that a learner is three
numbers and the exact gradients broadcast. Chunks are independent, have their own generator and always the same content,
so that the table does not depend on the backend, the number of jobs, or interruptions.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit, logit, ndtr

from fstsim.cluster import Cluster, Lost, check_address, joined
from fstsim.divergences import forward_kl_gradient, reverse_kl_gradient, two_mode_kl
from fstsim.errors import InputError
from fstsim.logistic_normal import MAX_SCALE
from fstsim.objectives import forward_kl_estimate, reverse_kl_estimate
from fstsim.optimizers import Geometry, Trained, weight_step
from fstsim.reading import is_there, read_text
from fstsim.records import check_directory, claimed_directory, environment, plain, row_line, write_text
from fstsim.settings import check_types
from fstsim.simulation_run import FARTHEST
from fstsim.whitened import Whitened
from fstsim.workers import WorkerKilled, ending_with_parent, killed_are_told

Array = NDArray[np.float64]
Rows = list[dict[str, Any]]
Backend = Literal["loky", "threading", "sequential", "dask"]

CHUNK = 2000  # settings advanced together: enough to fill the vectors, few enough to resume and to balance
_SHORT = 16  # digits of the checksum in the name of a chunk's file
# axes of the grid: what fits, and how that is said
_AXIS: dict[str, tuple[Callable[[float], bool], str]] = {
    "separation": (lambda v: 0.0 < v <= FARTHEST, f"lie in (0, {FARTHEST:g}]"),
    "alpha": (lambda v: 0.0 < v < 1.0, "lie strictly between 0 and 1"),
    "beta0": (lambda v: 0.0 < v < 1.0, "lie strictly between 0 and 1"),
    "new_error": (lambda _: True, "be finite"),
    "old_fraction": (lambda v: 0.0 <= v <= 1.0, "lie in [0, 1]"),
    "lr": (lambda v: v > 0.0, "be positive and finite"),
}
AXES = tuple(_AXIS)
_MOST_STEPS = 1_000_000
_MOST_TRAJECTORIES = 10_000_000
_LARGEST_BATCH = 20_000_000  # numbers drawn in one step of a chunk: 160 MB


@dataclass(frozen=True)
class SweepConfig:
    """A grid: every combination of the values that are listed for each setting."""

    objective: Literal["forward", "reverse"] = "reverse"
    """forward: KL(train || learner), supervised fine-tuning; reverse: KL(learner || target), reinforcement learning"""
    separation: tuple[float, ...] = (2.0, 4.0, 6.0)
    """Mahalanobis distances of the old and the new mean, standard deviations"""
    alpha: tuple[float, ...] = (0.5,)
    """weights of the old mode in the target of the reverse objective, between 0 and 1"""
    beta0: tuple[float, ...] = (0.5,)
    """weights of the old mode in the learner at the start, between 0 and 1"""
    new_error: tuple[float, ...] = (0.0,)
    """errors of the learner's new mean at the start, standard deviations; positive is away from the old mean"""
    old_fraction: tuple[float, ...] = (0.0,)
    """shares of old data in the training set of the forward objective, 0 to 1"""
    lr: tuple[float, ...] = (0.1,)
    """learning rates"""
    seeds: int = 1
    """repetitions of every combination; they differ in their batches only"""
    steps: int = 500
    """updates of every learner"""
    batch: int = 0
    """samples in one update; 0 gives exact gradients"""
    geometry: Geometry = "logit"
    """metric in which the weight moves: its logit, its probability (prob), complete data (em) or Fisher-Rao (fisher)"""
    train: Trained = "all"
    """train the weight and both means, or hold the means fixed"""
    seed: int = 0
    """seed of the whole sweep"""

    def __post_init__(self) -> None:
        check_types(self)
        for name in AXES:
            values = getattr(self, name)
            if len(values) == 0:
                raise InputError(f"{name} is empty: a grid needs at least one value on every axis")
            for value in values:
                fits, allowed = _AXIS[name]
                if not (np.isfinite(value) and fits(value)):
                    raise InputError(f"{name} must {allowed}, got {value}")
        farthest = max(self.separation) + max(map(abs, self.new_error))
        if farthest > FARTHEST:
            raise InputError(
                f"separation + |new_error| must be at most {FARTHEST:g}, got a combination with {farthest:g}"
            )
        for name, smallest in (("seeds", 1), ("steps", 0), ("seed", 0)):
            if getattr(self, name) < smallest:
                raise InputError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        if self.steps > _MOST_STEPS:
            raise InputError(f"steps must be at most {_MOST_STEPS}, got {self.steps}")
        if self.size > _MOST_TRAJECTORIES:
            raise InputError(f"a sweep has at most {_MOST_TRAJECTORIES} trajectories, this one would have {self.size}")
        if self.batch * min(self.size, CHUNK) > _LARGEST_BATCH:
            raise InputError(
                f"batch x trajectories of a chunk must be at most {_LARGEST_BATCH}, got {self.batch} x {min(self.size, CHUNK)}"
            )
        least = 2 if self.objective == "reverse" else 1
        if self.batch != 0 and self.batch < least:
            raise InputError(f"batch must be 0 (exact) or at least {least} for {self.objective} KL, got {self.batch}")
        for name, kind in (
            ("objective", ("forward", "reverse")),
            ("geometry", get_args(Geometry)),
            ("train", get_args(Trained)),
        ):
            if getattr(self, name) not in kind:
                raise InputError(f"{name} must be one of {', '.join(kind)}; got {getattr(self, name)!r}")

    @property
    def size(self) -> int:
        """Number of trajectories."""
        return math.prod(len(getattr(self, name)) for name in AXES) * self.seeds

    def settings(self, first: int, last: int) -> dict[str, Array]:
        """Settings ``first .. last - 1`` of the grid (the seed varies fastest), each ``(n,)``."""
        shape = (*(len(getattr(self, name)) for name in AXES), self.seeds)
        index = np.unravel_index(np.arange(first, last), shape)
        columns = {name: np.asarray(getattr(self, name))[i] for name, i in zip(AXES, index, strict=False)}
        return {**columns, "seed": index[-1].astype(np.float64)}


def run_chunk(config: SweepConfig, number: int) -> list[dict[str, Any]]:
    """Simulate chunk ``number`` of the grid and return one row a trajectory: its setting and its end."""
    first = number * CHUNK
    grid = config.settings(first, min(first + CHUNK, config.size))
    ends, diverged = _run_settings(config, grid, number) if config.batch else _run_repeated(config, grid, number)
    columns = {**grid, **ends}
    samples = config.steps * config.batch
    return [
        {
            "index": first + i,
            **{name: float(values[i]) for name, values in columns.items()},
            "steps": config.steps,
            "samples": samples,
            "status": "diverged" if diverged[i] else "completed",
        }
        for i in range(diverged.size)
    ]


def _run_repeated(
    config: SweepConfig, grid: dict[str, Array], number: int
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """`_run_settings` for exact gradients: repetitions of a setting are equal, and each setting is computed once."""
    settings = np.stack([grid[name] for name in AXES])
    _, once, back = np.unique(settings, axis=1, return_index=True, return_inverse=True)
    ends, diverged = _run_settings(config, {name: values[once] for name, values in grid.items()}, number)
    back = back.ravel()
    return {name: values[back] for name, values in ends.items()}, diverged[back]


def _run_settings(
    config: SweepConfig, grid: dict[str, Array], number: int
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """What `_measure` says of the end of every setting, with the peak of the drift, and which of them diverged."""
    rng = np.random.default_rng([config.seed, number])
    delta = grid["separation"][:, None]
    origin = np.zeros_like(delta)
    base = Whitened(logit(grid["beta0"]), origin, delta + grid["new_error"][:, None])
    target = Whitened(logit(grid["alpha"]), origin, delta)

    def gradient(state: Whitened) -> tuple[Array, Array, Array]:
        if config.objective == "reverse":
            if config.batch:
                return reverse_kl_estimate(state, target, rng, config.batch)
            return reverse_kl_gradient(*state, *target)
        if config.batch:
            return forward_kl_estimate(state, grid["old_fraction"], (origin, delta), rng, config.batch)
        weights = np.stack([grid["old_fraction"], 1.0 - grid["old_fraction"]], axis=-1)
        centers = np.stack([origin, delta], axis=-2)
        if not grid["old_fraction"].any():
            return forward_kl_gradient(*state, weights[:, 1:], centers[:, 1:])
        return forward_kl_gradient(*state, weights, centers)

    state, peak = base, np.zeros(delta.size)
    diverged = np.zeros(delta.size, dtype=bool)
    for _ in range(config.steps):
        g_s, g_o, g_n = gradient(state)
        s, m_o, m_n = state
        gap = np.abs(m_n - m_o)[:, 0]
        s = weight_step(s, g_s, gap, grid["lr"], config.geometry)
        if config.train == "all":
            m_o, m_n = m_o - grid["lr"][:, None] * g_o, m_n - grid["lr"][:, None] * g_n
        # a learner that leaves the range of the integrals stays where it was and is reported as diverged
        diverged |= ~(np.isfinite(s) & (np.abs(m_n - m_o)[:, 0] <= MAX_SCALE))
        keep = diverged[:, None]
        state = Whitened(
            np.where(diverged, state.log_odds, s), np.where(keep, state.old, m_o), np.where(keep, state.new, m_n)
        )
        peak = np.maximum(peak, np.abs(state.old[:, 0]))
    return {**_measure(state, base, delta[:, 0]), "peak_drift": peak}, diverged


def _measure(state: Whitened, base: Whitened, delta: Array) -> dict[str, Array]:
    """The columns of a run at the end of a trajectory (see `Trajectory`)."""
    s, m_o, m_n = state
    region = expit(s) * ndtr(0.5 * delta - m_o[:, 0]) + expit(-s) * ndtr(0.5 * delta - m_n[:, 0])
    return {
        "reward": 1.0 - region,
        "old_mass": expit(s),
        "old_region_mass": region,
        "drift": np.abs(m_o[:, 0]),
        "kl_to_base": np.maximum(two_mode_kl(state, base), 0.0),
        "kl_from_base": np.maximum(two_mode_kl(base, state), 0.0),
        "entropy": entr(expit(s)) + entr(expit(-s)),
    }


@contextmanager
def _backend(backend: str, jobs: int, address: str | None, say: Callable[[str], None]) -> Iterator[Cluster | None]:
    """joblib's configuration for ``backend``, or the cluster whose scheduler is at ``address``."""
    if backend == "dask":
        check_address(backend, address)
        with joined(str(address), jobs, None, str, say) as cluster:
            yield cluster
        return
    import joblib  # here and below: a twentieth of a second of every other command's start

    with joblib.parallel_config(backend=backend, n_jobs=jobs):
        yield None


def run_sweep(
    config: SweepConfig,
    out: Path,
    backend: Backend = "loky",
    jobs: int = -1,
    address: str | None = None,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Run the grid and write ``out/table.jsonl``, one row a trajectory in grid order; returns its path.

    Finished chunks are kept in ``out/parts`` and are not run again, so that an interrupted sweep continues to the same
    table. ``progress(n)`` is called with the trajectories just finished (those found on disk included), ``say`` with a line for
    each worker of a cluster that dies: its chunk is computed once more. Raises InputError for an unknown backend, a scheduler
    that does not answer, or an ``out`` that holds another sweep, and `WorkerKilled` where two workers died in a chunk.
    """
    if backend not in get_args(Backend):
        raise InputError(f"backend must be one of {', '.join(get_args(Backend))}; got {backend!r}")
    if jobs == 0:
        raise InputError("jobs must not be 0: give a number of workers, or -1 for every core")
    check_directory(out, asdict(config), "sweep")
    if _finished(config, out):
        if progress is not None:
            progress(config.size)
        return out / "table.jsonl"
    with (
        _backend(backend, jobs, address, say) as cluster,
        claimed_directory(out, asdict(config), environment(config.seed), "sweep"),
    ):
        return _run_on(config, out, cluster or backend, jobs, progress)


def _digest(config: SweepConfig, text: str) -> str:
    """SHA-256 of rows and of the grid that they belong to."""
    return hashlib.sha256(f"{json.dumps(plain(asdict(config)), sort_keys=True)}\n{text}".encode()).hexdigest()


def _finished(config: SweepConfig, out: Path) -> bool:
    """Whether the table is there; InputError if it is not the one that this sweep wrote, to the last byte."""
    table, digest = out / "table.jsonl", out / "table.sha256"
    if not is_there(table):
        return False
    if not is_there(digest) or read_text(digest).strip() != _digest(config, read_text(table)):
        raise InputError(
            f"{table} is not what this sweep wrote: remove it to run the sweep again, or choose another --out"
        )
    return True


def _read_part(config: SweepConfig, out: Path, number: int) -> str | None:
    """Rows of a chunk that is finished; None if it is not, or its file is not what was written."""
    for path in sorted((out / "parts").glob(f"{number:06d}-*.jsonl")):
        with contextlib.suppress(InputError):
            text = read_text(path)
            if path == _part_path(config, out, number, text):
                return text
    return None


def _part_path(config: SweepConfig, out: Path, number: int, text: str) -> Path:
    """Where the rows of a chunk are kept: the checksum is of its number too, so that those of another chunk are none of it."""
    digest = _digest(config, f"{number}\n{text}")
    return out / "parts" / f"{number:06d}-{digest[:_SHORT]}.jsonl"


def _run_on(
    config: SweepConfig, out: Path, where: Backend | Cluster, jobs: int, progress: Callable[[int], None] | None
) -> Path:
    """What is missing, chunk by chunk, then the table, in a directory that is this sweep's own."""
    chunks = range(-(-config.size // CHUNK))
    done = {k: text for k in chunks if (text := _read_part(config, out, k)) is not None}
    missing = [k for k in chunks if k not in done]
    if progress is not None:
        progress(sum(min(CHUNK, config.size - k * CHUNK) for k in done))
    for k, chunk_rows in _made(config, missing, where, jobs):
        done[k] = "".join(map(row_line, chunk_rows))
        write_text(_part_path(config, out, k, done[k]), done[k])
        if progress is not None:
            progress(len(chunk_rows))
    text = "".join(done[k] for k in chunks)
    write_text(out / "table.sha256", _digest(config, text) + "\n")
    write_text(out / "table.jsonl", text)
    for part in (out / "parts").glob("*.jsonl"):
        with contextlib.suppress(OSError):  # a folder, which is not ours
            part.unlink()
    with contextlib.suppress(OSError):  # something that is not ours lies in it
        (out / "parts").rmdir()
    return out / "table.jsonl"


def _made(
    config: SweepConfig, missing: Sequence[int], where: Backend | Cluster, jobs: int
) -> Iterator[tuple[int, Rows]]:
    """The numbers and rows of chunks, as they are finished on a cluster, in order otherwise."""
    if isinstance(where, Cluster):
        names = [f"chunk {k}" for k in missing]
        for i, rows in where.work_through(run_chunk, [(config, k) for k in missing], names):
            if isinstance(rows, Lost):
                raise WorkerKilled(f"{names[i]} was given up: {rows}")
            yield missing[i], rows
        return
    import joblib

    # rounds of a few chunks a worker: what an interruption can cost
    for group in _rounds(missing, 4 * max(1, joblib.effective_n_jobs(jobs))):
        if where == "loky":
            with killed_are_told():
                made = joblib.Parallel()(ending_with_parent(run_chunk, config, k) for k in group)
        else:
            made = joblib.Parallel()(joblib.delayed(run_chunk)(config, k) for k in group)
        yield from zip(group, made, strict=True)


def _rounds(items: Sequence[int], size: int) -> list[list[int]]:
    iterator = iter(items)
    return list(iter(lambda: list(itertools.islice(iterator, size)), []))
