r"""Two ways to keep the old mode while learning: a KL leash to the base, and replayed samples for reverse KL.

Data replay for forward KL is `ForwardKL(problem, old_fraction)` and needs nothing from here.

Both score-function estimates below compare the samples of a batch pair by pair. With samples ``x_i`` of a proposal
``b``, weights ``w_i = q / b``, reward-like ``A`` and score ``psi = grad log q`` the estimate is the U-statistic

    1/(N (N-1)) sum_{i != j} w_i w_j (A_i - A_j) psi_i
        = 1/N sum_i w_i [mean over j != i of w_j (A_i - A_j)] psi_i,

a leave-one-out baseline that carries the weights. It is unbiased for every N >= 2 (each pair is independent and
``E_b[w psi] = E_q[psi] = 0``), blind to a constant in ``A``, and without replay it is the leave-one-out estimate of
`ReverseKL`. Source: setting of arXiv 2603.12163; statements `replay-forward`, `replay-reverse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fstsim.divergences import forward_kl_gradient, reverse_kl_gradient, two_mode_kl
from fstsim.errors import InputError
from fstsim.objectives import (
    ReverseKL,
    _check_batch,
    _log_density,
    _scores,
    _two_mode_sample,
)
from fstsim.two_mode import TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened, unwhiten_gradient, whiten

Array = NDArray[np.float64]
Direction = Literal["forward", "reverse"]


def validate_replay_fraction(replay_fraction: ArrayLike) -> Array:
    """``replay_fraction`` as float64; raises InputError unless every entry lies in [0, 1)."""
    share = np.asarray(replay_fraction, dtype=np.float64)
    if not ((share >= 0.0) & (share < 1.0)).all():
        raise InputError(f"replay_fraction must lie in [0, 1), got {replay_fraction!r}")
    return share


def replay_importance_weights(log_q: ArrayLike, log_old: ArrayLike, replay_fraction: ArrayLike) -> Array:
    r"""Importance weights ``w = q / b`` of samples of ``b = (1 - lambda) q + lambda p_old``, in ``[0, 1 / (1 - lambda)]``.

    ``-log w = logaddexp(log(1 - lambda), log lambda + log p_old - log q)``: log densities in (any common constant
    cancels), any shapes that broadcast. Raises InputError on nan or infinite log densities and on a
    ``replay_fraction`` outside [0, 1). Statement `replay-reverse` (theory 7.2 [T]).

    >>> replay_importance_weights([0.0, -50.0], [-50.0, 0.0], 0.2).round(6)
    array([1.25, 0.  ])
    """
    share = validate_replay_fraction(replay_fraction)
    q, old = np.asarray(log_q, dtype=np.float64), np.asarray(log_old, dtype=np.float64)
    if not (np.isfinite(q).all() and np.isfinite(old).all()):
        raise InputError("log_q and log_old must be finite")
    with np.errstate(divide="ignore"):  # no replay: log 0 = -inf and the weights are 1
        return np.exp(-np.logaddexp(np.log1p(-share), np.log(share) + old - q))


def _log_ratio(q: Whitened, p: Whitened, x: Array) -> Array:
    """``log q / p`` at whitened samples ``x (..., N, D)``; ``p`` is one mixture, ``q`` a batch."""
    s_p, old, new = (np.broadcast_to(part, whole.shape) for part, whole in zip(p, q, strict=True))
    return _log_density(*q, x) - _log_density(s_p, old, new, x)


def _pairwise_estimate(q: Whitened, x: Array, cost: Array, weights: Array) -> Whitened:
    """The U-statistic of the module docstring, for the gradient of ``E_q[cost]`` at frozen cost."""
    others = x.shape[-2] - 1
    other_weight = (weights.sum(axis=-1, keepdims=True) - weights) / others
    weighted = weights * cost
    other_cost = (weighted.sum(axis=-1, keepdims=True) - weighted) / others
    advantage = weights * (cost * other_weight - other_cost)
    g_s, g_o, g_n = _scores(*q, x)
    return Whitened(
        (advantage * g_s).mean(axis=-1),
        (advantage[..., None] * g_o).mean(axis=-2),
        (advantage[..., None] * g_n).mean(axis=-2),
    )


def _sum(first: Whitened, second: Whitened, strength: float) -> Whitened:
    return Whitened(*(a + strength * b for a, b in zip(first, second, strict=True)))


@dataclass(frozen=True)
class KLLeash:
    r"""Supervised fine-tuning on new data, held by a KL leash to the base: ``KL(p_new || q) + strength * leash``.

    ``direction = "forward"`` is the leash ``KL(base || q)``: exactly data replay, for a base with the right components
    at the replay share ``strength * beta_base / (1 + strength)``. ``direction = "reverse"`` is ``KL(q || base)``, whose
    retained mass falls like ``exp(-1 / strength)`` without overlap. ``base`` is one unbatched state, ``strength`` (eta) >= 0.
    Raises InputError on a negative or non-finite strength, an unknown direction, a batched base or another dimension.
    Source: setting of arXiv 2603.12163, statement `replay-forward` (theory 6.2).

    >>> problem = TwoModeProblem.separated(4.0)
    >>> leash = KLLeash(problem, problem.initial(0.5), strength=0.25)
    >>> round(abs(float(leash.gradient(problem.initial(0.1)).log_odds)), 12)  # 0.25 * 0.5 / 1.25 = 0.1
    0.0
    """

    problem: TwoModeProblem
    base: TwoModeState
    strength: float
    direction: Direction = "forward"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.strength) and self.strength >= 0.0):
            raise InputError(f"strength must be nonnegative and finite, got {self.strength!r}")
        if self.direction not in get_args(Direction):
            raise InputError(f"direction must be one of {', '.join(get_args(Direction))}; got {self.direction!r}")
        if self.base.batch_shape:
            raise InputError(f"base must be one state, got batch axes {self.base.batch_shape}")
        if self.base.dimension != self.problem.dimension:
            raise InputError(f"base has dimension {self.base.dimension}, the problem {self.problem.dimension}")

    def _new(self) -> Array:
        return self.problem.whiten(self.problem.mean_new)

    def _base(self) -> Whitened:
        return whiten(self.problem, self.base)

    def value(self, state: TwoModeState) -> Array:
        """``KL(p_new || q) + strength * KL(base || q)`` (or ``KL(q || base)``), nats."""
        q, base, new = whiten(self.problem, state), self._base(), self._new()
        leash = two_mode_kl(base, q) if self.direction == "forward" else two_mode_kl(q, base)
        return two_mode_kl(Whitened(np.array(-np.inf), new, new), q) + self.strength * leash

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient."""
        q, base = whiten(self.problem, state), self._base()
        data = forward_kl_gradient(*q, np.ones(1), self._new()[None, :])
        if self.direction == "forward":
            weights = np.array([expit(base[0]), expit(-base[0])])
            leash = forward_kl_gradient(*q, weights, np.stack([base.old, base.new]))
        else:
            leash = reverse_kl_gradient(*q, *base)
        return unwhiten_gradient(self.problem, _sum(data, leash, self.strength))

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Unbiased gradient estimate from ``batch`` samples in all.

        Forward: ``1 + strength`` times the gradient of the negative log-likelihood of samples of the mixture
        ``(p_new + strength * base) / (1 + strength)``, which is data replay. Reverse: half of the samples (rounded
        down, so batch >= 4) are the learner's own, compared pair by pair; the rest is new data.
        """
        q, base, new = whiten(self.problem, state), self._base(), np.broadcast_to(self._new(), state.mean_new.shape)
        on_policy = batch // 2 if self.direction == "reverse" else 0
        _check_batch(batch, 4 if self.direction == "reverse" else 1)
        shape = state.batch_shape
        x = _two_mode_sample(np.zeros(shape), new, new, batch - on_policy, rng)
        scale = 1.0
        if self.direction == "forward":
            scale = 1.0 + self.strength
            mean_old, mean_new = (np.broadcast_to(m, state.mean_new.shape) for m in base[1:])
            anchor = _two_mode_sample(np.full(shape, expit(base[0])), mean_old, mean_new, batch, rng)
            anchored = rng.random((*shape, batch)) < self.strength / scale
            x = np.where(anchored[..., None], anchor, x)
        g_s, g_o, g_n = _scores(*q, x)
        data = Whitened(-scale * g_s.mean(axis=-1), -scale * g_o.mean(axis=-2), -scale * g_n.mean(axis=-2))
        if self.direction == "forward":
            return unwhiten_gradient(self.problem, data)
        own = _two_mode_sample(expit(q[0]), q[1], q[2], on_policy, rng)
        leash = _pairwise_estimate(q, own, _log_ratio(q, base, own), np.ones((*shape, on_policy)))
        return unwhiten_gradient(self.problem, _sum(data, leash, self.strength))


@dataclass(frozen=True)
class ReverseKLReplay:
    r"""Reverse KL whose batches mix replayed old samples into the learner's own; same population objective as `ReverseKL`.

    Every sample is drawn from ``b = (1 - replay_fraction) q + replay_fraction p_old`` and weighted by
    ``q / b <= 1 / (1 - replay_fraction)``, so a learner that has all but lost the old mode still sees it. ``p_old`` is the
    old component of the target. Raises InputError on a fraction outside [0, 1).
    Source: own derivation, statement `replay-reverse` (theory 7.2).
    """

    problem: TwoModeProblem
    replay_fraction: float

    def __post_init__(self) -> None:
        validate_replay_fraction(self.replay_fraction)

    def value(self, state: TwoModeState) -> Array:
        """``KL(q || p_alpha)`` in nats."""
        return ReverseKL(self.problem).value(state)

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient, that of `ReverseKL`."""
        return ReverseKL(self.problem).gradient(state)

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Unbiased estimate from ``batch >= 2`` samples: weighted leave-one-out baseline (see the module docstring)."""
        _check_batch(batch, 2)
        q = whiten(self.problem, state)
        old = np.broadcast_to(self.problem.whiten(self.problem.mean_old), q[1].shape)
        own = _two_mode_sample(expit(q[0]), q[1], q[2], batch, rng)
        past = _two_mode_sample(np.ones(q[0].shape), old, old, batch, rng)
        replayed = rng.random(own.shape[:-1]) < self.replay_fraction
        x = np.where(replayed[..., None], past, own)
        log_old = -0.5 * ((x - old[..., None, :]) ** 2).sum(axis=-1)  # the constant of _log_density
        weights = replay_importance_weights(_log_density(*q, x), log_old, self.replay_fraction)
        target = Whitened(
            np.asarray(self.problem.log_odds),
            self.problem.whiten(self.problem.mean_old),
            self.problem.whiten(self.problem.mean_new),
        )
        return unwhiten_gradient(self.problem, _pairwise_estimate(q, x, _log_ratio(q, target, x), weights))
