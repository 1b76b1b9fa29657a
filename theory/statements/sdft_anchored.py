"""Statements of section 8.3, SDFT with an anchored teacher: where it ends, that it gets there, and how fast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.numerics.flows import Parts, flow_to_rest, student_teacher_flow, student_teacher_velocity
from fstsim.theory.sdft import sdft_fixed_point, sdft_local_rate
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_sdft.py"
_SOURCE = "arXiv 2601.19897 (method), arXiv 2603.12163 (setting); own derivation"


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
    def velocity(s: Array, sbar: Array, base: Array, tilt: Array, anchor: Array, ema_rate: Array) -> Parts:
        return student_teacher_velocity(s, sbar, _anchored_gap(base, tilt, anchor)(s, sbar), ema_rate)

    constants = (base_log_odds, tilt, anchor, ema_rate)
    return expit(flow_to_rest(velocity, (base_log_odds, base_log_odds), constants, 3000.0, 3000)[0])


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
    test=_TEST,
    tolerance=1e-8,  # eigenvalues of matrices with entries of different size
)

STATEMENTS = (ANCHORED, STABLE, RATE)
