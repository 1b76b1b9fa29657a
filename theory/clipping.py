r"""Replay with clipped gradients: the old mass no longer ends at its share, but at the share's Huber estimate.

Setting: forward KL with replay on one logit, batches of N demonstrations of which ``K ~ Binomial(N, lambda)`` are old; the
batch gradient is ``beta - K/N``, and clipping by norm makes it ``clip(beta - K/N, -c, c)``. On average the logit stands where

    E clip_c(K/N - beta) = 0,

the Huber M-estimate of location of ``K/N`` (Huber 1964): its mean, ``lambda``, when nothing is clipped, its *median* as
``c -> 0``. Rare old demonstrations are the surprising ones, so that clipping takes most from them: at ``N = 1`` the share
``lambda < 1/2`` becomes ``lambda min(1, c / (1 - lambda))``.

Proof of the bound (`replay-clipped`). With ``D = K/N - beta`` and ``x = |lambda - beta|``: ``x = |E[D - clip D]|
<= E (|D| - c)_+ <= E D^2 / (4 c) = (v + x^2) / (4 c)``, ``v = lambda (1 - lambda)/N``. So x lies below the smaller or above the larger
root of ``x^2 - 4 c x + v``; it is 0 at ``c = 1``, the set of solutions is an interval that moves continuously with c, and the
roots stay apart while ``4 c^2 > v``: it remains below the smaller one.
Source: own derivation; statements `replay-clipped`, `replay-clipped-single`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.theory.numerics.inputs import mass, positive

Array = NDArray[np.float64]

_HALVINGS = 70
_FARTHEST = 745.0  # log-odds of the smallest mass
_MOST = 10_000


def check_batch_size(value: ArrayLike) -> Array:
    """``value`` as float64; InputError unless whole and in 1..10000."""
    n = np.asarray(value, dtype=np.float64)
    if not ((n >= 1) & (n <= _MOST) & (n == np.floor(n))).all():
        raise InputError(f"batch_size must be whole and in 1..{_MOST}, got {value!r}")
    return n


def clipped_replay_mass(share: ArrayLike, batch_size: ArrayLike, clip: ArrayLike) -> Array:
    r"""Old mass at which replay of ``share`` ends when gradients longer than ``clip`` are cut: ``E clip(K/N - beta) = 0``.

    ``share`` in (0, 1), ``batch_size`` N, ``clip`` in units of the gradient of the logit (1 cuts nothing); all broadcast.
    Bisection of a decreasing sum over the binomial; where the solutions are an interval (c so small that everything is
    cut), one of them. Raises InputError on a share outside (0, 1), a batch outside 1..10000 or a clip that is not positive.

    >>> [round(float(clipped_replay_mass(0.2, 1, c)), 6) for c in (1.0, 0.4, 0.1)]
    [0.2, 0.1, 0.025]
    """
    lam, n, c = np.broadcast_arrays(mass(share, "share"), check_batch_size(batch_size), positive(clip, "clip"))
    k = np.arange(float(n.max()) + 1.0)
    counts = np.minimum(k, n[..., None])
    from scipy.stats import binom  # scipy.stats is a second of start-up, and most who import the theory want no weights

    weights = np.where(k <= n[..., None], binom.pmf(counts, n[..., None], lam[..., None]), 0.0)
    ratio = counts / n[..., None]
    # in log-odds: a small share has a small end
    low, high = np.full(lam.shape, -_FARTHEST), np.full(lam.shape, _FARTHEST)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        pull = (weights * np.clip(ratio - expit(middle)[..., None], -c[..., None], c[..., None])).sum(-1)
        low, high = np.where(pull > 0.0, middle, low), np.where(pull > 0.0, high, middle)
    return expit(0.5 * (low + high))


def clipped_replay_bias_bound(share: ArrayLike, batch_size: ArrayLike, clip: ArrayLike) -> Array:
    r"""How far clipping can move the end of replay: ``2 c - sqrt(4 c^2 - v)``, ``v = share (1 - share) / N``; nan for ``4 c^2 <= v``.

    About ``v / (4 c)``: the bias falls like 1/N. Arguments and errors as `clipped_replay_mass`. Statement `replay-clipped` [T].
    """
    lam, n, c = mass(share, "share"), check_batch_size(batch_size), positive(clip, "clip")
    v = lam * (1.0 - lam) / n
    with np.errstate(over="ignore"):
        room = 1.0 - v / (2.0 * c) / (2.0 * c)
    # v / (2 c + sqrt(..)): the difference of two nearly equal numbers otherwise
    return np.where(room > 0.0, v / (2.0 * c) / (1.0 + np.sqrt(np.maximum(room, 0.0))), np.nan)
