"""Statements of section 7.1: batches without a signal, old samples along the path, recovery of a rare old mode."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, gammaln, logit, xlogy

from fstsim.theory.forward_kl import mass_forgetting_separated
from fstsim.theory.starvation import recovery_time_bounds, zero_signal_probability
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_replay.py"
_MOST = 32  # largest batch whose outcomes are enumerated


def batch_outcomes(old_share: Array, batch: Array) -> tuple[Array, Array]:
    """Number of old samples ``k (1, K)`` and its probability ``(n, K)`` in batches of N samples, ``P(old) = old_share``."""
    k = np.arange(_MOST + 1.0)[None, :]
    n, p = batch[:, None], old_share[:, None]
    rest = np.maximum(n - k, 0.0)
    log_p = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(rest + 1.0) + xlogy(k, p) + xlogy(rest, 1.0 - p)
    return k, np.where(k <= n, np.exp(log_p), 0.0)


def sample_batches(rng: np.random.Generator, n: int) -> Sample:
    """Old masses and batch sizes, half of them without replay."""
    return {
        "beta": expit(sometimes(rng, rng.uniform(-200.0, 4.0, n), rng.uniform(-7.0, 4.0, n))),
        "replay_fraction": rng.choice([0.0, 1.0], n) * rng.uniform(0.01, 0.7, n),
        "batch_size": np.floor(rng.uniform(2.0, _MOST + 1.0, n)),
    }


def share_of_old(beta: Array, replay_fraction: Array) -> Array:
    """``P(old)`` of one sample: replayed old data with probability ``replay_fraction``, else on-policy."""
    return replay_fraction + (1.0 - replay_fraction) * beta


def _derive_starvation() -> Derivation:
    b, lam = sp.symbols("beta lambda", positive=True)
    return symbolic(
        ("1 - b_o = (1 - lambda)(1 - beta) for b_o = lambda + (1 - lambda) beta",),
        [1 - (lam + (1 - lam) * b) - (1 - lam) * (1 - b)],
    )


def _dead_batches(beta: Array, replay_fraction: Array, batch_size: Array) -> Array:
    k, p = batch_outcomes(share_of_old(beta, replay_fraction), batch_size)
    return np.where(k * (batch_size[:, None] - k) == 0.0, p, 0.0).sum(axis=-1)


def _dead_law(beta: Array, replay_fraction: Array, batch_size: Array) -> Bounds:
    value = zero_signal_probability(beta, batch_size, replay_fraction)
    return value, value


STARVATION = Statement(
    slug="replay-reverse-starvation",
    title="A batch without samples of both modes says nothing; replay makes it rare",
    status="T",
    kind="identity",
    hypotheses="N samples, no overlap, centred estimator; replay share lambda",
    latex=r"P(\text{no old sample})=[(1-\lambda)(1-\beta)]^N,\qquad P(\text{no signal})=(1-b_o)^N+b_o^N",
    derive=_derive_starvation,
    sample=sample_batches,
    exact=_dead_batches,
    bound=_dead_law,
    test=_TEST,
    tolerance=1e-9,
)


def _sample_path(rng: np.random.Generator, n: int) -> Sample:
    return {
        "beta0": rng.uniform(0.02, 0.9, n),
        "lr": rng.uniform(0.02, 1.0, n),
        "steps": np.floor(log_uniform(rng, 2.0, 400.0, n)),
    }


def _old_samples(beta0: Array, lr: Array, steps: Array) -> Array:
    """``sum_{k < steps} beta_k`` along gradient descent on new data: old samples seen for each sample drawn a step."""
    s = logit(beta0)
    total = np.zeros(s.shape)
    for k in range(int(steps.max())):
        on = k < steps
        beta = expit(s)
        total = np.where(on, total + beta, total)
        s = np.where(on, s - lr * beta, s)
    return total


def _old_samples_bounds(beta0: Array, lr: Array, steps: Array) -> Bounds:
    s0 = logit(beta0)
    done, before = (logit(mass_forgetting_separated(beta0, lr * t)) for t in (steps, steps - 1.0))
    return (s0 - done) / lr, beta0 + (s0 - before) / lr


def _derive_old_samples() -> Derivation:
    s0, h, b0, b1, b2 = sp.symbols("s0 h beta_0 beta_1 beta_2", real=True)
    s3 = s0 - h * b0 - h * b1 - h * b2
    return symbolic(
        ("s_{k+1} = s_k - h beta_k telescopes: h sum beta_k = s_0 - s_K, which grows like log K without bound",),
        [h * (b0 + b1 + b2) - (s0 - s3)],
    )


OLD_SAMPLES = Statement(
    slug="replay-reverse-old-samples",
    title="Old samples keep coming while the mass decays like 1/t, and stop for ever when it decays exponentially",
    status="T",
    kind="bound",
    hypotheses="on-policy samples along logit gradient descent on new data, no overlap, 0 < h <= 1; beta_W of 1.3",
    latex=r"\frac{s_0-s_W(hK)}h\le\sum_{k<K}\beta_k\le\beta_0+\frac{s_0-s_W(h(K-1))}h\ \to\infty;\qquad"
    r"\beta_k=\beta_0e^{-ck}:\ \sum_k\beta_k<\infty\ \text{(Borel-Cantelli)}",
    derive=_derive_old_samples,
    sample=_sample_path,
    exact=_old_samples,
    bound=_old_samples_bounds,
    test=_TEST,
)


def _derive_recovery() -> Derivation:
    b, h, gap, n = sp.symbols("beta h gap N", positive=True)
    f = b * (1 - b) * gap
    claims, differences = [], []
    for size in (2, 3):
        moves = {sp.Rational(k, size) for k in range(1, size)}
        jump = {sp.Rational(size, size - 1) * x * (1 - x) * h * gap for x in moves}
        chance = 1 - b**size - (1 - b) ** size
        claims.append(f"N = {size}: every informative batch moves s by h gap / N, with probability N beta (1 - beta)")
        differences += [move - h * gap / size for move in jump] + [chance - size * b * (1 - b)]
    claims.append("so that the wait 1 / (N beta (1 - beta)) is the jump over h f(s)")
    return symbolic(claims, [*differences, 1 / (n * b * (1 - b)) - (h * gap / n) / (h * f)])


def _sample_recovery(rng: np.random.Generator, n: int) -> Sample:
    s1 = sometimes(rng, rng.uniform(-60.0, -4.0, n), rng.uniform(-4.0, -1.0, n))
    room = 1.0 / (1.0 - 2.0 * expit(s1))  # the least distance of the target from the level
    start = sometimes(rng, log_uniform(rng, 1e-6, 0.3, n), rng.uniform(0.3, 6.0, n))
    goal = sometimes(
        rng, s1 + 1.1 * room + rng.uniform(0.0, 1.0, n) * (34.0 - s1), s1 + room * rng.uniform(1.0, 3.0, n)
    )
    return {
        "beta0": expit(s1 - start),
        "beta1": expit(s1),
        "alpha": expit(np.minimum(goal, 36.0)),  # up to the last mass below 1
        "lr": log_uniform(rng, 0.05, 1.0, n),
        "batch_size": rng.integers(2, 4, n).astype(np.float64),
    }


def _exact_recovery(beta0: Array, beta1: Array, alpha: Array, lr: Array, batch_size: Array) -> Array:
    """Expected steps: the jumps are the same in every run, and the wait for each is geometric."""
    s, s_a = logit(beta0), logit(alpha)
    total, on = np.zeros(s.shape), np.ones(s.shape, dtype=bool)
    while on.any():
        total = total + np.where(on, 1.0 / (batch_size * expit(s) * expit(-s)), 0.0)
        s = np.where(on, s + lr / batch_size * (s_a - s), s)
        on &= s < logit(beta1)
    return total


RECOVERY = Statement(
    slug="replay-reverse-recovery",
    title="Starvation costs at most one wait: expected recovery time of reverse KL from a rare old mode",
    status="T",
    kind="bound",
    hypotheses="no overlap, leave-one-out baseline, batch N in {2, 3} (lower bound: any N), h <= 1, "
    "(1 - 2 beta_1)(s_alpha - s_1) >= 1; T the flow time",
    latex=r"\frac{T(\beta_0\to\beta_1)}h\le\mathbb E[\text{steps}]\le\frac{T(\beta_0\to\beta_1)}h+\frac1{N\beta_0(1-\beta_0)}",
    derive=_derive_recovery,
    sample=_sample_recovery,
    exact=_exact_recovery,
    bound=recovery_time_bounds,
    test=_TEST,
    tolerance=1e-8,
)

STATEMENTS = (STARVATION, OLD_SAMPLES, RECOVERY)
