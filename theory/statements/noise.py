"""Statements of section 14: the variance of batch gradients, baselines, and the band of a noisy run."""

from __future__ import annotations

from itertools import product

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.divergences import reverse_kl_gradient
from fstsim.overlap import weight_fisher_information
from fstsim.theory.noise import (
    forward_variance_bound,
    leave_one_out_variance,
    linear_noise_band,
    responsibility_variance,
)
from fstsim.theory.numerics.collinear import Moments, policy_average, right_components, score_moments
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_noise.py"

# --- forward KL ----------------------------------------------------------------------------------------------------------


def _derive_forward() -> Derivation:
    b, f, g, r, y = sp.symbols("beta f g r y", positive=True)
    q = b * f + (1 - b) * g
    slack = b**2 * (1 - b) * (f - g) ** 2 / q - g * (b * f / q - b) ** 2
    return symbolic(
        (
            "beta^2 (1 - beta)(f - g)^2 / q - g (r_o - beta)^2 = beta^3 (1 - beta) f (f - g)^2 / q^2 >= 0",
            "y (1 - y) - (r - y)^2 = r (1 - r) + (1 - 2 y)(y - r): Bhatia-Davis, the last term has mean zero",
        ),
        [
            slack - b**3 * (1 - b) * f * (f - g) ** 2 / q**2,
            y * (1 - y) - (r - y) ** 2 - r * (1 - r) - (1 - 2 * y) * (y - r),
        ],
    )


def _sample_forward(rng: np.random.Generator, n: int) -> Sample:
    delta = sometimes(rng, log_uniform(rng, 1e-3, 25.0, n), log_uniform(rng, 0.3, 10.0, n))
    s = rng.uniform(-8.0, 4.0 + 0.6 * delta**2, n)
    return {"log_odds": sometimes(rng, rng.uniform(-200.0, 200.0, n), s), "delta": delta}


def _forward_variance(log_odds: Array, delta: Array) -> Array:
    return responsibility_variance(np.ones(1), (log_odds - 0.5 * delta**2)[:, None], delta)


FORWARD = Statement(
    slug="finite-batch-noise",
    title="Noise of the forward weight gradient: bounded by the drift, and gated by overlap",
    status="T",
    kind="bound",
    hypotheses="new data only, components right; per sample",
    latex=r"N\,\mathrm{Var}(\hat g_s)\le\min\{x(1-x),\,y(1-y)\},\qquad x=\beta(1-\kappa)=|\dot s|,\quad y=\beta\kappa=\mathbb E_n[r_o]",
    derive=_derive_forward,
    sample=_sample_forward,
    exact=_forward_variance,
    bound=lambda log_odds, delta: (None, forward_variance_bound(log_odds, delta)),
    test=_TEST,
)


# --- baselines of the score-function estimate ----------------------------------------------------------------------------


def _derive_baseline() -> Derivation:
    a, n, b, beta = sp.symbols("A_o A_n B beta", real=True)
    # two outcomes of psi (A - B) with probabilities beta, 1 - beta
    first, second = (1 - beta) * (a - b), -beta * (n - b)
    mean = beta * first + (1 - beta) * second
    variance = beta * first**2 + (1 - beta) * second**2 - mean**2
    law = beta * (1 - beta) * ((1 - beta) * a + beta * n - b) ** 2
    m22, m12, m02, g = sp.symbols("m22 m12 m02 g", real=True)
    best = m12 / m02
    return symbolic(
        (
            "Var(B) = Var(B*) + (B - B*)^2 E psi^2 with B* = E[psi^2 A] / E[psi^2]",
            "two modes without overlap: beta (1 - beta) ((1 - beta) A_o + beta A_n - B)^2",
            "so the swapped mean (1 - beta) A_o + beta A_n leaves no variance",
            "and the mean beta A_o + (1 - beta) A_n leaves beta (1 - beta)(1 - 2 beta)^2 (A_o - A_n)^2",
        ),
        [
            m22 - 2 * b * m12 + b**2 * m02 - g**2 - (m22 - m12**2 / m02 - g**2) - (b - best) ** 2 * m02,
            variance - law,
            law.subs(b, (1 - beta) * a + beta * n),
            law.subs(b, beta * a + (1 - beta) * n) - beta * (1 - beta) * (1 - 2 * beta) ** 2 * (a - n) ** 2,
        ],
    )


def _sample_baseline(rng: np.random.Generator, n: int) -> Sample:
    s = rng.uniform(-5.0, 5.0, n)
    return {
        "log_odds": s,
        "target_log_odds": s + rng.choice([-1.0, 1.0], n) * log_uniform(rng, 0.1, 6.0, n),
        "delta": log_uniform(rng, 0.7, 9.0, n),
        "constant": rng.uniform(-6.0, 6.0, n),
    }


def _variance_at(log_odds: Array, target_log_odds: Array, delta: Array, constant: Array) -> Array:
    """Variance of ``(A - B) psi`` at the constant baseline B: second moment by quadrature, mean by the exact gradient."""
    line = right_components(log_odds, target_log_odds, delta)
    square = policy_average(
        line, np.zeros(delta.size), lambda d, rows: (((d.reward - constant[rows, None]) * d.score) ** 2)[None]
    )
    zero, new = np.zeros((delta.size, 1)), delta[:, None]
    return square[0] - reverse_kl_gradient(log_odds, zero, new, target_log_odds, zero, new)[0] ** 2


def _around_best(log_odds: Array, target_log_odds: Array, delta: Array, constant: Array) -> Bounds:
    moments = score_moments(right_components(log_odds, target_log_odds, delta), np.zeros(delta.size))
    best = moments.mean + moments.m[1, 2] / moments.m[0, 2]
    least = moments.m[2, 2] - moments.m[1, 2] ** 2 / moments.m[0, 2] - moments.gain**2
    beta = expit(log_odds)
    value = least + (constant - best) ** 2 * (beta * (1.0 - beta)) ** 2 * weight_fisher_information(log_odds, delta)
    return value, value


BASELINE = Statement(
    slug="finite-batch-noise-baseline",
    title="The best constant baseline is the swapped mean; the usual mean can be worse than none",
    status="T",
    kind="identity",
    hypotheses="components right, any constant baseline B; per sample",
    latex=r"N\,\mathrm{Var}(B)=N\,\mathrm{Var}(B^*)+(B-B^*)^2\beta^2(1-\beta)^2\mathcal D,\qquad "
    r"B^*=\tfrac{\mathbb E[\psi^2A]}{\mathbb E[\psi^2]}\to(1-\beta)A_o+\beta A_n",
    derive=_derive_baseline,
    sample=_sample_baseline,
    exact=_variance_at,
    bound=_around_best,
    test=_TEST,
    tolerance=1e-7,
)

_ATOMS = 3


def _derive_leave_one_out() -> Derivation:
    m22, m20, m02, g = sp.symbols("m22 m20 m02 g", real=True)
    n = sp.symbols("N", positive=True)
    one = (m22 + 2 * g * g + g**2) / 4 - g**2
    two = (m22 + m20 * m02) / 2 + g**2 - g**2
    hoeffding = (4 * (n - 2) * one + 2 * two) / (n * (n - 1))
    a, b, p, q = sp.symbols("A A' psi psi'", real=True)
    return symbolic(
        (
            "the kernel (A - A')(psi - psi') / 2 is the symmetric part of (A - A') psi",
            "without weights Hoeffding's variance is Var_mean + (Var A Var psi + g^2) / (N (N - 1))",
        ),
        [
            (a - b) * (p - q) / 2 - ((a - b) * p + (b - a) * q) / 2,
            hoeffding - (m22 - g**2) / n - (m20 * m02 + g**2) / (n * (n - 1)),
        ],
    )


def _sample_discrete(rng: np.random.Generator, n: int) -> Sample:
    """A replayed batch whose samples take three values: probabilities under b and under q, reward, score of mean zero."""
    sampled, policy = (rng.dirichlet(np.ones(_ATOMS), n) + 0.02 for _ in range(2))
    sampled, policy = (p / p.sum(axis=-1, keepdims=True) for p in (sampled, policy))
    plain = rng.random(n) < 0.5
    policy = np.where(plain[:, None], sampled, policy)
    score = rng.standard_normal((n, _ATOMS))
    score = score - (policy * score).sum(axis=-1, keepdims=True)
    return {
        "sampled": sampled,
        "policy": policy,
        "reward": rng.normal(0.0, 2.0, (n, _ATOMS)) + rng.normal(0.0, 3.0, (n, 1)),
        "score": score,
        "batch_size": rng.integers(2, 5, n).astype(np.float64),
    }


def _enumerated(sampled: Array, policy: Array, reward: Array, score: Array, batch_size: Array) -> Array:
    """Variance of the pairwise estimate over all outcomes of the batch."""
    weight = policy / sampled
    out = np.empty(batch_size.size)
    for n in range(2, 5):
        i = batch_size == n
        first, second = np.zeros(i.sum()), np.zeros(i.sum())
        for outcome in product(range(_ATOMS), repeat=n):
            o = list(outcome)
            w, a, psi = weight[i][:, o], reward[i][:, o], score[i][:, o]
            pair = w[:, :, None] * w[:, None, :] * (a[:, :, None] - a[:, None, :]) * psi[:, :, None]
            estimate = pair.sum(axis=(1, 2)) / (n * (n - 1))
            chance = sampled[i][:, o].prod(axis=1)
            first, second = first + chance * estimate, second + chance * estimate**2
        out[i] = second - first**2
    return out


def _hoeffding(sampled: Array, policy: Array, reward: Array, score: Array, batch_size: Array) -> Bounds:
    mean = (policy * reward).sum(axis=-1)
    centred, weighted = reward - mean[:, None], policy**2 / sampled
    m = np.stack([np.stack([(weighted * centred**j * score**k).sum(axis=-1) for k in range(3)]) for j in range(3)])
    value = leave_one_out_variance(Moments(mean, (policy * centred * score).sum(axis=-1), m), batch_size)
    return value, value


LEAVE_ONE_OUT = Statement(
    slug="finite-batch-noise-leave-one-out",
    title="Exact variance of the leave-one-out estimate, for any distribution and any importance weights",
    status="T",
    kind="identity",
    hypotheses="N >= 2 independent samples of b, weights w = q / b, E_q psi = 0; g = E_q[A psi]",
    latex=r"\mathrm{Var}=\frac{4(N-2)\zeta_1+2\zeta_2}{N(N-1)};\quad\varpi\equiv1:\ "
    r"\mathrm{Var}=\frac{\mathrm{Var}((A-\bar A)\psi)}N+\frac{\mathrm{Var}(A)\mathrm{Var}(\psi)+g^2}{N(N-1)}",
    derive=_derive_leave_one_out,
    sample=_sample_discrete,
    exact=_enumerated,
    bound=_hoeffding,
    test=_TEST,
    tolerance=1e-7,  # second moment less squared mean
)

# --- the band of a run (14.2) --------------------------------------------------------------------------------------------

_STEPS, _BATCH = 6, 2


def _sample_band(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-3.0, 3.0, n),
        "replay_fraction": rng.uniform(0.05, 0.95, n),
        "lr": log_uniform(rng, 0.02, 0.5, n),
    }


def _path_deviation(log_odds: Array, replay_fraction: Array, lr: Array) -> Array:
    """Standard deviation after six steps of ``s += lr (k/2 - sigmoid(s))``, ``k ~ Bin(2, lambda)``, over all 729 paths."""
    s, chance = log_odds[:, None], np.ones((log_odds.size, 1))
    lam = replay_fraction[:, None]
    outcomes = ((0.0, (1.0 - lam) ** 2), (0.5, 2.0 * lam * (1.0 - lam)), (1.0, lam**2))
    for _ in range(_STEPS):
        moved = [s + lr[:, None] * (share - expit(s)) for share, _ in outcomes]
        chance = np.concatenate([chance * p for _, p in outcomes], axis=-1)
        s = np.concatenate(moved, axis=-1)
    mean = (chance * s).sum(axis=-1, keepdims=True)
    return np.sqrt((chance * (s - mean) ** 2).sum(axis=-1))


def _band(log_odds: Array, replay_fraction: Array, lr: Array) -> Bounds:
    value = np.empty(log_odds.size)
    for i, (s0, share, h) in enumerate(zip(log_odds, replay_fraction, lr, strict=True)):
        noise = float(share * (1.0 - share))

        def drift(s: float, share: float = share) -> float:
            return share - float(expit(s))

        def variance(_: float, noise: float = noise) -> float:
            return noise

        band = linear_noise_band(drift, variance, float(s0), float(h), _BATCH, _STEPS)
        value[i] = np.sqrt(band.variance[-1])
    return value, value


BAND = Statement(
    slug="finite-batch-noise-band",
    title="Linear-noise band of a stochastic run around the noiseless Euler iterates",
    status="A",
    kind="approximation",
    hypotheses="small noise; here forward KL with replay, no overlap, batches of 2, six steps, every path enumerated",
    latex=r"V_{k+1}=(1+hf')^2V_k+\tfrac{h^2\nu}N,\quad b_{k+1}=(1+hf')b_k+\tfrac h2f''V_k,\quad|s_k-\bar s_k-b_k|\le z\sqrt{V_k}",
    derive=lambda: nothing("second-order expansion of the drift around the Euler iterate"),
    sample=_sample_band,
    exact=_path_deviation,
    bound=_band,
    test=_TEST,
    max_examples=20_000,
)

STATEMENTS = (FORWARD, BASELINE, LEAVE_ONE_OUT, BAND)
