"""Loops that move what a method holds fixed within an update: SDFT's teacher, OAPL's lagged policy (theory 8 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.labelled import geometric_mix
from fstsim.method_objectives import OAPL, SDFT
from fstsim.optimizers import SGD, AdamW, GradientFlow, Optimizer, weight_velocity
from fstsim.simulate import Part, adam_moments, simulate
from fstsim.trajectory import Trajectory
from fstsim.two_mode import TwoModeProblem, TwoModeState

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Teacher:
    """Teacher of self-distillation: the learner's average, ``tilt`` nats closer to the demonstrated mode, nearer to a base."""

    tilt: float
    """log-odds that the demonstration is worth, toward the new mode"""
    ema_rate: float
    """rate at which the teacher's parameters follow the student's; 0 freezes it"""
    anchor: float = 1.0
    """a of ``teacher^a base^(1-a)`` (labelled product), 0 to 1"""
    base: TwoModeState | None = None
    """the learner at its start, unless given"""


@dataclass(frozen=True)
class Regression:
    """What OAPL regresses on: rewards of the modes and the temperature, the lagged policy drawn to the start by ``anchor``."""

    reward_old: float
    reward_new: float
    temperature: float
    anchor: float = 1.0
    """a of ``q_lag^a q_0^(1-a)`` (labelled product with the start), 0 to 1"""
    slope: ArrayLike = 0.0
    """slope of the reward within a mode, as `OAPL` has it"""


def simulate_sdft(
    problem: TwoModeProblem,
    initial: TwoModeState,
    teacher: Teacher,
    optimizer: Optimizer,
    steps: int,
    rng: np.random.Generator | None = None,
) -> tuple[Trajectory, Trajectory]:
    r"""Student and teacher of self-distillation, each a `Trajectory` of ``steps + 1`` rows.

    The student follows `SDFT` toward the conditioned teacher; the teacher's parameters follow the student,
    ``d teacher/dt = ema_rate (student - teacher)``, both starting at ``initial``. A flow solves the two together; a
    descent step of size ``lr`` is followed by ``teacher += ema_rate lr (student - teacher)``. With an anchor a < 1
    the student sees ``teacher^a base^(1-a)``, still tilted. Batch axes of ``initial`` are independent learners.
    Raises InputError when ``ema_rate`` is negative, ``ema_rate * lr > 1``, ``anchor`` is outside [0, 1], or as `simulate`.
    """
    ema_rate = teacher.ema_rate
    if not (np.isfinite(ema_rate) and ema_rate >= 0.0):
        raise InputError(f"ema_rate must be nonnegative and finite, got {ema_rate!r}")
    if not isinstance(optimizer, GradientFlow) and ema_rate * optimizer.lr > 1.0:
        raise InputError(f"ema_rate * lr must be at most 1, got {ema_rate * optimizer.lr:g}")
    fixed = _broadcast(initial if teacher.base is None else teacher.base, initial)

    def objective(average: TwoModeState, base: TwoModeState) -> SDFT:
        return SDFT(problem, geometric_mix(problem, average, base, teacher.anchor), teacher.tilt)

    # the input is looked at before any work
    simulate(problem, objective(initial, fixed), initial, optimizer, min(steps, 0), rng)
    students, teachers = _rows(problem, initial, steps), _rows(problem, initial, steps)
    if isinstance(optimizer, GradientFlow):
        for index in np.ndindex(initial.batch_shape):
            at = (slice(None), *index)
            students[at], teachers[at] = _sdft_flow(
                problem,
                objective,
                _entry(initial, index),
                _entry(fixed, index),
                ema_rate,
                optimizer,
                steps,
            )
    else:
        student = average = initial
        moments = (
            adam_moments(initial) if isinstance(optimizer, AdamW) else None
        )  # what AdamW remembers spans the steps
        for k in range(steps):
            run = simulate(problem, objective(average, fixed), student, optimizer, 1, rng, part=Part(moments=moments))
            if run.status == "diverged":
                break
            student = run.state()
            average = _toward(average, student, ema_rate * optimizer.lr)
            students[k + 1], teachers[k + 1] = _flat(student), _flat(average)
    time = _times(optimizer, steps)
    return _trajectory(problem, optimizer, time, students), _trajectory(problem, optimizer, time, teachers)


def simulate_oapl(
    problem: TwoModeProblem,
    initial: TwoModeState,
    regression: Regression,
    refreshes: int,
    period: int,
    optimizer: Optimizer,
    rng: np.random.Generator | None = None,
) -> Trajectory:
    r"""OAPL for ``refreshes`` periods of ``period`` updates; the lagged policy is the learner at the period's start.

    Rows: ``refreshes * period + 1``. Raises InputError when ``refreshes`` is negative or ``period`` is not positive,
    or as `simulate` and `OAPL` do.
    """
    if refreshes < 0 or period < 1:
        raise InputError(f"refreshes must be nonnegative and period positive, got {refreshes} and {period}")
    rows = _rows(problem, initial, refreshes * period)
    lag = initial
    moments = (
        adam_moments(initial) if isinstance(optimizer, AdamW) else None
    )  # refreshing the sampler leaves them alone
    r = regression
    for k in range(refreshes):
        reference = geometric_mix(problem, lag, initial, r.anchor)
        objective = OAPL(problem, reference, r.reward_old, r.reward_new, r.temperature, r.slope)
        run = simulate(problem, objective, lag, optimizer, period, rng, part=Part(moments=moments))
        own = slice(k * period, (k + 1) * period + 1)
        rows[own] = np.concatenate([run.log_odds[..., None], run.mean_old, run.mean_new], axis=-1)
        if run.status == "diverged":
            break
        lag = run.state()
    within = _times(optimizer, period)
    time = np.concatenate([[0.0], *(k * within[-1] + within[1:] for k in range(refreshes))])
    return _trajectory(problem, optimizer, time, rows)


def _times(optimizer: Optimizer, steps: int) -> Array:
    return optimizer.times(0, steps) if isinstance(optimizer, GradientFlow) else np.arange(steps + 1.0)


def _rows(problem: TwoModeProblem, initial: TwoModeState, steps: int) -> Array:
    """``(steps + 1, *batch, 1 + 2 D)``, the initial state in the first row, nan in the others."""
    rows = np.full((steps + 1, *initial.batch_shape, 1 + 2 * problem.dimension), np.nan)
    rows[0] = _flat(initial)
    return rows


def _flat(state: TwoModeState) -> Array:
    return np.concatenate([state.log_odds[..., None], state.mean_old, state.mean_new], axis=-1)


def _trajectory(problem: TwoModeProblem, optimizer: Optimizer, time: Array, rows: Array) -> Trajectory:
    number, d = np.arange(len(rows)), problem.dimension
    samples = number * (optimizer.batch or 0 if isinstance(optimizer, SGD | AdamW) else 0)
    status = "completed" if np.isfinite(rows).all() else "diverged"
    return Trajectory(problem, number, time, samples, rows[..., 0], rows[..., 1 : d + 1], rows[..., d + 1 :], status)


def _broadcast(state: TwoModeState, like: TwoModeState) -> TwoModeState:
    try:
        return TwoModeState(
            np.broadcast_to(state.log_odds, like.batch_shape),
            np.broadcast_to(state.mean_old, like.mean_old.shape),
            np.broadcast_to(state.mean_new, like.mean_new.shape),
        )
    except ValueError as error:
        raise InputError(
            f"base with batch axes {state.batch_shape} does not broadcast to the learner's {like.batch_shape}"
        ) from error


def _entry(state: TwoModeState, index: tuple[int, ...]) -> TwoModeState:
    return TwoModeState(state.log_odds[index], state.mean_old[index], state.mean_new[index])


def _toward(teacher: TwoModeState, student: TwoModeState, rate: float) -> TwoModeState:
    return TwoModeState(
        teacher.log_odds + rate * (student.log_odds - teacher.log_odds),
        teacher.mean_old + rate * (student.mean_old - teacher.mean_old),
        teacher.mean_new + rate * (student.mean_new - teacher.mean_new),
    )


def _sdft_flow(
    problem: TwoModeProblem,
    objective: Callable[[TwoModeState, TwoModeState], SDFT],
    initial: TwoModeState,
    base: TwoModeState,
    ema_rate: float,
    optimizer: GradientFlow,
    steps: int,
) -> tuple[Array, Array]:
    """Rows of student and teacher of one learner, solved together in whitened coordinates."""
    d, times = problem.dimension, optimizer.times(0, steps)
    half = 1 + 2 * d
    if steps == 0:
        return _flat(initial)[None], _flat(initial)[None]

    def unpack(y: Array) -> TwoModeState:
        return TwoModeState(y[..., 0], problem.unwhiten(y[..., 1 : d + 1]), problem.unwhiten(y[..., d + 1 :]))

    def velocity(_: float, y: Array) -> Array:
        student = unpack(y[:half])
        g = objective(unpack(y[half:]), base).gradient(student)
        gap = np.asarray(np.linalg.norm(y[1 : d + 1] - y[d + 1 : half]), dtype=np.float64)
        out = np.zeros_like(y)
        out[0] = weight_velocity(student.log_odds, g.log_odds, gap, optimizer.geometry)
        if optimizer.train == "all":
            # the whitened gradient is L' times the original one
            out[1 : d + 1] = -(g.mean_old @ problem._root)
            out[d + 1 : half] = -(g.mean_new @ problem._root)
        out[half:] = ema_rate * (y[:half] - y[half:])
        return out

    start = np.concatenate([initial.log_odds[None], problem.whiten(initial.mean_old), problem.whiten(initial.mean_new)])
    rtol = optimizer.rtol
    from scipy.integrate import solve_ivp  # half of what `import fstsim` would take, and most runs are not flows

    solution = solve_ivp(
        velocity,
        (0.0, float(times[-1])),
        np.concatenate([start, start]),
        method="LSODA",
        t_eval=times,
        rtol=rtol,
        atol=1e-3 * rtol,
    )
    if not solution.success:
        raise RuntimeError(f"the flow could not be solved to rtol {rtol:g}: {solution.message}")
    student, teacher = unpack(solution.y.T[:, :half]), unpack(solution.y.T[:, half:])
    return _flat(student), _flat(teacher)
