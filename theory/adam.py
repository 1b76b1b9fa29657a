r"""Adam's clock: how fast log-odds fall when the optimizer divides by the size of its recent gradients.

Setting: forward KL on new data alone, n prompts with log-odds ``s_i(0)`` of the old behaviour and one shared shift,
``s_i(t) = s_i(0) + x_t``, so that the gradient is ``G(x) = mean_i sigmoid(s_i(0) + x)``, positive and falling with x.
Adam with ``eps = 0`` moves ``x`` by ``-h u_t``, ``u_t = mhat_t / sqrt(vhat_t)``: the scale of the loss drops out, and
``h = learning rate x gain`` is in log-odds a step (``gain``: how much the log-odds move a unit of the parameter).

Proofs, for ``beta1 <= beta2``, ``w_j`` the weights of the running means, newest first:

1. ``0 < G_t / G_1 <= u_t <= 1`` (`adam-monotone-step`). The weights of ``mhat`` sit on newer gradients than those of
   ``vhat`` and gradients fall, so ``mhat <= E_w2 g <= sqrt(E_w2 g^2)``; and ``mhat >= G_t``, ``vhat <= G_1^2``. Hence
   the path falls, and induction closes: no step is longer than ``h``, the first and any under a constant gradient are
   ``h``.
2. Upper bound on ``y = e^-x`` (`adam-clock`). With ``G(x - h) >= e^-h G(x)``, ``vhat_t >= (G_1 / c_t)^2`` and
   ``mhat_t <= A_t G(x_{t-1}) <= A_t e^{x_{t-1}} mean e^{s_i}``. As ``e^{hu} <= 1 + (e^h - 1) u`` on [0, 1],
   ``y_t <= y_{t-1} + (e^h - 1) (mean e^{s_i} / G_1) A_t c_t``.
3. Lower bound. ``u_i >= G_i / G_1`` gives ``sum G_i^2 <= G_1 sum G_i u_i <= G_1 (e^h / h) mean softplus(s_i)``, a
   Riemann sum, so ``vhat_t <= (1 - beta2) / (1 - beta2^t)`` times that; with ``e^-x G(x) >= G(0)``, ``y_t >= y_{t-1} +
   h G(0) d_t``.

Both sums grow like ``t^{3/2}`` for ``1/h << t << 1/(1 - beta2)``: after a linear phase, in which log-odds lose ``h`` a
step, the mass falls like ``t^{-3/2}``, between the ``1/t`` of a plain logit and an exponential. When ``v`` starts to
forget, the fall becomes exponential again, at the rate of `adam_late_rate`, at most ``-log(beta2) / 2`` a step. (Bound
2 says more than ``e^{ht}`` only where ``beta1 e^h < 1``: beyond it momentum coasts, and only the path itself is exact.)
Source: Adam is arXiv 1412.6980, AdamW 1711.05101; own derivation. Statements `adam-*`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, logsumexp

from fstsim.errors import InputError
from fstsim.theory.clocks import solve_increasing
from fstsim.theory.numerics.inputs import finite, positive

Array = NDArray[np.float64]

BETAS = (0.9, 0.999)
_EARLIEST = 1e-8  # of the flow: before it, log-odds fall by the time to all digits
_LONGEST_TIME = 1e12


def _betas(beta1: ArrayLike, beta2: ArrayLike) -> tuple[Array, Array]:
    b1, b2 = np.asarray(beta1, dtype=np.float64), np.asarray(beta2, dtype=np.float64)
    for name, b in (("beta1", b1), ("beta2", b2)):
        if not ((b >= 0.0) & (b < 1.0)).all():
            raise InputError(f"{name} must lie in [0, 1), got {b}")
    return b1, b2


def _ordered(beta1: ArrayLike, beta2: ArrayLike) -> tuple[Array, Array]:
    b1, b2 = _betas(beta1, beta2)
    if not ((b1 <= b2) & (b2 > 0.0)).all():
        raise InputError(f"beta1 must be at most beta2, and beta2 positive; got {b1} and {b2}")
    return b1, b2


def _geometric_sum(log_ratio: Array, count: ArrayLike) -> Array:
    """``1 + q + ... + q^(count - 1)``, also at ``q = 1``; ``q`` by its logarithm, which may be far below a rounding of q."""
    n = np.asarray(count, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(log_ratio == 0.0, n, np.expm1(n * log_ratio) / np.expm1(log_ratio))


def _less_power(b: Array, count: ArrayLike) -> Array:
    """``1 - b^count``, ``count >= 1``."""
    with np.errstate(divide="ignore"):
        return -np.expm1(count * np.log(b))


def adam_step_bound(step: ArrayLike, beta1: ArrayLike = BETAS[0], beta2: ArrayLike = BETAS[1]) -> Array:
    r"""Longest step that Adam can make at step number ``t >= 1``, in units of the learning rate, whatever the gradients.

    ``(1-b1)/(1-b1^t) sqrt((1-b2^t)/(1-b2) sum_{j<t} (b1^2/b2)^j)``, by Cauchy-Schwarz; reached by gradients
    ``(b1/b2)^(t-i)``. 1 at the first step; 7.27 in the end for (0.9, 0.999). Needs ``beta2 > 0``. Statement
    `adam-step-bound` [T].

    >>> [round(float(adam_step_bound(t)), 3) for t in (1, 2, 10, 10**6)]
    [1.0, 1.001, 1.043, 7.27]
    """
    t, (b1, b2) = np.asarray(step, dtype=np.float64), _betas(beta1, beta2)
    if not (t >= 1.0).all():
        raise InputError(f"step must be at least 1, got {step!r}")
    if not (b2 > 0.0).all():
        raise InputError("beta2 must be positive: without memory of size a step has no bound")
    with np.errstate(divide="ignore"):
        spread = _geometric_sum(2.0 * np.log(b1) - np.log(b2), t)
    return (1.0 - b1) / _less_power(b1, t) * np.sqrt(_less_power(b2, t) / (1.0 - b2) * spread)


def log_gradient(base_log_odds: Array, shift: ArrayLike) -> Array:
    """``log G(x) = log mean_i sigmoid(s_i + x)``: ``base_log_odds (..., n)``, ``shift (...)``; -inf entries are no prompts."""
    s = base_log_odds + np.asarray(shift, dtype=np.float64)[..., None]
    log_p = log_expit(s)
    # scipy's logsumexp takes longer for the few numbers of one step than the step itself
    top = log_p.max(axis=-1)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(log_p - top[..., None]).mean(axis=-1))


def adam_shift_path(
    base_log_odds: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    beta1: ArrayLike = BETAS[0],
    beta2: ArrayLike = BETAS[1],
    *,
    eps: ArrayLike = 0.0,
    clip: ArrayLike = 1.0,
) -> Array:
    r"""Shared shift ``x_0 = 0, x_1, ..., x_steps`` under Adam: ``(steps + 1, ...)`` for ``base_log_odds (..., n)``.

    ``step_size`` h in log-odds a step. ``eps`` is Adam's, over the first gradient; ``clip`` the largest gradient that
    gets through, over the first one (clipping at norm 1 when the first norm is 10: 0.1). Every argument but ``steps``
    broadcasts against the leading axes. Raises InputError on a clip outside (0, 1] or betas outside [0, 1).
    """
    s, h = finite(base_log_odds, "base_log_odds"), positive(step_size, "step_size")
    b1, b2 = _betas(beta1, beta2)
    guard, cap = np.asarray(eps, dtype=np.float64), np.asarray(clip, dtype=np.float64)
    if not (guard >= 0.0).all():
        raise InputError(f"eps must be nonnegative, got {eps!r}")
    if not ((cap > 0.0) & (cap <= 1.0)).all():
        raise InputError(f"clip must lie in (0, 1], a share of the first gradient; got {clip!r}")
    if steps < 0:
        raise InputError(f"steps must be nonnegative, got {steps}")
    shape = np.broadcast_shapes(s.shape[:-1], h.shape, b1.shape, b2.shape, guard.shape, cap.shape)
    path = np.zeros((steps + 1, *shape))
    first, second = np.zeros(shape), np.zeros(shape)
    start = log_gradient(s, np.zeros(s.shape[:-1]))[..., None]
    for t in range(1, steps + 1):
        # over the first gradient: the scale drops out, and rare behaviours keep their digits
        gradient = np.minimum(np.exp(log_expit(s + path[t - 1][..., None]) - start).mean(axis=-1), cap)
        first = b1 * first + (1.0 - b1) * gradient
        second = b2 * second + (1.0 - b2) * gradient * gradient
        size = np.sqrt(second / (1.0 - b2**t)) + guard
        path[t] = path[t - 1] - h * first / (1.0 - b1**t) / size
    return path


def adam_log_odds_path(
    base_log_odds: ArrayLike,
    lr: float,
    steps: int,
    betas: tuple[float, float] = BETAS,
    eps: float = 1e-8,
    gain: float = 1.0,
    clip: float = 1.0,
) -> Array:
    r"""Log-odds ``(steps + 1, n)`` of n prompts that share one parameter, moved by AdamW on their mean forward KL.

    ``s_i = base_log_odds[i] + gain theta``, loss ``mean_i softplus(s_i)``, ``theta`` from 0 with learning rate ``lr``
    and no decay: exactly ``torch.optim.AdamW``. ``clip`` as in `adam_shift_path`. Statement `adam-clock`.

    >>> path = adam_log_odds_path([0.0, 1.0], lr=0.1, steps=100)
    >>> path[[0, 1, 10, 100], 0].round(2).tolist()
    [0.0, -0.1, -0.98, -4.4]
    """
    s = np.atleast_1d(finite(base_log_odds, "base_log_odds"))
    if s.ndim != 1:
        raise InputError(f"base_log_odds must be one number a prompt, got shape {s.shape}")
    positive(gain, "gain")
    first = gain * float(np.exp(log_gradient(s, 0.0)))  # dL / dtheta at the start
    relative = eps / first if first > 0.0 else np.inf if eps > 0.0 else 0.0
    shift = adam_shift_path(s, lr * gain, steps, *betas, eps=relative, clip=clip)
    return s + shift[:, None]


def adam_shift_bounds(
    base_log_odds: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    beta1: ArrayLike = BETAS[0],
    beta2: ArrayLike = BETAS[1],
    *,
    clip: ArrayLike = 1.0,
) -> tuple[Array, Array]:
    r"""Two-sided bounds on ``e^(-x_t)``, t = 0..steps, each ``(steps + 1, ...)``: proofs 2 and 3 of the module, ``eps = 0``.

    The odds of a rare old behaviour fall by this factor. With ``G_1 = clip G(0)`` and ``beta1 <= beta2``: ``1 + h G_1
    sum d_i <= e^(-x_t) <= min(e^(ht), 1 + (e^h - 1) (mean e^s / G_1) sum A_i c_i)``. Statement `adam-clock` [T].
    """
    s, h = finite(base_log_odds, "base_log_odds"), positive(step_size, "step_size")
    b1, b2 = _ordered(beta1, beta2)
    t = np.arange(1, steps + 1).reshape(-1, *(1,) * np.broadcast(h, s[..., 0], b1, b2).ndim)
    log_g = log_gradient(s, np.zeros(s.shape[:-1])) + np.log(np.asarray(clip, dtype=np.float64))
    log_odds = logsumexp(s, axis=-1) - np.log(s.shape[-1])
    log_loss = np.log(np.logaddexp(0.0, s).mean(axis=-1))
    with np.errstate(over="ignore", invalid="ignore"):
        # mhat <= A G: gradients j steps ago were at most e^(hj) times today's
        lag = (1.0 - b1) / _less_power(b1, t) * _geometric_sum(np.log(np.maximum(b1, 1e-300)) + h, t)
        # vhat >= (G_1 / c)^2: gradients fall by e^-h a step at most
        kept = b2 ** (t - 1.0) * _geometric_sum(-2.0 * h - np.log(b2), t)
        memory = _less_power(b2, t) / (1.0 - b2)
        rise = np.expm1(h) * np.exp(log_odds - log_g) * np.cumsum(lag * np.sqrt(memory / kept), axis=0)
        upper = np.fmin(np.exp(h * t), 1.0 + rise)
    # u >= G / G_1 while nothing is forgotten, and >= G / sqrt(vhat) with the sum of squares of proof 3
    floor = np.maximum(1.0, np.sqrt(memory * h * np.exp(-h + log_g - log_loss)))
    lower = 1.0 + h * np.cumsum(np.broadcast_to(floor, upper.shape), axis=0)
    start = np.ones((1, *upper.shape[1:]))
    return np.concatenate([start, lower]), np.concatenate([start, upper])


def adam_mass_bounds(
    base_log_odds: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    beta1: ArrayLike = BETAS[0],
    beta2: ArrayLike = BETAS[1],
    *,
    clip: ArrayLike = 1.0,
) -> tuple[Array, Array]:
    """``(lower, upper)`` bounds ``(steps + 1, ...)`` on the mean old mass ``G(x_t)``, from `adam_shift_bounds`."""
    s = finite(base_log_odds, "base_log_odds")
    lower, upper = adam_shift_bounds(s, step_size, steps, beta1, beta2, clip=clip)
    return np.exp(log_gradient(s, -np.log(upper))), np.exp(log_gradient(s, -np.log(lower)))


def adam_steady_step(rate: ArrayLike, beta1: ArrayLike = BETAS[0], beta2: ArrayLike = BETAS[1]) -> Array:
    r"""``u = mhat / sqrt(vhat)`` under a gradient that falls like ``e^(-rate t)``, in the end; 0 once v remembers too long.

    ``(1-b1)/(1-b1 e^r) sqrt((1-b2 e^(2r))/(1-b2))`` for ``r < -log(b2)/2``; decreasing in r for ``beta1 <= beta2``.
    """
    r, (b1, b2) = np.asarray(rate, dtype=np.float64), _ordered(beta1, beta2)
    room = np.maximum(-np.expm1(np.log(b2) + 2.0 * r), 0.0)
    with np.errstate(divide="ignore"):
        slack = -np.expm1(np.log(b1) + r)
        return np.where(room > 0.0, (1.0 - b1) / slack * np.sqrt(room / (1.0 - b2)), 0.0)


def adam_late_rate(step_size: ArrayLike, beta1: ArrayLike = BETAS[0], beta2: ArrayLike = BETAS[1]) -> Array:
    r"""Log-odds lost a step in the end, ``t >> 1/(1 - beta2)``: the root of ``r = h u(r)``, `adam_steady_step`.

    Between 0 and ``min(h, -log(beta2)/2)``: with a large step the fall is as fast as ``sqrt(v)`` forgets, 0.0005 a step
    for ``beta2 = 0.999``, whatever the learning rate. Statement `adam-late-rate` [A]; the limit
    follows from `adam-clock` [T] where ``beta1 e^h < 1``.

    >>> round(float(adam_late_rate(0.1)), 6)
    0.0005
    """
    h, (b1, b2) = positive(step_size, "step_size"), _ordered(beta1, beta2)
    h, b1, b2 = np.broadcast_arrays(h, b1, b2)
    highest = np.minimum(h, -0.5 * np.log(b2))

    def excess(r: Array) -> Array:
        return r - h * adam_steady_step(r, b1, b2)

    def slope(r: Array) -> Array:
        first, second = b1 * np.exp(r), b2 * np.exp(2.0 * r)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1.0 - h * adam_steady_step(r, b1, b2) * (first / (1.0 - first) - second / (1.0 - second))

    return solve_increasing(excess, slope, np.zeros(h.shape), np.zeros(h.shape), highest)


def adam_flow_shift(base_log_odds: ArrayLike, time: ArrayLike) -> Array:
    r"""Limit of many small steps that ``v`` still remembers all (``1 - beta1 >> h``, ``t << 1/(1 - beta2)``): ``x`` at ``time = h t``.

    ``dx/dtau = -G(x) sqrt(tau / Q)``, ``dQ/dtau = G^2``: every past gradient counts alike. ``base_log_odds (n,)`` share
    the shift; shape of ``time``. It starts with slope -1 and ends as ``e^-x ~ (2/3) tau^(3/2) mean e^s / sqrt(Q_inf)``.
    Statement `adam-flow` [A]. Raises InputError on times outside [0, 1e12].
    """
    s, tau = np.atleast_1d(finite(base_log_odds, "base_log_odds")), finite(time, "time")
    if not ((tau >= 0.0) & (tau <= _LONGEST_TIME)).all():
        raise InputError(f"time must lie in [0, {_LONGEST_TIME:g}], got {time!r}")
    start = log_gradient(s, 0.0)

    def velocity(log_tau: float, y: Array) -> list[float]:
        gradient = float(np.exp(log_gradient(s, y[0]) - start))  # over the first one
        return [-np.exp(log_tau) * gradient / np.sqrt(y[1]), gradient * gradient - y[1]]

    last = np.log(max(float(tau.max(initial=0.0)), 2.0 * _EARLIEST))
    from scipy.integrate import solve_ivp

    solution = solve_ivp(
        velocity, (np.log(_EARLIEST), last), [-_EARLIEST, 1.0], "LSODA", dense_output=True, rtol=1e-10, atol=1e-13
    )
    dense = solution.sol
    if not solution.success or dense is None:
        raise RuntimeError(f"the flow could not be solved: {solution.message}")
    late: Array = dense(np.log(np.maximum(tau, _EARLIEST)).ravel())[0].reshape(tau.shape)
    return np.where(tau > _EARLIEST, late, -tau)
