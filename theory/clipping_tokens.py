r"""Replay with gradients that are clipped by their norm, when an answer has several tokens and a batch several prompts.

Demonstrations are old throughout or new throughout, ``K ~ Binomial(N, lambda)`` of N are old; token l of prompt i has a logit of its
own, with old mass ``beta_il``. The batch gradient is cut to the length c: ``w_K = min(1, c / |g|)`` weighs whole batches.

- *One prompt, L tokens* (`replay-clipped-tokens`): ``g = (beta_l - K/N)_l``. All masses rest at one number, that of one logit cut at
  ``c / sqrt(L)``: an answer of L tokens is clipped ``sqrt(L)`` times harder.
- *N prompts that share nothing* (`replay-clipped-prompts`): gradients of old and new demonstrations do not cancel but add up in
  squares, ``|g|^2 = (L / N^2) [K (1 - beta)^2 + (N - K) beta^2]``. Then ``beta = E[K w_K] / (N E w_K)``, or with K' of N - 1

      odds(beta) = odds(lambda) E[w_(K'+1)] / E[w_K'].

In either case the expected clipped gradient is that of a mean of Huber losses of the distance, convex in the masses: there is one rest, or
an interval of them. Source: own derivation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.theory.clipping import check_batch_size, clipped_replay_mass
from fstsim.theory.numerics.inputs import mass, positive

Array = NDArray[np.float64]

_HALVINGS = 60


def _tokens(value: ArrayLike) -> Array:
    n = np.asarray(value, dtype=np.float64)
    if not ((n >= 1.0) & np.isfinite(n) & (n == np.floor(n))).all():
        raise InputError(f"tokens must be whole and at least 1, got {value!r}")
    return n


def clipped_tokens_mass(share: ArrayLike, batch_size: ArrayLike, clip: ArrayLike, tokens: ArrayLike) -> Array:
    r"""Old mass of every token at which replay of one prompt rests: `clipped_replay_mass` at ``clip / sqrt(tokens)``.

    Arguments and errors as there; ``tokens`` L, whole. Statement `replay-clipped-tokens` [T].

    >>> [round(float(clipped_tokens_mass(0.2, 1, 0.4, n)), 3) for n in (1, 4)]
    [0.1, 0.05]
    """
    return clipped_replay_mass(share, batch_size, positive(clip, "clip") / np.sqrt(_tokens(tokens)))


def clipped_prompts_mass(share: ArrayLike, batch_size: ArrayLike, clip: ArrayLike, tokens: ArrayLike = 1) -> Array:
    r"""Old mass at which replay rests when the N prompts of a batch share no logit: ``E[(beta - K/N) w_K] = 0``.

    ``clip`` in units of the gradient of one token of a mean over N prompts. Bisection of a function that rises in beta; all
    arguments broadcast. Errors as `clipped_tokens_mass`. Statement `replay-clipped-prompts` [T].

    >>> [round(float(clipped_prompts_mass(0.2, n, 1e-3)), 3) for n in (1, 4, 64)]
    [0.0, 0.002, 0.195]
    """
    lam, n, c, length = np.broadcast_arrays(
        mass(share, "share"), check_batch_size(batch_size), positive(clip, "clip"), _tokens(tokens)
    )
    k = np.arange(float(n.max()) + 1.0)
    old = np.minimum(k, n[..., None])
    from scipy.stats import binom

    weights = np.where(k <= n[..., None], binom.pmf(old, n[..., None], lam[..., None]), 0.0)
    new = n[..., None] - old
    low, high = np.zeros(lam.shape), np.ones(lam.shape)
    for _ in range(_HALVINGS):
        b = 0.5 * (low + high)[..., None]
        norm = np.sqrt(length[..., None] * (old * (1.0 - b) ** 2 + new * b * b)) / n[..., None]
        pull = (weights * (old / n[..., None] - b) / np.maximum(1.0, norm / c[..., None])).sum(-1)
        low, high = np.where(pull > 0.0, b[..., 0], low), np.where(pull > 0.0, high, b[..., 0])
    return 0.5 * (low + high)


def clipped_prompts_bounds(
    share: ArrayLike, batch_size: ArrayLike, clip: ArrayLike, tokens: ArrayLike = 1
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on `clipped_prompts_mass` of a share of at most 1/2: the larger of two lower bounds, and the share.

    With ``o = lambda / (1 - lambda)``: ``min(lambda, o c sqrt(N / L))``, equal for N = 1; and odds ``sqrt((N o^2 - 1) / (N - 1))``
    however hard the clipping is: a share whose odds exceed ``1 / sqrt(N)`` is not lost. Statement `replay-clipped-prompts` [T].
    """
    lam, n, c = mass(share, "share"), check_batch_size(batch_size), positive(clip, "clip")
    if not (lam <= 0.5).all():
        raise InputError(f"share must be at most 1/2 for these bounds, got {share!r}")
    odds = lam / (1.0 - lam)
    gentle = np.minimum(lam, odds * c * np.sqrt(n / _tokens(tokens)))
    most = np.sqrt(np.maximum(n * odds * odds - 1.0, 0.0) / np.maximum(n - 1.0, 1.0))
    return np.maximum(gentle, most / (1.0 + most)), lam + 0.0 * gentle
