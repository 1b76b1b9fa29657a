r"""Every method as a map on the log-odds of the old mode: who has a fixed point, and what it keeps (theory 11).

Two affine structures. Methods of reverse-KL type act on *log-odds* (products of densities, e-geodesics):
`LogOddsMap`, ``s' = a s + b s_p + c s_0 - gap/tau``. Forward-KL type acts on *probability* (mixtures, m-geodesics):
`ProbabilityMap`, ``beta' = (1 - l) beta + l lambda``. What is neither is a field ``ds/dt = M(s) (Psi(s) - s)``: `FieldMap`.
A method retains iff it contracts to a fixed anchor of positive old mass, or its tilt vanishes; sampling on-policy or
using the reverse KL is not enough. Separated modes; maps with overlap differ by ``O(BC)``. The methods themselves are
in `fstsim.theory.methods`.
Source: own derivation; statements `exp-family-unification-*`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_ndtr, logit, logsumexp

from fstsim.errors import InputError
from fstsim.overlap import validate_separation
from fstsim.theory.numerics.inputs import finite, mass, nonnegative, share

Array = NDArray[np.float64]
Fate = Literal["interior", "neutral", "lost", "saturated", "repelling", "period-two"]


@dataclass(frozen=True)
class LogOddsMap:
    r"""``s' = a s + b target_log_odds + c base_log_odds - drift``: one update in the labelled space (theory 11.1 [T]).

    It is ``q' ~ q^a p^b q_0^c e^(r / tau)`` with ``drift = (r_new - r_old) / tau``, also when ``a + b + c != 1`` (the
    components then become ``N(., cov / (a+b+c))``, whose normalisers cancel).

    >>> LogOddsMap(0.5, 0.0, 0.5, 1.0).fixed_point()
    -2.0
    """

    a: float
    b: float
    c: float
    drift: float
    target_log_odds: float = 0.0
    base_log_odds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("a", "b", "c", "drift", "target_log_odds", "base_log_odds"):
            finite(getattr(self, name), name)

    @property
    def _constant(self) -> float:
        return self.b * self.target_log_odds + self.c * self.base_log_odds - self.drift

    def step(self, log_odds: ArrayLike) -> Array:
        """One update."""
        return self.a * finite(log_odds, "log_odds") + self._constant

    def fixed_point(self) -> float:
        """``(b s_p + c s_0 - drift) / (1 - a)``; for a = 1 minus or plus infinity by the sign of the drift, nan if neutral."""
        if self.a != 1.0:
            return self._constant / (1.0 - self.a)
        return float(np.sign(self._constant) * np.inf) if self._constant else float("nan")

    def iterate(self, s0: ArrayLike, k: ArrayLike) -> Array:
        """Log-odds after ``k`` updates, in closed form: ``s* + a^k (s_0 - s*)``, ``s_0 + k constant`` for a = 1."""
        s, n = np.broadcast_arrays(finite(s0, "s0"), nonnegative(k, "k"))
        if self.a == 1.0:
            return s + n * self._constant
        # a^k s + constant (1 - a^k) / (1 - a): for a near 1 the fixed point is far away and would swallow s
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            power = np.where(n == 0.0, 1.0, np.power(self.a, n))
            rest = np.where(power > 0.0, -np.expm1(n * np.log(abs(self.a))), 1.0 - power)
        return power * s + self._constant * np.where(n == 0.0, 0.0, rest) / (1.0 - self.a)

    def classify(self) -> Fate:
        """``interior`` iff |a| < 1; a = 1 is ``neutral``, ``lost`` or ``saturated``; a = -1 ``period-two``; else ``repelling``."""
        if abs(self.a) < 1.0:
            return "interior"
        if self.a == 1.0:
            return "neutral" if self._constant == 0.0 else ("lost" if self._constant < 0.0 else "saturated")
        return "period-two" if self.a == -1.0 else "repelling"


@dataclass(frozen=True)
class ProbabilityMap:
    r"""``beta' = (1 - rate) beta + rate * target_mass``: one natural-gradient step of forward KL (theory 1.4, 11.2 [T])."""

    rate: float
    target_mass: float

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0:
            raise InputError(f"rate must lie in (0, 1], got {self.rate!r}")
        share(self.target_mass, "target_mass")

    def fixed_point(self) -> float:
        """Log-odds of ``target_mass``."""
        return float(logit(self.target_mass))

    def iterate(self, s0: ArrayLike, k: ArrayLike) -> Array:
        """Log-odds after ``k`` updates: both masses mix as ``keep * own + (1 - keep) * target``, ``keep = (1 - rate)^k``."""
        s, n = np.broadcast_arrays(finite(s0, "s0"), nonnegative(k, "k"))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_keep = np.where(n == 0.0, 0.0, n * np.log1p(-self.rate))
            log_mix = np.log(-np.expm1(log_keep))
            old = np.logaddexp(log_keep + log_expit(s), log_mix + np.log(self.target_mass))
            new = np.logaddexp(log_keep + log_expit(-s), log_mix + np.log1p(-self.target_mass))
        return old - new

    def classify(self) -> Fate:
        """``interior`` iff the target keeps both modes."""
        return "interior" if 0.0 < self.target_mass < 1.0 else ("lost" if self.target_mass == 0.0 else "saturated")


@dataclass(frozen=True)
class FieldMap:
    r"""Euclidean flow ``ds/dt = velocity(s)`` with its fixed point: minus infinity where the old mass is lost (theory 11.2).

    ``iterate`` takes a *time*, in units of 1 / learning rate.
    """

    velocity: Callable[[Array], Array]
    fixed_log_odds: float

    def fixed_point(self) -> float:
        """Where the flow ends."""
        return self.fixed_log_odds

    def iterate(self, s0: ArrayLike, k: ArrayLike) -> Array:
        """Log-odds at time ``k``: LSODA to relative tolerance 1e-10, one solution for each pair."""
        from scipy.integrate import solve_ivp

        s, t = np.broadcast_arrays(finite(s0, "s0"), nonnegative(k, "k"))
        out = np.array(s, dtype=np.float64)
        for index in np.ndindex(s.shape):
            if t[index] > 0.0:
                span, start = (0.0, float(t[index])), [float(s[index])]
                flow = solve_ivp(lambda _, y: self.velocity(y), span, start, method="LSODA", rtol=1e-10, atol=1e-12)
                out[index] = flow.y[0, -1]
        return out

    def classify(self) -> Fate:
        """``interior``, ``lost``, ``saturated``, or ``neutral`` for a field that vanishes (fixed point nan)."""
        if np.isnan(self.fixed_log_odds):
            return "neutral"
        return (
            "interior" if np.isfinite(self.fixed_log_odds) else ("lost" if self.fixed_log_odds < 0.0 else "saturated")
        )


Map = LogOddsMap | ProbabilityMap | FieldMap


def retains(method: Map, min_mass: float) -> bool:
    """Whether the old mass at which the map ends is at least ``min_mass``; a neutral map keeps whatever it has."""
    floor = float(logit(mass(min_mass, "min_mass")))
    end = method.fixed_point()
    return bool(np.isnan(end) or end >= floor) and method.classify() in {"interior", "neutral", "saturated"}


def product_log_odds(
    exponents: ArrayLike, log_odds: ArrayLike, means_old: ArrayLike, means_new: ArrayLike, drift: ArrayLike
) -> Array:
    r"""Log-odds of the labelled product ``prod_i q_i^(a_i) e^(r/tau)``: ``sum_i a_i s_i - drift - (V_o - V_n) / 2`` (theory 11.1 [T]).

    ``V_k = sum_i a_i |m_ki|^2 - |sum_i a_i m_ki|^2 / A``, ``A = sum_i a_i > 0``, is what the Gaussian normaliser adds where
    the factors' means differ inside a mode. ``exponents`` and ``log_odds (..., I)``, means ``(..., I, D)`` whitened,
    ``drift (...)``. Raises InputError unless A is positive.
    """
    a, s = finite(exponents, "exponents"), finite(log_odds, "log_odds")
    total = a.sum(axis=-1)
    if not (total > 0.0).all():
        raise InputError(f"exponents must have a positive sum, got {exponents!r}")

    def spread(means: Array) -> Array:
        # around the weighted mean of the means, where the two terms of V_k do not cancel
        away = means - means[..., :1, :]
        away = away - (a[..., None] * away).sum(axis=-2, keepdims=True) / total[..., None, None]
        return (a * (away * away).sum(axis=-1)).sum(axis=-1)

    v_o, v_n = spread(finite(means_old, "means_old")), spread(finite(means_new, "means_new"))
    return (a * s).sum(axis=-1) - finite(drift, "drift") - 0.5 * (v_o - v_n)


def basin_odds_bounds(
    exponents: ArrayLike, log_odds: ArrayLike, drift: ArrayLike, delta: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the odds of the two *basins* under ``prod_i q_i^(a_i) e^(r/tau)`` without labels (sharpens theory 11.1 [T]).

    Basins are the half-spaces nearer to either mean, the reward is constant on each, all means agree, ``a_i >= 0`` sum
    to 1. The labelled odds ``e^(sum_i a_i s_i - drift)`` times a factor between
    ``Phi / (Phi + Phibar sum_i a_i e^(s_i))`` and ``(Phi + Phibar sum_i a_i e^(-s_i)) / Phi``, ``Phi = Phi(delta/2)``,
    ``Phibar = Phi(-delta/2) <= BC / 2``. Proof: on the old side the product is its labelled old part times
    ``prod_i (1 + x_i)^(a_i)``, ``x_i = e^(-s_i) phi_n / phi_o``, which lies between 1 and ``1 + sum_i a_i x_i`` (means);
    integrate over the half-space. Raises InputError unless the exponents are a distribution.
    """
    a, s = finite(exponents, "exponents"), finite(log_odds, "log_odds")
    if not ((a >= 0.0).all() and (np.abs(a.sum(axis=-1) - 1.0) <= 1e-9).all()):
        raise InputError(f"exponents must be nonnegative and sum to 1, got {exponents!r}")
    d = validate_separation(delta)
    labelled = (a * s).sum(axis=-1) - finite(drift, "drift")
    odds = log_ndtr(-0.5 * d) - log_ndtr(0.5 * d)
    shield, leak = (np.logaddexp(0.0, odds + logsumexp(sign * s, axis=-1, b=a)) for sign in (1.0, -1.0))
    with np.errstate(over="ignore"):
        return np.exp(labelled - shield), np.exp(labelled + leak)
