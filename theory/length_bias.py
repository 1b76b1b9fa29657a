r"""Length bias of group-normalised updates: the mean over sequences (GRPO) against the mean over tokens (CISPO) (theory 16.7).

A rollout of reward r and length L enters the update with weight ``A c``: A its group-normalised advantage, c one over its own
length (*mean over sequences*), or the number of sequences over the tokens of the whole batch (*mean over tokens*). Both are 1/L
where all lengths are L. The expected weight of a kind of completions is what its log-probability moves by under natural
gradient, up to what all kinds share; so the difference between two kinds of *equal reward* is a bias: no reward asks for it.

``x`` log-odds of success of one problem, G rollouts a group; lengths in tokens, anything positive. Broadcasts over float64 arrays.
Source: 2503.20783 and 2503.14476 name the bias; exact values are own derivation; statements `length-bias-sequences`,
`length-bias-growth` and `length-bias-tokens`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, log_expit

from fstsim.errors import InputError
from fstsim.theory.group_normalised import check_group, drift_at
from fstsim.theory.numerics.inputs import finite, positive

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_END = 40.0
"""nats that the slowest exponential falls before the integral is cut"""


def group_advantage_means(log_odds: ArrayLike, group_size: ArrayLike) -> tuple[Array, Array]:
    r"""Expected group-normalised advantage of a right and of a wrong rollout: ``m / p`` and ``-m / (1 - p)``.

    m is `group_normalised_drift` at ``p = sigma(log_odds)``. Theory 16.7 [T], `length-bias-sequences`.
    """
    x, g = np.broadcast_arrays(finite(log_odds, "log_odds"), check_group(group_size))
    drift = np.log(drift_at(x, g))
    return np.exp(drift - log_expit(x)), -np.exp(drift - log_expit(-x))


def sequence_length_bias(
    log_odds: ArrayLike, group_size: ArrayLike, length: ArrayLike, other: ArrayLike, right: ArrayLike
) -> Array:
    r"""Weight of ``length`` less that of ``other`` at one reward, under the mean over sequences: ``a (1/L - 1/L')``.

    ``a`` is of `group_advantage_means`, that of right rollouts where ``right`` is 1 and of wrong ones where it is 0: right
    answers are pulled to be short, wrong ones to be long. Theory 16.7 [T], `length-bias-sequences`.

    >>> [round(float(sequence_length_bias(0.0, 8, 10, 20, right)), 4) for right in (1, 0)]
    [0.0464, -0.0464]
    """
    here, there = positive(length, "length"), positive(other, "other")
    above, below = group_advantage_means(log_odds, group_size)
    return np.where(np.asarray(right) > 0, above, below) * (there - here) / (here * there)


def length_growth(log_odds: ArrayLike, group_size: ArrayLike, lengths: ArrayLike, shares: ArrayLike) -> Array:
    r"""Speed of the mean length of wrong answers under the mean over sequences: ``m / (1 - p) (E[L] E[1/L] - 1)``, natural gradient.

    ``lengths, shares (..., K)``: the wrong answers' kinds, shares that sum to 1 over the last axis. At least 0; the mean length
    of right answers falls by the same with ``m / p``. Theory 16.7 [T], `length-bias-growth`.
    """
    size, share = np.broadcast_arrays(positive(lengths, "lengths"), check_shares(shares))
    # E[L] E[1/L] - 1 = sum over pairs of q_i q_j (L_i - L_j)^2 / (2 L_i L_j): nothing cancels
    apart = (size[..., :, None] - size[..., None, :]) ** 2 / (2.0 * size[..., :, None] * size[..., None, :])
    spread = (apart * share[..., :, None] * share[..., None, :]).sum(axis=(-1, -2))
    return -group_advantage_means(log_odds, group_size)[1] * spread


def check_shares(value: ArrayLike) -> Array:
    """``value`` as float64; InputError unless nonnegative and summing to 1 over the last axis."""
    share = np.asarray(value, dtype=np.float64)
    if not ((share >= 0.0).all() and np.allclose(share.sum(axis=-1), 1.0, rtol=0.0, atol=1e-9)):
        raise InputError(f"shares must be nonnegative and sum to 1 over the last axis, got {value!r}")
    return share


def token_length_bias(
    log_odds: ArrayLike,
    group_size: ArrayLike,
    lengths: ArrayLike,
    shares: ArrayLike,
    pair: tuple[ArrayLike, ArrayLike],
    right: ArrayLike,
    problems: ArrayLike = 1,
) -> Array:
    r"""Weight of the first length of ``pair`` less that of the second, at one reward, under the mean over tokens.

    ``lengths, shares (..., 2, K)``: kinds of wrong and of right completions of every problem. With R the tokens of the other
    ``N - 1 = problems G - 1`` rollouts it is ``N E[A / (L + R) - A / (L' + R)]``, exactly: ``1 / (L + R)`` is the integral of
    ``e^(-s (L + R))``, whose mean is a product over rollouts. N is at most 1,000,000. Theory 16.7 [T], `length-bias-tokens`.
    """
    size, share = np.broadcast_arrays(positive(lengths, "lengths"), check_shares(shares))
    if size.ndim < 2 or size.shape[-2] != 2:
        raise InputError(f"lengths must have shape (..., 2, K), wrong and right completions, got {size.shape}")
    x, g, here, there, good, many = np.broadcast_arrays(
        finite(log_odds, "log_odds"), check_group(group_size), positive(pair[0], "pair"), positive(pair[1], "pair"),
        np.asarray(right, dtype=np.float64), positive(problems, "problems"),
    )  # fmt: skip
    if not ((many == np.floor(many)) & (many * g <= 1e6)).all():
        raise InputError(f"problems must be a whole number, with groups at most 1,000,000 rollouts, got {problems!r}")
    shape = np.broadcast_shapes(x.shape, size.shape[:-2])
    x, g, here, there, good, many = (np.broadcast_to(v, shape).ravel() for v in (x, g, here, there, good, many))
    size, share = (np.broadcast_to(v, (*shape, *v.shape[-2:])).reshape(-1, *v.shape[-2:]) for v in (size, share))
    s, ds = _panels(
        many * g,
        np.minimum(size.min((1, 2)), np.minimum(here, there)),
        np.maximum(size.max((1, 2)), np.maximum(here, there)),
    )
    wrong_part, right_part = (
        np.log((share[:, r, :, None] * np.exp(-s[:, None] * size[:, r, :, None])).sum(1)) for r in (0, 1)
    )
    p, q = log_expit(x)[:, None], log_expit(-x)[:, None]
    advantage = _advantage(g, good, p + right_part, q + wrong_part)
    with np.errstate(over="ignore"):
        others = ((many - 1.0) * g)[:, None] * np.logaddexp(p + right_part, q + wrong_part)
    gap = -np.exp(-s * here[:, None]) * np.expm1(-s * (there - here)[:, None])
    return ((many * g) * (ds * gap * advantage * np.exp(others)).sum(-1)).reshape(shape)


def _panels(count: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Nodes and weights on ``[0, 40 / (N low)]``, in panels that double from ``1 / (N high)`` on: ``(n, S)`` each."""
    panels = int(np.ceil(np.log2(_END * (high / low).max()))) + 1
    edges = np.concatenate(([0.0], 2.0 ** np.arange(panels)))
    half = np.diff(edges) / 2.0
    nodes = (((edges[:-1] + edges[1:]) / 2.0)[:, None] + half[:, None] * _NODES).ravel()
    scale = 1.0 / (count * high)
    return scale[:, None] * nodes, scale[:, None] * (half[:, None] * _WEIGHTS).ravel()


def _advantage(group: Array, right: Array, log_right: Array, log_wrong: Array) -> Array:
    """``E[A e^(-s R)]`` over the other G - 1 of a rollout's group, ``(n, S)``; logs of p and q times their transforms."""
    out = np.empty(log_right.shape)
    for size in np.unique(group):
        k = np.arange(size)  # right ones among the others
        count = gammaln(size) - gammaln(k + 1.0) - gammaln(size - k)
        for good in (False, True):
            here = (group == size) & ((right > 0.0) == good)
            if not here.any():
                continue
            value = np.sqrt((size - k - 1.0) / (k + 1.0)) if good else -np.sqrt(k / (size - k))
            exponent = count + k * log_right[here][..., None] + (size - 1.0 - k) * log_wrong[here][..., None]
            out[here] = np.exp(exponent) @ value
    return out


def token_bias_bounds(
    length: ArrayLike, other: ArrayLike, shortest: ArrayLike, longest: ArrayLike, rollouts: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the bias of the mean over tokens over that of the mean over sequences, N ``rollouts`` a batch.

    ``N L L' / ((L + (N-1) h)(L' + (N-1) h))`` with h the ``longest`` length, and with the ``shortest``: about ``1/N``, exactly where
    all lengths agree. *Proof*: the other rollouts have between ``(N-1) l`` and ``(N-1) h`` tokens, and A has one sign at one reward.
    Theory 16.7 [T], `length-bias-tokens`.
    """
    here, there, n = positive(length, "length"), positive(other, "other"), positive(rollouts, "rollouts")
    rest = (n - 1.0) * positive(longest, "longest"), (n - 1.0) * positive(shortest, "shortest")
    low, high = (n * here * there / ((here + r) * (there + r)) for r in rest)
    return low, high
