"""K-component Gaussian mixtures in any dimension: density, samples, responsibilities, score."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, softmax

from fstsim.errors import InputError

Array = NDArray[np.float64]


def cholesky(covariance: ArrayLike, name: str = "covariance") -> Array:
    """Lower Cholesky factor of one covariance or a stack of them; InputError names what is wrong."""
    cov = np.asarray(covariance, dtype=np.float64)
    if cov.ndim < 2 or cov.shape[-1] != cov.shape[-2]:
        raise InputError(f"{name} must be square, got shape {cov.shape}")
    if not np.isfinite(cov).all():
        raise InputError(f"{name} must be finite")
    if not np.allclose(cov, np.swapaxes(cov, -1, -2), rtol=1e-10, atol=1e-300):
        raise InputError(f"{name} must be symmetric")
    try:
        return np.asarray(np.linalg.cholesky(cov), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise InputError(f"{name} must be positive definite") from error


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    r"""Gaussian mixture ``p(x) = sum_k w_k N(x; mean_k, cov_k)``.

    ``weights (K,)`` nonnegative and summing to 1 (a zero weight is allowed: a lost mode), ``means (K, D)``,
    ``covariance (D, D)`` shared or ``(K, D, D)``. Covariances are factored once, at construction.
    Raises InputError on weights that are no distribution, unequal dimensions, non-finite numbers or a covariance
    that is not symmetric positive definite.

    >>> GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[1.0]]).responsibilities(np.zeros((1, 1)))
    array([[0.5, 0.5]])
    """

    weights: Array
    means: Array
    covariance: Array
    _roots: Array = field(init=False, repr=False)  # (K, D, D) lower Cholesky factors
    _log_norms: Array = field(init=False, repr=False)  # (K,) log of the Gaussian normalisers

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariance: ArrayLike) -> None:
        w = np.array(weights, dtype=np.float64)
        m = np.array(means, dtype=np.float64)
        cov = np.array(covariance, dtype=np.float64)
        if w.ndim != 1 or w.size == 0:
            raise InputError(f"weights must have shape (K,), got {w.shape}")
        if not (np.isfinite(w).all() and (w >= 0.0).all() and abs(w.sum() - 1.0) <= 1e-9):
            raise InputError(f"weights must be nonnegative and sum to 1, got {w.tolist()}")
        if m.ndim != 2 or m.shape[0] != w.size or m.shape[1] == 0:
            raise InputError(f"means must have shape (K, D) with K = {w.size}, got {m.shape}")
        if not np.isfinite(m).all():
            raise InputError("means must be finite")
        k, d = m.shape
        if cov.shape not in {(d, d), (k, d, d)}:
            raise InputError(f"covariance must have shape ({d}, {d}) or ({k}, {d}, {d}), got {cov.shape}")
        roots = np.broadcast_to(cholesky(cov), (k, d, d))
        log_dets = 2.0 * np.log(np.diagonal(roots, axis1=-2, axis2=-1)).sum(axis=-1)
        for name, value in (
            ("weights", w),
            ("means", m),
            ("covariance", cov),
            ("_roots", roots),
            ("_log_norms", -0.5 * (d * np.log(2.0 * np.pi) + log_dets)),
        ):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @property
    def components(self) -> int:
        """Number of components K."""
        return self.weights.size

    @property
    def dimension(self) -> int:
        """Dimension D of a sample."""
        return self.means.shape[1]

    def component_log_prob(self, x: ArrayLike) -> Array:
        """``log N(x; mean_k, cov_k)`` in nats, ``(..., D) -> (..., K)``."""
        y = self._solve(self._roots, self._points(x)[..., None, :] - self.means)
        return self._log_norms - 0.5 * (y * y).sum(axis=-1)

    def log_prob(self, x: ArrayLike) -> Array:
        """Log density in nats, ``(..., D) -> (...)``."""
        return logsumexp(self.component_log_prob(x), axis=-1, b=self.weights)

    def responsibilities(self, x: ArrayLike) -> Array:
        """Posterior component probabilities ``r_k(x)``, ``(..., D) -> (..., K)``; rows sum to 1."""
        with np.errstate(divide="ignore"):
            return softmax(np.log(self.weights) + self.component_log_prob(x), axis=-1)

    def component_score(self, x: ArrayLike) -> Array:
        """Scores of the components, ``-cov_k^-1 (x - mean_k)``, ``(..., D) -> (..., K, D)``."""
        y = self._solve(self._roots, self._points(x)[..., None, :] - self.means)
        return -self._solve(np.swapaxes(self._roots, -1, -2), y)

    def score(self, x: ArrayLike) -> Array:
        """Score ``grad_x log p(x) = -sum_k r_k cov_k^-1 (x - mean_k)``, ``(..., D) -> (..., D)``."""
        return (self.responsibilities(x)[..., None] * self.component_score(x)).sum(axis=-2)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """``n`` independent samples, ``(n, D)``; each draws its component first, then its point."""
        if n < 0:
            raise InputError(f"n must be nonnegative, got {n}")
        k = rng.choice(self.components, size=n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, self.dimension))
        return self.means[k] + np.einsum("nij,nj->ni", self._roots[k], noise)

    @staticmethod
    def _solve(matrices: Array, right: Array) -> Array:
        """``matrices[k]^-1 right[..., k, :]``: one factorisation a component, however many points there are."""
        points_last = np.moveaxis(right, (-2, -1), (0, 1))  # (K, D, ...)
        columns = points_last.reshape(*right.shape[-2:], math.prod(right.shape[:-2]))
        solved: Array = np.linalg.solve(matrices, columns).astype(np.float64, copy=False)
        return np.moveaxis(solved.reshape(points_last.shape), (0, 1), (-2, -1))

    def _points(self, x: ArrayLike) -> Array:
        x_D = np.asarray(x, dtype=np.float64)
        if x_D.ndim == 0 or x_D.shape[-1] != self.dimension:
            raise InputError(f"x must have last axis {self.dimension}, got shape {x_D.shape}")
        return x_D
