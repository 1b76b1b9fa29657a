"""Statements of sections 18.2 and 18.3: the estimators of KL(q || p) as gradients, and where they hold a policy."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.kl_estimators import (
    k3_loss_bounds,
    k3_loss_log_odds,
    k3_loss_policy,
    k3_reward_drift_bounds,
)
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.kl_estimators import sample_pairs
from fstsim.theory.statements.leash_loss import binary_choices, binary_tree, sample_tree
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
_TEST = "tests/theory/test_kl_estimators.py"
_SOURCE = "own derivation; the estimators are those of J. Schulman, Approximating KL divergence (2020)"
_STEP = 1e-30  # of the complex step: a derivative without a difference
_ROUNDS = 20


# --- gradients --------------------------------------------------------------------------------------------------------


def _sample_weighted(rng: np.random.Generator, n: int) -> Sample:
    """Any sum of the three, with weights of any sign: what is claimed is linear."""
    weights = log_uniform(rng, 0.1, 10.0, (n, 3)) * rng.choice([-1.0, 1.0], (n, 3))
    return {**sample_pairs(rng, n), "weights": weights}


def _reverse(policy: Array, base: Array) -> Array:
    """Gradient of KL(q || p) in the logits of q."""
    gap = np.log(policy) - np.log(base)
    return policy * (gap - (policy * gap).sum(axis=-1, keepdims=True))


def _forward(policy: Array, base: Array) -> Array:
    """Gradient of KL(p || q)."""
    return policy - base


def _half_square(policy: Array, base: Array) -> Array:
    """Gradient of ``E_q u^2 / 2``."""
    gap = np.log(policy) - np.log(base)
    value = 0.5 * gap * gap + gap
    return policy * (value - (policy * value).sum(axis=-1, keepdims=True))


def _claimed(kind: str, policy: Array, base: Array, weights: Array) -> Array:
    reverse, forward, square = _reverse(policy, base), _forward(policy, base), _half_square(policy, base)
    parts = {
        "loss": (np.zeros_like(reverse), reverse, forward),
        "ratio": (reverse, square, reverse),
        "reward": (reverse, square - reverse, reverse - forward),
    }[kind]
    return sum((weights[:, [i]] * part for i, part in enumerate(parts)), np.zeros_like(reverse))


def _slope(kind: str, policy: Array, base: Array, weights: Array) -> Array:
    """Derivative of what is differentiated, every sample in turn, along the direction that is claimed to be its gradient."""
    claimed = _claimed(kind, policy, base, weights)
    direction = claimed / np.sqrt((claimed**2).sum(axis=-1, keepdims=True))
    moved = np.log(policy) + 1j * _STEP * direction
    log_q = moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True))

    def estimators(log_policy: Complex | Array) -> list[Complex | Array]:
        u = np.log(base) - log_policy
        return [-u, 0.5 * u * u, np.exp(u) - 1.0 - u]

    drawn = policy if kind == "loss" else np.exp(log_q)
    values = estimators(np.log(policy)) if kind == "reward" else estimators(log_q)
    total = sum((weights[:, [i]] * k for i, k in enumerate(values)), np.zeros_like(log_q))
    slope: Array = (drawn * total).sum(axis=-1).imag / _STEP
    return slope


def _length(kind: str, policy: Array, base: Array, weights: Array) -> Array:
    claimed = _claimed(kind, policy, base, weights)
    length: Array = np.sqrt((claimed**2).sum(axis=-1))
    return length


def _derive_gradients(kind: str) -> Derivation:
    x, x0 = sp.symbols("x x_0", real=True)
    # two outcomes: their log-probabilities under q and under p
    outcomes = [(-sp.log(1 + sp.exp(-s * x)), -sp.log(1 + sp.exp(-s * x0))) for s in (1, -1)]

    def estimators(log_q: sp.Expr, log_p: sp.Expr) -> tuple[sp.Expr, ...]:
        u = log_p - log_q
        return -u, u**2 / 2, sp.exp(log_p) / sp.exp(log_q) - 1 - u

    def total(i: int) -> sp.Expr:
        parts = [(sp.exp(b), estimators(b, c)[i]) for b, c in outcomes]
        if kind == "loss":
            return sum(q * sp.diff(k, x) for q, k in parts)
        return sum(sp.diff(q * k, x) if kind == "ratio" else sp.diff(q, x) * k for q, k in parts)

    reverse = sp.diff(sum(sp.exp(b) * (b - c) for b, c in outcomes), x)
    forward = sp.diff(sum(sp.exp(c) * (c - b) for b, c in outcomes), x)
    square = sp.diff(sum(sp.exp(b) * (c - b) ** 2 / 2 for b, c in outcomes), x)
    claims = {
        "loss": (sp.Integer(0), reverse, forward),
        "ratio": (reverse, square, reverse),
        "reward": (reverse, square - reverse, reverse - forward),
    }[kind]
    return symbolic(
        ("for two outcomes in their log-odds; for any number by the score, E_q[d log q] = 0",),
        [total(i) - claim for i, claim in enumerate(claims)],
    )


LOSS = Statement(
    slug="kl-estimators-loss",
    title="Differentiated along samples that are held, k1 has no gradient, k2 that of KL(q || p) and k3 that of KL(p || q)",
    status="T",
    kind="identity",
    hypotheses="samples of q drawn and held, logits of q differentiated; p fixed, the same support; no importance ratio",
    latex=r"E_q\nabla k_1=0,\qquad E_q\nabla k_2=\nabla\mathrm{KL}(q\Vert p),\qquad E_q\nabla k_3=\nabla\mathrm{KL}(p\Vert q)",
    derive=lambda: _derive_gradients("loss"),
    sample=_sample_weighted,
    exact=lambda policy, base, weights: _slope("loss", policy, base, weights),
    bound=lambda policy, base, weights: same(_length("loss", policy, base, weights)),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)

RATIO = Statement(
    slug="kl-estimators-ratio",
    title="Multiplied by the importance ratio, k1 and k3 have the gradient of KL(q || p), and k2 that of its own mean",
    status="T",
    kind="identity",
    hypotheses="as kl-estimators-loss, each sample times rho = q / q_held, of value 1",
    latex=r"E_q\nabla(\rho k_1)=E_q\nabla(\rho k_3)=\nabla\mathrm{KL}(q\Vert p),\qquad E_q\nabla(\rho k_2)=\nabla E_q\tfrac{u^2}2",
    derive=lambda: _derive_gradients("ratio"),
    sample=_sample_weighted,
    exact=lambda policy, base, weights: _slope("ratio", policy, base, weights),
    bound=lambda policy, base, weights: same(_length("ratio", policy, base, weights)),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)

REWARD = Statement(
    slug="kl-estimators-reward",
    title="Inside the reward k1 alone has the gradient of KL(q || p); k3 has that of KL(q || p) - KL(p || q)",
    status="T",
    kind="identity",
    hypotheses="a penalty k(y) of a sequence, not differentiated, beside the reward in a policy gradient",
    latex=r"E_q[k_1\nabla\log q]=\nabla\mathrm{KL}(q\Vert p),\qquad E_q[k_3\nabla\log q]=\nabla\big[\mathrm{KL}(q\Vert p)-\mathrm{KL}(p\Vert q)\big]",
    derive=lambda: _derive_gradients("reward"),
    sample=_sample_weighted,
    exact=lambda policy, base, weights: _slope("reward", policy, base, weights),
    bound=lambda policy, base, weights: same(_length("reward", policy, base, weights)),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)


# --- rests ------------------------------------------------------------------------------------------------------------


def _climb(base: Array, reward: Array, tau: Array) -> Array:
    r"""The policy to which ascent leads when k3 along sampled tokens is the leash, its samples held.

    Per prefix h and in its log-odds x the gradient is ``q(h) [q_h (1 - q_h) (E(r | h, 1) - E(r | h, 0)) - tau (q_h - p_h)]``;
    steps are Newton's in x alone, at most 2.
    """
    given = binary_choices(base)
    at = [x.copy() for x in given]
    for _ in range(_ROUNDS):
        q = binary_tree(at)
        won, moved = q * reward, []
        for t, (x, x0) in enumerate(zip(at, given, strict=True)):
            mass = q.reshape(len(q), 2**t, 2, -1).sum(axis=-1)
            mean = won.reshape(len(q), 2**t, 2, -1).sum(axis=-1) / mass
            p = expit(x0)
            pull = (1.0 - p) * (1.0 + np.exp(x)) - p * (1.0 + np.exp(-x))  # (q - p) / (q (1 - q))
            stiff = (1.0 - p) * np.exp(x) + p * np.exp(-x)
            step = ((mean[..., 1] - mean[..., 0]) / tau[:, None] - pull) / stiff
            moved.append(x + np.clip(step, -2.0, 2.0))
        at = moved
    return binary_tree(at)


def _derive_rest() -> Derivation:
    x, p, high, low, tau = sp.symbols("x p Q_1 Q_0 tau", positive=True)
    q = 1 / (1 + sp.exp(-x))
    forward = p * sp.log(p / q) + (1 - p) * sp.log((1 - p) / (1 - q))
    slope = sp.diff(q * high + (1 - q) * low - tau * forward, x)
    return symbolic(
        ("d/dx [q Q_1 + (1 - q) Q_0 - tau KL(p || q)] = q (1 - q) (Q_1 - Q_0) - tau (q - p)",),
        [slope - q * (1 - q) * (high - low) + tau * (q - p)],
    )


REST = Statement(
    slug="kl-estimators-rest",
    title="A leash of k3 as a loss holds each token at tau p / (tau + V - V of the token), no exponential tilt",
    status="T",
    kind="identity",
    hypotheses="k3 along sampled tokens as a loss, samples held; any finite tree of tokens and rewards (k2: leash-loss-prefix)",
    latex=r"q_t(a)=\frac{\tau\,p_t(a)}{\tau+V_t-V_{t+1}(a)},\qquad V_t=E_{q_t}V_{t+1},\quad V_L=r",
    derive=_derive_rest,
    sample=sample_tree,
    exact=lambda base, reward, tau: _climb(base, reward, tau)[:, -1],
    bound=lambda base, reward, tau: same(k3_loss_policy(base, reward, tau)[:, -1]),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)


def _derive_answer() -> Derivation:
    p, y, tau = sp.symbols("p y tau", positive=True)  # y the odds of the answer at rest
    q = y / (1 + y)
    slope = (1 - p) * (1 + y) - p * (1 + 1 / y)
    return symbolic(
        (
            "(q - p) / (q (1 - q)) = (1 - p) (1 + y) - p (1 + 1 / y), y = q / (1 - q): quadratic in y",
            "at rest 1 - q = tau (1 - p / q), and q - p = q (1 - q) / tau <= 1 / (4 tau)",
        ),
        [
            (q - p) / (q * (1 - q)) - slope,
            sp.Rational(1, 4) - q * (1 - q) - (q - sp.Rational(1, 2)) ** 2,
            (1 - q - tau * (1 - p / q)) * q - (q * (1 - q) - tau * (q - p)),
        ],
    )


ANSWER = Statement(
    slug="kl-estimators-answer",
    title="Under k3 as a loss one right answer rests at 1 - tau or more however rare it was, and keeps tau (1 - p / q) of failures",
    status="T",
    kind="bound",
    hypotheses="one decision, reward 1 for one answer of base mass p, 0 for all others; l the lower bound",
    latex=r"\max\{p,\,1-\tau(1-p)\}=:l\le q=\sigma\Big(\tfrac{x_0}2+\mathrm{arsinh}\frac{\frac1\tau-1+2p}{2\sqrt{p(1-p)}}\Big)\le\min\big\{p+\tfrac1{4\tau},\ 1-\tau(1-\tfrac pl)\big\}",
    derive=_derive_answer,
    sample=lambda rng, n: {"base_mass": expit(rng.uniform(-9.0, 4.0, n)), "tau": log_uniform(rng, 0.02, 20.0, n)},
    exact=lambda base_mass, tau: expit(k3_loss_log_odds(np.log(base_mass) - np.log1p(-base_mass), 1.0 / tau)),
    bound=k3_loss_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _sample_run(rng: np.random.Generator, n: int) -> Sample:
    """Base and policy on the same side of one half, often near each other or at its edge."""
    side = rng.choice([-1.0, 1.0], n)
    base = np.where(rng.random(n) < 0.2, log_uniform(rng, 1e-2, 0.3, n), rng.uniform(0.05, 6.0, n))
    gap = log_uniform(rng, 0.03, 5.0, n) * rng.choice([-1.0, 1.0], n)
    policy = np.where(base + gap > 0.0, base + gap, base + np.abs(gap))
    return {"base_log_odds": side * base, "log_odds": side * policy}


def _run(base_log_odds: Array, log_odds: Array) -> Array:
    """``E_q[k3 d log q / dx]``, both outcomes in turn, in extended precision; its sign where the sure decision is at 0."""
    x0, x = (np.asarray(v, dtype=np.longdouble) for v in (base_log_odds, log_odds))
    q, p = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-x0))
    other_q, other_p = 1 / (1 + np.exp(x)), 1 / (1 + np.exp(x0))
    u, v = np.log(p / q), np.log(other_p / other_q)
    slope = q * other_q * ((np.expm1(u) - u) - (np.expm1(v) - v))
    return np.asarray(-np.sign(x0) * slope, dtype=np.float64)


def _run_bounds(base_log_odds: Array, log_odds: Array) -> Bounds:
    return k3_reward_drift_bounds(-np.abs(base_log_odds), -np.abs(log_odds))


def _derive_run() -> Derivation:
    y, x0 = sp.symbols("y x_0", real=True)
    s = 1 / (1 + sp.exp(-y))
    p = 1 / (1 + sp.exp(-x0))
    slope = sp.diff(s, y) * (y - x0) - (s - p)
    return symbolic(
        (
            "d/dy [sigma'(y) (y - x0) - (sigma(y) - p)] = (y - x0) sigma'(y) (1 - 2 sigma(y))",
            "int_x0^x (y - x0) sigma'(y) dy = KL(q || p): a mean of 1 - 2 sigma between x0 and x remains",
        ),
        [
            sp.diff(slope, y) - (y - x0) * sp.diff(s, y) * (1 - 2 * s),
            sp.diff(s * (y - x0) - sp.log(1 + sp.exp(y)), y) - (y - x0) * sp.diff(s, y),
        ],
    )


RUN = Statement(
    slug="kl-estimators-reward-run",
    title="k3 inside the reward pulls one decision to the nearer sure one, from both sides of the base: it is no leash",
    status="T",
    kind="bound",
    hypotheses="one decision, no other reward, strength 1; p and q on the same side of 1/2, here below (above, by symmetry)",
    latex=r"(1-2\max\{p,q\})\,\mathrm{KL}(q\Vert p)\le-\dot x=q(1-q)(x-x_0)-(q-p)\le(1-2\min\{p,q\})\,\mathrm{KL}(q\Vert p)",
    derive=_derive_run,
    sample=_sample_run,
    exact=_run,
    bound=_run_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)

STATEMENTS = (LOSS, RATIO, REWARD, REST, ANSWER, RUN)
