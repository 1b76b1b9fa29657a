"""Memories that are read by chance: a mixture of what the model does in each of them, and how softmax reading moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logsumexp

from fstsim.errors import InputError
from fstsim.theory.numerics.inputs import positive

Array = NDArray[np.float64]


def retrieval_log_mass(log_weights: ArrayLike, log_masses: ArrayLike) -> Array:
    r"""Log of the mass that a memory system gives to a set of completions: \(\log \sum_c \mu_c \beta_c\), nats.

    ``log_weights (..., C)`` of reading each case, normalised or not, -inf for one that is never read; ``log_masses (..., C)``
    of the completions in each case's context. Masses move affinely (statement retrieval-mixture), where a product of experts
    moves log-odds so. Raises InputError for nan, +inf, or weights that are all 0.

    >>> round(float(np.exp(retrieval_log_mass(np.log([0.25, 0.75]), np.log([0.8, 0.4])))), 12)
    0.5
    """
    weights, masses = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (log_weights, log_masses)))
    if not (np.all(weights < np.inf) and np.all(masses < np.inf)):
        raise InputError("log_weights and log_masses must be numbers below inf")
    total = logsumexp(weights, axis=-1)
    if not np.all(np.isfinite(total)):
        raise InputError("log_weights must have a case that is read")
    return np.asarray(logsumexp(weights + masses, axis=-1) - total)


def softmax_reading_bounds(alpha: ArrayLike, cases: ArrayLike) -> tuple[Array, Array]:
    r"""Least and most mass of one of C cases when it is read by \(\mu \propto e^{Q/\alpha}\) with Q in [0, 1].

    \(1/(1 + (C-1) e^{1/\alpha}) \le \mu_c \le 1/(1 + (C-1) e^{-1/\alpha})\): no case is ever out of reach, so that what is
    learned of it can still change (statement retrieval-softmax-floor). Raises InputError unless alpha > 0 and C >= 1.
    """
    a, count = np.broadcast_arrays(positive(alpha, "alpha"), positive(cases, "cases"))
    if np.any(count < 1.0):
        raise InputError(f"cases must be at least 1, got {float(np.min(count)):g}")
    with np.errstate(divide="ignore"):
        others = np.log(count - 1.0)
    return np.asarray(expit(-others - 1.0 / a)), np.asarray(expit(-others + 1.0 / a))
