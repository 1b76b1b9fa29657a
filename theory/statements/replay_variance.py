"""Statements of section 7.2, does replay reduce the noise: variance, with overlap, where it harms, leave-one-out."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit

from fstsim.theory.noise import separated_gradient_variance
from fstsim.theory.starvation import replay_gradient_variance, replay_harm_threshold
from fstsim.theory.statements.instances import sometimes
from fstsim.theory.statements.replay_importance import sample_states
from fstsim.theory.statements.starvation import batch_outcomes, sample_batches, share_of_old
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_replay.py"


def _derive_variance() -> Derivation:
    b, o, a = sp.symbols("beta b_o A", positive=True)
    direct = (b * (1 - b) * a) ** 2 * ((1 - b) ** 2 / o + b**2 / (1 - o) - 1)
    closed = (b * (1 - b) * a) ** 2 * (1 - b - o) ** 2 / (o * (1 - o))
    on_policy = a**2 * b * (1 - b) * (1 - 2 * b) ** 2
    limit = (1 - b) ** 3 / ((1 - b) ** 3 + b**3)
    lam = sp.symbols("lambda", positive=True)
    gain = sp.limit(closed.subs(o, lam + (1 - lam) * b) / on_policy / b, b, 0)
    return symbolic(
        (
            "(1 - beta)^2 / b_o + beta^2 / (1 - b_o) - 1 = (1 - beta - b_o)^2 / (b_o (1 - b_o))",
            "b_o = beta gives the on-policy variance Delta A^2 beta (1 - beta)(1 - 2 beta)^2",
            "so does b_o = (1 - beta)^3 / ((1 - beta)^3 + beta^3), that is logit b_o = -3 logit beta",
            "for beta << lambda the ratio is beta (1/lambda - 1)",
        ),
        [direct - closed, closed.subs(o, b) - on_policy, closed.subs(o, limit) - on_policy, gain - (1 / lam - 1)],
    )


def _two_point_variance(log_odds: Array, target_log_odds: Array, replay_fraction: Array, **_: Array) -> Array:
    """Variance over the two outcomes of one replayed sample, oracle mean baseline, no overlap."""
    beta, gap = expit(log_odds), target_log_odds - log_odds
    old = share_of_old(beta, replay_fraction)
    # reward less its mean, score, weight
    z_old = (1.0 - beta) * gap * (1.0 - beta) * beta / old
    z_new = -beta * gap * -beta * (1.0 - beta) / (1.0 - old)
    mean = old * z_old + (1.0 - old) * z_new
    return old * (z_old - mean) ** 2 + (1.0 - old) * (z_new - mean) ** 2


def _separated_variance(log_odds: Array, target_log_odds: Array, replay_fraction: Array, **_: Array) -> Bounds:
    value = replay_gradient_variance(log_odds, target_log_odds, replay_fraction)
    return value, value


VARIANCE = Statement(
    slug="replay-reverse-variance",
    title="Variance of the weight gradient under replay: none at b_o = 1 - beta",
    status="T",
    kind="identity",
    hypotheses="no overlap, oracle mean baseline, per sample; Delta A = s_alpha - s",
    latex=r"\mathrm{Var}_b=[\beta(1-\beta)\Delta A]^2\frac{(1-\beta-b_o)^2}{b_o(1-b_o)},\qquad b_o=\lambda+(1-\lambda)\beta",
    derive=_derive_variance,
    sample=sample_states,
    exact=_two_point_variance,
    bound=_separated_variance,
    test=_TEST,
    tolerance=1e-7,  # near b_o = 1 - beta both are squares of small differences
)


def _sample_apart(rng: np.random.Generator, n: int) -> Sample:
    x = sample_states(rng, n)
    x["log_odds"] = rng.uniform(-5.0, -0.5, n)
    x["target_log_odds"] = x["log_odds"] + rng.uniform(0.5, 5.0, n)
    x["replay_fraction"] = rng.uniform(0.02, 0.3, n)  # away from the zero at b_o = 1 - beta
    x["delta"] = rng.uniform(7.0, 10.0, n)
    return x


VARIANCE_OVERLAP = Statement(
    slug="replay-reverse-variance-overlap",
    title="The closed form of the variance holds to leading order where the modes separate",
    status="A",
    kind="approximation",
    hypotheses="delta large; here delta in [7, 10], by quadrature",
    latex=r"\mathrm{Var}_b(\varpi f)\approx[\beta(1-\beta)\Delta A]^2\frac{(1-\beta-b_o)^2}{b_o(1-b_o)}",
    derive=lambda: nothing("overlap and the spread of the reward inside a mode are exponentially small"),
    sample=_sample_apart,
    exact=replay_gradient_variance,
    bound=_separated_variance,
    test=_TEST,
)


def _sample_harm(rng: np.random.Generator, n: int) -> Sample:
    return {"beta": expit(sometimes(rng, rng.uniform(-300.0, -6.0, n), rng.uniform(-6.0, -0.05, n)))}


def _harm_root(beta: Array) -> Array:
    """Replay share above ``b_o = 1 - beta`` at which the two-point variance is that without replay, by bisection."""
    s = logit(beta)
    plain = _two_point_variance(s, s + 1.0, np.zeros_like(beta))
    # in the logit of b_o, from the zero of the variance upward
    low, high = -s, 20.0 - 3.0 * s
    for _ in range(80):
        middle = 0.5 * (low + high)
        share = -np.expm1(log_expit(-middle) - log_expit(-s))
        above = _two_point_variance(s, s + 1.0, np.minimum(share, 1.0 - 1e-16)) > plain
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return -np.expm1(log_expit(-0.5 * (low + high)) - log_expit(-s))


def _harm(beta: Array) -> Bounds:
    value = replay_harm_threshold(beta, "mean")
    return value, value


HARM = Statement(
    slug="replay-reverse-harm",
    title="Replay raises the variance of the weight gradient exactly beyond logit b_o = -3 logit beta",
    status="T",
    kind="identity",
    hypotheses="no overlap, oracle mean baseline, beta < 1/2 (any replay hurts at beta >= 1/2)",
    latex=r"\mathrm{Var}_b>\mathrm{Var}_q\iff b_o>\frac{(1-\beta)^3}{(1-\beta)^3+\beta^3}",
    derive=_derive_variance,
    sample=_sample_harm,
    exact=_harm_root,
    bound=_harm,
    test=_TEST,
    tolerance=1e-7,
)


def _derive_leave_one_out() -> Derivation:
    o, x = sp.symbols("b_o x", positive=True)
    claims, differences = [], []
    for n in (2, 3, 4):
        chance = [sp.binomial(n, k) * o**k * (1 - o) ** (n - k) for k in range(n + 1)]
        value = [sp.Rational(n, n - 1) * sp.Rational(k, n) * (1 - sp.Rational(k, n)) for k in range(n + 1)]
        mean = sum(p * v for p, v in zip(chance, value, strict=True))
        square = sum(p * v**2 for p, v in zip(chance, value, strict=True))
        law = o * (1 - o) * ((1 - 2 * o) ** 2 / n + 2 * o * (1 - o) / (n * (n - 1)))
        claims.append(f"N = {n}: N/(N-1) x (1 - x) has mean b_o (1 - b_o) and the variance of the formula")
        differences += [mean - o * (1 - o), square - mean**2 - law]
    claims.append("(1 - 2 b)^2 / (b (1 - b)) = 4 sinh(logit(b) / 2)^2: even in logit b, increasing in its size")
    b = 1 / (1 + sp.exp(-x))
    differences.append((1 - 2 * b) ** 2 / (b * (1 - b)) - 4 * sp.sinh(x / 2) ** 2)
    return symbolic(claims, differences)


def _batch_variance(beta: Array, replay_fraction: Array, batch_size: Array) -> Array:
    """Variance of the replayed leave-one-out estimate by enumeration of the outcomes, ``Delta A = 1``."""
    old = share_of_old(beta, replay_fraction)
    k, p = batch_outcomes(old, batch_size)
    n = batch_size[:, None]
    scale = (beta * (1.0 - beta) / (old * (1.0 - old)))[:, None]  # product of the two weights
    value = scale * np.where(k <= n, k * (n - k), 0.0) / (n * (n - 1.0))
    mean = (p * value).sum(axis=-1, keepdims=True)
    return (p * (value - mean) ** 2).sum(axis=-1)


def _leave_one_out(beta: Array, replay_fraction: Array, batch_size: Array) -> Bounds:
    value = separated_gradient_variance(beta, 1.0, 0.0, batch_size, "leave-one-out", replay_fraction)
    return value, value


LEAVE_ONE_OUT = Statement(
    slug="replay-reverse-leave-one-out",
    title="With the leave-one-out baseline replay never flips the sign, and helps exactly while |logit b_o| < |logit beta|",
    status="T",
    kind="identity",
    hypotheses="no overlap, replay share lambda (0: plain), N >= 2, x the share of old samples in the batch",
    latex=r"\hat g=\frac{\beta(1-\beta)}{b_o(1-b_o)}\frac N{N-1}x(1-x)\Delta A,\qquad"
    r"\mathrm{Var}=[\beta(1-\beta)\Delta A]^2\Big[\frac{(1-2b_o)^2}{b_o(1-b_o)N}+\frac2{N(N-1)}\Big]",
    derive=_derive_leave_one_out,
    sample=sample_batches,
    exact=_batch_variance,
    bound=_leave_one_out,
    test=_TEST,
    tolerance=1e-9,
)

STATEMENTS = (VARIANCE, VARIANCE_OVERLAP, HARM, LEAVE_ONE_OUT)
