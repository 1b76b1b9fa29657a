"""Deployed systems, a model with a state beside its weights: how far behaviour must be from the base for a given success."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.theory.fast_slow import no_context_kl

Array = NDArray[np.float64]


def deployed_kl_floor(log_odds: ArrayLike, base_log_odds: ArrayLike) -> Array:
    r"""Least KL(system || base) of whole completions at a success rate: \(k(x, x_0) = KL(Bern\,\sigma(x) \| Bern\,\sigma(x_0))\), nats.

    ``log_odds`` of success of the deployed system on a problem, ``base_log_odds`` of the bare base on the same problem. By
    data processing no system has less, whatever its state is, and the exponential tilt of the base on success has exactly this
    (statement deployed-kl-floor). Relative accuracy 1e-13 also where the two are close. Raises InputError unless both are finite.

    >>> round(float(deployed_kl_floor(0.0, -2.0)), 6)
    0.433781
    """
    return no_context_kl(log_odds, base_log_odds)
