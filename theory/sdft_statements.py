"""Statements of section 8: self-distillation toward a teacher that follows the student."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from fstsim.divergences import reverse_kl_gradient
from fstsim.theory.flows import student_teacher_flow
from fstsim.theory.instances import log_uniform
from fstsim.theory.reverse_kl import weight_flow_bounds
from fstsim.theory.sdft import (
    probability_mixing_tilt,
    sdft_fixed_point,
    sdft_local_rate,
    sdft_path_drift,
    sdft_retention_time_bounds,
    sdft_time,
)
from fstsim.theory.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.symbolic import nothing, sigmoid, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_sdft.py"
_SOURCE = "arXiv 2601.19897 (method), arXiv 2603.12163 (setting); own derivation"


# --- a frozen teacher (8.1) ----------------------------------------------------------------------------------------


def _sample_frozen(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-5.0, 5.0, n),
        "teacher_log_odds": rng.uniform(-3.0, 3.0, n),
        "tilt": rng.uniform(0.0, 4.0, n),
        "delta": rng.uniform(0.3, 10.0, n),
    }


def _speed_to_teacher(log_odds: Array, teacher_log_odds: Array, tilt: Array, delta: Array) -> Array:
    zero, new = np.zeros((delta.size, 1)), delta[:, None]
    goal = sdft_fixed_point(teacher_log_odds, tilt, 0.0)
    gradient = reverse_kl_gradient(log_odds, zero, new, goal, zero, new)[0]
    far = np.abs(log_odds - goal) > 0.05  # nearer, the gradient is a difference of near-equal numbers
    return np.where(far, gradient / (expit(log_odds) * expit(-log_odds) * (log_odds - goal)), np.nan)


FROZEN = Statement(
    slug="sdft-frozen-teacher",
    title="SDFT with a frozen teacher keeps the mass sigmoid(s_b - h), at any overlap",
    status="T",
    kind="bound",
    hypotheses="rho = 0, student components at the teacher's; the speed toward s_b - h never changes sign",
    latex=r"1-\kappa_{\max}\le\frac{\partial_sL}{\sigma'(s)\,(s-s^*)}\le1,\qquad s^*=\bar s_0-h",
    derive=lambda: nothing("reverse KL is convex in the weight (reverse-weight-flow) with the target odds times e^-h"),
    sample=_sample_frozen,
    exact=_speed_to_teacher,
    bound=lambda log_odds, teacher_log_odds, tilt, delta: weight_flow_bounds(log_odds, teacher_log_odds - tilt, delta),
    source=_SOURCE,
    figure="retention-regions",
    test=_TEST,
    tolerance=1e-8,
)


# --- a teacher that follows, no anchor (8.2) -------------------------------------------------------------------------


def _derive_series() -> Derivation:
    s, sbar, h, rho = sp.symbols("s sbar h rho", real=True)
    f = 2 * s + 2 * sp.sinh(s)
    student = -sigmoid(s) * (1 - sigmoid(s)) * (s - sbar + h)
    teacher = rho * (s - sbar)
    return symbolic(
        (
            "-d F(s)/dt = h - (sbar - s)",
            "d/dt [-F(s)/h - sbar/(rho h)] = 1 along the flow",
        ),
        [
            -sp.diff(f, s) * student - (h - (sbar - s)),
            -sp.diff(f, s) * student / h - teacher / (rho * h) - 1,
        ],
    )


def _sample_series(rng: np.random.Generator, n: int) -> Sample:
    s0, tilt = rng.uniform(-2.0, 3.0, n), rng.uniform(0.1, 3.0, n)
    ema_rate, t = log_uniform(rng, 0.01, 2.0, n), log_uniform(rng, 0.5, 40.0, n)
    s, sbar = student_teacher_flow(lambda s, sbar: s - (sbar - tilt), s0, s0, ema_rate, t, 600)
    return {"s0": s0, "tilt": tilt, "ema_rate": ema_rate, "t": t, "s": s, "sbar": sbar}


def _series(s0: Array, tilt: Array, ema_rate: Array, t: Array, s: Array, sbar: Array) -> Bounds:  # noqa: ARG001
    value = sdft_time(s0, s, sbar, tilt, ema_rate)
    return value, value


SERIES = Statement(
    slug="sdft-series-resistance",
    title="Student and teacher are resistances in series: an exact conservation law, and no fixed point",
    status="T",
    kind="identity",
    hypotheses="separated modes, teacher = EMA of the student, no anchor, h > 0, rho > 0",
    latex=r"t=\frac{F(s_0)-F(s)}h+\frac{s_0-\bar s}{\rho h},\qquad F(s)=2s+2\sinh s\ \Rightarrow\ \beta\to0",
    derive=_derive_series,
    sample=_sample_series,
    exact=lambda s0, tilt, ema_rate, t, s, sbar: t,  # noqa: ARG005 -- s and sbar come from the flow up to t
    bound=_series,
    source=_SOURCE,
    figure="methods",
    test=_TEST,
    tolerance=1e-7,  # fixed-step integration of the flow
)


def _horizon(s0: Array, tilt: Array, ema_rate: Array, t: Array, s: Array, sbar: Array) -> Bounds:  # noqa: ARG001
    return sdft_retention_time_bounds(s0, tilt, ema_rate, expit(s))


HORIZON = Statement(
    slug="sdft-retention-horizon",
    title="How long SDFT without an anchor keeps a given old mass, two-sided",
    status="T",
    kind="bound",
    hypotheses="as sdft-series-resistance; t the time at which the mass falls to sigmoid(l)",
    latex=r"\frac{F(s_0)-F(l)}h+\frac{(s_0-h-l)^+}{\rho h}\ \le\ t\ \le\ \frac{F(s_0)-F(l)}h+\frac{s_0-l}{\rho h}",
    derive=_derive_series,
    sample=_sample_series,
    exact=lambda s0, tilt, ema_rate, t, s, sbar: t,  # noqa: ARG005
    bound=_horizon,
    source=_SOURCE,
    figure="retention-regions",
    test=_TEST,
    tolerance=1e-7,
)


def _late_mass(tilt: Array, ema_rate: Array, t: Array) -> Array:
    out = np.empty(t.size)
    for k, (h, rho, end) in enumerate(zip(tilt, ema_rate, t, strict=True)):

        def velocity(_: float, y: Array, h: float = h, rho: float = rho) -> list[float]:
            return [-expit(y[0]) * expit(-y[0]) * (y[0] - y[1] + h), rho * (y[0] - y[1])]

        out[k] = expit(solve_ivp(velocity, (0.0, end), [0.0, 0.0], method="LSODA", rtol=1e-9, atol=1e-11).y[0, -1])
    return out


def _late_law(tilt: Array, ema_rate: Array, t: Array) -> Bounds:  # noqa: ARG001
    value = 1.0 / (tilt * t)
    return value, value


ULTIMATE = Statement(
    slug="sdft-ultimate",
    title="Without an anchor the old mass ends like 1/(h t), however slow the teacher",
    status="A",
    kind="approximation",
    hypotheses="separated modes, t much larger than 1 / (rho h); here t = 10^6",
    latex=r"\beta(t)\sim\frac1{h\,t}\quad\text{for every }\rho>0",
    derive=lambda: nothing("leading order of the conservation law: F(s) ~ e^-s dominates s"),
    sample=lambda rng, n: {
        "tilt": rng.uniform(0.3, 3.0, n),
        "ema_rate": log_uniform(rng, 1e-3, 10.0, n),
        "t": np.full(n, 1e6),
    },
    exact=_late_mass,
    bound=_late_law,
    source=_SOURCE,
    figure="methods",
    test=_TEST,
    max_examples=30,
)


# --- an anchored teacher (8.3) ---------------------------------------------------------------------------------------


def _derive_anchored() -> Derivation:
    a, c, rho, lam = sp.symbols("a c rho lambda", positive=True)
    s, b, h = sp.symbols("s b h", real=True)
    jacobian = sp.Matrix([[-c, a * c], [rho, -rho]])
    fixed = b - h / (1 - a)
    return symbolic(
        (
            "s = a s + (1 - a) s_b - h at s = s_b - h / (1 - a)",
            "the rates solve lambda^2 - (c + rho) lambda + c rho (1 - a) = 0",
        ),
        [
            (a * s + (1 - a) * b - h - s).subs(s, fixed),
            (jacobian + lam * sp.eye(2)).det() - (lam**2 - (c + rho) * lam + c * rho * (1 - a)),
        ],
    )


def _sample_anchored(rng: np.random.Generator, n: int) -> Sample:
    anchor = rng.uniform(0.0, 0.7, n)
    return {
        "base_log_odds": rng.uniform(-1.0, 2.5, n),
        "tilt": rng.uniform(0.0, 2.0, n) * (1.0 - anchor),
        "anchor": anchor,
        "ema_rate": rng.uniform(0.2, 1.0, n),
    }


def _anchored_gap(base_log_odds: Array, tilt: Array, anchor: Array) -> Callable[[Array, Array], Array]:
    return lambda s, sbar: s - (anchor * sbar + (1.0 - anchor) * base_log_odds - tilt)


def _final_mass(base_log_odds: Array, tilt: Array, anchor: Array, ema_rate: Array) -> Array:
    duration = np.full(anchor.size, 3000.0)
    gap = _anchored_gap(base_log_odds, tilt, anchor)
    return expit(student_teacher_flow(gap, base_log_odds, base_log_odds, ema_rate, duration, 3000)[0])


def _anchored_mass(base_log_odds: Array, tilt: Array, anchor: Array, ema_rate: Array) -> Bounds:  # noqa: ARG001
    value = expit(sdft_fixed_point(base_log_odds, tilt, anchor))
    return value, value


ANCHORED = Statement(
    slug="sdft",
    title="An anchored teacher retains: the old mass ends at sigmoid(s_b - h / (1 - a))",
    status="T",
    kind="identity",
    hypotheses="separated modes, a < 1; the fixed point (student = teacher, means at the anchor) is exact at any overlap",
    latex=r"s^*=s_b-\frac h{1-a},\qquad\beta_\infty\ge\alpha\iff h\le(1-a)\,(s_b-\mathrm{logit}\,\alpha)",
    derive=_derive_anchored,
    sample=_sample_anchored,
    exact=_final_mass,
    bound=_anchored_mass,
    source=_SOURCE,
    figure="retention-regions",
    test=_TEST,
    tolerance=1e-8,
    max_examples=20_000,
)


def _sample_stability(rng: np.random.Generator, n: int) -> Sample:
    sample = _sample_anchored(rng, n)
    sample["s0"], sample["sbar0"] = rng.uniform(-6.0, 6.0, n), rng.uniform(-6.0, 6.0, n)
    sample["t"] = rng.uniform(0.1, 20.0, n)
    return sample


def _remaining_distance(
    base_log_odds: Array, tilt: Array, anchor: Array, ema_rate: Array, s0: Array, sbar0: Array, t: Array
) -> Array:
    fixed = sdft_fixed_point(base_log_odds, tilt, anchor)
    s, sbar = student_teacher_flow(_anchored_gap(base_log_odds, tilt, anchor), s0, sbar0, ema_rate, t, 200)
    start = np.maximum(np.abs(s0 - fixed), np.abs(sbar0 - fixed))
    return np.maximum(np.abs(s - fixed), np.abs(sbar - fixed)) / start


STABLE = Statement(
    slug="sdft-anchored-stability",
    title="The anchored fixed point is globally stable",
    status="T",
    kind="bound",
    hypotheses="separated modes, a < 1, any start of student and teacher; ratio of the distance W at a time t to that at 0",
    latex=r"W=\max(|s-s^*|,|\bar s-s^*|)\ \text{is nonincreasing}",
    derive=lambda: nothing("Dini derivative of the larger of the two distances"),
    sample=_sample_stability,
    exact=_remaining_distance,
    bound=lambda t, **_: (None, np.ones_like(t)),
    source=_SOURCE,
    figure="retention-regions",
    test=_TEST,
    tolerance=1e-7,
)


def _slow_rate(fixed_log_odds: Array, ema_rate: Array, anchor: Array) -> Array:
    c = expit(fixed_log_odds) * expit(-fixed_log_odds)
    rows = [np.stack([-c, anchor * c], axis=-1), np.stack([ema_rate, -ema_rate], axis=-1)]
    return -np.linalg.eigvals(np.stack(rows, axis=-2)).real.max(axis=-1)


RATE = Statement(
    slug="sdft-anchored-rate",
    title="The rate of the anchored flow, within a factor 2",
    status="T",
    kind="bound",
    hypotheses="local rate at the fixed point, c = sigmoid'(s*)",
    latex=r"\frac{c\rho(1-a)}{c+\rho}\le r\le\frac{2c\rho(1-a)}{c+\rho}",
    derive=_derive_anchored,
    sample=lambda rng, n: {
        "fixed_log_odds": rng.uniform(-5.0, 5.0, n),
        "ema_rate": log_uniform(rng, 1e-2, 10.0, n),
        "anchor": rng.uniform(0.0, 0.95, n),
    },
    exact=_slow_rate,
    bound=lambda fixed_log_odds, ema_rate, anchor: sdft_local_rate(fixed_log_odds, ema_rate, anchor)[1:],
    source=_SOURCE,
    figure="retention-regions",
    test=_TEST,
    tolerance=1e-8,  # eigenvalues of matrices with entries of different size
)


# --- demonstrations mixed into the probabilities (8.4) ---------------------------------------------------------------


def _derive_mixing() -> Derivation:
    g, b = sp.symbols("gamma b", positive=True)
    odds = b / (1 - b)
    mixed = (1 - g) * b / (1 - (1 - g) * b)
    return symbolic(
        (
            "odds of the mixed teacher = teacher odds times e^-h, e^h = (1 - (1 - gamma) b) / ((1 - gamma) (1 - b))",
            "e^h = 1 / (1 - gamma) at b = 0, and de^h/db = gamma / ((1 - gamma) (1 - b)^2) > 0",
        ),
        [
            mixed / odds - (1 - g) * (1 - b) / (1 - (1 - g) * b),
            sp.diff((1 - (1 - g) * b) / ((1 - g) * (1 - b)), b) - g / ((1 - g) * (1 - b) ** 2),
        ],
    )


def _sample_mixing(rng: np.random.Generator, n: int) -> Sample:
    s0, mixing = rng.uniform(-2.0, 2.0, n), rng.uniform(0.05, 0.9, n)
    ema_rate, t = log_uniform(rng, 0.01, 2.0, n), log_uniform(rng, 0.5, 40.0, n)

    def gap(s: Array, sbar: Array) -> Array:
        return s - sbar + probability_mixing_tilt(expit(sbar), mixing)

    s, sbar = student_teacher_flow(gap, s0, s0, ema_rate, t, 600)
    return {"s0": s0, "mixing": mixing, "ema_rate": ema_rate, "t": t, "s": s, "sbar": sbar}


def _mixing_times(s0: Array, mixing: Array, ema_rate: Array, t: Array, s: Array, sbar: Array) -> Bounds:  # noqa: ARG001
    # the conservation law of 8.2 with the integral of the tilt, which lies between its last and its first value
    least = probability_mixing_tilt(expit(sbar), mixing)
    most = probability_mixing_tilt(expit(s0), mixing)
    resistance = sdft_time(s0, s, sbar, 1.0, ema_rate)
    return resistance / most, resistance / least


MIXING = Statement(
    slug="sdft-probability-mixing",
    title="Mixing new demonstrations into the teacher's probabilities is a tilt, and loses the old mass",
    status="T",
    kind="bound",
    hypotheses="pure new demonstrations of share gamma, teacher = EMA of the student, separated modes; R the series resistance at h = 1",
    latex=r"\frac R{h(\bar\beta_0)}\le t\le\frac R{h(\bar\beta)}\le\frac R{\log\frac1{1-\gamma}},\qquad "
    r"h(b)=\log\tfrac{1-(1-\gamma)b}{(1-\gamma)(1-b)}",
    derive=_derive_mixing,
    sample=_sample_mixing,
    exact=lambda s0, mixing, ema_rate, t, s, sbar: t,  # noqa: ARG005
    bound=_mixing_times,
    source=_SOURCE,
    figure="retention-regions",
    test=_TEST,
    tolerance=1e-7,
)


# --- drift of the old mean (8.5) -------------------------------------------------------------------------------------


def _drift_flow(
    delta: Array, beta0: Array, tilt: Array, ema_rate: Array, duration: float, steps: int
) -> tuple[Array, Array, Array]:
    """Full flow with overlap from right components: ``A(T)``, the integral of ``beta |f|``, the final old mass."""
    n = delta.size
    zero = np.zeros(n)
    y = np.stack([logit(beta0), zero, delta, logit(beta0), zero, delta, zero])  # student, teacher, integral
    h = duration / steps

    def velocity(y: Array) -> Array:
        g_s, g_o, g_n = reverse_kl_gradient(
            y[0], y[1][:, None], y[2][:, None], y[3] - tilt, y[4][:, None], y[5][:, None]
        )
        overlap_force = g_o[:, 0] - expit(y[0]) * (y[1] - y[4])
        student = np.stack([-g_s, -g_o[:, 0], -g_n[:, 0]])
        return np.concatenate([student, ema_rate * (y[:3] - y[3:6]), np.abs(overlap_force)[None]])

    for _ in range(steps):
        k1 = velocity(y)
        k2 = velocity(y + 0.5 * h * k1)
        k3 = velocity(y + 0.5 * h * k2)
        k4 = velocity(y + h * k3)
        y = y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return np.maximum(np.abs(y[1]), np.abs(y[4])), y[6], expit(y[0])


def _sample_drift(rng: np.random.Generator, n: int) -> Sample:
    return {
        "delta": rng.uniform(5.0, 9.0, n),
        "beta0": rng.uniform(0.3, 0.7, n),
        "tilt": rng.uniform(0.3, 1.5, n),
        "ema_rate": log_uniform(rng, 0.05, 1.0, n),
    }


def _drift(delta: Array, beta0: Array, tilt: Array, ema_rate: Array) -> Array:
    return _drift_flow(delta, beta0, tilt, ema_rate, 20.0, 40)[0]


def _path_drift(delta: Array, beta0: Array, tilt: Array, ema_rate: Array) -> Bounds:
    value = sdft_path_drift(beta0, _drift_flow(delta, beta0, tilt, ema_rate, 20.0, 40)[2], tilt, delta)
    return value, value


DRIFT = Statement(
    slug="sdft-drift",
    title="Nothing pulls the old mean back: its drift is at most the accumulated overlap force",
    status="T",
    kind="bound",
    hypotheses="full flow with overlap to t = 20, student and teacher from right components; A the larger of their drifts",
    latex=r"A(T)\le\int_0^T\beta\,|\varepsilon_q(m_n-m_o)-\varepsilon_T(\bar m_n-\bar m_o)|\,dt",
    derive=lambda: nothing("Dini derivative of the larger of |m_o - mu_o| and |mbar_o - mu_o|"),
    sample=_sample_drift,
    exact=_drift,
    bound=lambda delta, beta0, tilt, ema_rate: (None, _drift_flow(delta, beta0, tilt, ema_rate, 20.0, 40)[1]),
    source=_SOURCE,
    figure="methods",
    test=_TEST,
    tolerance=1e-4,  # fixed-step integration of the flow
    max_examples=2000,
)

PATH_DRIFT = Statement(
    slug="sdft-path-drift",
    title="SDFT's drift is set by the path of the weight, not by time, and gated by overlap",
    status="A",
    kind="approximation",
    hypotheses="as sdft-drift, BC small; an upper bound to leading order (ratio above 1)",
    latex=r"A\lesssim\sqrt{\tfrac\pi2}\,e^{h/2}\mathrm{BC}\,[g(\beta_T)-g(\beta_0)],\quad g(b)=\sqrt{\tfrac1b-1}-1\big/\sqrt{\tfrac1b-1}",
    derive=lambda: nothing("leading order of the force over the speed of the weight"),
    sample=_sample_drift,
    exact=_drift,
    bound=_path_drift,
    source=_SOURCE,
    figure="methods",
    test=_TEST,
    max_examples=2000,
)

STATEMENTS = (
    FROZEN,
    SERIES,
    HORIZON,
    ULTIMATE,
    ANCHORED,
    STABLE,
    RATE,
    MIXING,
    DRIFT,
    PATH_DRIFT,
)
