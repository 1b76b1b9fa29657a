r"""Two-mode mixtures whose samples carry their mode label: everything is Gaussian algebra, and closed.

Labelled, a learner is a density on pairs ``(x, z)``, ``q(x, old) = beta N(x; m_o, I)``. Its divergences and products
are those of a Bernoulli variable and of Gaussians; overlap never enters. The reward-driven methods are exact here
(theory `ttt-discover`, `oapl`, `exp-family-unification`), and what they do to unlabelled mixtures differs by
``O(BC)``. Whitened coordinates throughout: ``s (...)``, means ``(..., D)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from fstsim.errors import InputError
from fstsim.logits import bernoulli_kl
from fstsim.two_mode import TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened

Array = NDArray[np.float64]


def square(x: Array) -> Array:
    """Squared norm along the last axis."""
    return (x * x).sum(axis=-1)


def labelled_kl(q: Whitened, base: Whitened) -> Array:
    r"""``KL(q || base)`` of the labelled mixtures, ``KL(beta || beta_0) + beta |e|^2 / 2 + (1 - beta) |v|^2 / 2``, nats."""
    old, new = 0.5 * square(q.old - base.old), 0.5 * square(q.new - base.new)
    return bernoulli_kl(q.log_odds, base.log_odds) + expit(q.log_odds) * old + expit(-q.log_odds) * new


def labelled_kl_gradient(q: Whitened, base: Whitened) -> Whitened:
    """Gradient of :func:`labelled_kl` in ``(s, m_o, m_n)`` of ``q``."""
    beta, rest = expit(q.log_odds), expit(-q.log_odds)
    e, v = q.old - base.old, q.new - base.new
    slope = q.log_odds - base.log_odds + 0.5 * (square(e) - square(v))
    return Whitened(beta * rest * slope, beta[..., None] * e, rest[..., None] * v)


class LabelledSample(NamedTuple):
    """``x (..., N, D)`` with ``is_old (..., N)``."""

    x: Array
    is_old: NDArray[np.bool_]


def labelled_sample(q: Whitened, batch: int, rng: np.random.Generator) -> LabelledSample:
    """``batch`` fresh pairs for every entry of ``q``."""
    shape = (*q.log_odds.shape, batch)
    is_old = rng.random(shape) < expit(q.log_odds)[..., None]
    centers = np.where(is_old[..., None], q.old[..., None, :], q.new[..., None, :])
    return LabelledSample(centers + rng.standard_normal((*shape, q.old.shape[-1])), is_old)


def labelled_log_density(q: Whitened, sample: LabelledSample) -> Array:
    """``log q(x, z)`` up to the Gaussian constant, ``(..., N)``."""
    old = log_expit(q.log_odds)[..., None] - 0.5 * square(sample.x - q.old[..., None, :])
    new = log_expit(-q.log_odds)[..., None] - 0.5 * square(sample.x - q.new[..., None, :])
    return np.where(sample.is_old, old, new)


def labelled_scores(q: Whitened, sample: LabelledSample) -> tuple[Array, Array, Array]:
    """``grad log q(x, z)`` in ``(s, m_o, m_n)``: ``(..., N)`` and twice ``(..., N, D)``."""
    old = sample.is_old.astype(np.float64)
    return (
        old - expit(q.log_odds)[..., None],
        old[..., None] * (sample.x - q.old[..., None, :]),
        (1.0 - old)[..., None] * (sample.x - q.new[..., None, :]),
    )


def geometric_mix(problem: TwoModeProblem, state: TwoModeState, anchor: TwoModeState, share: float) -> TwoModeState:
    r"""``q^a q_0^(1-a)``, normalised, of the labelled mixtures: an anchored teacher or reference policy.

    Means mix linearly; the log-odds too, but for the Gaussian normaliser where a mode of the two differs:
    ``s = a s_q + (1-a) s_0 - a (1-a) (|m_o - m_o0|^2 - |m_n - m_n0|^2) / 2`` (theory 11.1). ``share`` a in [0, 1].
    Raises InputError on a share outside [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"anchor must lie in [0, 1], got {share!r}")
    if share == 1.0:
        return state
    rest = 1.0 - share
    gap_old = square(problem.whiten(state.mean_old - anchor.mean_old))
    gap_new = square(problem.whiten(state.mean_new - anchor.mean_new))
    return TwoModeState(
        share * state.log_odds + rest * anchor.log_odds - 0.5 * share * rest * (gap_old - gap_new),
        share * state.mean_old + rest * anchor.mean_old,
        share * state.mean_new + rest * anchor.mean_new,
    )
