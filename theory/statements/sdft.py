"""Statements of sections 8.1 and 8.2: SDFT with a frozen teacher, and with one that follows the student, no anchor."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit

from fstsim.divergences import reverse_kl_gradient
from fstsim.theory.numerics.flows import student_teacher_flow
from fstsim.theory.reverse_kl import weight_flow_bounds
from fstsim.theory.sdft import sdft_fixed_point, sdft_retention_time_bounds, sdft_time
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, sigmoid, symbolic

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
    test=_TEST,
    max_examples=30,
)

STATEMENTS = (FROZEN, SERIES, HORIZON, ULTIMATE)
