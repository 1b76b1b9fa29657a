"""`simulate`: problem, objective, initial state and optimizer in, `Trajectory` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.logistic_normal import MAX_SCALE
from fstsim.objectives import Objective
from fstsim.optimizers import (
    SGD,
    AdamMoments,
    AdamW,
    GradientDescent,
    GradientFlow,
    Optimizer,
    adamw_change,
    weight_step,
    weight_velocity,
)
from fstsim.trajectory import Trajectory
from fstsim.two_mode import TwoModeProblem, TwoModeState, rows_times

Array = NDArray[np.float64]

# Of one solve: a flow that needs more is held up by rounding noise in the gradient and would not end.
_MOST_EVALUATIONS = 20_000


class Part(NamedTuple):
    """What a call of `simulate` is told when it is one part of a longer run."""

    start: int = 0
    """steps already taken, for a flow whose times are unevenly spaced"""
    moments: AdamMoments | None = None
    """what `AdamW` remembers of them, moved on in place (see `adam_moments`); None is an empty memory"""
    progress: Callable[[int], None] | None = None
    """called with k after step k of this part"""


WHOLE = Part()


def simulate(
    problem: TwoModeProblem,
    objective: Objective,
    initial: TwoModeState,
    optimizer: Optimizer,
    steps: int,
    rng: np.random.Generator | None = None,
    part: Part = WHOLE,
) -> Trajectory:
    r"""Minimise ``objective`` from ``initial`` for ``steps`` steps; every array of the result is ``(steps+1, ...)``.

    Batch axes of ``initial`` are independent learners. `GradientFlow` solves each to ``rtol``; the others advance all at
    once. ``rng`` is needed where batches are drawn; ``part`` says what was before, where a longer run is made in parts.
    Raises InputError when dimensions differ, ``steps`` is negative, ``rng`` is missing or ``moments`` has another shape.

    >>> from fstsim import ForwardKL, GradientDescent, TwoModeProblem
    >>> problem = TwoModeProblem.separated(4.0)
    >>> run = simulate(problem, ForwardKL(problem), problem.initial(0.5), GradientDescent(lr=0.5), steps=100)
    >>> bool(run.old_mass[-1] < 0.03 < run.old_mass[0])
    True
    """
    start, moments, progress = part
    if objective.problem is not problem:
        raise InputError("objective belongs to another problem: build it from the problem that is passed")
    if initial.dimension != problem.dimension:
        raise InputError(f"initial state has dimension {initial.dimension}, the problem {problem.dimension}")
    if steps < 0:
        raise InputError(f"steps must be nonnegative, got {steps}")
    per_step = optimizer.batch or 0 if isinstance(optimizer, (SGD, AdamW)) else 0
    if per_step and rng is None:
        raise InputError(f"{type(optimizer).__name__} draws batches: pass rng, a numpy.random.Generator")
    if moments is not None and moments.first.shape != (*initial.batch_shape, 1 + 2 * initial.dimension):
        raise InputError(f"moments of shape {moments.first.shape} belong to other learners: see adam_moments")
    history = _History(initial, steps)
    if isinstance(optimizer, GradientFlow):
        _run_flow(problem, objective, optimizer, history, start, progress)
    elif isinstance(optimizer, AdamW):
        memory = adam_moments(initial) if moments is None else moments
        _run_adamw(problem, objective, optimizer, history, rng, progress, memory)
    else:
        _run_descent(problem, objective, optimizer, history, rng, progress)
    number = np.arange(steps + 1)
    time = number.astype(np.float64)
    if isinstance(optimizer, GradientFlow):
        times = optimizer.times(start, start + steps)
        time = times - times[0]
    finite = np.isfinite(history.log_odds).all() and np.isfinite(history.mean_old).all()
    finite = finite and np.isfinite(history.mean_new).all()
    return Trajectory(
        problem,
        number,
        time,
        per_step * number,
        history.log_odds,
        history.mean_old,
        history.mean_new,
        "completed" if finite else "diverged",
    )


class _History:
    """Arrays that the steps are written into, nan where none was reached."""

    def __init__(self, initial: TwoModeState, steps: int) -> None:
        batch, dimension = initial.batch_shape, initial.dimension
        self.log_odds = np.full((steps + 1, *batch), np.nan)
        self.mean_old = np.full((steps + 1, *batch, dimension), np.nan)
        self.mean_new = np.full((steps + 1, *batch, dimension), np.nan)
        self.log_odds[0], self.mean_old[0], self.mean_new[0] = initial.log_odds, initial.mean_old, initial.mean_new


def _separation(problem: TwoModeProblem, mean_old: Array, mean_new: Array) -> Array:
    return np.linalg.norm(problem.whiten(mean_new - mean_old), axis=-1)


def _run_descent(
    problem: TwoModeProblem,
    objective: Objective,
    optimizer: GradientDescent | SGD,
    history: _History,
    rng: np.random.Generator | None,
    progress: Callable[[int], None] | None,
) -> None:
    for k in range(history.log_odds.shape[0] - 1):
        s, m_o, m_n = history.log_odds[k], history.mean_old[k], history.mean_new[k]
        if not (np.isfinite(s).all() and np.isfinite(m_o).all() and np.isfinite(m_n).all()):
            return
        state = TwoModeState(s, m_o, m_n)
        if isinstance(optimizer, SGD):
            assert rng is not None
            gradient = objective.estimate(state, rng, optimizer.batch)
        else:
            gradient = objective.gradient(state)
        with np.errstate(over="ignore", invalid="ignore"):  # a step may overflow: the status will tell
            separation = _separation(problem, m_o, m_n) if optimizer.geometry == "fisher" else np.zeros(s.shape)
            history.log_odds[k + 1] = weight_step(s, gradient.log_odds, separation, optimizer.lr, optimizer.geometry)
            if optimizer.train == "all":
                history.mean_old[k + 1] = m_o - optimizer.lr * rows_times(problem.covariance, gradient.mean_old)
                history.mean_new[k + 1] = m_n - optimizer.lr * rows_times(problem.covariance, gradient.mean_new)
                _drop_strays(problem, history, k + 1)
            else:
                history.mean_old[k + 1], history.mean_new[k + 1] = m_o, m_n
        if progress is not None:
            progress(k + 1)


def _drop_strays(problem: TwoModeProblem, history: _History, row: int) -> None:
    """Nan for learners beyond the range of the integrals: they are on their way to infinity."""
    here = _separation(problem, history.mean_old[row], history.mean_new[row]) <= MAX_SCALE
    here &= np.isfinite(history.log_odds[row])
    history.log_odds[row] = np.where(here, history.log_odds[row], np.nan)
    history.mean_old[row] = np.where(here[..., None], history.mean_old[row], np.nan)
    history.mean_new[row] = np.where(here[..., None], history.mean_new[row], np.nan)


def adam_moments(initial: TwoModeState) -> AdamMoments:
    """An empty memory of `AdamW` for ``initial``: coordinates are the log-odds, then both whitened means."""
    return AdamMoments.zeros((*initial.batch_shape, 1 + 2 * initial.dimension))


def _run_adamw(
    problem: TwoModeProblem,
    objective: Objective,
    optimizer: AdamW,
    history: _History,
    rng: np.random.Generator | None,
    progress: Callable[[int], None] | None,
    moments: AdamMoments,
) -> None:
    d = problem.dimension
    for k in range(history.log_odds.shape[0] - 1):
        s, m_o, m_n = history.log_odds[k], history.mean_old[k], history.mean_new[k]
        if not (np.isfinite(s).all() and np.isfinite(m_o).all() and np.isfinite(m_n).all()):
            return
        state = TwoModeState(s, m_o, m_n)
        if optimizer.batch is None:
            gradient = objective.gradient(state)
        else:
            assert rng is not None
            gradient = objective.estimate(state, rng, optimizer.batch)
        y, g = np.zeros((*s.shape, 1 + 2 * d)), np.zeros((*s.shape, 1 + 2 * d))
        y[..., 0], g[..., 0] = s, gradient.log_odds
        if optimizer.train == "all":  # fixed means have no gradient and do not decay
            y[..., 1 : d + 1], y[..., d + 1 :] = problem.whiten(m_o), problem.whiten(m_n)
            # the whitened gradient is L' times the original one
            g[..., 1 : d + 1] = rows_times(problem._root.T, gradient.mean_old)
            g[..., d + 1 :] = rows_times(problem._root.T, gradient.mean_new)
        with np.errstate(over="ignore", invalid="ignore"):  # a step may overflow: the status will tell
            change = adamw_change(y, g, moments, optimizer)
            history.log_odds[k + 1] = s + change[..., 0]
            history.mean_old[k + 1] = m_o + problem.unwhiten(change[..., 1 : d + 1])
            history.mean_new[k + 1] = m_n + problem.unwhiten(change[..., d + 1 :])
            if optimizer.train == "all":
                _drop_strays(problem, history, k + 1)
        if progress is not None:
            progress(k + 1)


def gradient_flow(
    problem: TwoModeProblem,
    objective: Objective,
    initial: TwoModeState,
    duration: float,
    optimizer: GradientFlow | None = None,
) -> Callable[[ArrayLike], TwoModeState]:
    """Dense solution of the gradient flow of one learner on ``[0, duration]``: a function of time (any shape).

    LSODA on ``(s, whitened means)`` to relative tolerance ``optimizer.rtol``. Raises InputError for a batched state
    and RuntimeError if the solver gives up or does not come to an end.
    """
    if initial.batch_shape:
        raise InputError(f"gradient_flow solves one learner, got batch axes {initial.batch_shape}")
    how = optimizer or GradientFlow()
    d = problem.dimension

    def unpack(y: Array) -> TwoModeState:
        # y (..., 1 + 2 D) in whitened coordinates
        return TwoModeState(y[..., 0], problem.unwhiten(y[..., 1 : d + 1]), problem.unwhiten(y[..., d + 1 :]))

    evaluations = 0

    def velocity(t: float, y: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        gap = np.asarray(np.linalg.norm(y[1 : d + 1] - y[d + 1 :]), dtype=np.float64)
        if evaluations > _MOST_EVALUATIONS or not (np.isfinite(y).all() and gap <= MAX_SCALE):
            raise RuntimeError(f"the flow could not be solved to rtol {how.rtol:g} beyond time {t:g} of {duration:g}")
        state = unpack(y)
        g = objective.gradient(state)
        out = np.zeros_like(y)
        out[0] = weight_velocity(state.log_odds, g.log_odds, gap, how.geometry)
        if how.train == "all":
            # the whitened gradient is L' times the original one
            out[1 : d + 1] = -(g.mean_old @ problem._root)
            out[d + 1 :] = -(g.mean_new @ problem._root)
        return out

    y0 = np.concatenate([[float(initial.log_odds)], problem.whiten(initial.mean_old), problem.whiten(initial.mean_new)])
    from scipy.integrate import solve_ivp  # half of what `import fstsim` would take, and most runs are not flows

    solution = solve_ivp(
        velocity, (0.0, duration), y0, method="LSODA", dense_output=True, rtol=how.rtol, atol=1e-3 * how.rtol
    )
    dense = solution.sol
    if not solution.success or dense is None:
        raise RuntimeError(f"the flow could not be solved to rtol {how.rtol:g}: {solution.message}")

    def at(t: ArrayLike) -> TwoModeState:
        t_array = np.asarray(t, dtype=np.float64)
        if not ((t_array >= 0.0) & (t_array <= duration)).all():
            raise InputError(f"time must lie in [0, {duration:g}]")
        return unpack(np.moveaxis(dense(t_array.ravel()), 0, -1).reshape(*t_array.shape, -1))

    return at


def _run_flow(
    problem: TwoModeProblem,
    objective: Objective,
    optimizer: GradientFlow,
    history: _History,
    start: int,
    progress: Callable[[int], None] | None,
) -> None:
    steps = history.log_odds.shape[0] - 1
    if steps == 0:
        return
    times = optimizer.times(start, start + steps)
    times = times - times[0]
    for index in np.ndindex(history.log_odds.shape[1:]):
        at = (0, *index)
        initial = TwoModeState(history.log_odds[at], history.mean_old[at], history.mean_new[at])
        states = gradient_flow(problem, objective, initial, float(times[-1]), optimizer)(times[1:])
        rows = (slice(1, None), *index)
        history.log_odds[rows] = states.log_odds
        history.mean_old[rows], history.mean_new[rows] = states.mean_old, states.mean_new
    if progress is not None:
        progress(steps)
