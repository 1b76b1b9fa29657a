"""Statements of section 6: replayed data and KL leashes under forward KL."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.divergences import forward_kl_gradient, reverse_kl_gradient
from fstsim.overlap import overlap_gap
from fstsim.theory.flows import runge_kutta
from fstsim.theory.geometry import extreme_eigenvalues
from fstsim.theory.instances import column, log_uniform
from fstsim.theory.leashes import kl_leash_bounds, kl_leash_equilibrium, kl_leash_small_strength
from fstsim.theory.replay import (
    replay_equilibrium,
    replay_excursion,
    replay_old_mean_force,
    replay_time,
)
from fstsim.theory.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.symbolic import nothing, sigmoid, symbolic

Array = NDArray[np.float64]
State = tuple[Array, Array, Array]
_TEST = "tests/theory/test_replay.py"
_FIGURE = "replay-and-leashes"


def _slope(log_odds: Array, delta: Array, old_share: Array) -> Array:
    """``dL/ds`` of the cross-entropy on ``(1 - old_share) p_new + old_share p_old``, components right."""
    zero, new = column(np.zeros_like(delta)), column(delta)
    weights = np.stack([old_share, 1.0 - old_share], axis=-1)
    return forward_kl_gradient(log_odds, zero, new, weights, np.stack([zero, new], axis=-2))[0]


def _leash_slope(log_odds: Array, base_log_odds: Array, delta: Array) -> Array:
    """``d KL(q || base) / ds``, components right."""
    zero, new = column(np.zeros_like(delta)), column(delta)
    return reverse_kl_gradient(log_odds, zero, new, base_log_odds, zero, new)[0]


# --- where replay comes to rest, and when (6.1) ------------------------------------------------------------------------


def _derive_replay() -> Derivation:
    b, lam, f, g = sp.symbols("beta lambda f g", positive=True)
    q = b * f + (1 - b) * g
    train = lam * f + (1 - lam) * g
    # -dL/dbeta = int train (f - g) / q; train = q + (lambda - beta)(f - g), and int (f - g) = 0
    return symbolic(
        ("train (f - g) / q = (lambda - beta)(f - g)^2 / q + (f - g): the force on beta is (lambda - beta) D",),
        [train * (f - g) / q - (lam - b) * (f - g) ** 2 / q - (f - g)],
    )


def _sample_replay(rng: np.random.Generator, n: int) -> Sample:
    return {"log_odds": rng.uniform(-6.0, 6.0, n), "delta": log_uniform(rng, 0.5, 12.0, n)}


def _resting_share(log_odds: Array, delta: Array) -> Array:
    """The replay share at which the exact gradient vanishes at ``log_odds``: it is affine in the share."""
    at_none, at_all = (_slope(log_odds, delta, np.full(delta.shape, share)) for share in (0.0, 1.0))
    return at_none / (at_none - at_all)


def _equal(log_odds: Array, delta: Array) -> Bounds:  # noqa: ARG001
    value = replay_equilibrium(expit(log_odds))
    return value, value


REPLAY = Statement(
    slug="replay-forward",
    title="With replayed data the old mass comes to rest at the replay share, for every overlap",
    status="T",
    kind="identity",
    hypotheses="training density (1 - lambda) p_new + lambda p_old, components right; any two densities",
    latex=r"\dot s=(\lambda-\beta)(1-\kappa),\qquad\beta^*=\lambda",
    derive=_derive_replay,
    sample=_sample_replay,
    exact=_resting_share,
    bound=_equal,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-8,  # a ratio of differences of near-equal numbers where delta is small
)


def _derive_time() -> Derivation:
    b, lam = sp.symbols("b lambda", positive=True)
    gamma = sp.log(b) / lam + sp.log(1 - b) / (1 - lam) - sp.log(lam - b) / (lam * (1 - lam))
    stable = -sp.log(1 - lam / b) / lam - sp.log(1 - (1 - lam) / (1 - b)) / (1 - lam)
    return symbolic(
        (
            "Gamma'(b) = 1 / (b (1 - b)(lambda - b)), for d beta/dt = beta (1 - beta)(lambda - beta)",
            "the form without cancellation has the same derivative",
        ),
        [sp.diff(gamma, b) - 1 / (b * (1 - b) * (lam - b)), sp.diff(stable - gamma, b)],
    )


def _sample_time(rng: np.random.Generator, n: int) -> Sample:
    target = rng.uniform(-4.0, 2.0, n)
    away = rng.choice([-1.0, 1.0], n) * rng.uniform(0.2, 5.0, n)
    return {
        "beta0": expit(target + away),
        "beta1": expit(target + away * rng.uniform(0.05, 0.95, n)),
        "lam": expit(target),
        "delta": rng.uniform(0.7, 10.0, n),
    }


def _time_bounds(beta0: Array, beta1: Array, lam: Array, delta: Array) -> Bounds:
    separated = replay_time(beta0, beta1, lam)
    # kappa is even and nondecreasing in |s|: its maximum on the way is at the farther end
    return separated, separated / overlap_gap(np.maximum(np.abs(logit(beta0)), np.abs(logit(beta1))), delta)


REPLAY_TIME = Statement(
    slug="replay-forward-time",
    title="Time of the mass to a level under replay: closed form, slowed by overlap at most by 1 - kappa",
    status="T",
    kind="bound",
    hypotheses="components right, beta_0 and beta_1 on one side of lambda, flow in the logit",
    latex=r"\Gamma(\beta_1)-\Gamma(\beta_0)\le t\le\frac{\Gamma(\beta_1)-\Gamma(\beta_0)}{1-\kappa_{\max}},\quad"
    r"\Gamma(b)=\tfrac{\log b}\lambda+\tfrac{\log(1-b)}{1-\lambda}-\tfrac{\log|\lambda-b|}{\lambda(1-\lambda)}",
    derive=_derive_time,
    sample=_sample_time,
    exact=replay_time,
    bound=_time_bounds,
    figure=_FIGURE,
    test=_TEST,
)


# --- the old mean under replay (6.1, 6.2) -------------------------------------------------------------------------------


def _derive_force() -> Derivation:
    b, lam, f, g, d = sp.symbols("beta lambda f g delta", positive=True)
    q = b * f + (1 - b) * g
    r = b * f / q
    force = (1 - lam) * g * r**2 - lam * f * r * (1 - r)
    return symbolic(
        (
            "(1 - lambda) E_n[r_o^2] - lambda E_o[r_o r_n] = (beta - lambda) / (1 - beta) E_o[r_o r_n], as integrands",
            "both are beta (beta - lambda) f^2 g / q^2",
        ),
        [
            d * force - d * (b - lam) / (1 - b) * f * r * (1 - r),
            force - b * (b - lam) * f**2 * g / q**2,
        ],
    )


def _sample_force(rng: np.random.Generator, n: int) -> Sample:
    s = rng.uniform(-4.0, 4.0, n)
    away = rng.choice([-1.0, 1.0], n) * rng.uniform(0.1, 4.0, n)
    return {"log_odds": s, "replay_fraction": expit(s + away), "delta": rng.uniform(0.3, 8.0, n)}


def _force(log_odds: Array, replay_fraction: Array, delta: Array) -> Array:
    zero, new = column(np.zeros_like(delta)), column(delta)
    weights = np.stack([replay_fraction, 1.0 - replay_fraction], axis=-1)
    return -forward_kl_gradient(log_odds, zero, new, weights, np.stack([zero, new], axis=-2))[1][:, 0]


def _force_law(log_odds: Array, replay_fraction: Array, delta: Array) -> Bounds:
    value = replay_old_mean_force(log_odds, replay_fraction, delta)
    return value, value


FORCE = Statement(
    slug="replay-forward-force",
    title="Under replay the old mean is dragged exactly while the mass is on its way",
    status="T",
    kind="identity",
    hypotheses="components right (positive: toward the new data)",
    latex=r"\dot m_o\cdot u=\delta\big[(1-\lambda)\mathbb E_n[r_o^2]-\lambda\mathbb E_o[r_or_n]\big]"
    r"=\delta\,\frac{\beta-\lambda}{1-\beta}\,\mathbb E_o[r_or_n]",
    derive=_derive_force,
    sample=_sample_force,
    exact=_force,
    bound=_force_law,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-7,  # the gradient is a difference of first and second moments
)


def _smallest_curvature(alpha: Array, delta: Array) -> Array:
    """Smallest eigenvalue of the Hessian of the replay loss at its minimum in two dimensions, by central differences."""
    n, h = delta.size, 1e-4
    new = np.stack([delta, np.zeros(n)], axis=-1)
    centers = np.stack([np.zeros((n, 2)), new], axis=-2)
    weights = np.stack([alpha, 1.0 - alpha], axis=-1)

    def gradient(y: Array) -> Array:
        parts = forward_kl_gradient(logit(alpha) + y[:, 0], y[:, 1:3], new + y[:, 3:], weights, centers)
        return np.concatenate([parts[0][:, None], parts[1], parts[2]], axis=-1)

    columns = []
    for k in range(5):
        shift = np.zeros((n, 5))
        shift[:, k] = h
        columns.append((gradient(shift) - gradient(-shift)) / (2.0 * h))
    hessian = np.stack(columns, axis=-1)
    eigenvalues = np.linalg.eigvalsh(0.5 * (hessian + np.swapaxes(hessian, -1, -2)))
    return np.asarray(eigenvalues[:, 0], dtype=np.float64)


def _rate(alpha: Array, delta: Array) -> Bounds:
    value = extreme_eigenvalues(alpha, delta)[0]
    return value, value


LOCAL_RATE = Statement(
    slug="replay-forward-rate",
    title="Last stage of joint training with replay: the rate is the smallest Fisher eigenvalue at the replay share",
    status="T",
    kind="identity",
    hypotheses="joint flow in (s, m_o, m_n) near its minimum, D >= 2",
    latex=r"\text{rate}=\lambda_{\min}(\mathcal I(\lambda))",
    derive=lambda: nothing("at its minimum (KL = 0) the Hessian of the cross-entropy is the Fisher information"),
    sample=lambda rng, n: {"alpha": rng.uniform(0.05, 0.95, n), "delta": rng.uniform(2.0, 10.0, n)},
    exact=_smallest_curvature,
    bound=_rate,
    figure="local-geometry",
    test=_TEST,
    tolerance=1e-5,  # central differences
)


def _sample_excursion(rng: np.random.Generator, n: int) -> Sample:
    return {
        "delta": rng.uniform(5.0, 10.0, n),
        "beta0": rng.uniform(0.05, 0.9, n),
        "replay_fraction": log_uniform(rng, 0.05, 0.6, n),
    }


def _exact_excursion(delta: Array, beta0: Array, replay_fraction: Array) -> Array:
    """Largest shift of the old mean along the joint flow, up to ``5 / lambda``: the peak lies before ``2 / lambda``."""
    zero, new = column(np.zeros_like(delta)), column(delta)
    centers = np.stack([zero, new], axis=-2)
    weights = np.stack([replay_fraction, 1.0 - replay_fraction], axis=-1)
    duration = 5.0 / replay_fraction
    peak = np.zeros(delta.size)

    def gradient(s: Array, m_o: Array, m_n: Array) -> State:
        return forward_kl_gradient(s, m_o, m_n, weights, centers)

    for now in runge_kutta(gradient, (logit(beta0), zero, new), duration, int(np.ceil(2.0 * duration.max()))):
        peak = np.maximum(peak, np.abs(now[1][:, 0]))
    return peak


EXCURSION = Statement(
    slug="replay-forward-excursion",
    title="Replay bounds the excursion of the old mean for all time",
    status="T",
    kind="bound",
    hypotheses="joint flow from right components, certificate found (replay_excursion)",
    latex=r"\sup_t|m_o(t)-\mu_o|\le\rho=O\big(e^{-\delta^2/8}/\sqrt\lambda\big)",
    derive=lambda: nothing("variation of constants and comparison flow, see replay_excursion"),
    sample=_sample_excursion,
    exact=_exact_excursion,
    bound=lambda delta, beta0, replay_fraction: (None, replay_excursion(delta, beta0, replay_fraction)[0]),
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-4,  # fixed-step integration of the flow
    max_examples=10_000,
)


def _derive_excursion() -> Derivation:
    tau = sp.symbols("tau", positive=True)
    w = sp.sqrt(1 - sp.exp(-tau))
    b = 1 / w**2  # beta / lambda, from far above
    e = 2 * (1 - w**2) * sp.atanh(w)
    y = sp.symbols("w", positive=True)
    return symbolic(
        (
            "d(beta/lambda)/d(lambda t) = -b (b - 1) is solved by b = 1 / (1 - e^-tau)",
            "de/dtau = (b - 1) / sqrt(b) - e is solved by 2 (1 - w^2) artanh w, w = sqrt(1 - e^-tau)",
            "its peak has w artanh w = 1/2",
        ),
        [
            sp.diff(b, tau) + b * (b - 1),
            sp.diff(e, tau) - (1 - w**2) / w + e,
            sp.diff(2 * (1 - y**2) * sp.atanh(y), y) - 2 * (1 - 2 * y * sp.atanh(y)),
        ],
    )


def _leading_excursion(delta: Array, beta0: Array, replay_fraction: Array) -> Bounds:
    value = replay_excursion(delta, beta0, replay_fraction)[1]
    return value, value


EXCURSION_LEADING = Statement(
    slug="replay-forward-excursion-leading-order",
    title="Peak excursion of the old mean under replay: the less replay, the larger, like 1/sqrt(lambda)",
    status="A",
    kind="approximation",
    hypotheses="BC << sqrt(lambda); here delta in [7, 10]. The constant is for lambda << beta_0",
    latex=r"\max_t|m_o-\mu_o|\approx0.8955\,\sqrt{\tfrac\pi8}\,\frac{e^{-\delta^2/8}}{\sqrt\lambda}\quad\text{at }t\approx0.544/\lambda",
    derive=_derive_excursion,
    sample=lambda rng, n: {**_sample_excursion(rng, n), "delta": rng.uniform(7.0, 10.0, n)},
    exact=_exact_excursion,
    bound=_leading_excursion,
    figure=_FIGURE,
    test=_TEST,
    max_examples=10_000,
)


# --- leashes (6.2) -------------------------------------------------------------------------------------------------------


def _derive_leash() -> Derivation:
    eta, bb, p, f, g = sp.symbols("eta beta_b p f g", positive=True)
    base = bb * f + (1 - bb) * g
    share = eta * bb / (1 + eta)
    return symbolic(
        ("p_new + eta base = (1 + eta) [(1 - lambda) p_new + lambda p_old] with lambda = eta beta_b / (1 + eta)",),
        [(g + eta * base - (1 + eta) * ((1 - share) * g + share * f)) * p],
    )


def _sample_leash(rng: np.random.Generator, n: int) -> Sample:
    base = rng.uniform(-4.0, 4.0, n)
    # the mass at rest, and with it the strength that holds it there: no root has to be found
    return {
        "log_odds": base - log_uniform(rng, 0.02, 12.0, n),
        "base_log_odds": base,
        "delta": log_uniform(rng, 0.4, 10.0, n),
    }


def _sample_forward_leash(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_leash(rng, n)
    s, delta = x["log_odds"], x["delta"]
    x["eta"] = -_slope(s, delta, np.zeros(n)) / _slope(s, delta, expit(x["base_log_odds"]))
    return x


def _mass(log_odds: Array, **_: Array) -> Array:
    return expit(log_odds)


def _forward_leash(log_odds: Array, base_log_odds: Array, delta: Array, eta: Array) -> Bounds:  # noqa: ARG001
    value = kl_leash_equilibrium(base_log_odds, eta, delta, "forward")
    return value, value


FORWARD_LEASH = Statement(
    slug="replay-forward-leash",
    title="The leash KL(base || q) is replay, at the share eta beta_b / (1 + eta)",
    status="T",
    kind="identity",
    hypotheses="base with the right components and weight beta_b, strength eta; any overlap",
    latex=r"\min_q\mathrm{KL}(p_n\Vert q)+\eta\,\mathrm{KL}(\text{base}\Vert q):\qquad\beta^*=\lambda_{\rm eff}=\frac{\eta\beta_b}{1+\eta}",
    derive=_derive_leash,
    sample=_sample_forward_leash,
    exact=_mass,
    bound=_forward_leash,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-8,  # the strength comes from a difference of near-equal numbers
)


def _derive_reverse_leash() -> Derivation:
    sb, eta, b, d = sp.symbols("s_b eta beta D", positive=True)
    w = sp.LambertW(sp.exp(sb - 1 / eta) / eta)
    root = sb - 1 / eta - w
    # e^root = e^(sb - 1/eta) e^-w, and w e^w = e^(sb - 1/eta) / eta
    stationary = 1 + eta * w + eta * (root - sb)
    kappa = 1 - b * (1 - b) * d
    s = sp.symbols("s", real=True)
    return symbolic(
        (
            "beta D = (1 - kappa) / (1 - beta)",
            "d beta = beta (1 - beta) ds: D d beta = (1 - kappa) ds",
            "1 + e^s + eta (s - s_b) vanishes at s_b - 1/eta - W(e^(s_b - 1/eta) / eta), where e^s = eta W",
        ),
        [b * d - (1 - kappa) / (1 - b), sp.diff(sigmoid(s), s) - sigmoid(s) * (1 - sigmoid(s)), stationary],
    )


def _sample_reverse_leash(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_leash(rng, n)
    s, delta = x["log_odds"], x["delta"]
    x["eta"] = -_slope(s, delta, np.zeros(n)) / _leash_slope(s, x["base_log_odds"], delta)
    return x


def _reverse_leash_bounds(log_odds: Array, base_log_odds: Array, delta: Array, eta: Array) -> Bounds:  # noqa: ARG001
    lower, upper = kl_leash_bounds(base_log_odds, eta, delta)
    return expit(lower), expit(upper)


REVERSE_LEASH = Statement(
    slug="replay-forward-reverse-leash",
    title="The leash KL(q || base) keeps exponentially little: two-sided, with a linear floor from the overlap",
    status="T",
    kind="bound",
    hypotheses="components right, base weight beta_b; L(x) the separated root, k the largest kappa on the way",
    latex=r"\max\Big\{\sigma(L(\eta(1-k))),\tfrac{\eta K}{(1+\eta)(e^{\delta^2}-1)}\Big\}\le\beta^*\le\sigma\big(L(\tfrac\eta{1-k})\big),\quad "
    r"L(\eta)=s_b-\tfrac1\eta-W\big(\tfrac1\eta e^{s_b-1/\eta}\big)",
    derive=_derive_reverse_leash,
    sample=_sample_reverse_leash,
    exact=_mass,
    bound=_reverse_leash_bounds,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-7,  # the strength comes from a difference of near-equal numbers
)


def _sample_weak_leash(rng: np.random.Generator, n: int) -> Sample:
    delta = rng.uniform(0.7, 2.5, n)
    x = {
        "log_odds": -1.5 * delta**2 - rng.uniform(4.0, 8.0, n),
        "base_log_odds": rng.uniform(-1.0, 2.0, n),
        "delta": delta,
    }
    x["eta"] = -_slope(x["log_odds"], delta, np.zeros(n)) / _leash_slope(x["log_odds"], x["base_log_odds"], delta)
    return x


def _weak_leash(log_odds: Array, base_log_odds: Array, delta: Array, eta: Array) -> Bounds:  # noqa: ARG001
    value = kl_leash_small_strength(base_log_odds, eta, delta)
    return value, value


WEAK_LEASH = Statement(
    slug="replay-forward-weak-leash",
    title="exp(-1/eta) is an intermediate law: with overlap a weak leash KL(q || base) keeps a mass linear in eta",
    status="A",
    kind="approximation",
    hypotheses="components right, eta -> 0 at fixed separation (beta* << exp(-3 delta^2 / 2))",
    latex=r"\beta^*\sim\frac{\eta K}{e^{\delta^2}-1},\qquad K=\int_0^{\beta_b}\mathcal D\,db<\infty",
    derive=lambda: nothing("D -> e^(delta^2) - 1 as beta -> 0 in beta D = eta (K - int_0^beta D)"),
    sample=_sample_weak_leash,
    exact=_mass,
    bound=_weak_leash,
    figure=_FIGURE,
    test=_TEST,
)

STATEMENTS = (
    REPLAY,
    REPLAY_TIME,
    FORCE,
    LOCAL_RATE,
    EXCURSION,
    EXCURSION_LEADING,
    FORWARD_LEASH,
    REVERSE_LEASH,
    WEAK_LEASH,
)
