"""Objectives of the two-mode learner: exact value and gradient, and what a finite batch would give instead.

Each objective is a frozen dataclass with three methods (`Objective`): ``value(state)`` in nats, ``gradient(state)``
exact, and ``estimate(state, rng, batch)``, the stochastic gradient of a batch. Gradients are `TwoModeState` objects
in the problem's own coordinates; in them the means carry a factor ``cov^-1``. The set of objectives is the tuple
`fstsim.OBJECTIVES`, not a plug-in system: anything with the three methods can be passed to `simulate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from fstsim.divergences import forward_kl_gradient, reverse_kl, reverse_kl_gradient, two_mode_kl
from fstsim.errors import InputError
from fstsim.two_mode import TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened, unwhiten_gradient, whiten

Array = NDArray[np.float64]


class Objective(Protocol):
    """What `simulate` minimises. All methods are pure and vectorised over the batch axes of the state."""

    @property
    def problem(self) -> TwoModeProblem:
        """The problem whose covariance the learner shares."""
        ...

    def value(self, state: TwoModeState) -> Array:
        """Loss in nats, shape ``state.batch_shape``."""
        ...

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient of :meth:`value` in ``(log_odds, mean_old, mean_new)``."""
        ...

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Unbiased gradient estimate from ``batch`` fresh samples for every entry of the state."""
        ...


def _check_batch(batch: int, least: int) -> None:
    if batch < least:
        raise InputError(f"batch must be at least {least}, got {batch}")


def _two_mode_sample(beta: Array, old: Array, new: Array, batch: int, rng: np.random.Generator) -> Array:
    """``(..., batch, D)`` samples of the unit-covariance mixtures ``beta (...)``, means ``(..., D)``."""
    shape = (*beta.shape, batch)
    is_old = rng.random(shape) < beta[..., None]
    centers = np.where(is_old[..., None], old[..., None, :], new[..., None, :])
    return centers + rng.standard_normal((*shape, old.shape[-1]))


def _scores(s: Array, m_o: Array, m_n: Array, x: Array) -> tuple[Array, Array, Array]:
    """Scores ``grad log q(x)`` in (s, m_o, m_n) at whitened samples ``x (..., N, D)``."""
    gap, middle = (m_o - m_n)[..., None, :], 0.5 * (m_o + m_n)[..., None, :]
    z = s[..., None] + (gap * (x - middle)).sum(axis=-1)
    r_o, r_n = expit(z), expit(-z)
    return (
        r_o - expit(s)[..., None],
        r_o[..., None] * (x - m_o[..., None, :]),
        r_n[..., None] * (x - m_n[..., None, :]),
    )


def _log_density(s: Array, m_o: Array, m_n: Array, x: Array) -> Array:
    """Log density at whitened samples ``x (..., N, D)`` up to the Gaussian constant."""
    old = log_expit(s)[..., None] - 0.5 * ((x - m_o[..., None, :]) ** 2).sum(axis=-1)
    new = log_expit(-s)[..., None] - 0.5 * ((x - m_n[..., None, :]) ** 2).sum(axis=-1)
    return np.logaddexp(old, new)


def forward_kl_estimate(
    state: Whitened,
    old_fraction: Array,
    centers: tuple[Array, Array],
    rng: np.random.Generator,
    batch: int,
) -> Whitened:
    """Gradient of the mean negative log-likelihood of ``batch`` samples of the training mixture, whitened coordinates.

    The old share and the two centers broadcast against ``state``.
    """
    s, m_o, m_n = state
    old, new = (np.broadcast_to(c, m_o.shape) for c in centers)
    x = _two_mode_sample(np.broadcast_to(old_fraction, s.shape), old, new, batch, rng)
    g_s, g_o, g_n = _scores(s, m_o, m_n, x)
    return Whitened(-g_s.mean(axis=-1), -g_o.mean(axis=-2), -g_n.mean(axis=-2))


def reverse_kl_estimate(state: Whitened, target: Whitened, rng: np.random.Generator, batch: int) -> Whitened:
    """Score-function estimate of the reverse-KL gradient from ``batch`` on-policy samples, leave-one-out baseline.

    The mean of ``(A_i - mean of the others' A) grad log q(x_i)`` with ``A = log q / p``; whitened coordinates, shapes as in
    :func:`forward_kl_estimate`. Unbiased for ``batch >= 2``.
    """
    s, m_o, m_n = state
    s_p, mu_o, mu_n = target
    x = _two_mode_sample(expit(s), m_o, m_n, batch, rng)
    log_p = _log_density(
        np.broadcast_to(s_p, s.shape), np.broadcast_to(mu_o, m_o.shape), np.broadcast_to(mu_n, m_n.shape), x
    )
    log_ratio = _log_density(s, m_o, m_n, x) - log_p
    # A_i minus the mean of the others equals (A_i - mean) N / (N - 1)
    advantage = (log_ratio - log_ratio.mean(axis=-1, keepdims=True)) * (batch / (batch - 1.0))
    g_s, g_o, g_n = _scores(s, m_o, m_n, x)
    return Whitened(
        (advantage * g_s).mean(axis=-1),
        (advantage[..., None] * g_o).mean(axis=-2),
        (advantage[..., None] * g_n).mean(axis=-2),
    )


@dataclass(frozen=True)
class ForwardKL:
    r"""Supervised fine-tuning: ``KL(train || q)`` with ``train = f N(mean_old) + (1 - f) N(mean_new)``.

    ``old_fraction`` f in [0, 1] is the share of old data: 0 trains on new data only (mass forgetting), ``alpha``
    gives ``KL(target || policy)``, anything between is data replay. Source: arXiv 2603.12163, `mass-forgetting`.
    """

    problem: TwoModeProblem
    old_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.old_fraction <= 1.0:
            raise InputError(f"old_fraction must lie in [0, 1], got {self.old_fraction!r}")

    def _centers(self) -> tuple[Array, Array]:
        weights = np.array([self.old_fraction, 1.0 - self.old_fraction])
        centers = np.stack([self.problem.whiten(self.problem.mean_old), self.problem.whiten(self.problem.mean_new)])
        return weights[weights > 0.0], centers[weights > 0.0]

    def value(self, state: TwoModeState) -> Array:
        """``KL(train || q)`` in nats."""
        with np.errstate(divide="ignore"):
            s_train = np.log(self.old_fraction) - np.log1p(-self.old_fraction)
        old, new = self.problem.whiten(self.problem.mean_old), self.problem.whiten(self.problem.mean_new)
        return two_mode_kl(Whitened(s_train, old, new), whiten(self.problem, state))

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient."""
        return unwhiten_gradient(self.problem, forward_kl_gradient(*whiten(self.problem, state), *self._centers()))

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Gradient of the mean negative log-likelihood of ``batch`` training samples."""
        _check_batch(batch, 1)
        p = self.problem
        centers = (p.whiten(p.mean_old), p.whiten(p.mean_new))
        share = np.asarray(self.old_fraction)
        return unwhiten_gradient(p, forward_kl_estimate(whiten(p, state), share, centers, rng, batch))


@dataclass(frozen=True)
class ReverseKL:
    r"""Reinforcement learning to the target: ``KL(q || p_alpha)``, sampled on-policy.

    ``estimate`` is the score-function (policy-gradient) estimator of the batch with the leave-one-out baseline,
    unbiased for batch >= 2. Source: arXiv 2603.12163, `reverse-kl-target`.
    """

    problem: TwoModeProblem

    def _target(self) -> Whitened:
        p = self.problem
        return Whitened(np.asarray(p.log_odds, dtype=np.float64), p.whiten(p.mean_old), p.whiten(p.mean_new))

    def value(self, state: TwoModeState) -> Array:
        """``KL(q || p_alpha)`` in nats."""
        return reverse_kl(*whiten(self.problem, state), *self._target())

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient."""
        return unwhiten_gradient(self.problem, reverse_kl_gradient(*whiten(self.problem, state), *self._target()))

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Score-function gradient of ``batch`` on-policy samples with the leave-one-out baseline."""
        _check_batch(batch, 2)
        estimate = reverse_kl_estimate(whiten(self.problem, state), self._target(), rng, batch)
        return unwhiten_gradient(self.problem, estimate)
