"""Statements of section 7: starvation under reverse KL, importance-weighted replay against it."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, gammaln, log_expit, logit, xlogy

from fstsim.divergences import reverse_kl_gradient
from fstsim.theory.collinear import gaussian_nodes, policy_average, right_components, score_moments
from fstsim.theory.forward_kl import mass_forgetting_separated
from fstsim.theory.instances import log_uniform
from fstsim.theory.noise import separated_gradient_variance
from fstsim.theory.starvation import (
    effective_sample_fraction,
    recovery_time_bounds,
    replay_gradient_variance,
    replay_harm_threshold,
    zero_signal_probability,
)
from fstsim.theory.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_replay.py"
_FIGURE = "starvation"
_MOST = 32  # largest batch whose outcomes are enumerated


def _outcomes(old_share: Array, batch: Array) -> tuple[Array, Array]:
    """Number of old samples ``k (1, K)`` and its probability ``(n, K)`` in batches of N samples, ``P(old) = old_share``."""
    k = np.arange(_MOST + 1.0)[None, :]
    n, p = batch[:, None], old_share[:, None]
    rest = np.maximum(n - k, 0.0)
    log_p = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(rest + 1.0) + xlogy(k, p) + xlogy(rest, 1.0 - p)
    return k, np.where(k <= n, np.exp(log_p), 0.0)


def _sample_batches(rng: np.random.Generator, n: int) -> Sample:
    return {
        "beta": expit(rng.uniform(-7.0, 4.0, n)),
        "replay_fraction": rng.choice([0.0, 1.0], n) * rng.uniform(0.01, 0.7, n),
        "batch_size": np.floor(rng.uniform(2.0, _MOST + 1.0, n)),
    }


def _old_share(beta: Array, replay_fraction: Array) -> Array:
    return replay_fraction + (1.0 - replay_fraction) * beta


# --- starvation (7.1) ----------------------------------------------------------------------------------------------------


def _derive_starvation() -> Derivation:
    b, lam = sp.symbols("beta lambda", positive=True)
    return symbolic(
        ("1 - b_o = (1 - lambda)(1 - beta) for b_o = lambda + (1 - lambda) beta",),
        [1 - (lam + (1 - lam) * b) - (1 - lam) * (1 - b)],
    )


def _dead_batches(beta: Array, replay_fraction: Array, batch_size: Array) -> Array:
    k, p = _outcomes(_old_share(beta, replay_fraction), batch_size)
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
    sample=_sample_batches,
    exact=_dead_batches,
    bound=_dead_law,
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    s1 = rng.uniform(-4.0, -1.0, n)
    room = 1.0 / (1.0 - 2.0 * expit(s1))  # the least distance of the target from the level
    return {
        "beta0": expit(s1 - rng.uniform(0.3, 6.0, n)),
        "beta1": expit(s1),
        "alpha": expit(s1 + room * rng.uniform(1.0, 3.0, n)),
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
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-8,
)


# --- importance-weighted replay (7.2) ------------------------------------------------------------------------------------


def _sample_states(rng: np.random.Generator, n: int) -> Sample:
    s = rng.uniform(-6.0, 6.0, n)
    return {
        "log_odds": s,
        "target_log_odds": s + rng.choice([-1.0, 1.0], n) * log_uniform(rng, 0.1, 6.0, n),
        "replay_fraction": rng.uniform(0.01, 0.7, n),
        "delta": log_uniform(rng, 0.5, 9.0, n),
    }


def _derive_weights() -> Derivation:
    q, p, f, lam, g, v = sp.symbols("q p f lambda g V", positive=True)
    b = (1 - lam) * q + lam * p
    w = q / b
    return symbolic(
        (
            "b w f = q f: the mean under b of w f is that under q of f",
            "b (w f)^2 = q w f^2",
            "1/(1 - lambda) - w = lambda p / ((1 - lambda) b) >= 0",
            "E_q f^2 / (1 - lambda) - g^2 = V / (1 - lambda) + lambda g^2 / (1 - lambda) for V = E_q f^2 - g^2",
        ),
        [
            b * w * f - q * f,
            b * (w * f) ** 2 - q * w * f**2,
            1 / (1 - lam) - w - lam * p / ((1 - lam) * b),
            (v + g**2) / (1 - lam) - g**2 - v / (1 - lam) - lam * g**2 / (1 - lam),
        ],
    )


def _replayed_mean(log_odds: Array, target_log_odds: Array, replay_fraction: Array, delta: Array) -> Array:
    """``E_b[w A (r_o - beta)]`` integrated over ``b = (1 - lambda) q + lambda p_old``, each component in turn."""
    u, weights = gaussian_nodes(float(delta.max()))
    beta, lam = expit(log_odds), replay_fraction
    total = np.zeros(delta.shape)
    for share, side in ((lam + (1.0 - lam) * beta, 1.0), ((1.0 - lam) * (1.0 - beta), -1.0)):
        z = side * 0.5 * delta[:, None] ** 2 + delta[:, None] * u  # log p_old / p_new
        q = np.logaddexp(log_expit(log_odds)[:, None] + z, log_expit(-log_odds)[:, None])
        p = np.logaddexp(log_expit(target_log_odds)[:, None] + z, log_expit(-target_log_odds)[:, None])
        weight = 1.0 / (1.0 - lam[:, None] + lam[:, None] * np.exp(z - q))
        score = expit(log_odds[:, None] + z) - beta[:, None]
        total = total + share * ((weight * (p - q) * score) @ weights)
    return total


def _exact_slope(log_odds: Array, target_log_odds: Array, replay_fraction: Array, delta: Array) -> Bounds:  # noqa: ARG001
    zero, new = np.zeros((delta.size, 1)), delta[:, None]
    value = -reverse_kl_gradient(log_odds, zero, new, target_log_odds, zero, new)[0]
    return value, value


UNBIASED = Statement(
    slug="replay-reverse-unbiased",
    title="Importance-weighted replay leaves the population objective unchanged",
    status="T",
    kind="identity",
    hypotheses="components right; any q, p_old and integrand f",
    latex=r"\mathbb E_b[\varpi f]=\mathbb E_q[f],\qquad b=(1-\lambda)q+\lambda p_o,\quad\varpi=q/b\le\tfrac1{1-\lambda}",
    derive=_derive_weights,
    sample=_sample_states,
    exact=_replayed_mean,
    bound=_exact_slope,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-7,  # the mean of terms of both signs
)


def _replay_variance(log_odds: Array, target_log_odds: Array, replay_fraction: Array, delta: Array) -> Array:
    return replay_gradient_variance(log_odds, target_log_odds, replay_fraction, delta)


def _variance_bound(log_odds: Array, target_log_odds: Array, replay_fraction: Array, delta: Array) -> Bounds:
    moments = score_moments(right_components(log_odds, target_log_odds, delta), np.zeros(delta.size))
    on_policy = moments.m[2, 2] - moments.gain**2
    return None, (on_policy + replay_fraction * moments.gain**2) / (1.0 - replay_fraction)


REPLAY_VARIANCE_BOUND = Statement(
    slug="replay-reverse",
    title="Replayed batches cost at most the factor 1 / (1 - lambda) in variance",
    status="T",
    kind="bound",
    hypotheses="f the centred weight gradient; any integrand with a second moment",
    latex=r"\mathrm{Var}_b(\varpi f)\le\frac{\mathrm{Var}_q f}{1-\lambda}+\frac\lambda{1-\lambda}(\mathbb E_qf)^2",
    derive=_derive_weights,
    sample=_sample_states,
    exact=_replay_variance,
    bound=_variance_bound,
    test=_TEST,
)


def _share_used(log_odds: Array, replay_fraction: Array, delta: Array, **_: Array) -> Array:
    line = right_components(log_odds, log_odds, delta)
    return 1.0 / policy_average(line, replay_fraction, lambda draw, _: draw.weight[None])[0]


def _ess_bounds(log_odds: Array, replay_fraction: Array, **_: Array) -> Bounds:
    # without overlap E_q[w] is largest: the two modes are told apart perfectly (data processing for chi^2)
    separated = effective_sample_fraction(log_odds, replay_fraction)
    return np.maximum(separated, 1.0 - replay_fraction), np.ones_like(separated)


ESS = Statement(
    slug="replay-reverse-ess",
    title="Effective sample size of a replayed batch, never below its value without overlap",
    status="T",
    kind="bound",
    hypotheses="components right (p_old the old component of the learner)",
    latex=r"1-\lambda\le\Big[\frac{\beta^2}{b_o}+\frac{(1-\beta)^2}{1-b_o}\Big]^{-1}\le\frac{\mathrm{ESS}}N=\frac1{\mathbb E_q\varpi}\le1",
    derive=lambda: nothing("E_q[w] = 1 + chi^2(q || b), which data processing (x from its label) can only lower"),
    sample=_sample_states,
    exact=_share_used,
    bound=_ess_bounds,
    test=_TEST,
)


# --- does replay reduce the noise? (7.2, delicate point 8) -----------------------------------------------------------------


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
    old = _old_share(beta, replay_fraction)
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
    sample=_sample_states,
    exact=_two_point_variance,
    bound=_separated_variance,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-7,  # near b_o = 1 - beta both are squares of small differences
)


def _sample_apart(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_states(rng, n)
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
    exact=_replay_variance,
    bound=_separated_variance,
    figure=_FIGURE,
    test=_TEST,
)


def _sample_harm(rng: np.random.Generator, n: int) -> Sample:
    return {"beta": expit(rng.uniform(-6.0, -0.05, n))}


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
    figure=_FIGURE,
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
    old = _old_share(beta, replay_fraction)
    k, p = _outcomes(old, batch_size)
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
    sample=_sample_batches,
    exact=_batch_variance,
    bound=_leave_one_out,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-9,
)

STATEMENTS = (
    STARVATION,
    OLD_SAMPLES,
    RECOVERY,
    UNBIASED,
    REPLAY_VARIANCE_BOUND,
    ESS,
    VARIANCE,
    VARIANCE_OVERLAP,
    HARM,
    LEAVE_ONE_OUT,
)
