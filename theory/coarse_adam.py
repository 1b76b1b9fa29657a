r"""Coarse Adam: where AdamW or SGD with momentum go in n steps, if gradients stay the same in distribution meanwhile.

A *piece* is n steps in which the gradient has mean ``g`` and mean square ``q`` (of the clipped gradient, each parameter by
itself). With both constant, Adam's recursions have the solution

    m_j = b1^j m_0 + (1 - b1^j) g,        v_j = b2^j v_0 + (1 - b2^j) q,        j = 1 ... n,

so that the piece moves the weights by a sum over its steps, in which nothing but numbers depends on the step:

    theta_n = prod_j (1 - h_j wd) theta_0 - sum_j c_j mhat_j / (sqrt(vhat_j) + eps),    c_j = h_j prod_{i>j} (1 - h_i wd),

``h_j`` the learning rate of step j, ``wd`` the decoupled weight decay, ``mhat = m / (1 - b1^t)``, ``vhat = v / (1 - b2^t)``,
``t = age + j`` the steps since the moments were 0. Moments and age are carried over from piece to piece: fresh ones would move
every parameter by the whole learning rate although gradients have shrunk. With pieces of one step and the gradient of one
batch (``q = g^2``), a piece *is* a step of AdamW.

The sum is made exactly over the first steps and by Gauss quadrature beyond them (`fstsim.theory.step_nodes`). A panel's error
is hence at most ``2 sum c_j`` times the distance of ``mhat / (sqrt(vhat) + eps)`` from its polynomials. The tests hold it
below 1e-7 of the sum of the learning rates, for pieces of up to 1,500 steps and very unequal moments.

Arrays are numpy arrays or torch tensors of any one shape: only ``+ - * /`` and ``**`` with numbers are used.
Source: Adam arXiv 1412.6980, AdamW 1711.05101; own derivation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.theory.step_nodes import EXACT, POINTS, ROUGH, step_nodes

Array = NDArray[np.float64]
Tensor = Any
"""A numpy array or a torch tensor."""

LearningRate = Literal["constant", "linear", "cosine"]
"""How the learning rate goes after the warm-up: stays, falls evenly to 0, falls to 0 as a half cosine."""


@dataclass(frozen=True)
class AdamW:
    """Constants of AdamW, by torch's names and with torch's defaults, but no weight decay."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        _check_nonnegative(self, ("eps", "weight_decay"))


@dataclass(frozen=True)
class SGD:
    """Constants of SGD: heavy-ball or Nesterov ``momentum``, and ``weight_decay`` that is added to the gradient."""

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0:
            raise InputError(f"momentum must lie in [0, 1), got {self.momentum}")
        _check_nonnegative(self, ("weight_decay",))


def _check_nonnegative(held: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(held, name)
        if not (np.isfinite(value) and value >= 0.0):
            raise InputError(f"{name} must be nonnegative and finite, got {value}")


@dataclass(frozen=True)
class Moments:
    """What an optimizer remembers: ``first`` moment (momentum), ``second`` moment, and ``age``, the steps since they were 0.

    Neither moment has its bias removed. SGD has no second moment: it stays what it was.
    """

    first: Tensor
    second: Tensor
    age: int = 0


def learning_rates(kind: LearningRate, lr: float, steps: int, warmup: int = 0) -> Array:
    r"""Learning rates of all steps of a run, ``(steps,)``: ``warmup`` steps up to ``lr``, then as ``kind`` says.

    Step ``t = 1 ... warmup`` has ``lr t / (warmup + 1)``; after it, with ``s = (t - 1 - warmup) / (steps - warmup)`` the share
    that is done, ``constant`` has ``lr``, ``linear`` ``lr (1 - s)``, ``cosine`` ``lr (1 + cos(pi s)) / 2``. Raises
    InputError for another kind, no steps, or a warm-up that is longer than the run.

    >>> learning_rates("linear", 1.0, 5, warmup=1).tolist()
    [0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if kind not in get_args(LearningRate):
        raise InputError(f"schedule {kind!r} is unknown; allowed: {', '.join(get_args(LearningRate))}")
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if not 0 <= warmup <= steps:
        raise InputError(f"warmup must lie in 0..{steps}, the steps of the run, got {warmup}")
    t = np.arange(1, steps + 1, dtype=np.float64)
    done = np.maximum(t - 1.0 - warmup, 0.0) / max(steps - warmup, 1)
    share = {"constant": np.ones(steps), "linear": 1.0 - done, "cosine": 0.5 * (1.0 + np.cos(np.pi * done))}[kind]
    return lr * np.where(t <= warmup, t / (warmup + 1), share)


def adam_moments(moments: Moments, g: Tensor, q: Tensor, steps: int, adam: AdamW = AdamW()) -> Moments:
    """Moments after ``steps`` more steps under mean gradient ``g`` and mean square ``q``, in closed form.

    ``m_n = b1^n m_0 + (1 - b1^n) g`` and ``v_n = b2^n v_0 + (1 - b2^n) q``; the age grows by n. Arrays have one shape.
    Raises InputError for negative ``steps``.
    """
    if steps < 0:
        raise InputError(f"steps must be at least 0, got {steps}")
    kept1, kept2 = adam.beta1**steps, adam.beta2**steps
    return Moments(
        kept1 * moments.first + (1.0 - kept1) * g, kept2 * moments.second + (1.0 - kept2) * q, moments.age + steps
    )


def adam_direction(moments: Moments, g: Tensor, q: Tensor, step: float, adam: AdamW = AdamW()) -> Tensor:
    """``mhat / (sqrt(vhat) + eps)`` at step ``step >= 1`` of a piece, which may lie between two steps; a learning rate's units."""
    kept1, kept2 = adam.beta1**step, adam.beta2**step
    t = moments.age + step
    first = (kept1 * moments.first + (1.0 - kept1) * g) / (1.0 - adam.beta1**t)
    second = (kept2 * moments.second + (1.0 - kept2) * q) / (1.0 - adam.beta2**t)
    return first / (second**0.5 + adam.eps)


def adam_piece(
    weights: Tensor,
    moments: Moments,
    g: Tensor,
    q: Tensor,
    rates: ArrayLike,
    adam: AdamW = AdamW(),
    nodes: tuple[int, int] = (EXACT, POINTS),
) -> tuple[Tensor, Moments]:
    """Weights and moments after a piece of AdamW: one step for each of ``rates (n,)``, its learning rates.

    ``weights``, moments, ``g`` and ``q`` have one shape; nothing is changed in place. Weight decay is decoupled, as in
    AdamW. With constant gradients (``q = g^2``) it is what n steps of torch's AdamW do, to rounding for n up to ``nodes[0]``,
    the steps that are summed one by one (`step_nodes`).
    Raises InputError unless learning rates are finite and nonnegative.
    """
    kept, coefficients = _decayed(_rates(rates), adam.weight_decay)
    moved = weights if kept == 1.0 else kept * weights
    for step, weight in zip(*step_nodes(coefficients, *nodes), strict=True):
        moved = moved - float(weight) * adam_direction(moments, g, q, float(step), adam)
    return moved, adam_moments(moments, g, q, len(coefficients), adam)


def adam_ramp(
    weights: Tensor,
    moments: Moments,
    start: tuple[Tensor, Tensor],
    end: tuple[Tensor, Tensor],
    shares: ArrayLike,
    rates: ArrayLike,
    adam: AdamW = AdamW(),
) -> tuple[Tensor, Moments]:
    r"""Weights and moments after a piece in which ``(g, q)`` go from ``start`` to ``end``: step j is a share ``shares_j`` of the way.

    g goes linearly, q linearly from ``q_0`` to :math:`\sqrt{q_0 q_1}` (or the squared mean there, if that is more) at half of
    the way, and on to ``q_1``: by convexity never below the squared mean. Both moments are then linear in ``(m_0, g_0, g_1)``
    and ``(v_0, q_0, q_{1/2}, q_1)``, with numbers that are recursions over the steps; the sum over steps has the nodes of
    `step_nodes`, those of `ROUGH`. ``shares (n,)`` in [0, 1], ``rates (n,)``, otherwise as `adam_piece`.
    Raises InputError unless there are as many shares as rates, and learning rates are finite and nonnegative.
    """
    h, s = _rates(rates), np.atleast_1d(np.asarray(shares, dtype=np.float64))
    if h.shape != s.shape:
        raise InputError(f"there must be a share for each learning rate, got {s.size} and {h.size}")
    if not h.size:
        return weights, moments
    kept, coefficients = _decayed(h, adam.weight_decay)
    (g0, q0), (g1, q1) = start, end
    half = between(start, end, 0.5)[1]
    by_g = np.stack([1.0 - s, s])
    by_q = np.stack([np.maximum(1.0 - 2.0 * s, 0.0), 1.0 - np.abs(2.0 * s - 1.0), np.maximum(2.0 * s - 1.0, 0.0)])
    first, second = _faded(by_g, adam.beta1), _faded(by_q, adam.beta2)

    def at(step: float) -> tuple[Tensor, Tensor]:
        m, a, b = _read(first, adam.beta1, step)
        v, x, y, z = _read(second, adam.beta2, step)
        return m * moments.first + a * g0 + b * g1, v * moments.second + x * q0 + y * half + z * q1

    moved = weights if kept == 1.0 else kept * weights
    for step, weight in zip(*step_nodes(coefficients, *ROUGH), strict=True):
        t = moments.age + float(step)
        m, v = at(float(step))
        moved = moved - (float(weight) / (1.0 - adam.beta1**t)) * m / ((v / (1.0 - adam.beta2**t)) ** 0.5 + adam.eps)
    return moved, Moments(*at(float(h.size)), moments.age + h.size)


def _faded(by: Array, beta: float) -> Array:
    """Weighted means of the shares ``by (k, n)`` that a moment holds after each of n steps, ``(k, n)``; they sum to 1."""
    held, found = np.zeros(len(by)), np.empty_like(by)
    for j in range(by.shape[1]):
        held = beta * held + (1.0 - beta) * by[:, j]
        found[:, j] = held / (1.0 - beta ** (j + 1))
    return found


def _read(means: Array, beta: float, step: float) -> list[float]:
    """What a moment has at ``step >= 1``, which may lie between two: of itself at the start, and of each share."""
    below = min(int(step), means.shape[1]) - 1
    over = step - 1 - below
    between_two = (1.0 - over) * means[:, below] + over * means[:, min(below + 1, means.shape[1] - 1)]
    kept = beta**step
    return [kept, *((1.0 - kept) * between_two).tolist()]


def sgd_piece(
    weights: Tensor,
    moments: Moments,
    g: Tensor,
    rates: ArrayLike,
    sgd: SGD = SGD(),
) -> tuple[Tensor, Moments]:
    r"""Weights and moments after a piece of SGD with momentum, exactly: one step for each of ``rates (n,)``.

    ``b_j = mu b_{j-1} + g + wd theta_{j-1}``, ``theta_j = theta_{j-1} - h_j b_j`` (Nesterov: ``g + wd theta_{j-1} + mu b_j``
    in place of ``b_j``). Both are linear in ``(theta_0, b_0, g)``: the recursion is made on their three numbers, not on
    arrays. Raises InputError unless learning rates are finite and nonnegative.
    """
    own, buffer = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])  # of theta_0, b_0, g
    h = _rates(rates)
    for rate in h:
        slope = sgd.weight_decay * own + np.array([0.0, 0.0, 1.0])
        buffer = sgd.momentum * buffer + slope
        own = own - rate * (slope + sgd.momentum * buffer if sgd.nesterov else buffer)

    def combined(by: Array) -> Tensor:
        return float(by[0]) * weights + float(by[1]) * moments.first + float(by[2]) * g

    return combined(own), Moments(combined(buffer), moments.second, moments.age + len(h))


def between(start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor], share: float) -> tuple[Tensor, Tensor]:
    """``(g, q)`` a ``share`` of the way from ``start`` to ``end``: g linearly, q geometrically, but q at least ``g^2``.

    No mean square is below the squared mean; the geometric mean of two would be, where one of them is small or 0.
    """
    g = (1.0 - share) * start[0] + share * end[0]
    # at the ends 0 to the power of 0 would be 1
    inside = 0.0 < share < 1.0
    q = start[1] ** (1.0 - share) * end[1] ** share if inside else (start, end)[share >= 1.0][1]
    return g, (q + g * g + abs(q - g * g)) / 2.0


def _rates(rates: ArrayLike) -> Array:
    h = np.atleast_1d(np.asarray(rates, dtype=np.float64))
    if not (np.isfinite(h) & (h >= 0.0)).all():
        raise InputError("learning rates must be nonnegative and finite")
    return h


def _decayed(rates: Array, weight_decay: float) -> tuple[float, Array]:
    """What decoupled weight decay leaves of the weights, and the coefficient of each step's direction."""
    factors = 1.0 - weight_decay * rates
    after = np.append(np.cumprod(factors[::-1])[::-1], 1.0)
    return float(after[0]), rates * after[1:]
