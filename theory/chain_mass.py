r"""Writing a chain as an old behaviour: what fine-tuning does to the mass of its first token (theory 6.4).

A model that may answer at once or after a chain chooses with its first token; c = sigmoid(u) is the mass of chains. Supervised
fine-tuning with a share lambda of chains moves \(\dot u = \lambda - c\): the old-mass law (`mass_forgetting_separated`,
`replay_time`), whatever the answers are. Reinforcement on the answer alone moves \(\dot u = g\,c(1-c)\) with g the difference of
success between the two routes. Time is that of the flow of u. Source: own derivation; statement `chain-mass`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.theory.clocks import inverse_learning_clock, learning_clock
from fstsim.theory.numerics.inputs import finite, nonnegative, share

Array = NDArray[np.float64]

_FARTHEST = 700.0  # log-odds


def _gap(value: ArrayLike) -> Array:
    g = finite(value, "gap")
    if not ((g >= -1.0) & (g <= 1.0)).all():
        raise InputError(f"gap must lie in [-1, 1], got {value!r}")
    return g


def chain_mass_rate(log_odds: ArrayLike, chain_share: ArrayLike, weight: ArrayLike, gap: ArrayLike) -> Array:
    r"""``du/dt = w (lambda - c) + g c (1 - c)`` of the log-odds u of chains, ``c = sigmoid(u)``.

    ``weight`` w of supervised steps with a share ``chain_share`` lambda of chains, ``gap`` g, success with a chain minus success
    without, of reinforcement on the answer; one of the two may be 0. ``log_odds (...)`` and the rest broadcast; log-odds a unit
    of time. Theory 6.4 [T], `chain-mass`. Errors: InputError for shares outside [0, 1], weights below 0, gaps outside [-1, 1].
    """
    u = finite(log_odds, "log_odds")
    lam, w, g = share(chain_share, "chain_share"), nonnegative(weight, "weight"), _gap(gap)
    # (1 - c) lambda - c (1 - lambda): both terms are exact at either end
    pull = lam * expit(-u) - (1.0 - lam) * expit(u)
    return w * pull + g * expit(u) * expit(-u)


def chain_mass_rest(chain_share: ArrayLike, weight: ArrayLike, gap: ArrayLike) -> Array:
    r"""Mass of chains at which supervised steps and reinforcement rest, ``(...)``: the root in (0, 1) of ``w (lambda - c) + g c (1 - c)``.

    ``lambda`` at gap 0. With ``lambda = 0``, answers alone, chains survive only if they pay more than showing them away costs:
    ``1 - w/g`` for ``g > w``, else 0. ``weight`` w > 0. Theory 6.4 [T], `chain-mass`. Errors as `chain_mass_rate`.

    >>> chain_mass_rest(0.0, 0.5, [0.2, 1.0]).tolist()
    [0.0, 0.5]
    """
    lam, w, g = np.broadcast_arrays(share(chain_share, "chain_share"), nonnegative(weight, "weight"), _gap(gap))
    if not (w > 0.0).all():
        raise InputError("weight must be positive: without supervised steps a gap has no interior rest")
    # g c^2 + (w - g) c - w lambda = 0; the root that does not cancel is taken. Its discriminant
    # (w - g)^2 + 4 g w lambda = (w + g)^2 - 4 g w (1 - lambda): the one of which both terms are positive
    b, cross = w - g, 2.0 * np.sqrt(np.abs(g)) * np.sqrt(w)
    root = np.where(g < 0.0, np.hypot(w + g, cross * np.sqrt(1.0 - lam)), np.hypot(b, cross * np.sqrt(lam)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        large = (root - b) / (2.0 * g)
        small = 2.0 * lam / (b / w + root / w)
    return np.clip(np.where(b > 0.0, small, np.where(g == 0.0, lam, large)), 0.0, 1.0)


def chain_log_odds_paid(log_odds0: ArrayLike, t: ArrayLike, gap: ArrayLike) -> Array:
    r"""Log-odds of chains after time ``t`` of reinforcement on the answer: ``F(u) = F(u0) + g t``, ``F(u) = 2 u + 2 sinh u``.

    At gap 0 both routes pay alike and they stay where they are: the neutral map. Theory 6.4 [T], `chain-mass-paid`.
    Raises InputError for log-odds that are not finite, negative times or gaps outside [-1, 1].

    >>> chain_log_odds_paid(-1.0, [0.0, 1e6], [1.0, 0.0]).tolist()
    [-1.0, -1.0]
    """
    u, time, g = np.broadcast_arrays(finite(log_odds0, "log_odds0"), nonnegative(t, "t"), _gap(gap))
    size = np.abs(u)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        # far out the clock is e^|u|, which has no double
        change = np.sign(u) * (g * time) * np.exp(-size)
        far = np.copysign(size + np.log1p(change), u)
        near = inverse_learning_clock(learning_clock(u) + g * time)
    return np.where(g * time == 0.0, u, np.where((size > _FARTHEST) & (np.abs(change) < 0.5), far, near))
