r"""Noise of finite batches: variance of the gradient, what it does to a run, and simulations to hold against it (theory 14).

Only the log-odds are looked at; the gradient estimates are those of the objectives' ``estimate``.
Source: own derivation; statement `finite-batch-noise` and those after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.logits import expit_difference
from fstsim.objectives import ForwardKL, Objective, ReverseKL
from fstsim.optimizers import SGD
from fstsim.overlap import harmonic_overlap, overlap_gap, validate_separation
from fstsim.replay_objectives import ReverseKLReplay, validate_replay_fraction
from fstsim.simulate import simulate
from fstsim.theory.numerics.collinear import Moments, on_the_line, score_moments
from fstsim.two_mode import TwoModeState

Array = NDArray[np.float64]
Baseline = Literal["none", "mean", "leave-one-out", "optimal"]


def _check_baseline(baseline: str) -> None:
    if baseline not in get_args(Baseline):
        raise InputError(f"baseline must be one of {', '.join(get_args(Baseline))}; got {baseline!r}")


def _check_batch(batch_size: ArrayLike, baseline: str) -> Array:
    n = np.asarray(batch_size, dtype=np.float64)
    least = 2 if baseline == "leave-one-out" else 1
    if not ((n >= least) & np.isfinite(n) & (n == np.floor(n))).all():
        raise InputError(f"batch_size must be a whole number of at least {least}, got {batch_size!r}")
    return n


def responsibility_variance(weights: Array, loc: Array, scale: Array) -> Array:
    """``Var(sigmoid(Z))`` for the mixture ``Z ~ sum_k w_k N(loc_k, scale^2)``: ``weights (C,)``, ``loc (n, C)``, ``scale (n,)``.

    Central moments by quadrature, so that nothing cancels where the responsibility hardly varies.
    """
    step = 0.4 / max(1.0, float(scale.max(initial=1.0)))
    # far out the variance comes from where the responsibility turns, or from the peak of exp(2 z) before it
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.fmin(np.abs(loc) / scale[:, None], 2.0 * scale[:, None])
    radius = 9.5 + float(turn.max(initial=0.0))
    u = step * np.arange(-np.ceil(radius / step), np.ceil(radius / step) + 1.0)
    nodes = step * np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)
    total = np.empty(scale.shape)
    block = max(1, (1 << 18) // (u.size * weights.size))
    for start in range(0, scale.size, block):
        rows = slice(start, start + block)
        # from the first component's centre: also where the responsibility is 0 or 1 to rounding
        first, shift = loc[rows, :1, None], scale[rows, None, None] * u
        r = expit_difference(loc[rows, :, None] + shift, first, loc[rows, :, None] - first + shift)
        mean = (r @ nodes) @ weights
        total[rows] = (((r - mean[:, None, None]) ** 2) @ nodes) @ weights
    return total


def forward_variance_bound(log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""Upper bound on ``N Var`` of the weight gradient of forward KL on new data, components right.

    ``min(x (1 - x), y (1 - y))`` with ``x = beta (1 - kappa)`` and ``y = beta kappa``: r_o has mean y in [0, 1]
    (Bhatia-Davis), and ``E (r_o - beta)^2 <= x`` (0.5 viii) less the squared mean ``x^2``. Sharper than
    ``min(beta (1 - kappa), 1/4)``: where the modes separate the noise is gated by overlap. Theory 14.1 [T], `finite-batch-noise`.
    """
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    x, y = expit(s) * overlap_gap(s, d), expit(s) * harmonic_overlap(s, d)
    # x + y = beta: the complements as sums
    return np.minimum(x * (expit(-s) + y), y * (expit(-s) + x))


def leave_one_out_variance(moments: Moments, batch_size: ArrayLike) -> Array:
    r"""Variance of the pairwise (leave-one-out) estimate from the moments of one weighted sample.

    A U-statistic with kernel ``w w' (A - A')(psi - psi') / 2``: ``(4 (N-2) z1 + 2 z2) / (N (N-1))`` (Hoeffding), with z1 the
    variance of its mean over one of the two samples and z2 its own. Statement `finite-batch-noise-leave-one-out`.
    """
    n = _check_batch(batch_size, "leave-one-out")
    m, gain = moments.m, moments.gain
    one = 0.25 * (m[2, 2] + 2.0 * gain * m[1, 1] + gain**2 * m[0, 0]) - gain**2
    squares = 0.5 * (m[2, 2] * m[0, 0] + m[2, 0] * m[0, 2])
    two = squares - m[2, 1] * m[0, 1] - m[1, 2] * m[1, 0] + m[1, 1] ** 2 - gain**2
    return (4.0 * (n - 2.0) * one + 2.0 * two) / (n * (n - 1.0))


def _reverse_variance(moments: Moments, n: int, baseline: str) -> Array:
    m, gain = moments.m, moments.gain
    if baseline == "leave-one-out":
        return leave_one_out_variance(moments, n)
    if baseline == "none":
        shift = -moments.mean
    elif baseline == "mean":
        shift = np.zeros_like(gain)
    else:
        shift = m[1, 2] / m[0, 2]
    return (m[2, 2] - 2.0 * shift * m[1, 2] + shift**2 * m[0, 2] - gain**2) / n


def gradient_variance(
    objective: Objective, state: TwoModeState, batch_size: int, baseline: Baseline | None = None
) -> Array:
    r"""Variance of the weight component of a batch gradient, exact, shape ``state.batch_shape``.

    `ForwardKL`, any dimension: ``Var_train(r_o) / N``; there is no baseline (None or "none").
    `ReverseKL` and `ReverseKLReplay`, means on one line: of ``1/N sum w_i (A_i - B) (r_o(x_i) - beta)``, ``A = log p / q``, with

    - ``none``: B = 0;
    - ``mean``: ``B = E_q A`` (the oracle; the batch mean instead shrinks the gradient by ``1 - 1/N``);
    - ``optimal``: ``B = E_q[w psi^2 A] / E_q[w psi^2]``, the constant of least variance: without overlap or replay the
      *swapped* mean ``(1 - beta) A_o + beta A_n``, and the variance vanishes;
    - ``leave-one-out`` (the default, what ``estimate`` does): the variance of a U-statistic. Without replay
      ``Var_mean + (Var(A) Var(psi) + (dR/ds)^2) / (N (N - 1))``, for any distribution.

    Raises InputError on another objective or baseline, a baseline for `ForwardKL`, a batch below 1 (2 for
    leave-one-out), or means off the line (then sample ``estimate``). Theory 14.1 [T], `finite-batch-noise`.
    """
    if isinstance(objective, ForwardKL):
        if baseline not in (None, "none"):
            raise InputError(f"forward KL has no baseline, got {baseline!r}")
        _check_batch(batch_size, "none")
        problem = objective.problem
        if state.dimension != problem.dimension:
            raise InputError(f"state has dimension {state.dimension}, the problem {problem.dimension}")
        gap = problem.whiten(state.mean_old - state.mean_new)
        middle = problem.whiten(0.5 * (state.mean_old + state.mean_new))
        centers = [problem.whiten(problem.mean_old), problem.whiten(problem.mean_new)]
        loc = np.stack([(state.log_odds + (gap * (c - middle)).sum(axis=-1)).ravel() for c in centers], axis=-1)
        weights = np.array([objective.old_fraction, 1.0 - objective.old_fraction])
        scale = np.linalg.norm(gap, axis=-1).ravel()
        return responsibility_variance(weights, loc, scale).reshape(state.batch_shape) / batch_size
    if not isinstance(objective, ReverseKL | ReverseKLReplay):
        raise InputError("gradient_variance knows ForwardKL, ReverseKL and ReverseKLReplay: sample objective.estimate")
    how = "leave-one-out" if baseline is None else baseline
    _check_baseline(how)
    _check_batch(batch_size, how)
    line = on_the_line(objective.problem, state)
    share = objective.replay_fraction if isinstance(objective, ReverseKLReplay) else 0.0
    moments = score_moments(line, np.full(line.log_odds.shape, share))
    return _reverse_variance(moments, batch_size, how).reshape(state.batch_shape)


def separated_gradient_variance(
    beta: ArrayLike,
    reward_old: ArrayLike,
    reward_new: ArrayLike,
    batch_size: ArrayLike,
    baseline: Baseline = "leave-one-out",
    replay_fraction: ArrayLike = 0.0,
) -> Array:
    r"""Variance of a batch gradient of the logit when the modes do not overlap and rewards do not vary inside them.

    With ``Delta A = reward_old - reward_new`` and no replay, constant baseline B:
    ``beta (1 - beta) / N ((1 - beta) A_o + beta A_n - B)^2``; leave-one-out:
    ``beta (1 - beta) Delta A^2 ((1 - 2 beta)^2 / N + 2 beta (1 - beta) / (N (N - 1)))``. With replay and leave-one-out
    ``(beta (1 - beta) Delta A)^2 ((1 - 2 b_o)^2 / (b_o (1 - b_o) N) + 2 / (N (N - 1)))``, least at ``b_o = 1/2``.
    This is the closed form of :func:`gradient_variance`. Theory 14.1 [T], `finite-batch-noise`.
    """
    b = np.asarray(beta, dtype=np.float64)
    if not ((b > 0.0) & (b < 1.0)).all():
        raise InputError(f"beta must lie strictly between 0 and 1, got {beta!r}")
    _check_baseline(baseline)
    n = _check_batch(batch_size, baseline)
    share = validate_replay_fraction(replay_fraction)
    a_old, a_new = np.asarray(reward_old, dtype=np.float64), np.asarray(reward_new, dtype=np.float64)
    old, new = share + (1.0 - share) * b, (1.0 - share) * (1.0 - b)
    gain = b * (1.0 - b) * (a_old - a_new)
    shares = (gain / old) * (gain / new)  # before it is squared: the mass may be 1e-200
    if baseline == "leave-one-out":
        imbalance = share + (1.0 - share) * (2.0 * b - 1.0)  # b_o - b_n
        return shares * imbalance**2 / n + 2.0 * gain**2 / (n * (n - 1.0))
    # two outcomes, w psi (A - B): the variance is b_o b_n times the square of their difference
    if baseline == "optimal":
        return np.zeros_like(shares / n)
    if baseline == "mean":
        return shares * ((1.0 - share) * (1.0 - 2.0 * b) - share * b) ** 2 / n
    spread = b * (1.0 - b) * (new * a_old + old * a_new)
    return (spread / old) * (spread / new) / n


@dataclass(frozen=True, eq=False)
class LinearNoiseBand:
    """Band of a noisy iteration: ``euler`` the noiseless iterates, ``bias`` and ``variance`` around them, ``(steps+1,)``."""

    euler: Array
    bias: Array
    variance: Array
    z: float

    @property
    def center(self) -> Array:
        """Predicted mean, ``euler + bias``."""
        return self.euler + self.bias

    @property
    def lower(self) -> Array:
        """``center - z sd``."""
        return self.center - self.z * np.sqrt(self.variance)

    @property
    def upper(self) -> Array:
        """``center + z sd``."""
        return self.center + self.z * np.sqrt(self.variance)


def linear_noise_band(
    f: Callable[[float], float],
    variance: Callable[[float], float],
    s0: float,
    lr: float,
    batch_size: int,
    steps: int,
    z: float = 1.96,
) -> LinearNoiseBand:
    r"""Band of ``s_{k+1} = s_k + lr g_k``, ``E g = f(s)``, ``Var g = variance(s) / batch_size`` (theory 14.2 [A]).

    Around the noiseless *Euler* iterate (not the flow, which differs by O(lr)), to leading order in the noise:

        V <- (1 + lr f')^2 V + lr^2 variance / N,      b <- (1 + lr f') b + lr f'' V / 2,

    with ``f'``, ``f''`` by central differences (step 1e-3). ``f`` is the drift, *minus* the gradient. Raises InputError unless
    ``lr``, ``z`` > 0, ``batch_size`` >= 1, ``steps`` >= 0, and ``f`` and ``variance`` are finite, ``variance`` nonnegative.
    Statement `finite-batch-noise-band`.

    >>> band = linear_noise_band(lambda s: -s, lambda s: 1.0, 1.0, 0.1, 4, 100)
    >>> round(float(band.variance[-1] / (0.1 / (2.0 - 0.1) / 4)), 6)  # the stationary variance
    1.0
    """
    if not (np.isfinite(lr) and lr > 0.0 and np.isfinite(z) and z > 0.0 and np.isfinite(s0)):
        raise InputError(f"lr and z must be positive and s0 finite, got lr = {lr!r}, z = {z!r}, s0 = {s0!r}")
    _check_batch(batch_size, "none")
    if steps < 0:
        raise InputError(f"steps must be nonnegative, got {steps!r}")
    euler, bias, spread = np.full(steps + 1, float(s0)), np.zeros(steps + 1), np.zeros(steps + 1)
    h = 1e-3
    for k in range(steps):
        s = float(euler[k])
        left, here, right = (float(f(s + shift)) for shift in (-h, 0.0, h))
        noise = float(variance(s))
        if not (np.isfinite([left, here, right, noise]).all() and noise >= 0.0):
            raise InputError(f"f and variance must be finite and variance nonnegative, at s = {s:g}")
        slope, curvature = (right - left) / (2.0 * h), (right - 2.0 * here + left) / (h * h)
        growth = 1.0 + lr * slope
        euler[k + 1] = s + lr * here
        bias[k + 1] = growth * bias[k] + 0.5 * lr * curvature * spread[k]
        spread[k + 1] = growth**2 * spread[k] + lr**2 * noise / batch_size
    return LinearNoiseBand(euler, bias, spread, z)


# --- simulations beside the formulas -----------------------------------------------------------------------------------


def sampled_gradients(
    objective: Objective, state: TwoModeState, batch_size: int, replicates: int, rng: np.random.Generator
) -> Array:
    """Weight components ``(replicates,)`` of independent batch gradients at one state: what the formulas are about."""
    if state.batch_shape:
        raise InputError(f"sampled_gradients takes one state, got batch axes {state.batch_shape}")
    if replicates < 1:
        raise InputError(f"replicates must be at least 1, got {replicates!r}")
    many = TwoModeState(np.full(replicates, state.log_odds), state.mean_old, state.mean_new)
    return objective.estimate(many, rng, batch_size).log_odds


def recovery_steps(
    objective: Objective,
    beta0: float,
    level: float,
    optimizer: SGD,
    replicates: int,
    max_steps: int,
    rng: np.random.Generator,
) -> Array:
    """Steps ``(replicates,)`` of ``optimizer`` until the old mass first reaches ``level``; nan if it never does.

    Components right and held. Without overlap nothing moves before the first batch with samples of both modes, so that
    the wait is geometric with success ``1 - zero_signal_probability``.
    """
    for name, value in (("beta0", beta0), ("level", level)):
        if not 0.0 < value < 1.0:
            raise InputError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    problem = objective.problem
    start = problem.initial(beta0)
    many = TwoModeState(np.full(replicates, start.log_odds), start.mean_old, start.mean_new)
    run = simulate(problem, objective, many, optimizer, max_steps, rng)
    reached = run.old_mass >= level
    return np.where(reached.any(axis=0), reached.argmax(axis=0).astype(np.float64), np.nan)
