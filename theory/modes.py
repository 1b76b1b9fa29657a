r"""K modes and unequal covariances: the misassignment matrix and what it bounds (theory 15).

``M_ij = E_{f_i}[r_j]`` for components ``f_i`` with weights ``w``. It replaces the overlap ``kappa`` of two modes: row-stochastic,
reversible (``w_i M_ij = w_j M_ji``), eigenvalues in [0, 1]. Source: own derivation in the setting of arXiv 2603.12163; statements
`beyond-equal-covariance`, `misassignment-spectrum`, `k-mode-natural-gradient`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.general import misassignment_matrix
from fstsim.overlap import chernoff_coefficient, log_chernoff_coefficient

__all__ = [
    "bhattacharyya_matrix",
    "chernoff_information",
    "misassignment_matrix",
    "mixture_weight_fisher",
    "total_misassignment_bound",
    "weight_velocity_forward",
]

Array = NDArray[np.float64]


def _weights(value: ArrayLike) -> Array:
    w = np.asarray(value, dtype=np.float64)
    if w.ndim < 1 or not ((w > 0.0).all() and np.allclose(w.sum(axis=-1), 1.0, atol=1e-9)):
        raise InputError(f"weights must be positive and sum to 1, got {value!r}")
    return w


def chernoff_information(
    mean_i: ArrayLike, cov_i: ArrayLike, mean_j: ArrayLike, cov_j: ArrayLike
) -> tuple[float, float]:
    r"""``(max_t -log C_t, argmax)`` over t in [0, 1], nats; ``delta^2 / 8`` at ``t = 1/2`` for equal covariances."""
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        lambda t: float(log_chernoff_coefficient(mean_i, cov_i, mean_j, cov_j, t)),
        bounds=(0.0, 1.0),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return -float(best.fun), float(best.x)


def bhattacharyya_matrix(means: ArrayLike, covs: ArrayLike) -> Array:
    """Bhattacharyya coefficients of all pairs, ``(K, K)``; means ``(K, D)``, covariances ``(D, D)`` or ``(K, D, D)``."""
    m = np.asarray(means, dtype=np.float64)
    if m.ndim != 2:
        raise InputError(f"means must have shape (K, D), got {m.shape}")
    k, d = m.shape
    c = np.broadcast_to(np.asarray(covs, dtype=np.float64), (k, d, d))
    out = np.eye(k)
    for i in range(k):
        for j in range(i):
            out[i, j] = out[j, i] = float(chernoff_coefficient(m[i], c[i], m[j], c[j]))
    return out


def total_misassignment_bound(weights: ArrayLike, bc_matrix: ArrayLike) -> Array:
    r"""Upper bound ``sum_{j != i} sqrt(w_j / w_i) BC_ij / 2`` on the total misassignment ``1 - M_ii`` of each component (15.2 [T]).

    ``weights (..., K)``, ``bc_matrix (..., K, K)``, result ``(..., K)``. Any component densities.
    """
    w, bc = _weights(weights), np.asarray(bc_matrix, dtype=np.float64)
    if bc.shape[-2:] != (w.shape[-1], w.shape[-1]):
        raise InputError(f"bc_matrix must be (..., K, K) with K = {w.shape[-1]}, got {bc.shape}")
    if not ((bc >= 0.0) & (bc <= 1.0 + 1e-12)).all():
        raise InputError("Bhattacharyya coefficients must lie in [0, 1]")
    ratio = np.sqrt(w[..., None, :] / w[..., :, None])
    off = 1.0 - np.eye(w.shape[-1])
    return 0.5 * (ratio * bc * off).sum(axis=-1)


def mixture_weight_fisher(M: ArrayLike, w: ArrayLike) -> Array:
    r"""Fisher information of the weights in their logits, ``diag(w) M - w w'`` (15.1 [T]), ``(..., K, K)``."""
    weight, matrix = _weights(w), np.asarray(M, dtype=np.float64)
    return weight[..., :, None] * matrix - weight[..., :, None] * weight[..., None, :]


def weight_velocity_forward(M: ArrayLike, w: ArrayLike, alpha: ArrayLike) -> Array:
    r"""``ds/dt = M' (alpha - w)``: logit flow of forward KL to ``sum_j alpha_j f_j``, components right (15.1 [T])."""
    gap = np.asarray(alpha, dtype=np.float64) - _weights(w)
    return (np.swapaxes(np.asarray(M, dtype=np.float64), -1, -2) @ gap[..., None])[..., 0]
