r"""Forward KL on new data: how fast the old mass goes, and how far the old mean is dragged (theory 1 and 2).

Time is that of the Euclidean gradient flow in ``(s, m_o, m_n)``, whitened coordinates (units of 1 / learning rate).
``beta0`` is the initial old mass, ``delta`` the separation. Everything broadcasts.
Source: setting of arXiv 2603.12163; statements `mass-forgetting` and `drift-under-forward-KL`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, wrightomega

from fstsim.divergences import forward_kl_gradient
from fstsim.errors import InputError
from fstsim.logits import exp_difference, logit_difference
from fstsim.objectives import ForwardKL
from fstsim.optimizers import SGD, Geometry, GradientFlow, Trained
from fstsim.overlap import overlap_gap, validate_separation
from fstsim.simulate import simulate
from fstsim.theory.overlap import second_moment_constant, total_variation
from fstsim.trajectory import Trajectory
from fstsim.two_mode import TwoModeProblem

__all__ = [
    "forward_kl_gradient",
    "late_collapse_mass",
    "mass_forgetting_bounds",
    "mass_forgetting_separated",
    "mass_forgetting_time",
    "mass_forgetting_ultimate",
    "old_mean_drift_forward",
    "old_mean_drift_saddle",
    "simulate_forward_kl",
]

Array = NDArray[np.float64]

_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(12)
_PANEL = 2.0  # panel width in log-odds: 12 nodes resolve poles at distance pi to rounding
_MAX_ITERATIONS = 500
_NEWTON_STEPS = 12


def _mass(value: ArrayLike, name: str) -> Array:
    b = np.asarray(value, dtype=np.float64)
    if not ((b > 0.0) & (b < 1.0)).all():
        raise InputError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    return b


def _time(value: ArrayLike) -> Array:
    t = np.asarray(value, dtype=np.float64)
    if not ((t >= 0.0) & np.isfinite(t)).all():
        raise InputError(f"time must be nonnegative and finite, got {value!r}")
    return t


def _separated_log_odds(s0: Array, t: Array) -> Array:
    """Log-odds at ``t`` of ``ds/dt = -sigmoid(s)``: with ``y = exp(-s)``, ``y + log y`` grows by ``t``."""
    # y = omega(y0 + log y0 + t); log y = (y0 + log y0 + t) - y loses digits for large y, log(y) does not
    return -np.log(wrightomega(np.exp(-s0) - s0 + t).real)


def _separated_fall(s0: Array, t: Array) -> Array:
    """How far the log-odds fall within ``t``, also where that is little: the root of ``y0 (e^x - 1) + x = t``."""
    with np.errstate(over="ignore", invalid="ignore"):
        y0 = np.exp(-s0)
        x = np.minimum(t, np.log1p(t / y0))
        for _ in range(_NEWTON_STEPS):  # monotone from above: the left side is convex
            x = np.maximum(x - (y0 * np.expm1(x) + x - t) / (1.0 + y0 * np.exp(x)), 0.0)
    return np.where(np.isfinite(y0), x, 0.0)


def mass_forgetting_separated(beta0: ArrayLike, t: ArrayLike) -> Array:
    r"""Old mass at time ``t`` without overlap: ``1 / (1 + W(exp(y0 + log y0 + t)))``, ``y0 = (1 - beta0) / beta0``.

    Algebraic, ``~ 1/t``, not exponential: it belongs to the logit geometry. Theory 1.3a [T], `mass-forgetting`.

    >>> round(float(mass_forgetting_separated(0.5, 0.0)), 12)
    0.5
    """
    s0 = logit(_mass(beta0, "beta0"))
    return expit(_separated_log_odds(*np.broadcast_arrays(s0, _time(t))))


def mass_forgetting_time(beta0: ArrayLike, beta1: ArrayLike, delta: ArrayLike) -> Array:
    r"""Exact time for the old mass to fall from ``beta0`` to ``beta1``, components right (theory 1.3c [T]).

    ``t = int_{s1}^{s0} (1 + e^-x) / (1 - kappa(x)) dx``, composite Gauss-Legendre to 1e-11 relative; negative when
    ``beta1 > beta0``. Raises InputError on masses outside (0, 1) or ``delta`` outside (0, 64].
    """
    s0, s1, d = np.broadcast_arrays(
        logit(_mass(beta0, "beta0")), logit(_mass(beta1, "beta1")), validate_separation(delta)
    )
    if not (d > 0.0).all():
        raise InputError("delta must be positive: without separation the weight does not move")
    width = np.broadcast_to(
        logit_difference(np.asarray(beta0, dtype=np.float64), np.asarray(beta1, dtype=np.float64)), s0.shape
    )
    panels = max(1, int(np.ceil(np.abs(width).max(initial=0.0) / _PANEL)))
    half = 0.5 * width / panels
    total = np.zeros(width.shape)
    for panel in range(panels):
        x = (s1 + (2 * panel + 1) * half)[..., None] + half[..., None] * _GAUSS_NODES
        rate = overlap_gap(x, d[..., None]) * expit(x)
        total = total + half * (_GAUSS_WEIGHTS / rate).sum(axis=-1)
    return total


def mass_forgetting_bounds(beta0: ArrayLike, t: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` bounds on the old mass at time ``t``, components right (theory 1.3 b, d [T]).

    ``beta_W(t) <= beta(t) <= min(beta_W((1 - kbar) t), (beta0^-2 + 8 TV^2 (1 - beta0)^2 t)^(-1/2))`` with ``beta_W`` the
    separated law and ``kbar = kappa(max(|s0|, |s_W(t)|))``: kappa is even and nondecreasing in ``|s|``, so that kbar is its
    maximum along the path (this also covers ``beta0 > 1/2``).
    """
    s0, time, d = np.broadcast_arrays(logit(_mass(beta0, "beta0")), _time(t), validate_separation(delta))
    slowest = _separated_log_odds(s0, time)
    reach = np.maximum(np.abs(s0), np.abs(slowest))
    gated = expit(_separated_log_odds(s0, overlap_gap(reach, d) * time))
    # (beta0^-2 + 8 TV^2 (1 - beta0)^2 t)^(-1/2), without the powers that overflow
    unconditional = expit(s0) / np.hypot(1.0, np.sqrt(8.0 * time) * total_variation(d) * expit(s0) * expit(-s0))
    return expit(slowest), np.minimum(gated, unconditional)


def mass_forgetting_ultimate(t: ArrayLike, delta: ArrayLike) -> Array:
    r"""[A] Last law of the old mass, ``(2 (e^(delta^2) - 1) t)^(-1/2)``, reached only for ``beta << e^(-3 delta^2 / 2)``.

    ``1/t`` is the intermediate law before it; theory 1.3e.
    """
    d = validate_separation(delta)
    with np.errstate(divide="ignore"):
        return np.exp(-0.5 * d * d) / np.sqrt(-2.0 * np.expm1(-d * d) * _time(t))


def late_collapse_mass(beta1: ArrayLike, separation1: ArrayLike) -> Array:
    r"""[A] Old mass at which the joint forward flow ends, from a late state with mass ``beta1 -> 0`` and learner separation D1.

    ``beta sqrt(1 - e^(-D^2)) / D`` is invariant and D -> 0, so ``beta_inf = beta1 sqrt(1 - e^(-D1^2)) / D1 > 0``:
    the old component collapses onto the new data instead of losing its weight (theory 1.6).
    """
    d = validate_separation(separation1)
    return _mass(beta1, "beta1") * np.sqrt(-np.expm1(-d * d)) / d


def old_mean_drift_forward(delta: ArrayLike, beta0: ArrayLike, T: ArrayLike) -> tuple[Array, Array]:
    r"""``(bound, leading_order)`` on the drift ``|m_o(T) - mu_o|`` of the joint forward flow (theory 2.2).

    Start: components right, mass ``beta0 <= 1/2``, new data only. The bound [T] is the smallest self-consistent pair
    ``(rho, vbar)`` of the certificate; nan where there is none (``BC sqrt(T)`` too large, or ``beta0 > 1/2``).
    The leading order [A] is ``sqrt(2 pi) e^(-delta^2/8) (sinh(s0/2) - sinh(s_T/2)) ~ sqrt(pi/2) e^(-delta^2/8) sqrt(T)``:
    gated by overlap, but growing like sqrt(T) and never undone. Statement `drift-under-forward-KL`.
    """
    d, s0, time = np.broadcast_arrays(validate_separation(delta), logit(_mass(beta0, "beta0")), _time(T))
    s_T = _separated_log_odds(s0, time)
    path = 0.5 * (exp_difference(0.5 * s0, 0.5 * s_T) + exp_difference(-0.5 * s_T, -0.5 * s0))
    fall = _separated_fall(s0, time)
    path = np.where(fall < 1.0, 2.0 * np.cosh(0.5 * s0 - 0.25 * fall) * np.sinh(0.25 * fall), path)
    leading = np.sqrt(2.0 * np.pi) * np.exp(-0.125 * d * d) * path
    root_variance = np.sqrt(expit(s_T) * expit(-s_T))
    start = np.exp(0.5 * s0)

    def once(rho: Array, v: Array) -> tuple[Array, Array]:
        reach = d + rho + v
        closest = d - rho - v
        with np.errstate(all="ignore"):
            gate = second_moment_constant(closest)
            b = np.exp(-0.125 * closest**2 + 0.5 * v * v)
            slack, slack_v = 1.0 - 0.5 * b / root_variance, 1.0 - 0.5 * start * b
            fine = (closest > 0.0) & (slack > 0.0) & (slack_v > 0.0) & (s0 <= 0.0)
            return (
                np.where(fine, 4.0 * gate * reach * b / slack * path, np.nan),
                np.where(fine, gate * start * b * reach / slack_v, np.nan),
            )

    rho, v, settled = np.zeros(d.shape), np.zeros(d.shape), np.zeros(d.shape, dtype=bool)
    for _ in range(_MAX_ITERATIONS):  # monotone from 0: it climbs to the smallest fixed point or leaves the domain
        new_rho, new_v = once(rho, v)
        settled = (new_rho <= rho * (1.0 + 1e-12)) & (new_v <= v * (1.0 + 1e-12)) | np.isnan(new_rho)
        rho, v = new_rho, new_v
        if settled.all():
            break
    else:
        rho = np.where(settled, rho, np.nan)
    # a pair slightly above the fixed point must still satisfy the inequalities, or it certifies nothing
    safe_rho, safe_v = rho * (1.0 + 1e-9), v * (1.0 + 1e-9)
    back_rho, back_v = once(safe_rho, safe_v)
    with np.errstate(invalid="ignore"):
        certified = (back_rho <= safe_rho) & (back_v <= safe_v)
    return np.where(certified, safe_rho, np.where(time == 0.0, 0.0, np.nan)), leading


def old_mean_drift_saddle(delta: ArrayLike, beta0: ArrayLike, T: ArrayLike) -> Array:
    r"""[A] Drift of the joint forward flow with the Gaussian factor that the leading order leaves out.

    ``sqrt(pi/8) e^(-delta^2/8) int_{s_T}^{s_0} 2 cosh(s/2) e^(-(s - 2)^2 / (2 delta^2)) ds``: the saddle value of ``E_n[r_o^2] delta``
    along the separated path ``dt = -(1 + e^-s) ds``. It bends the sqrt(T) law: the local slope in ``log T`` is about
    ``1/2 - (log T + 2) / delta^2``. Valid while the drift is small and ``BC sqrt(T)`` too. Statement `forward-drift-saddle`.
    """
    d, s0, time = np.broadcast_arrays(validate_separation(delta), logit(_mass(beta0, "beta0")), _time(T))
    s_T = _separated_log_odds(s0, time)
    width = _separated_fall(s0, time)
    panels = max(1, int(np.ceil(width.max(initial=0.0) / _PANEL)))
    half = 0.5 * width / panels
    total = np.zeros(width.shape)
    for panel in range(panels):
        x = (s_T + (2 * panel + 1) * half)[..., None] + half[..., None] * _GAUSS_NODES
        factor = 2.0 * np.cosh(0.5 * x) * np.exp(-((x - 2.0) ** 2) / (2.0 * d[..., None] ** 2))
        total = total + half * (_GAUSS_WEIGHTS * factor).sum(axis=-1)
    return np.sqrt(np.pi / 8.0) * np.exp(-0.125 * d * d) * total


def simulate_forward_kl(
    delta: float,
    beta0: float,
    steps: int,
    step: float = 0.1,
    *,
    old_fraction: float = 0.0,
    geometry: Geometry = "logit",
    train: Trained = "all",
    batch: int | None = None,
    rng: np.random.Generator | None = None,
) -> Trajectory:
    """Forward-KL training from right components with old mass ``beta0``.

    The exact flow with ``steps`` rows ``step`` apart, or SGD with learning rate ``step`` when ``batch`` is given
    (then ``rng`` is needed). ``train = "weight"`` holds the components.
    """
    problem = TwoModeProblem.separated(delta)
    how = (
        GradientFlow(step, geometry=geometry, train=train)
        if batch is None
        else SGD(step, batch, geometry=geometry, train=train)
    )
    return simulate(problem, ForwardKL(problem, old_fraction), problem.initial(beta0), how, steps, rng)
