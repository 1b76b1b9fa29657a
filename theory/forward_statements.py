"""Statements of sections 1 and 2: mass forgetting, and the drift of the old mean under forward KL."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr

from fstsim.divergences import forward_kl_gradient, two_mode_kl
from fstsim.logistic_normal import responsibility_moments
from fstsim.objectives import ForwardKL
from fstsim.optimizers import GradientFlow, weight_velocity
from fstsim.overlap import overlap_gap
from fstsim.simulate import gradient_flow
from fstsim.theory.flows import runge_kutta
from fstsim.theory.forward_kl import (
    late_collapse_mass,
    mass_forgetting_bounds,
    mass_forgetting_time,
    mass_forgetting_ultimate,
    old_mean_drift_forward,
    old_mean_drift_saddle,
)
from fstsim.theory.instances import column, log_uniform
from fstsim.theory.overlap import second_moment_constant
from fstsim.theory.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.symbolic import nothing, sigmoid, symbolic
from fstsim.two_mode import TwoModeProblem, TwoModeState

Array = NDArray[np.float64]
_TEST = "tests/theory/test_forward_kl.py"


# --- the rate of the weight (1.1, 1.2) --------------------------------------------------------------------------


def _derive_rate() -> Derivation:
    s = sp.symbols("s", real=True)
    f, g, a = sp.symbols("f g a", positive=True)
    b = sigmoid(s)
    q = b * f + (1 - b) * g
    beta = sp.symbols("beta", positive=True)
    mix = beta * f + (1 - beta) * g
    train = a * f + (1 - a) * g
    # E_train[r] - beta = (a - beta) * beta (1 - beta) int (f-g)^2/q + (terms whose integral is 0): train = q + (a-beta)(f-g)
    return symbolic(
        (
            "d log q / ds = r_o - beta",
            "train (r_o - beta) = (alpha - beta) beta (1 - beta) (f - g)^2 / q + beta (1 - beta) (f - g)",
        ),
        [
            sp.diff(sp.log(q), s) - (b * f / q - b),
            train * (beta * f / mix - beta)
            - (a - beta) * beta * (1 - beta) * (f - g) ** 2 / mix
            - beta * (1 - beta) * (f - g),
        ],
    )


def _sample_rate(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-8.0, 8.0, n),
        "alpha": rng.uniform(0.0, 1.0, n),
        "delta": log_uniform(rng, 0.3, 12.0, n),
    }


def _gradient_rate(log_odds: Array, alpha: Array, delta: Array) -> Array:
    zero = np.zeros_like(delta)
    weights = np.stack([alpha, 1.0 - alpha], axis=-1)
    centers = np.stack([column(zero), column(delta)], axis=-2)
    return -forward_kl_gradient(log_odds, column(zero), column(delta), weights, centers)[0]


def _rate(log_odds: Array, alpha: Array, delta: Array) -> Bounds:
    value = (alpha - expit(log_odds)) * overlap_gap(log_odds, delta)
    return value, value


RATE = Statement(
    slug="mass-forgetting-rate",
    title="The old weight moves at (alpha - beta)(1 - kappa)",
    status="T",
    kind="identity",
    hypotheses="components right, training weight alpha on the old one; any two densities",
    latex=r"\dot s=(\alpha-\beta)(1-\kappa(\beta))",
    derive=_derive_rate,
    sample=_sample_rate,
    exact=_gradient_rate,
    bound=_rate,
    figure="mass-forgetting",
    test=_TEST,
    tolerance=1e-8,  # the left side is a difference of near-equal numbers when alpha is near beta or delta is small
)


# --- how fast the mass goes (1.3) --------------------------------------------------------------------------------


def _derive_law() -> Derivation:
    y0, t = sp.symbols("y0 t", positive=True)
    y = sp.Function("y")(t)
    s = sp.symbols("s", real=True)
    # ds/dt = -sigmoid(s) with y = e^-s: dy/dt = y sigmoid(s) = y / (1 + y), so d(y + log y)/dt = 1
    rate = y / (1 + y)
    lambert = sp.LambertW(y0 * sp.exp(y0 + t))
    return symbolic(
        (
            "d/dt (y + log y) = 1 along ds/dt = -sigmoid(s), y = exp(-s)",
            "y = W(y0 exp(y0 + t)) solves dy/dt = y / (1 + y)",
            "dt/ds of the exact law: (1 + e^-s) sigmoid(s) = 1",
        ),
        [
            sp.diff(y + sp.log(y), t).subs(sp.Derivative(y, t), rate) - 1,
            sp.diff(lambert, t) - lambert / (1 + lambert),
            (1 + sp.exp(-s)) * sigmoid(s) - 1,
        ],
    )


def _sample_law(rng: np.random.Generator, n: int) -> Sample:
    s0 = rng.uniform(-3.0, 3.0, n)
    beta0, beta1 = expit(s0), expit(s0 - rng.uniform(0.05, 10.0, n))
    delta = rng.uniform(0.7, 8.0, n)
    return {"beta0": beta0, "beta1": beta1, "delta": delta, "t": mass_forgetting_time(beta0, beta1, delta)}


MASS_FORGETTING = Statement(
    slug="mass-forgetting",
    title="Old mass under forward KL on new data: algebraic decay, two-sided",
    status="T",
    kind="bound",
    hypotheses="components right, new data only, flow in the logit of the weight",
    latex=r"\beta_W(t)\le\beta(t)\le\min\Big\{\beta_W\big((1-\bar\kappa)t\big),\ "
    r"\big[\beta_0^{-2}+8\mathrm{TV}^2(1-\beta_0)^2t\big]^{-1/2}\Big\},\quad "
    r"\beta_W=\frac1{1+W(e^{y_0+\log y_0+t})},\ y_0=\tfrac{1-\beta_0}{\beta_0}",
    derive=_derive_law,
    sample=_sample_law,
    exact=lambda beta0, beta1, delta, t: beta1,  # noqa: ARG005 -- t is the exact time of beta1
    bound=lambda beta0, beta1, delta, t: mass_forgetting_bounds(beta0, t, delta),  # noqa: ARG005
    figure="mass-forgetting",
    test=_TEST,
)


def _sample_ultimate(rng: np.random.Generator, n: int) -> Sample:
    delta = rng.uniform(0.5, 2.0, n)
    s1 = -1.5 * delta**2 - rng.uniform(6.0, 10.0, n)  # beta << exp(-3 delta^2 / 2)
    t = mass_forgetting_time(np.full(n, 0.5), expit(s1), delta)
    return {"beta1": expit(s1), "delta": delta, "t": t}


def _ultimate(beta1: Array, delta: Array, t: Array) -> Bounds:  # noqa: ARG001
    value = mass_forgetting_ultimate(t, delta)
    return value, value


MASS_FORGETTING_ULTIMATE = Statement(
    slug="mass-forgetting-ultimate",
    title="1/t is an intermediate law: with overlap the mass ends like t^(-1/2)",
    status="A",
    kind="approximation",
    hypotheses="components right, beta << exp(-3 delta^2 / 2)",
    latex=r"\beta(t)\sim[2(e^{\delta^2}-1)\,t]^{-1/2}",
    derive=lambda: nothing("from D -> chi^2 = exp(delta^2) - 1 as beta -> 0"),
    sample=_sample_ultimate,
    exact=lambda beta1, delta, t: beta1,  # noqa: ARG005
    bound=_ultimate,
    figure="mass-forgetting",
    test=_TEST,
)


# --- geometry (1.4) -----------------------------------------------------------------------------------------------


def _derive_geometry() -> Derivation:
    a, b, info = sp.symbols("alpha beta D", positive=True)
    force = (a - b) * info  # -dL/dbeta
    t, b0 = sp.symbols("t beta_0", positive=True)
    solution = a + (b0 - a) * sp.exp(-t)
    return symbolic(
        (
            "Fisher-Rao: the natural gradient (alpha - beta) D / D is alpha - beta",
            "its flow is alpha + (beta_0 - alpha) exp(-t)",
        ),
        [force / info - (a - b), sp.diff(solution, t) - (a - solution)],
    )


def _fisher_velocity(log_odds: Array, alpha: Array, delta: Array) -> Array:
    gradient = -_gradient_rate(log_odds, alpha, delta)
    return expit(log_odds) * expit(-log_odds) * weight_velocity(log_odds, gradient, delta, "fisher")


def _fisher_law(log_odds: Array, alpha: Array, delta: Array) -> Bounds:  # noqa: ARG001
    value = alpha - expit(log_odds)
    return value, value


GEOMETRY = Statement(
    slug="mass-forgetting-geometry",
    title="In the Fisher-Rao geometry the old mass decays like exp(-t), for every overlap",
    status="T",
    kind="identity",
    hypotheses="components right, training weight alpha on the old one; any two densities",
    latex=r"\dot\beta=\alpha-\beta\quad\text{(natural gradient)},\qquad\text{against}\quad\dot\beta=\beta(1-\beta)(\alpha-\beta)(1-\kappa)"
    r"\quad\text{(logit)}",
    derive=_derive_geometry,
    sample=_sample_rate,
    exact=_fisher_velocity,
    bound=_fisher_law,
    figure="geometry",
    test=_TEST,
    tolerance=1e-8,
)


# --- SGD (1.5) ----------------------------------------------------------------------------------------------------


def _derive_sgd() -> Derivation:
    h = sp.symbols("h", positive=True)
    f, y = sp.symbols("f y", negative=True)
    return symbolic(
        (
            "with E y = h f and E y^2 <= h^2 |f|, the bound 1 + y + y^2 averages to 1 - h (1 - h) |f|",
            "e^y = 1 + y + y^2/2 + ... : the third-order remainder of 1 + y + y^2 - e^y at 0 is y^2/2",
        ),
        [
            1 + h * f - h**2 * f - (1 - h * (1 - h) * (-f)),
            sp.series(1 + y + y**2 - sp.exp(y), y, 0, 3).removeO() - y**2 / 2,
        ],
    )


def _sample_sgd(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-6.0, 4.0, n),
        "delta": rng.uniform(0.7, 8.0, n),
        "lr": rng.uniform(0.01, 0.99, n),
        "batch": np.floor(log_uniform(rng, 1.0, 256.0, n)),
    }


def _odds_loss(log_odds: Array, delta: Array, lr: Array, batch: Array) -> Array:
    """``(1 - E[odds_{k+1} / odds_k]) / (h |f|)``: the expected relative loss of the odds in one SGD step."""
    step = 0.25 / np.maximum(1.0, delta.max())
    u = np.arange(-9.5, 9.5 + step, step)
    density = step * np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)
    z = (log_odds - 0.5 * delta * delta)[:, None] + delta[:, None] * u
    moment = np.expm1((lr / batch)[:, None] * expit(z)) @ density
    rate = expit(log_odds) * overlap_gap(log_odds, delta)
    return -np.expm1(batch * np.log1p(moment) - lr * expit(log_odds)) / (lr * rate)


SGD_ODDS = Statement(
    slug="mass-forgetting-sgd",
    title="Under SGD the odds of the old mode are a supermartingale, whatever the batch",
    status="T",
    kind="bound",
    hypotheses="new data only, batch N >= 1, 0 < h < 1, components right",
    latex=r"h|f|\ \ge\ 1-\mathbb E\Big[\tfrac{\mathrm{odds}_{k+1}}{\mathrm{odds}_k}\Big|s_k\Big]\ \ge\ h(1-h)|f|,\quad f=-\beta(1-\kappa)",
    derive=_derive_sgd,
    sample=_sample_sgd,
    exact=_odds_loss,
    bound=lambda log_odds, delta, lr, batch: (1.0 - lr, np.ones_like(lr)),  # noqa: ARG005
    figure="mass-forgetting",
    test=_TEST,
    tolerance=1e-7,  # a difference of numbers near 1, divided by the small rate
)


# --- the joint flow (1.6) -----------------------------------------------------------------------------------------


def _derive_collapse() -> Derivation:
    a, c, x, y = sp.symbols("a c x y", real=True)  # a = E r_o, c = E r_o r_n, m_o = x, m_n = y, new data at 0
    pull_old = -a * x + c * (x - y)
    pull_new = -(1 - a) * y - c * (x - y)
    variance = a - c - a**2  # E r_o^2 - (E r_o)^2, with E r_o^2 = a - c
    return symbolic(
        ("E[r_o] g_n - E[r_n] g_o = Var(r_o) (m_o - m_n) for the forces g on the two means, new data only",),
        [a * pull_new - (1 - a) * pull_old - variance * (x - y)],
    )


def _sample_joint(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-3.0, 3.0, n),
        "mean_old": 3.0 * rng.standard_normal((n, 2)),
        "mean_new": 2.0 * rng.standard_normal((n, 2)),
    }


def _joint_force(log_odds: Array, mean_old: Array, mean_new: Array) -> Array:
    origin = np.zeros((log_odds.size, 1, 2))
    _, g_o, g_n = forward_kl_gradient(log_odds, mean_old, mean_new, np.ones((log_odds.size, 1)), origin)
    old, new, _ = _new_data_moments(log_odds, mean_old, mean_new)
    return np.linalg.norm(old[:, None] * g_n - new[:, None] * g_o, axis=-1)


def _new_data_moments(log_odds: Array, mean_old: Array, mean_new: Array) -> tuple[Array, Array, Array]:
    gap = mean_old - mean_new
    loc = log_odds - 0.5 * (gap * (mean_old + mean_new)).sum(axis=-1)
    return responsibility_moments(loc, np.linalg.norm(gap, axis=-1))


def _joint_variance(log_odds: Array, mean_old: Array, mean_new: Array) -> Bounds:
    old, new, both = _new_data_moments(log_odds, mean_old, mean_new)
    value = np.abs(old * new - both) * np.linalg.norm(mean_old - mean_new, axis=-1)
    return value, value


COLLAPSE = Statement(
    slug="joint-collapse",
    title="The joint forward flow can only end collapsed: m_o = m_n = mu_n",
    status="T",
    kind="identity",
    hypotheses="new data only; g_o, g_n the forces on the means (the right side vanishes only for m_o = m_n)",
    latex=r"\mathbb E[r_o]\,g_n-\mathbb E[r_n]\,g_o=\mathrm{Var}_{p_n}(r_o)\,(m_o-m_n)",
    derive=_derive_collapse,
    sample=_sample_joint,
    exact=_joint_force,
    bound=_joint_variance,
    figure="joint-forward-flow",
    test=_TEST,
    tolerance=1e-7,  # Var(r_o) is a difference of second moments
)


def _old_region(log_odds: Array, mean_old: Array, mean_new: Array) -> Array:
    # half-space x_1 < -2 around an old mode at -4, new data at the origin
    return expit(log_odds) * ndtr(-2.0 - mean_old[:, 0]) + expit(-log_odds) * ndtr(-2.0 - mean_new[:, 0])


def _pinsker(log_odds: Array, mean_old: Array, mean_new: Array) -> Bounds:
    origin = np.zeros_like(mean_new)
    loss = two_mode_kl(np.full(log_odds.shape, -np.inf), origin, origin, log_odds, mean_old, mean_new)
    return None, ndtr(-2.0) + np.sqrt(0.5 * np.maximum(loss, 0.0))


OLD_REGION = Statement(
    slug="old-region-mass",
    title="What vanishes is the mass of the old region, not the old weight",
    status="T",
    kind="bound",
    hypotheses="A any region; L the forward KL, which the flow decreases",
    latex=r"Q_t(A)\le P_n(A)+\sqrt{L_t/2},\qquad L_t=\mathrm{KL}(p_n\Vert q_t)",
    derive=lambda: nothing("Pinsker's inequality"),
    sample=_sample_joint,
    exact=_old_region,
    bound=_pinsker,
    figure="joint-forward-flow",
    test=_TEST,
)


def _late_flow(log_odds: Array, separation: Array) -> Array:
    """Final old mass of joint flows that start in the late regime, with the new mean at its adiabatic overshoot."""
    out = np.empty(log_odds.size)
    for k, (s, d) in enumerate(zip(log_odds, separation, strict=True)):
        problem = TwoModeProblem.separated(float(d))
        shift = float(expit(s) * d)  # v = beta D, away from the old component
        state = TwoModeState(s, problem.mean_old, problem.mean_new + shift)
        end = gradient_flow(problem, ForwardKL(problem), state, 200.0 * np.exp(-2.0 * s), GradientFlow(rtol=1e-8))
        out[k] = float(end(200.0 * np.exp(-2.0 * s)).old_mass)
    return out


def _late_prediction(log_odds: Array, separation: Array) -> Bounds:
    value = late_collapse_mass(expit(log_odds), separation)
    return value, value


def _derive_invariant() -> Derivation:
    d, b = sp.symbols("D beta", positive=True)
    # late flow: ds = -beta^2 (e^(D^2) - 1 - D^2) dt, dD = -beta^2 D (e^(D^2) - 1) dt, and d log beta = ds as beta -> 0
    log_invariant = sp.log(b) + sp.log(1 - sp.exp(-(d**2))) / 2 - sp.log(d)
    ds = -(b**2) * (sp.exp(d**2) - 1 - d**2)
    dd = -(b**2) * d * (sp.exp(d**2) - 1)
    return symbolic(
        ("log beta + log(1 - e^(-D^2)) / 2 - log D is constant along the late flow",),
        [ds + sp.diff(log_invariant, d) * dd],
    )


LATE_COLLAPSE = Statement(
    slug="late-collapse",
    title="The collapsing old component keeps a positive weight",
    status="A",
    kind="approximation",
    hypotheses="joint flow, beta -> 0, new mean at its overshoot v = beta D",
    latex=r"\beta\sqrt{1-e^{-D^2}}/D=\text{const}\ \Rightarrow\ \beta_\infty=\beta_1\sqrt{1-e^{-D_1^2}}/D_1>0",
    derive=_derive_invariant,
    sample=lambda rng, n: {"log_odds": rng.uniform(-9.0, -7.0, n), "separation": rng.uniform(1.0, 2.0, n)},
    exact=_late_flow,
    bound=_late_prediction,
    figure="joint-forward-flow",
    test=_TEST,
    max_examples=6,
)


def _short_flow(
    log_odds0: Array, old0: Array, new0: Array, delta: Array, duration: Array
) -> tuple[Array, Array, Array]:
    """Forward flows on new data at ``delta``: final log-odds, largest shift of the old mean, final old mean."""
    n = delta.size
    centers, weights = column(delta)[:, None, :], np.ones((n, 1))
    peak = np.zeros(n)
    state = (log_odds0, column(old0), column(new0))

    def gradient(s: Array, m_o: Array, m_n: Array) -> tuple[Array, Array, Array]:
        return forward_kl_gradient(s, m_o, m_n, weights, centers)

    for now in runge_kutta(gradient, state, duration, max(8, int(np.ceil(2.0 * duration.max(initial=1.0))))):
        state, peak = now, np.maximum(peak, np.abs(now[1][:, 0] - old0))
    return state[0], peak, state[1][:, 0]


def _sample_capture(rng: np.random.Generator, n: int) -> Sample:
    delta = rng.uniform(3.0, 6.0, n)
    return {"delta": delta, "new_error": delta * rng.uniform(1.25, 1.6, n), "beta0": rng.uniform(0.4, 0.6, n)}


def _captured_mass(delta: Array, new_error: Array, beta0: Array) -> Array:
    start: Array = logit(beta0)
    duration = np.full(delta.size, 20.0)
    return expit(_short_flow(start, np.zeros_like(delta), delta + new_error, delta, duration)[0])


CAPTURE = Statement(
    slug="capture",
    title="A badly wrong new component is passed over: the old one is overwritten while its weight grows",
    status="N",
    kind="bound",
    hypotheses="new component at least 1.25 delta away from the new data, on the far side; beta after 20 time units",
    latex=r"|m_n-\mu_n|\gtrsim\delta\ \Rightarrow\ \beta\uparrow,\ m_o\to\mu_n",
    derive=lambda: nothing("numerical observation"),
    sample=_sample_capture,
    exact=_captured_mass,
    bound=lambda delta, new_error, beta0: (beta0, None),  # noqa: ARG005
    test=_TEST,
    tolerance=1e-6,
)


# --- drift of the old mean (2) -------------------------------------------------------------------------------------


def _derive_gate() -> Derivation:
    a, c, x, mu, y = sp.symbols("a c x mu y", real=True)  # a = E r_o, c = E r_o r_n under N(mu)
    force = a * (mu - x) + c * (x - y)
    return symbolic(
        ("E[r_o] (mu_n - m_o) + E[r_o r_n] (m_o - m_n) = E[r_o^2] (mu_n - m_o) + E[r_o r_n] (mu_n - m_n)",),
        [force - (a - c) * (mu - x) - c * (mu - y)],
    )


def _old_force(log_odds: Array, delta: Array) -> Array:
    zero = np.zeros_like(delta)
    centers, weights = column(delta)[:, None, :], np.ones((delta.size, 1))
    return -forward_kl_gradient(log_odds, column(zero), column(delta), weights, centers)[1][:, 0]


FORCE = Statement(
    slug="forward-drift-force",
    title="The force on the old mean is gated by overlap, and always toward the new data",
    status="T",
    kind="bound",
    hypotheses="new data only, new mean right, old mean right",
    latex=r"0\le\dot m_o\cdot u=\mathbb E_n[r_o^2]\,\delta\le C(\delta)\,\delta\,e^{s/2}\mathrm{BC}\le\sqrt{\pi/8}\,e^{s/2}e^{-\delta^2/8}",
    derive=_derive_gate,
    sample=lambda rng, n: {"log_odds": rng.uniform(-6.0, 6.0, n), "delta": rng.uniform(0.05, 15.0, n)},
    exact=_old_force,
    bound=lambda log_odds, delta: (
        np.zeros_like(delta),
        second_moment_constant(delta) * delta * np.exp(0.5 * log_odds - 0.125 * delta * delta),
    ),
    figure="drift-vs-separation",
    test=_TEST,
)


def _sample_drift(rng: np.random.Generator, n: int) -> Sample:
    return {
        "delta": rng.uniform(4.0, 10.0, n),
        "beta0": rng.uniform(0.05, 0.5, n),
        "T": log_uniform(rng, 0.3, 30.0, n),
    }


def _exact_drift(delta: Array, beta0: Array, T: Array) -> Array:
    return _short_flow(logit(beta0), np.zeros_like(delta), delta, delta, T)[1]


DRIFT = Statement(
    slug="drift-under-forward-KL",
    title="Drift of the old mean by time T: gated by overlap, growing, never undone",
    status="T",
    kind="bound",
    hypotheses="joint flow from right components, new data only, beta_0 <= 1/2, certificate found",
    latex=r"|m_o(T)-\mu_o|\le\frac{4C(d_-)(\delta+\rho+\bar v)B}{1-\bar\kappa}\Big[\sinh\tfrac{s_0}2-\sinh\tfrac{s_T}2\Big]",
    derive=_derive_gate,
    sample=_sample_drift,
    exact=_exact_drift,
    bound=lambda delta, beta0, T: (None, old_mean_drift_forward(delta, beta0, T)[0]),
    figure="drift-vs-separation",
    test=_TEST,
    tolerance=1e-5,  # fixed-step integration of the flow
)


def _leading_drift(delta: Array, beta0: Array, T: Array) -> Bounds:
    value = old_mean_drift_forward(delta, beta0, T)[1]
    return value, value


DRIFT_LEADING = Statement(
    slug="forward-drift-leading-order",
    title="Forward drift grows like the square root of time",
    status="A",
    kind="approximation",
    hypotheses="delta large, BC sqrt(T) small; here delta in [7, 10]",
    latex=r"\mathrm{drift}(T)\approx\sqrt{2\pi}\,e^{-\delta^2/8}\big[\sinh\tfrac{s_0}2-\sinh\tfrac{s_T}2\big]\approx\sqrt{\pi/2}\,e^{-\delta^2/8}\sqrt T",
    derive=lambda: nothing("leading order of the certificate"),
    sample=lambda rng, n: {**_sample_drift(rng, n), "delta": rng.uniform(7.0, 10.0, n)},
    exact=_exact_drift,
    bound=_leading_drift,
    figure="drift-vs-time",
    test=_TEST,
)


def _saddle_drift(delta: Array, beta0: Array, T: Array) -> Bounds:
    value = old_mean_drift_saddle(delta, beta0, T)
    return value, value


DRIFT_SADDLE = Statement(
    slug="forward-drift-saddle",
    title="The same with its Gaussian factor: a little slower than the square root",
    status="A",
    kind="approximation",
    hypotheses="delta large, BC sqrt(T) small; here delta in [7, 10]",
    latex=r"\mathrm{drift}(T)\approx\sqrt{\tfrac\pi8}\,e^{-\delta^2/8}\int_{s_T}^{s_0}2\cosh\tfrac s2\;e^{-(s-2)^2/2\delta^2}ds",
    derive=lambda: nothing("saddle value of E_n[r_o^2] along the separated path"),
    sample=DRIFT_LEADING.sample,
    exact=_exact_drift,
    bound=_saddle_drift,
    figure="drift-vs-time",
    test=_TEST,
)


def _half_time(delta: Array) -> Array:
    """``log t_{1/2}``: logarithm of the time at which the old mean is half way to the new data."""
    out = np.empty(delta.size)
    for k, d in enumerate(delta):
        problem = TwoModeProblem.separated(float(d))
        horizon = float(100.0 * np.exp(0.5 * d * d))
        path = gradient_flow(problem, ForwardKL(problem), problem.initial(0.5), horizon, GradientFlow(rtol=1e-7))
        times = np.geomspace(1e-3, horizon, 4000)
        out[k] = np.log(np.interp(0.5 * d, path(times).mean_old[:, 0], times))
    return out


def _half_time_prediction(delta: Array) -> Bounds:
    value = 0.5 * delta * delta
    return value, value


HALF_TIME = Statement(
    slug="old-mean-half-time",
    title="The old mean itself is lost only after a time of order exp(delta^2 / 2)",
    status="N",
    kind="approximation",
    hypotheses="joint flow from right components; log t_1/2 against delta^2 / 2 (approached from below)",
    latex=r"\log t_{1/2}\approx\tfrac{\delta^2}2-O(\delta)",
    derive=lambda: nothing("numerical observation"),
    sample=lambda rng, n: {"delta": rng.uniform(3.0, 6.0, n)},
    exact=_half_time,
    bound=_half_time_prediction,
    figure="joint-forward-flow",
    test=_TEST,
    max_examples=4,
)

STATEMENTS = (
    RATE,
    MASS_FORGETTING,
    MASS_FORGETTING_ULTIMATE,
    GEOMETRY,
    SGD_ODDS,
    COLLAPSE,
    OLD_REGION,
    LATE_COLLAPSE,
    CAPTURE,
    FORCE,
    DRIFT,
    DRIFT_LEADING,
    DRIFT_SADDLE,
    HALF_TIME,
)
