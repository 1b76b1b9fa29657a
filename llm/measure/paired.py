r"""Two models on the same problems: flips with an exact test, the change of a mean, and pass@k.

A problem that both models solve, or both do not, says nothing about their difference: McNemar's exact test asks whether,
among the problems that flipped, both directions are equally likely.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import binomtest

Array = NDArray[np.float64]


def mean_se(values: Array) -> tuple[float, float]:
    """Mean and its standard error over problems ``(n,)``; nan for the error of one."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return float(values.mean()), error


def ratio_se(amounts: Array, lengths: Array) -> tuple[float, float]:
    r"""\(\sum a / \sum l\) over problems ``(n,)`` and its standard error to first order in \(1/n\) (delta method)."""
    ratio = float(amounts.sum() / lengths.sum())
    off = amounts - ratio * lengths
    error = off.std(ddof=1) / np.sqrt(len(off)) / lengths.mean() if len(off) > 1 else float("nan")
    return ratio, float(error)


def flips(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, float]:
    """``lost``, problems that were solved and are not any more, ``gained``, the reverse, and McNemar's exact two-sided p.

    p is 1 where nothing flipped.
    """
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    p = float(binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0
    return {"lost": lost, "gained": gained, "flip_p": p}


def fan(samples: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to ``samples``."""
    return tuple(2**k for k in range(samples.bit_length()))


def pass_at(successes: Array, samples: int, k: int) -> Array:
    r"""Unbiased estimate \(1 - \binom{n-c}{k} / \binom{n}{k}\) of the chance that one of k completions is right, ``(n,)``.

    ``successes`` c of ``samples`` n completions of each problem. Source: Chen et al., 2107.03374.
    """
    wrong = samples - successes
    enough = wrong >= k
    left = np.where(enough, wrong, k)
    log = gammaln(left + 1) - gammaln(left - k + 1) - gammaln(samples + 1) + gammaln(samples - k + 1)
    return np.where(enough, -np.expm1(log), 1.0)


def pass_fan(solved: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """pass@k with standard errors over problems, by k as text; ``solved (problems, samples)``."""
    samples = solved.shape[1]
    successes = solved.sum(1).astype(np.float64)
    ks: Sequence[int] = fan(samples)
    means = {k: mean_se(pass_at(successes, samples, k)) for k in ks}
    return {str(k): {"mean": mean, "se": error} for k, (mean, error) in means.items()}
