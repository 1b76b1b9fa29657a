"""Statements of section 16.7: what lengths do to group-normalised updates, under a mean over sequences and over tokens."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import gammaln, log_expit

from fstsim.theory.length_bias import (
    group_advantage_means,
    length_growth,
    sequence_length_bias,
    token_bias_bounds,
    token_length_bias,
)
from fstsim.theory.statements.instances import log_uniform, same, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_length_bias.py"
_SOURCE = "GRPO of arXiv 2402.03300, CISPO of 2506.13585, the bias named in 2503.20783; own derivation"
_KINDS = 3


def _sample_lengths(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> Array:
    """Lengths of kinds of completions: next to each other, or up to 20 times apart."""
    middle = log_uniform(rng, 1.0, 1e3, n).reshape(n, *(1 for _ in shape))
    spread = log_uniform(rng, 1e-4, 1.5, n).reshape(middle.shape)
    return middle * np.exp(spread * rng.uniform(-1.0, 1.0, (n, *shape)))


def _sample_shares(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> Array:
    weights = log_uniform(rng, 1e-3, 1.0, (n, *shape))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


# --- a mean over sequences ----------------------------------------------------------------------------------------------


def _derive_sequences() -> Derivation:
    a, b = sp.symbols("a b", positive=True)  # probabilities of three kinds
    w = sp.Matrix(sp.symbols("w1:4", real=True))
    pi = sp.Matrix([a, b, 1 - a - b])
    mean = (pi.T * w)[0]
    update = sp.Matrix([p * (v - mean) for p, v in zip(pi, w, strict=True)])
    fisher = sp.diag(*pi) - pi * pi.T
    k, g = sp.symbols("k G", positive=True)
    return symbolic(
        (
            "E[w_y (e_y - pi)] has components pi_k (w_k - mean w): the Fisher matrix times w, whose natural gradient is w",
            "k/G of C(G, k) groups have a given rollout among the right ones: p E[A | right] = E[sqrt(k (G - k))] / G",
        ),
        [
            *(fisher * w - update),
            k / g * sp.sqrt((g - k) / k) - sp.sqrt(k * (g - k)) / g,
        ],
    )


def _sample_sequences(rng: np.random.Generator, n: int) -> Sample:
    pair = _sample_lengths(rng, n, (2,))
    return {
        "log_odds": sometimes(rng, rng.uniform(-300.0, 30.0, n), rng.uniform(-12.0, 12.0, n)),
        "group_size": rng.choice([2.0, 3.0, 4.0, 8.0, 16.0, 64.0], n),
        "length": pair[:, 0],
        "other": pair[:, 1],
        "right": rng.integers(0, 2, n).astype(np.float64),
    }


def _by_enumeration(log_odds: Array, group_size: Array, length: Array, other: Array, right: Array) -> Array:
    """A rollout of known reward among G - 1 others: the mean of its advantage over all of their rewards, times 1/L - 1/L'."""
    out = np.empty(log_odds.shape)
    for size in np.unique(group_size):
        here = group_size == size
        k = np.arange(size)
        chance = gammaln(size) - gammaln(k + 1.0) - gammaln(size - k)
        chance = np.exp(
            chance + k * log_expit(log_odds[here])[:, None] + (size - 1.0 - k) * log_expit(-log_odds[here])[:, None]
        )
        mean_right = (chance * np.sqrt((size - k - 1.0) / (k + 1.0))).sum(-1)
        mean_wrong = -(chance * np.sqrt(k / (size - k))).sum(-1)
        out[here] = np.where(right[here] > 0.0, mean_right, mean_wrong)
    return out * (other - length) / (length * other)


SEQUENCES = Statement(
    slug="length-bias-sequences",
    title="A mean over sequences pulls right answers to be short and wrong ones to be long",
    status="T",
    kind="identity",
    hypotheses="one problem, G rollouts, advantages over the group's standard deviation; two kinds of completions of one reward, lengths L, L'",
    latex=r"w_L-w_{L'}=a_r(\tfrac1L-\tfrac1{L'}),\qquad a_1=\frac{m(p)}p,\quad a_0=-\frac{m(p)}{1-p},\qquad m=E\sqrt{X(1-X)}",
    derive=_derive_sequences,
    sample=_sample_sequences,
    exact=_by_enumeration,
    bound=lambda **x: same(sequence_length_bias(**x)),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _derive_growth() -> Derivation:
    q = sp.Symbol("q", positive=True)
    lengths = sp.symbols("L1 L2", positive=True)
    shares = (q, 1 - q)
    mean = sum(s * v for s, v in zip(shares, lengths, strict=True))
    inverse = sum(s / v for s, v in zip(shares, lengths, strict=True))
    # replicator of w = a / L among them: d q_i = q_i (w_i - mean w), here with a = -1
    moved = sum(s * v * (-1 / v + inverse) for s, v in zip(shares, lengths, strict=True))
    apart = (lengths[0] - lengths[1]) ** 2 / (lengths[0] * lengths[1])
    return symbolic(
        (
            "the mean length moves by -a Cov(L, 1/L) = E[L] E[1/L] - 1 for a = -1",
            "that is the sum over pairs of q_i q_j (L_i - L_j)^2 / (L_i L_j)",
        ),
        [moved - (mean * inverse - 1), mean * inverse - 1 - q * (1 - q) * apart],
    )


def _sample_growth(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": sometimes(rng, rng.uniform(-300.0, 30.0, n), rng.uniform(-12.0, 12.0, n)),
        "group_size": rng.choice([2.0, 4.0, 8.0, 16.0, 64.0], n),
        "lengths": _sample_lengths(rng, n, (_KINDS,)),
        "shares": _sample_shares(rng, n, (_KINDS,)),
    }


def _growth_bounds(log_odds: Array, group_size: Array, lengths: Array, shares: Array) -> Bounds:
    low, high = lengths.min(-1), lengths.max(-1)
    rate = -group_advantage_means(log_odds, group_size)[1]
    # of the two ends alone: pairs with the rest only add
    ends = [np.take_along_axis(shares, pick(lengths, -1)[:, None], -1)[:, 0] for pick in (np.argmin, np.argmax)]
    apart = (high - low) ** 2 / (low * high)
    return rate * ends[0] * ends[1] * apart, rate * apart / 4.0


GROWTH = Statement(
    slug="length-bias-growth",
    title="Under a mean over sequences wrong answers grow, however they are distributed",
    status="T",
    kind="bound",
    hypotheses="as length-bias-sequences; wrong answers of lengths in [l, h], of which q_l and q_h are at the ends; natural gradient",
    latex=r"\frac{m}{1-p}\,q_l\,q_h\frac{(h-l)^2}{lh}\le\frac{d}{dt}E[L\mid\text{wrong}]=\frac{m}{1-p}(E[L]\,E[\tfrac1L]-1)\le\frac{m}{1-p}\cdot\frac{(h-l)^2}{4lh}",
    derive=_derive_growth,
    sample=_sample_growth,
    exact=length_growth,
    bound=_growth_bounds,
    source=_SOURCE,
    test=_TEST,
)


# --- a mean over tokens -------------------------------------------------------------------------------------------------


def _sample_tokens(rng: np.random.Generator, n: int) -> Sample:
    lengths = _sample_lengths(rng, n, (2, _KINDS))
    right = rng.integers(0, 2, n)
    kinds = lengths[np.arange(n), right]
    return {
        "log_odds": rng.uniform(-8.0, 8.0, n),
        "group_size": rng.choice([2.0, 3.0, 4.0, 8.0, 16.0], n),
        "lengths": lengths,
        "shares": _sample_shares(rng, n, (2, _KINDS)),
        "length": kinds[:, 0],
        "other": kinds[:, 1],
        "right": right.astype(np.float64),
        "problems": rng.choice([1.0, 2.0, 8.0, 48.0], n),
    }


def _ratio(
    log_odds: Array, group_size: Array, lengths: Array, shares: Array, length: Array, other: Array, right: Array,
    problems: Array,
) -> Array:  # fmt: skip
    tokens = token_length_bias(log_odds, group_size, lengths, shares, (length, other), right, problems)
    return tokens / sequence_length_bias(log_odds, group_size, length, other, right)


def _ratio_bounds(
    lengths: Array, length: Array, other: Array, group_size: Array, problems: Array, **_: Array
) -> Bounds:
    return token_bias_bounds(length, other, lengths.min((1, 2)), lengths.max((1, 2)), group_size * problems)


TOKENS = Statement(
    slug="length-bias-tokens",
    title="A mean over tokens has the length bias of a mean over sequences divided by about the rollouts of a batch",
    status="T",
    kind="bound",
    hypotheses="as length-bias-sequences; N rollouts a batch (N / G problems alike), all lengths in [l, h]",
    latex=r"\frac{N L L'}{(L+(N-1)h)(L'+(N-1)h)}\le\frac{N E[\frac{A}{L+R}-\frac{A}{L'+R}]}{a_r(\frac1L-\frac1{L'})}"
    r"\le\frac{N L L'}{(L+(N-1)l)(L'+(N-1)l)}",
    derive=lambda: nothing(
        "1/(L + R) - 1/(L' + R) = (L' - L)/((L + R)(L' + R)), and R, the tokens of the others, lies in [(N-1) l, (N-1) h]",
        "at one reward the advantage has one sign, so the bounds survive the mean; at N = 1 the two means agree",
    ),
    sample=_sample_tokens,
    exact=_ratio,
    bound=_ratio_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
    max_examples=50_000,
)

STATEMENTS = (SEQUENCES, GROWTH, TOKENS)
