r"""How a learner moves: gradient flow, gradient descent, SGD, AdamW; and in which geometry the weight is measured.

The same objective loses the old mass like ``1/t`` or exponentially depending on the geometry, so every optimizer
names it (theory `mass-forgetting` 1.4). With ``g = dL/ds`` in the logit ``s`` of the weight ``beta``:

| geometry | metric of the weight                   | flow of beta                   | descent step              |
|----------|----------------------------------------|--------------------------------|---------------------------|
| logit    | Euclidean in ``s``                     | ``-beta (1-beta) g``           | ``s -= lr g``             |
| prob     | Euclidean in ``beta``                  | ``-g / (beta (1-beta))``       | ``beta -= lr g / (..)``   |
| em       | complete data, ``1 / (beta (1-beta))`` | ``-g``                         | ``beta -= lr g``          |
| fisher   | Fisher-Rao of the mixture              | ``-g / (1 - kappa)``           | ``beta -= lr g/(1-kappa)``|

The means move by ``-cov * gradient``: Euclidean in whitened coordinates, so that nothing depends on units.

`AdamW`, the optimizer of the language models, has no geometry of this list: it divides every coordinate's step by the
size of its recent gradients, so that the log-odds lose ``lr`` a step while the gradient lasts (statement `adam-clock`).
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


@dataclass(frozen=True)
class AdamW:
    r"""AdamW (arXiv 1711.05101) on the log-odds and the whitened means, step by step that of ``torch.optim.AdamW``.

    ``m = beta1 m + (1 - beta1) g``, ``v = beta2 v + (1 - beta2) g^2``, then every coordinate moves by
    ``-lr mhat / (sqrt(vhat) + eps)`` with ``mhat = m / (1 - beta1^k)``, ``vhat = v / (1 - beta2^k)``, after it shrank by
    ``1 - lr weight_decay``, toward log-odds 0 and the origin of the whitened space. ``batch = None`` follows the exact
    gradient, else every step draws ``batch`` samples. ``clip`` scales gradients longer than it back to that length first,
    as ``torch.nn.utils.clip_grad_norm_`` does over all parameters. ``train = "weight"`` holds the components fixed.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    batch: int | None = None
    train: Trained = "all"
    clip: float | None = None

    def __post_init__(self) -> None:
        _validate("logit", self.train, lr=self.lr, eps=self.eps)
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} must lie in [0, 1), got {getattr(self, name)!r}")
        if not (np.isfinite(self.weight_decay) and self.weight_decay >= 0.0):
            raise InputError(f"weight_decay must be nonnegative and finite, got {self.weight_decay!r}")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch must be at least 1, or None for exact gradients; got {self.batch!r}")
        if self.clip is not None and not self.clip > 0.0:
            raise InputError(f"clip must be positive, or None for no clipping; got {self.clip!r}")


@dataclass
class AdamMoments:
    """What AdamW remembers: steps taken, and the running means of gradient and squared gradient ``(*batch, P)``.

    Like a random generator it is moved on in place by whoever steps with it.
    """

    step: int
    first: Array
    second: Array

    @staticmethod
    def zeros(shape: tuple[int, ...]) -> AdamMoments:
        """The memory of an optimizer that has seen nothing."""
        return AdamMoments(0, np.zeros(shape), np.zeros(shape))


Optimizer = GradientFlow | GradientDescent | SGD | AdamW

# torch.nn.utils.clip_grad_norm_ adds this to the norm that it divides by
_CLIP_GUARD = 1e-6


def adamw_change(parameters: Array, gradient: Array, moments: AdamMoments, how: AdamW) -> Array:
    """Change of ``parameters (..., P)`` in one step of `AdamW` along ``gradient``; moves ``moments`` on in place."""
    if how.clip is not None:
        norm = np.linalg.norm(gradient, axis=-1, keepdims=True)
        gradient = gradient * np.minimum(1.0, how.clip / (norm + _CLIP_GUARD))
    moments.step += 1
    moments.first = how.beta1 * moments.first + (1.0 - how.beta1) * gradient
    moments.second = how.beta2 * moments.second + (1.0 - how.beta2) * gradient * gradient
    size = np.sqrt(moments.second) / np.sqrt(1.0 - how.beta2**moments.step) + how.eps
    step = how.lr / (1.0 - how.beta1**moments.step) * moments.first / size
    return -how.lr * how.weight_decay * parameters - step


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
