r"""SDFT, TTT-Discover and OAPL as objectives of the simulator (theory 8 to 10): exact value and gradient, and a batch.

They follow the protocol of `fstsim.objectives`. What each holds fixed besides the problem - a teacher, a base policy,
a lagged policy - is part of the objective; the loops that move it are in `fstsim.method_loops`.

Two models of the reward appear. *Labelled*: every sample carries its mode, the reward of a mode is ``reward_old`` or
``reward_new``, divergences are those of the labelled mixtures; the weight then follows the two-outcome theory exactly.
*By responsibility*: the reward is the function ``r(x) = r_o + (r_n - r_o) rho_n(x)`` with ``rho_n`` the base
responsibility of the new mode, divergences are those of the densities of ``x``: overlap is treated exactly, in any
dimension. Both may carry a linear reward ``slope . (x - mean_old)`` on top, which varies *inside* a mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from fstsim.divergences import reverse_kl, reverse_kl_gradient
from fstsim.errors import InputError
from fstsim.labelled import (
    LabelledSample,
    labelled_kl,
    labelled_kl_gradient,
    labelled_log_density,
    labelled_sample,
    labelled_scores,
    square,
)
from fstsim.objectives import (
    _check_batch,
    _log_density,
    _scores,
    _two_mode_sample,
    reverse_kl_estimate,
)
from fstsim.tilts import log_entropic_mean
from fstsim.two_mode import TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened, unwhiten_gradient, whiten

Array = NDArray[np.float64]


def _fixed(problem: TwoModeProblem, fixed: TwoModeState, like: TwoModeState) -> Whitened:
    """The objective's own state, whitened and broadcast to the batch axes of the learner."""
    s, old, new = whiten(problem, fixed)
    try:
        return Whitened(
            np.broadcast_to(s, like.batch_shape),
            np.broadcast_to(old, like.mean_old.shape),
            np.broadcast_to(new, like.mean_new.shape),
        )
    except ValueError as error:
        raise InputError(
            f"batch axes {fixed.batch_shape} of the objective do not broadcast to {like.batch_shape} of the learner"
        ) from error


def _check_finite(**values: float) -> None:
    for name, value in values.items():
        if not np.isfinite(value):
            raise InputError(f"{name} must be finite, got {value!r}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0.0):
            raise InputError(f"{name} must be positive and finite, got {value!r}")


def _whitened_slope(problem: TwoModeProblem, slope: ArrayLike) -> Array:
    """``L' w``: the slope of a linear reward in whitened coordinates, ``(D,)``."""
    w = np.asarray(slope, dtype=np.float64)
    if not np.isfinite(w).all():
        raise InputError("slope must be finite")
    if w.shape not in {(), (1,), (problem.dimension,)}:
        raise InputError(f"slope must be a number or have shape ({problem.dimension},), got {w.shape}")
    return np.broadcast_to(w, (problem.dimension,)) @ problem._root


def _weighted_scores(advantage: Array, scores: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Batch means of ``advantage * score``."""
    return (
        (advantage * scores[0]).mean(axis=-1),
        (advantage[..., None] * scores[1]).mean(axis=-2),
        (advantage[..., None] * scores[2]).mean(axis=-2),
    )


def _less_the_others(values: Array) -> Array:
    """Each value minus the mean of the others in its batch."""
    n = values.shape[-1]
    return (values - values.mean(axis=-1, keepdims=True)) * (n / (n - 1.0))


@dataclass(frozen=True, eq=False)
class SDFT:
    r"""Self-distillation: reverse KL of the student to the demonstration-conditioned teacher, ``KL(q || q_T)``, nats.

    Conditioning multiplies the teacher's odds of the old mode by ``e^-tilt`` (exact Bayes for a mixture, when the
    demonstration is ``e^tilt`` times likelier under the new mode). The gradient does not flow into the teacher.
    ``estimate`` is on-policy with the leave-one-out baseline, unbiased. `simulate_sdft` moves the teacher.
    Source: theory `sdft` (model of SDFT, arXiv 2601.19897).
    """

    problem: TwoModeProblem
    teacher: TwoModeState
    tilt: float

    def __post_init__(self) -> None:
        _check_finite(tilt=self.tilt)
        whiten(self.problem, self.teacher)

    def _target(self, state: TwoModeState) -> Whitened:
        teacher = _fixed(self.problem, self.teacher, state)
        return teacher._replace(log_odds=teacher.log_odds - self.tilt)

    def value(self, state: TwoModeState) -> Array:
        """``KL(q || q_T)`` in nats."""
        return reverse_kl(*whiten(self.problem, state), *self._target(state))

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient in the student."""
        return unwhiten_gradient(self.problem, reverse_kl_gradient(*whiten(self.problem, state), *self._target(state)))

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Score-function gradient of ``batch`` student samples with the leave-one-out baseline."""
        _check_batch(batch, 2)
        target = self._target(state)
        return unwhiten_gradient(self.problem, reverse_kl_estimate(whiten(self.problem, state), target, rng, batch))


@dataclass(frozen=True, eq=False)
class TTTDiscover:
    r"""Entropic utility with a leash: ``-(log E_q e^(b r) - lambda KL(q || base))``, nats; minimised.

    ``inverse_temperature`` b > 0, ``kl_weight`` lambda >= 0. ``labelled`` chooses the two-outcome model, else the reward
    goes by base responsibility (see the module's head). ``estimate`` gives sample i the weight ``e^(b r_i)`` over the
    mean of the *others'*: independent of sample i, so that the expected entropic step is parallel to the exact one
    and longer by ``Z E[1 / Z_others] >= 1``, which tends to 1 as the batch grows; the leash part is unbiased.
    Source: theory `ttt-discover` (model of TTT-Discover, arXiv 2601.16175).
    """

    problem: TwoModeProblem
    base: TwoModeState
    reward_old: float
    reward_new: float
    inverse_temperature: float
    kl_weight: float
    labelled: bool = False
    slope: ArrayLike = 0.0

    def __post_init__(self) -> None:
        _check_finite(reward_old=self.reward_old, reward_new=self.reward_new)
        _check_positive(inverse_temperature=self.inverse_temperature)
        if not (np.isfinite(self.kl_weight) and self.kl_weight >= 0.0):
            raise InputError(f"kl_weight must be nonnegative and finite, got {self.kl_weight!r}")
        whiten(self.problem, self.base)
        _whitened_slope(self.problem, self.slope)

    def _log_utilities(self, q: Whitened, base: Whitened) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """``log E e^(b r)`` under either component, and its gradient in that component's mean."""
        b, gap = self.inverse_temperature, self.reward_new - self.reward_old
        w = b * _whitened_slope(self.problem, self.slope)
        middle, axis = 0.5 * (base.old + base.new), base.new - base.old
        out = []
        for mean, reward in ((q.old, self.reward_old), (q.new, self.reward_new)):
            # a linear exponent moves the Gaussian by w and multiplies by exp(w . (m - mu_o) + |w|^2 / 2)
            linear = ((mean - self.problem.whiten(self.problem.mean_old)) * w).sum(axis=-1) + 0.5 * (w * w).sum()
            if self.labelled:
                out.append((b * reward + linear, np.broadcast_to(w, mean.shape)))
                continue
            loc = (axis * (mean + w - middle)).sum(axis=-1) - base.log_odds
            value, slope = log_entropic_mean(loc, np.sqrt(square(axis)), b * gap)
            out.append((b * self.reward_old + linear + value, w + slope[..., None] * axis))
        return out[0], out[1]

    def value(self, state: TwoModeState) -> Array:
        """Loss in nats."""
        q, base = whiten(self.problem, state), _fixed(self.problem, self.base, state)
        (old, _), (new, _) = self._log_utilities(q, base)
        utility = np.logaddexp(log_expit(q.log_odds) + old, log_expit(-q.log_odds) + new)
        leash = labelled_kl(q, base) if self.labelled else reverse_kl(*q, *base)
        return self.kl_weight * leash - utility

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient."""
        q, base = whiten(self.problem, state), _fixed(self.problem, self.base, state)
        (old, old_slope), (new, new_slope) = self._log_utilities(q, base)
        share = expit(q.log_odds + old - new)  # of the old mode in E e^(br)
        leash = labelled_kl_gradient(q, base) if self.labelled else reverse_kl_gradient(*q, *base)
        # share - beta without cancellation when the rewards are nearly equal
        moved = expit(q.log_odds) * expit(-q.log_odds - old + new) * np.expm1(old - new)
        return unwhiten_gradient(
            self.problem,
            (
                self.kl_weight * leash[0] - moved,
                self.kl_weight * leash[1] - share[..., None] * old_slope,
                self.kl_weight * leash[2] - (1.0 - share)[..., None] * new_slope,
            ),
        )

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Entropic policy gradient with leave-one-out weights and baseline, on samples of the learner."""
        _check_batch(batch, 2)
        q, base = whiten(self.problem, state), _fixed(self.problem, self.base, state)
        if self.labelled:
            sample = labelled_sample(q, batch, rng)
            new_share = 1.0 - sample.is_old
            scores = labelled_scores(q, sample)
            log_ratio = labelled_log_density(q, sample) - labelled_log_density(base, sample)
        else:
            x = _two_mode_sample(expit(q.log_odds), q.old, q.new, batch, rng)
            sample = LabelledSample(x, np.zeros(x.shape[:-1], dtype=np.bool_))
            axis, middle = (base.new - base.old)[..., None, :], 0.5 * (base.old + base.new)[..., None, :]
            new_share = expit((axis * (x - middle)).sum(axis=-1) - base.log_odds[..., None])
            scores = _scores(*q, x)
            log_ratio = _log_density(*q, x) - _log_density(*base, x)
        origin = self.problem.whiten(self.problem.mean_old)
        reward = self.reward_old + (self.reward_new - self.reward_old) * new_share
        reward = reward + (sample.x - origin) @ _whitened_slope(self.problem, self.slope)
        exponent = self.inverse_temperature * reward
        weight = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
        others = (weight.sum(axis=-1, keepdims=True) - weight) / (batch - 1.0)
        with np.errstate(over="ignore", divide="ignore"):
            entropic = weight / others - 1.0
        return unwhiten_gradient(
            self.problem, _weighted_scores(self.kl_weight * _less_the_others(log_ratio) - entropic, scores)
        )


@dataclass(frozen=True, eq=False)
class OAPL:
    r"""Squared regression on lagged samples: ``E_lag[(tau log q/q_lag - r + V*)^2]``, units of reward squared.

    ``V* = tau log E_lag e^(r/tau)``; labelled model, closed in all parameters. The loss is zero exactly at the tilt
    ``q_lag e^(r/tau) / E``: log-odds ``s_lag - (r_n - r_o)/tau``, means moved by ``cov slope / tau``. ``estimate`` is
    unbiased: V* belongs to the lagged policy, is computed once a period, and is exact here.
    `simulate_oapl` refreshes ``lag``. Source: theory `oapl` (model of OAPL, arXiv 2602.19362).
    """

    problem: TwoModeProblem
    lag: TwoModeState
    reward_old: float
    reward_new: float
    temperature: float
    slope: ArrayLike = 0.0

    def __post_init__(self) -> None:
        _check_finite(reward_old=self.reward_old, reward_new=self.reward_new)
        _check_positive(temperature=self.temperature)
        whiten(self.problem, self.lag)
        _whitened_slope(self.problem, self.slope)

    def _mode_rewards(self, lag: Whitened) -> tuple[Array, Array, Array]:
        """Mean reward of either mode of the lagged policy, and V*."""
        w, tau = _whitened_slope(self.problem, self.slope), self.temperature
        origin = self.problem.whiten(self.problem.mean_old)
        old = self.reward_old + (lag.old - origin) @ w
        new = self.reward_new + (lag.new - origin) @ w
        log_mean = np.logaddexp(log_expit(lag.log_odds) + old / tau, log_expit(-lag.log_odds) + new / tau)
        return old, new, tau * log_mean + 0.5 * (w @ w) / tau

    def _residuals(self, q: Whitened, lag: Whitened) -> tuple[Array, Array]:
        """Mean residual ``tau log q/q_lag - r + V*`` of either mode under the lagged policy."""
        reward_old, reward_new, v_star = self._mode_rewards(lag)
        tau = self.temperature
        old = tau * (log_expit(q.log_odds) - log_expit(lag.log_odds) - 0.5 * square(q.old - lag.old))
        new = tau * (log_expit(-q.log_odds) - log_expit(-lag.log_odds) - 0.5 * square(q.new - lag.new))
        return old - reward_old + v_star, new - reward_new + v_star

    def value(self, state: TwoModeState) -> Array:
        """Mean squared residual, units of reward squared."""
        q, lag = whiten(self.problem, state), _fixed(self.problem, self.lag, state)
        old, new = self._residuals(q, lag)
        w, tau = _whitened_slope(self.problem, self.slope), self.temperature
        # within a mode the residual is linear in x: its variance is |tau e - w|^2
        old_loss = old * old + square(tau * (q.old - lag.old) - w)
        new_loss = new * new + square(tau * (q.new - lag.new) - w)
        return expit(lag.log_odds) * old_loss + expit(-lag.log_odds) * new_loss

    def gradient(self, state: TwoModeState) -> TwoModeState:
        """Exact gradient."""
        q, lag = whiten(self.problem, state), _fixed(self.problem, self.lag, state)
        old, new = self._residuals(q, lag)
        w, tau = _whitened_slope(self.problem, self.slope), self.temperature
        lag_old, lag_new = expit(lag.log_odds), expit(-lag.log_odds)
        e, v = q.old - lag.old, q.new - lag.new
        g_s = 2.0 * tau * (lag_old * old * expit(-q.log_odds) - lag_new * new * expit(q.log_odds))
        g_o = 2.0 * tau * lag_old[..., None] * (tau * e - w - old[..., None] * e)
        g_n = 2.0 * tau * lag_new[..., None] * (tau * v - w - new[..., None] * v)
        return unwhiten_gradient(self.problem, (g_s, g_o, g_n))

    def estimate(self, state: TwoModeState, rng: np.random.Generator, batch: int) -> TwoModeState:
        """Mean of ``2 tau residual_i grad log q(x_i, z_i)`` over samples of the lagged policy."""
        _check_batch(batch, 1)
        q, lag = whiten(self.problem, state), _fixed(self.problem, self.lag, state)
        sample = labelled_sample(lag, batch, rng)
        w, tau = _whitened_slope(self.problem, self.slope), self.temperature
        reward = np.where(sample.is_old, self.reward_old, self.reward_new)
        reward = reward + (sample.x - self.problem.whiten(self.problem.mean_old)) @ w
        log_ratio = labelled_log_density(q, sample) - labelled_log_density(lag, sample)
        residual = tau * log_ratio - reward + self._mode_rewards(lag)[2][..., None]
        return unwhiten_gradient(self.problem, _weighted_scores(2.0 * tau * residual, labelled_scores(q, sample)))
