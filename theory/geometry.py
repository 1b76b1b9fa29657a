r"""Local geometry at the target: Hessian of either KL = Fisher information, in closed form (theory 5.1 and 5.2).

Parameters ``(s, m_o, m_n)``, whitened coordinates, first axis from the old to the new mean.
Source: own derivation (Louis' identity); statement `local-geometry`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from fstsim.errors import InputError
from fstsim.overlap import bhattacharyya_coefficient, harmonic_overlap, overlap_gap, validate_separation

Array = NDArray[np.float64]


def _checked(alpha: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    a, d = np.broadcast_arrays(np.asarray(alpha, dtype=np.float64), validate_separation(delta))
    if not ((a > 0.0) & (a < 1.0)).all():
        raise InputError(f"alpha must lie strictly between 0 and 1, got {alpha!r}")
    if not (d > 0.0).all():
        raise InputError("delta must be positive")
    return a, d


def _overlap_moments(alpha: Array, delta: Array) -> tuple[Array, Array, Array]:
    """``h = E_p[r_o r_n]`` and the mean and second moment of ``y`` (from the midpoint) under the density r_o r_n p / h.

    ``E_p[r_o r_n f] = sqrt(alpha (1-alpha)) BC E[f(U) / (2 cosh((delta U - s)/2))]`` with U from the midpoint along the
    axis; the trapezoid needs the node spacing of a sech with poles at ``+- i pi / delta``.
    """
    s = logit(alpha)
    top = max(1.0, float(delta.max(initial=1.0)))
    u = np.arange(-9.5, 9.5 + 1e-9, 0.5 / top)
    z = 0.5 * (delta[..., None] * u + s[..., None])  # new is at +delta/2: old log-odds are s - delta u, sech is even
    weight = np.exp(-0.5 * u * u - np.logaddexp(z, -z))
    total = weight.sum(axis=-1)
    return (
        alpha * (1.0 - alpha) * harmonic_overlap(s, delta),
        -(weight * u).sum(axis=-1) / total,
        (weight * u * u).sum(axis=-1) / total,
    )


def _axis_block(alpha: Array, delta: Array) -> Array:
    """Missing information ``h <w w'>``, ``w = (1, y_o, -y_n)``, of (s, m_o, m_n) along the axis, ``(..., 3, 3)``."""
    h, mean, square = _overlap_moments(alpha, delta)
    # positions from the old mean and from the new mean: y_o = u + delta/2, y_n = u - delta/2
    half = 0.5 * delta
    y_o, y_n = mean + half, mean - half
    y_oo, y_nn = square + 2.0 * mean * half + half * half, square - 2.0 * mean * half + half * half
    y_on = square - half * half
    rows = [[np.ones_like(h), y_o, -y_n], [y_o, y_oo, -y_on], [-y_n, -y_on, y_nn]]
    return h[..., None, None] * np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def complete_information(alpha: float, dim: int) -> Array:
    r"""Complete-data information ``I_c = diag(alpha (1 - alpha), alpha I, (1 - alpha) I)``, ``(1 + 2 dim, 1 + 2 dim)``."""
    return np.diag(np.concatenate([[alpha * (1.0 - alpha)], np.full(dim, alpha), np.full(dim, 1.0 - alpha)]))


def fisher_information(alpha: float, delta: float, dim: int = 1) -> Array:
    r"""Fisher information of ``(s, m_o, m_n)`` at the target = Hessian of forward and of reverse KL there.

    ``I = I_c - h <w w'>`` (Louis): a 3x3 block along the axis and ``dim - 1`` copies of a 2x2 block orthogonal to it.
    Returns ``(1 + 2 dim, 1 + 2 dim)``, order ``s, m_o (dim), m_n (dim)``. Theory 5.1 [T], `local-geometry`.
    """
    a, d = _checked(alpha, delta)
    if dim < 1:
        raise InputError(f"dim must be at least 1, got {dim!r}")
    information = complete_information(float(a), dim)
    axis = [0, 1, 1 + dim]
    information[np.ix_(axis, axis)] -= _axis_block(a, d)
    information[0, 0] = float(a * (1.0 - a) * overlap_gap(logit(a), d))  # next to no separation nearly all is missing
    h = float(a * (1.0 - a) * harmonic_overlap(logit(a), d))
    for k in range(1, dim):
        pair = [1 + k, 1 + dim + k]
        information[np.ix_(pair, pair)] -= h * np.array([[1.0, -1.0], [-1.0, 1.0]])
    return information


def missing_information_fraction(alpha: ArrayLike, delta: ArrayLike) -> Array:
    r"""``kappa_op = || I_c^(-1/2) (I_c - I) I_c^(-1/2) ||``, any dimension: the largest share of information lost to overlap."""
    a, d = _checked(alpha, delta)
    scale = np.stack([a * (1.0 - a), a, 1.0 - a], axis=-1) ** -0.5
    axis = np.linalg.eigvalsh(_axis_block(a, d) * scale[..., :, None] * scale[..., None, :])[..., -1]
    return np.maximum(axis, harmonic_overlap(logit(a), d))


def extreme_eigenvalues(alpha: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    """Smallest and largest eigenvalue of the Fisher information in dimension >= 2, vectorised."""
    a, d = _checked(alpha, delta)
    complete = np.zeros((*a.shape, 3, 3))
    complete[..., 0, 0], complete[..., 1, 1], complete[..., 2, 2] = a * (1.0 - a), a, 1.0 - a
    axis = np.linalg.eigvalsh(complete - _axis_block(a, d))
    h = a * (1.0 - a) * harmonic_overlap(logit(a), d)
    root = np.sqrt((0.5 - a) ** 2 + h * h)
    return np.minimum(axis[..., 0], 0.5 - h - root), np.maximum(axis[..., -1], 0.5 - h + root)


def missing_information_bound(alpha: ArrayLike, delta: ArrayLike) -> Array:
    r"""Upper bound ``min(b_1, b_2)`` on :func:`missing_information_fraction`, of order ``delta e^(-delta^2/8)`` (theory 5.2 [T]).

    ``b_1 = c (2 + delta^2/4)`` and ``b_2 = c sqrt(2 pi)/delta [1 + (1-alpha)((delta/2 + s/delta)^2 + pi^2/delta^2)
    + alpha ((delta/2 - s/delta)^2 + pi^2/delta^2)]`` with ``c = BC / (2 sqrt(alpha (1-alpha)))``. May exceed 1, and then says nothing.
    """
    a, d = _checked(alpha, delta)
    s = logit(a)
    c = bhattacharyya_coefficient(d) / (2.0 * np.sqrt(a * (1.0 - a)))
    b_1 = c * (2.0 + 0.25 * d * d)
    tail = (np.pi / d) ** 2
    plus, minus = (0.5 * d + s / d) ** 2 + tail, (0.5 * d - s / d) ** 2 + tail
    b_2 = c * np.sqrt(2.0 * np.pi) / d * (1.0 + (1.0 - a) * plus + a * minus)
    return np.minimum(b_1, b_2)


def condition_number_bound(alpha: ArrayLike, delta: ArrayLike) -> Array:
    r"""Upper bound on the condition number, ``1 / (min(alpha, 1-alpha) (1 - kappa_op))`` with kappa_op bounded (theory 5.2 [T]).

    inf where :func:`missing_information_bound` reaches 1.
    """
    a, d = _checked(alpha, delta)
    left = 1.0 - missing_information_bound(a, d)
    with np.errstate(divide="ignore"):
        return np.where(left > 0.0, 1.0 / (np.minimum(a, 1.0 - a) * np.maximum(left, 0.0)), np.inf)
