"""The two-mode world: what is to be kept and learned (`TwoModeProblem`), and the learner (`TwoModeState`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.mixtures import GaussianMixture, cholesky
from fstsim.overlap import bhattacharyya_coefficient

Array = NDArray[np.float64]


def _vector(value: ArrayLike, name: str) -> Array:
    v = np.atleast_1d(np.array(value, dtype=np.float64))
    if not np.isfinite(v).all():
        raise InputError(f"{name} must be finite")
    return v


def rows_times(matrix: Array, x: ArrayLike) -> Array:
    """``matrix @ x`` for every vector of ``x (..., D)``, rounded alike however the batch axes lie (BLAS is not)."""
    product: Array = (np.asarray(x, dtype=np.float64)[..., None, :] * matrix).sum(axis=-1)
    return product


@dataclass(frozen=True, eq=False)
class TwoModeProblem:
    r"""Target mixture ``p_alpha = alpha N(mean_old, cov) + (1 - alpha) N(mean_new, cov)``.

    ``alpha`` in (0, 1) is the mass that the old behaviour ought to keep; the means are ``(D,)``, the shared
    ``covariance`` is ``(D, D)``. Raises InputError on alpha outside (0, 1), unequal dimensions, coinciding means,
    non-finite numbers or a covariance that is not symmetric positive definite.

    >>> TwoModeProblem(0.5, [0.0], [3.0], [[1.0]]).separation
    3.0
    """

    alpha: float
    mean_old: Array
    mean_new: Array
    covariance: Array
    _root: Array = field(init=False, repr=False)  # lower Cholesky factor
    _inverse_root: Array = field(init=False, repr=False)  # a product with it is faster than many small solves

    def __init__(self, alpha: float, mean_old: ArrayLike, mean_new: ArrayLike, covariance: ArrayLike) -> None:
        a = float(alpha)
        old, new = _vector(mean_old, "mean_old"), _vector(mean_new, "mean_new")
        if not 0.0 < a < 1.0:
            raise InputError(f"alpha must lie strictly between 0 and 1, got {alpha!r}")
        if old.ndim != 1 or old.shape != new.shape:
            raise InputError(f"mean_old and mean_new must have one shape (D,), got {old.shape} and {new.shape}")
        cov = np.atleast_2d(np.array(covariance, dtype=np.float64))
        if cov.shape != (old.size, old.size):
            raise InputError(f"covariance must have shape ({old.size}, {old.size}), got {cov.shape}")
        root = cholesky(cov)
        if np.array_equal(old, new):
            raise InputError("mean_old and mean_new must differ")
        object.__setattr__(self, "alpha", a)
        for name, value in (
            ("mean_old", old),
            ("mean_new", new),
            ("covariance", cov),
            ("_root", root),
            ("_inverse_root", np.tril(np.linalg.inv(root))),
        ):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @staticmethod
    def separated(delta: float, alpha: float = 0.5, dimension: int = 1) -> TwoModeProblem:
        """Unit-covariance problem with the old mean at 0 and the new one at ``delta`` along the first axis."""
        new = np.zeros(dimension)
        new[0] = delta
        return TwoModeProblem(alpha, np.zeros(dimension), new, np.eye(dimension))

    @property
    def dimension(self) -> int:
        """Dimension D of a sample."""
        return self.mean_old.size

    @property
    def log_odds(self) -> float:
        """``s_alpha = logit(alpha)``."""
        return float(logit(self.alpha))

    @property
    def separation(self) -> float:
        """Mahalanobis distance ``delta`` of the two target means."""
        return float(np.linalg.norm(self.whiten(self.mean_new - self.mean_old)))

    @property
    def bhattacharyya(self) -> float:
        """Bhattacharyya coefficient of the two target components."""
        return float(bhattacharyya_coefficient(self.separation))

    @property
    def mixture(self) -> GaussianMixture:
        """The target as a `GaussianMixture` (old component first)."""
        return GaussianMixture([self.alpha, 1.0 - self.alpha], [self.mean_old, self.mean_new], self.covariance)

    @property
    def target(self) -> TwoModeState:
        """The target as a state: the global minimum of the reverse KL."""
        return TwoModeState(self.log_odds, self.mean_old, self.mean_new)

    def initial(self, beta: float, new_error: ArrayLike = 0.0) -> TwoModeState:
        """A learner with old mass ``beta`` whose old component is right and whose new mean is off by ``new_error``."""
        if not 0.0 < beta < 1.0:
            raise InputError(f"beta must lie strictly between 0 and 1, got {beta!r}")
        error = np.broadcast_to(np.asarray(new_error, dtype=np.float64), self.mean_new.shape)
        return TwoModeState(logit(beta), self.mean_old, self.mean_new + error)

    def whiten(self, x: ArrayLike) -> Array:
        """Coordinates with identity covariance, ``cov = L L'``, ``x -> L^-1 x``, ``(..., D) -> (..., D)``."""
        return rows_times(self._inverse_root, x)

    def unwhiten(self, y: ArrayLike) -> Array:
        """Inverse of :meth:`whiten`."""
        return rows_times(self._root, y)

    def unwhiten_gradient(self, g: ArrayLike) -> Array:
        """Gradient with respect to ``x`` from the one with respect to ``whiten(x)``: ``g -> L^-T g``."""
        return rows_times(self._inverse_root.T, g)


@dataclass(frozen=True, eq=False)
class TwoModeState:
    r"""Learner ``q = beta N(mean_old, cov) + (1 - beta) N(mean_new, cov)``, ``beta = sigmoid(log_odds)``.

    ``log_odds (...)`` and the means ``(..., D)`` broadcast over common leading batch axes; the covariance is the
    problem's. A gradient with respect to these parameters is a `TwoModeState` too. Raises InputError on non-finite
    numbers or shapes that do not broadcast.
    """

    log_odds: Array
    mean_old: Array
    mean_new: Array

    def __init__(self, log_odds: ArrayLike, mean_old: ArrayLike, mean_new: ArrayLike) -> None:
        s = np.asarray(log_odds, dtype=np.float64)
        old, new = _vector(mean_old, "mean_old"), _vector(mean_new, "mean_new")
        if not np.isfinite(s).all():
            raise InputError("log_odds must be finite")
        if old.shape[-1] != new.shape[-1]:
            raise InputError(f"mean_old and mean_new must have one dimension, got {old.shape[-1]} and {new.shape[-1]}")
        try:
            batch = np.broadcast_shapes(s.shape, old.shape[:-1], new.shape[:-1])
        except ValueError as error:
            raise InputError(
                f"log_odds {s.shape}, mean_old {old.shape} and mean_new {new.shape} do not share batch axes"
            ) from error
        for name, value in (
            ("log_odds", np.broadcast_to(s, batch)),
            ("mean_old", np.broadcast_to(old, (*batch, old.shape[-1]))),
            ("mean_new", np.broadcast_to(new, (*batch, new.shape[-1]))),
        ):
            object.__setattr__(self, name, value)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading batch axes."""
        return self.log_odds.shape

    @property
    def dimension(self) -> int:
        """Dimension D of a sample."""
        return self.mean_old.shape[-1]

    @property
    def old_mass(self) -> Array:
        """Weight of the old component, ``beta = sigmoid(log_odds)``."""
        return expit(self.log_odds)

    def mixture(self, covariance: ArrayLike) -> GaussianMixture:
        """One unbatched state as a `GaussianMixture`; InputError if it has batch axes."""
        if self.batch_shape:
            raise InputError(f"only an unbatched state is one mixture, got batch axes {self.batch_shape}")
        beta = float(self.old_mass)
        return GaussianMixture([beta, 1.0 - beta], [self.mean_old, self.mean_new], covariance)
