r"""How a learner moves: gradient flow, gradient descent, SGD; and in which geometry the weight is measured.

The same objective loses the old mass like ``1/t`` or exponentially depending on the geometry, so every optimizer
names it (theory `mass-forgetting` 1.4). With ``g = dL/ds`` in the logit ``s`` of the weight ``beta``:

| geometry | metric of the weight                   | flow of beta                   | descent step              |
|----------|----------------------------------------|--------------------------------|---------------------------|
| logit    | Euclidean in ``s``                     | ``-beta (1-beta) g``           | ``s -= lr g``             |
| prob     | Euclidean in ``beta``                  | ``-g / (beta (1-beta))``       | ``beta -= lr g / (..)``   |
| em       | complete data, ``1 / (beta (1-beta))`` | ``-g``                         | ``beta -= lr g``          |
| fisher   | Fisher-Rao of the mixture              | ``-g / (1 - kappa)``           | ``beta -= lr g/(1-kappa)``|

The means move by ``-cov * gradient``: Euclidean in whitened coordinates, so that nothing depends on units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.overlap import overlap_gap

Array = NDArray[np.float64]
Geometry = Literal["logit", "prob", "em", "fisher"]
Trained = Literal["all", "weight"]

# Descent steps in beta stay inside (0, 1): a step that would leave is cut to these.
_SMALLEST, _LARGEST = 1e-300, 1.0 - 1e-16
# The log-odds of `prob` run off to minus infinity in finite time once the overlap is lost to rounding: the weight
# stops at this distance from 0, where beta^2 is still a normal number.
_FARTHEST = 340.0


def _validate(geometry: str, train: str, **positive: float) -> None:
    if geometry not in get_args(Geometry):
        raise InputError(f"geometry must be one of {', '.join(get_args(Geometry))}; got {geometry!r}")
    if train not in get_args(Trained):
        raise InputError(f"train must be one of {', '.join(get_args(Trained))}; got {train!r}")
    for name, value in positive.items():
        if not (np.isfinite(value) and value > 0.0):
            raise InputError(f"{name} must be positive and finite, got {value!r}")


@dataclass(frozen=True)
class GradientFlow:
    """Exact gradient flow, solved by LSODA; step ``k`` lands on ``t_k = step_time (growth^k - 1) / (growth - 1)``.

    ``growth = 1`` spaces the times evenly, ``growth > 1`` geometrically (for power laws). ``train = "weight"`` holds
    the components fixed. Times are in units of inverse learning rate.
    """

    step_time: float = 1.0
    growth: float = 1.0
    geometry: Geometry = "logit"
    train: Trained = "all"
    rtol: float = 1e-9

    def __post_init__(self) -> None:
        _validate(self.geometry, self.train, step_time=self.step_time, rtol=self.rtol)
        if not (np.isfinite(self.growth) and self.growth >= 1.0):
            raise InputError(f"growth must be at least 1 and finite, got {self.growth!r}")

    def times(self, first: int, last: int) -> Array:
        """Times ``t_first .. t_last``."""
        k = np.arange(first, last + 1, dtype=np.float64)
        if self.growth == 1.0:
            return self.step_time * k
        return self.step_time * np.expm1(k * np.log(self.growth)) / (self.growth - 1.0)


@dataclass(frozen=True)
class GradientDescent:
    """Gradient descent with the exact gradient and constant learning rate ``lr``."""

    lr: float
    geometry: Geometry = "logit"
    train: Trained = "all"

    def __post_init__(self) -> None:
        _validate(self.geometry, self.train, lr=self.lr)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: every step draws ``batch`` samples from the mixture itself."""

    lr: float
    batch: int
    geometry: Geometry = "logit"
    train: Trained = "all"

    def __post_init__(self) -> None:
        _validate(self.geometry, self.train, lr=self.lr)
        if self.batch < 1:
            raise InputError(f"batch must be at least 1, got {self.batch!r}")


Optimizer = GradientFlow | GradientDescent | SGD


def weight_velocity(log_odds: Array, gradient: Array, separation: Array, geometry: Geometry) -> Array:
    """``ds/dt`` of the gradient flow in ``geometry``; ``separation`` is the learner's own Mahalanobis distance."""
    if geometry == "logit":
        return -gradient
    s = np.clip(log_odds, -_FARTHEST, _FARTHEST)
    variance = expit(s) * expit(-s)
    if geometry == "em":
        velocity = -gradient / variance
    elif geometry == "prob":
        velocity = -gradient / variance**2
    else:
        velocity = -gradient / (variance * overlap_gap(s, separation))
    return np.where(s == log_odds, velocity, 0.0)


def weight_step(log_odds: Array, gradient: Array, separation: Array, lr: float | Array, geometry: Geometry) -> Array:
    """New log-odds after one descent step of size ``lr`` in ``geometry``."""
    if geometry == "logit":
        return log_odds - lr * gradient
    if geometry == "em":
        change = gradient
    elif geometry == "prob":
        change = gradient / (expit(log_odds) * expit(-log_odds))
    else:
        change = gradient / overlap_gap(log_odds, separation)
    beta = np.clip(expit(log_odds) - lr * change, _SMALLEST, _LARGEST)
    return np.log(beta) - np.log1p(-beta)
