"""Statements on Adam's clock: how long a step can be, how fast the old mass falls, and how it ends."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from fstsim.theory.adam import (
    adam_flow_shift,
    adam_late_rate,
    adam_shift_bounds,
    adam_shift_path,
    adam_step_bound,
)
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_adam.py"
_SOURCE = "arXiv 1412.6980 (Adam); own derivation"
_LENGTH = 24  # gradients in a random sequence
_STEPS = 300  # of a random path


def _last_step(gradients: Array, beta1: Array, beta2: Array) -> Array:
    """``|mhat| / sqrt(vhat)`` after the gradients ``(n, T)``, by Adam's own recursion."""
    first, second = np.zeros(beta1.shape), np.zeros(beta1.shape)
    for g in gradients.T:
        first = beta1 * first + (1.0 - beta1) * g
        second = beta2 * second + (1.0 - beta2) * g * g
    steps = gradients.shape[1]
    return np.abs(first / (1.0 - beta1**steps)) / np.sqrt(second / (1.0 - beta2**steps))


# --- how long a step can be ------------------------------------------------------------------------------------------


def _derive_step() -> Derivation:
    a, b = sp.symbols("beta_1 beta_2", positive=True)
    steps = 3
    first = [(1 - a) * a**j / (1 - a**steps) for j in range(steps)]
    second = [(1 - b) * b**j / (1 - b**steps) for j in range(steps)]
    q = a**2 / b
    bound = ((1 - a) / (1 - a**steps)) ** 2 * (1 - b**steps) / (1 - b) * (1 - q**steps) / (1 - q)
    worst = [(a / b) ** j for j in range(steps)]
    reached = sum(w * g for w, g in zip(first, worst, strict=True)) ** 2
    size = sum(w * g**2 for w, g in zip(second, worst, strict=True))
    return symbolic(
        (
            "Cauchy-Schwarz: mhat^2 <= vhat sum_j w1_j^2 / w2_j, and the sum is the square of the bound (T = 3)",
            "gradients (beta_1 / beta_2)^j, j steps ago, reach it",
        ),
        [sum(w * w / x for w, x in zip(first, second, strict=True)) - bound, reached - bound * size],
    )


def _sample_sequences(rng: np.random.Generator, n: int) -> Sample:
    beta1, beta2 = rng.uniform(0.0, 0.98, n), rng.uniform(0.5, 0.9999, n)
    ages = np.arange(_LENGTH)[::-1]
    noise = rng.standard_normal((n, _LENGTH)) * rng.choice([0.0, 0.03, 1.0], (n, 1))
    worst = (np.maximum(beta1, 1e-3) / beta2)[:, None] ** ages
    return {"gradients": worst * (1.0 + noise), "beta1": beta1, "beta2": beta2}


STEP = Statement(
    slug="adam-step-bound",
    title="No step of Adam is longer than this, whatever the gradients",
    status="T",
    kind="bound",
    hypotheses="any gradients, eps >= 0 (here 0), 0 <= beta_1 < 1, 0 < beta_2 < 1; reached",
    latex=r"\frac{|\theta_t-\theta_{t-1}|}{\mathrm{lr}}\le\frac{1-\beta_1}{1-\beta_1^t}\sqrt{\frac{1-\beta_2^t}{1-\beta_2}"
    r"\sum_{j<t}\Big(\frac{\beta_1^2}{\beta_2}\Big)^j}",
    derive=_derive_step,
    sample=_sample_sequences,
    exact=_last_step,
    bound=lambda gradients, beta1, beta2: (None, adam_step_bound(gradients.shape[1], beta1, beta2)),
    source=_SOURCE,
    test=_TEST,
)


def _derive_monotone() -> Derivation:
    a, b, g1, g2 = sp.symbols("beta_1 beta_2 g_1 g_2", positive=True)
    # two steps; the share of the older gradient in mhat and in vhat
    old, older = a / (1 + a), b / (1 + b)
    return symbolic(
        (
            "the share of an older gradient in vhat less that in mhat is (beta_2 - beta_1) / ((1 + beta_1)(1 + beta_2)) >= 0",
            "E g^2 - (E g)^2 is a variance: sqrt(vhat) is at least the mean of the gradients under its own weights",
        ),
        [
            older - old - (b - a) / ((1 + a) * (1 + b)),
            older * g1**2 + (1 - older) * g2**2
            - (older * g1 + (1 - older) * g2) ** 2
            - older * (1 - older) * (g1 - g2) ** 2,
        ],
    )  # fmt: skip


def _sample_falling(rng: np.random.Generator, n: int) -> Sample:
    beta2 = rng.uniform(0.1, 0.9999, n)
    falls = rng.exponential(size=(n, _LENGTH)) * np.exp(rng.uniform(-8.0, 0.0, (n, 1)))
    falls *= rng.random((n, _LENGTH)) < rng.uniform(0.05, 1.0, (n, 1))
    return {"gradients": np.exp(-np.cumsum(falls, axis=1)), "beta1": beta2 * rng.uniform(0.0, 1.0, n), "beta2": beta2}


MONOTONE = Statement(
    slug="adam-monotone-step",
    title="While a gradient falls, Adam moves by at most the learning rate, and by it while the gradient lasts",
    status="T",
    kind="bound",
    hypotheses="gradients of one sign, falling in size; beta_1 <= beta_2, eps = 0; constant gradients give 1",
    latex=r"\frac{g_t}{g_1}\le\frac{\hat m_t}{\sqrt{\hat v_t}}\le1",
    derive=_derive_monotone,
    sample=_sample_falling,
    exact=_last_step,
    bound=lambda gradients, beta1, beta2: (gradients[:, -1] / gradients[:, 0], np.ones_like(beta1)),  # noqa: ARG005
    source=_SOURCE,
    test=_TEST,
)


# --- the path of the log-odds ----------------------------------------------------------------------------------------


def _sample_paths(rng: np.random.Generator, n: int) -> Sample:
    beta2 = 1.0 - log_uniform(rng, 1e-4, 0.2, n)
    return {
        "log_odds": rng.uniform(-6.0, 3.0, (n, 1)) + rng.uniform(0.0, 3.0, (n, 1)) * rng.standard_normal((n, 3)),
        "step_size": log_uniform(rng, 1e-3, 0.4, n),
        "beta1": beta2 * rng.uniform(0.0, 1.0, n),
        "beta2": beta2,
        "clip": np.where(rng.random(n) < 0.5, 1.0, rng.uniform(0.05, 1.0, n)),
        "t": rng.integers(1, _STEPS + 1, n).astype(np.float64),
    }


def _path_at(log_odds: Array, step_size: Array, beta1: Array, beta2: Array, clip: Array, t: Array) -> Array:
    path = adam_shift_path(log_odds, step_size, int(t.max()), beta1, beta2, clip=clip)
    return np.exp(-path[t.astype(int), np.arange(t.size)])


def _path_bounds(log_odds: Array, step_size: Array, beta1: Array, beta2: Array, clip: Array, t: Array) -> Bounds:
    lower, upper = adam_shift_bounds(log_odds, step_size, int(t.max()), beta1, beta2, clip=clip)
    rows = (t.astype(int), np.arange(t.size))
    return lower[rows], upper[rows]


CLOCK = Statement(
    slug="adam-clock",
    title="Old mass under Adam: log-odds lose h a step, then the mass falls like t^(-3/2)",
    status="T",
    kind="bound",
    hypotheses="forward KL on new data, n prompts with one shared shift x of their log-odds, h = lr x gain, eps = 0, "
    "beta_1 <= beta_2; gradients may be clipped",
    latex=r"1+hG_1\sum_{i\le t}d_i\le e^{-x_t}\le\min\Big\{e^{ht},\ 1+(e^h-1)\tfrac{\overline{e^{s}}}{G_1}\sum_{i\le t}A_ic_i\Big\},"
    r"\qquad d_i,c_i\propto\sqrt i\ \text{ while } i\ll\tfrac1{1-\beta_2}",
    derive=lambda: nothing("induction over the steps with `adam-monotone-step`; proofs 2 and 3 of theory/adam.py"),
    sample=_sample_paths,
    exact=_path_at,
    bound=_path_bounds,
    source=_SOURCE,
    test=_TEST,
    max_examples=100_000,  # each is a path of up to 300 steps
)


def _derive_flow() -> Derivation:
    tau, q, m = sp.symbols("tau Q m", positive=True)
    # late: G = m e^x, Q has converged, d(e^-x)/dtau = m sqrt(tau / Q)
    inverse = sp.Rational(2, 3) * tau ** sp.Rational(3, 2) * m / sp.sqrt(q)
    return symbolic(
        ("e^-x = (2/3) tau^(3/2) m / sqrt(Q) solves d(e^-x)/dtau = m sqrt(tau / Q)",),
        [sp.diff(inverse, tau) - m * sp.sqrt(tau / q)],
    )


def _sample_flow(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-6.0, 4.0, n),
        "step_size": log_uniform(rng, 2e-3, 1e-2, n),
        "beta1": rng.uniform(0.0, 0.8, n),
        "t": rng.integers(100, 3000, n).astype(np.float64),
    }


def _flow_path(log_odds: Array, step_size: Array, beta1: Array, t: Array) -> Array:
    path = adam_shift_path(log_odds[:, None], step_size, int(t.max()), beta1, 1.0 - 1e-7)
    return np.exp(-path[t.astype(int), np.arange(t.size)])


def _flow_value(log_odds: Array, step_size: Array, beta1: Array, t: Array) -> Bounds:  # noqa: ARG001
    each = zip(log_odds, step_size * t, strict=True)
    value = np.exp([-float(adam_flow_shift([s], time)) for s, time in each])
    return value, value


FLOW = Statement(
    slug="adam-flow",
    title="Adam in the limit of small steps: one curve of h t, linear, then t^(-3/2)",
    status="A",
    kind="approximation",
    hypotheses="h << 1 - beta_1, t << 1 / (1 - beta_2); here h <= 0.01, beta_1 <= 0.8",
    latex=r"\frac{dx}{d\tau}=-G(x)\sqrt{\tau/Q},\ \frac{dQ}{d\tau}=G^2,\ \tau=ht;\qquad e^{-x}\sim\tfrac23\,\tau^{3/2}\,\overline{e^s}/\sqrt{Q_\infty}",
    derive=_derive_flow,
    sample=_sample_flow,
    exact=_flow_path,
    bound=_flow_value,
    source=_SOURCE,
    test=_TEST,
    max_examples=20,
)


def _derive_late() -> Derivation:
    a, b, z = sp.symbols("beta_1 beta_2 z", positive=True)  # z = e^r
    steps = 4
    first = sum((1 - a) * a**j * z**j for j in range(steps))
    second = sum((1 - b) * b**j * z ** (2 * j) for j in range(steps))
    return symbolic(
        (
            "under g = e^(-r t): m / g = (1 - beta_1) (1 - (beta_1 e^r)^t) / (1 - beta_1 e^r) (t = 4)",
            "and v / g^2 = (1 - beta_2) (1 - (beta_2 e^(2r))^t) / (1 - beta_2 e^(2r))",
            "beta_1 z / (1 - beta_1 z) - beta_2 z^2 / (1 - beta_2 z^2) has the sign of beta_1 - beta_2 z: u falls with r",
        ),
        [
            first - (1 - a) * (1 - (a * z) ** steps) / (1 - a * z),
            second - (1 - b) * (1 - (b * z**2) ** steps) / (1 - b * z**2),
            a * z / (1 - a * z)
            - b * z**2 / (1 - b * z**2)
            - z * (a - b * z) / ((1 - a * z) * (1 - b * z**2)),
        ],
    )  # fmt: skip


def _sample_late(rng: np.random.Generator, n: int) -> Sample:
    beta2 = rng.uniform(0.8, 0.99, n)
    return {
        "log_odds": rng.uniform(-4.0, 2.0, n),
        "step_size": log_uniform(rng, 5e-3, 0.5, n),
        "beta1": beta2 * rng.uniform(0.0, 0.98, n),
        "beta2": beta2,
    }


def _measured_rate(log_odds: Array, step_size: Array, beta1: Array, beta2: Array) -> Array:
    path = adam_shift_path(log_odds[:, None], step_size, 2400, beta1, beta2)
    return (path[1200] - path[2400]) / 1200.0


def _late_value(log_odds: Array, step_size: Array, beta1: Array, beta2: Array) -> Bounds:  # noqa: ARG001
    value = adam_late_rate(step_size, beta1, beta2)
    return value, value


LATE = Statement(
    slug="adam-late-rate",
    title="In the end Adam forgets exponentially, as fast as its memory of old gradients fades",
    status="A",
    kind="approximation",
    hypotheses="t >> 1 / (1 - beta_2), eps = 0; log-odds lost a step over the second half of 2400 steps",
    latex=r"r=h\,\frac{1-\beta_1}{1-\beta_1e^r}\sqrt{\frac{1-\beta_2e^{2r}}{1-\beta_2}},\qquad r\le\min\{h,\ \tfrac12\log\tfrac1{\beta_2}\}",
    derive=_derive_late,
    sample=_sample_late,
    exact=_measured_rate,
    bound=_late_value,
    source=_SOURCE,
    test=_TEST,
    max_examples=400,
)

STATEMENTS = (STEP, MONOTONE, CLOCK, FLOW, LATE)
