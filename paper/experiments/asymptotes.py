r"""Asymptotes as 2605.12484 fits them, and what its running maximum of the validation reward does to the numbers.

\(R - R_0 = (A - R_0) / (1 + (C_{mid} / C)^B)\), reward R against samples C, by least squares on the mean over seeds. A curve says
nothing of where it ends before it is half way there: A is refused where the last C does not reach \(C_{mid}\). Its interval is a
bootstrap over seeds, in which a refused resample is as unknown as a refused fit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from fstsim.paper.experiments.numbers import Array, Curves, Estimate

_RESAMPLES = 400
_RISE = 0.05  # of the mean reward: below it there is nothing to fit
_REFUSED = 0.1  # share of resamples that are refused, above which the interval is open


@dataclass(frozen=True)
class Sigmoid:
    """The fitted curve, or why there is none: then ``asymptote`` is nan."""

    start: float
    asymptote: float
    middle: float
    """C_mid, samples at which half of the way is gone"""
    steepness: float
    refused: str = ""


def sigmoid_curve(c: Array, start: float, asymptote: float, middle: float, steepness: float) -> Array:
    r"""\(R_0 + (A - R_0) / (1 + (C_{mid} / C)^B)\), reward against samples C."""
    with np.errstate(divide="ignore", over="ignore"):
        return start + (asymptote - start) / (1.0 + (middle / np.maximum(c, 1e-9)) ** steepness)


def fit_sigmoid(samples: Array, rewards: Array) -> Sigmoid:
    """The four parameters by least squares on one curve, ``(times,)`` each; refused with the reason where they say nothing."""
    if len(samples) < 5:  # fewer points than parameters, or as many: any asymptote fits
        return _refuse("fewer than 5 measurements")
    if rewards.max() - rewards[0] < _RISE:
        return _refuse("does not rise")

    def residual(p: Array) -> Array:
        return sigmoid_curve(samples, *p) - rewards

    def slopes(p: Array) -> Array:
        start, asymptote, middle, steepness = p
        away = np.log(middle / np.maximum(samples, 1e-9))
        share = expit(-steepness * away)
        bend = -(asymptote - start) * share * (1.0 - share)
        return np.stack((1.0 - share, share, bend * steepness / middle, bend * away), axis=-1)

    found = least_squares(
        residual,
        (rewards[0], rewards.max(), max(samples[-1] / 4, 1.0), 2.0),
        bounds=([-0.05, 0.0, 1.0, 0.2], [1.0, 1.05, 10.0 * samples[-1], 20.0]),
        jac=slopes,
        max_nfev=4000,
    )
    if not found.success:
        return _refuse("no fit")
    start, asymptote, middle, steepness = map(float, found.x)
    if middle > samples[-1]:
        return Sigmoid(start, np.nan, middle, steepness, "ends before its middle")
    return Sigmoid(start, asymptote, middle, steepness)


def _refuse(why: str) -> Sigmoid:
    return Sigmoid(np.nan, np.nan, np.nan, np.nan, why)


@functools.lru_cache(maxsize=20_000)
def _fitted(samples: bytes, rewards: bytes) -> Sigmoid:
    """`fit_sigmoid`, 30 ms a fit: 3 seeds have 10 resamples that differ, and the ledger and the tables ask for the same curves."""
    return fit_sigmoid(np.frombuffer(samples), np.frombuffer(rewards))


def fit_asymptote(samples: Array, rewards: Array, rng: np.random.Generator) -> Estimate:
    """A of the mean over seeds, ``(seeds, times)`` each, with a 95 % bootstrap interval over seeds; nan where it is refused.

    Where more than a tenth of the resamples are refused, the interval has no upper end that the runs have seen: it is nan.
    """
    count = len(rewards)
    samples, rewards = np.asarray(samples, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    fitted = _fitted(samples.mean(0).tobytes(), rewards.mean(0).tobytes())
    if fitted.refused:
        return Estimate(np.nan, np.nan, np.nan, count)

    def fit(chosen: tuple[int, ...]) -> float:
        return _fitted(samples[list(chosen)].mean(0).tobytes(), rewards[list(chosen)].mean(0).tobytes()).asymptote

    draws = np.array(
        [fit(tuple(sorted(rng.integers(count, size=count).tolist()))) for _ in range(_RESAMPLES if count > 1 else 0)]
    )
    good = draws[np.isfinite(draws)]
    if not len(good) or len(good) < (1.0 - _REFUSED) * len(draws):
        return Estimate(fitted.asymptote, np.nan, np.nan, count)
    low, high = np.quantile(good, (0.025, 0.975))
    return Estimate(fitted.asymptote, float(low), float(high), count)


def running_maximum(curves: Curves) -> Curves:
    """The same run with the best reward so far in place of the reward, as a run is reported whose best checkpoint is kept."""
    best = np.maximum.accumulate(curves["reward"], axis=1)
    return Curves(curves.name, curves.samples, {**curves.columns, "reward": best})
