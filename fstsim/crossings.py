"""Where a measured curve first reaches a level."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

Array = NDArray[np.float64]
Scale = Literal["linear", "log-odds"]

_SCALES: Mapping[Scale, Callable[[Array], Array]] = {
    "linear": lambda y: y,
    "log-odds": lambda y: logit(np.clip(y, 1e-12, 1.0 - 1e-12)),
}


def first_crossing(
    x: ArrayLike, y: ArrayLike, level: float, scale: Scale = "linear", *, never: float = math.nan
) -> float:
    """``x`` at which ``y`` first reaches ``level`` from below; ``never`` if it does not. Both ``(times,)``.

    Between the two measurements around the crossing ``x`` is linear in ``y``, or in the log-odds of ``y``: a reward that
    follows the theory's laws moves in log-odds, a share of a peak that is read off a curve is on the curve as drawn.
    The first ``x`` where ``y`` starts at ``level`` or above.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    reached = np.flatnonzero(y >= level)
    if not reached.size:
        return never
    k = int(reached[0])
    if k == 0:
        return float(x[0])
    place = _SCALES[scale]
    before, after = place(y[k - 1 : k + 1])
    share = (place(np.asarray(level)) - before) / (after - before)
    return float(x[k - 1] + share * (x[k] - x[k - 1]))
