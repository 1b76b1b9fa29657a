r"""What a frozen set of weights can do to a logit: it slows its clock, and leaves its fixed point.

A log-odds \(s = s_0 + \sum_i a_i \theta_i\) of weights \(\theta\) under a loss \(f(s)\) has the gradient \(g_i = f'(s) a_i\). A set that
holds the share \(\varphi\) of the drive, of \(\sum g_i^2\) under SGD and of \(\sum |g_i|\) under Adam, multiplies every time by
\(1 / (1 - \varphi)\) when it is frozen. Units: log-odds in nats, time in 1 / learning rate. Own derivation, on 2508.21741;
statements `isolation-clock` and `isolation-steps`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from fstsim.errors import InputError
from fstsim.theory.clocks import finite

Array = NDArray[np.float64]
Drive = Literal["sgd", "adam"]


def drive(loadings: ArrayLike, how: Drive = "sgd") -> Array:
    r"""What each weight adds to the speed of the logit: \(a_i^2\) (sgd) or \(|a_i|\) (adam), of the shape of ``loadings``."""
    a = finite(loadings, "loadings")
    if how not in ("sgd", "adam"):
        raise InputError(f"how must be sgd or adam, got {how!r}")
    return a * a if how == "sgd" else np.abs(a)


def frozen_share(loadings: ArrayLike, frozen: ArrayLike, how: Drive = "sgd") -> tuple[Array, Array]:
    r"""\(\varphi\), the share of the drive that is ``frozen``, and \(1 - \varphi\) without cancellation; weights on the last axis.

    Raises InputError where no weight has a loading.

    >>> phi, rest = frozen_share([3.0, 4.0], [True, False])
    >>> round(float(phi), 2), round(float(rest), 2)
    (0.36, 0.64)
    """
    each, mask = drive(loadings, how), np.asarray(frozen, dtype=bool)
    total = each.sum(-1)
    if not (total > 0.0).all():
        raise InputError("loadings must not all be 0: nothing moves the logit")
    return np.where(mask, each, 0.0).sum(-1) / total, np.where(mask, 0.0, each).sum(-1) / total


def forward_time(start: ArrayLike, end: ArrayLike, share: ArrayLike) -> Array:
    r"""Time of \(\dot s = -(\sigma(s) - q)\), forward KL to demonstrations of which the share q is old, from ``start`` to ``end``.

    With x the distance from the fixed point logit q: \(\frac{1}{q (1-q)} [q (x_0 - x_1) + \log\frac{1 - e^{-x_0}}{1 - e^{-x_1}}]\) above it,
    the same with 1 - q below it; at q = 0 \(s_0 - s_1 + e^{-s_1} - e^{-s_0}\). Raises InputError unless 0 <= q <= 1 and ``end`` lies
    between ``start`` and the fixed point.
    """
    s, e, q = np.broadcast_arrays(finite(start, "start"), finite(end, "end"), finite(share, "share"))
    if not ((q >= 0.0) & (q <= 1.0)).all():
        raise InputError(f"share must lie in [0, 1], got {share!r}")
    with np.errstate(divide="ignore"):
        at = logit(q)
    down = s > at
    if not np.where(down, (e <= s) & (e > at), (e >= s) & (e < at)).all():
        raise InputError("end must lie between start and the fixed point logit(share), which is reached never")
    # below the fixed point everything is mirrored: -s falls towards logit(1 - q)
    s, e, at = (np.where(down, x, -x) for x in (s, e, at))
    q = np.where(down, q, 1.0 - q)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = (q * (s - e) + _log_away(s - at) - _log_away(e - at)) / (q * (1.0 - q))
    alone = s - e + np.exp(-e) * -np.expm1(e - s)
    return np.where(q > 0.0, near, alone)


def _log_away(x: Array) -> Array:
    """``log(1 - e^-x)`` for x > 0: near 0 and far out each by the form that keeps its digits."""
    return np.where(x < 0.7, np.log(-np.expm1(-x)), np.log1p(-np.exp(-x)))
