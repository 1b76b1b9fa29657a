"""Statement of section 8.4: new demonstrations mixed into the probabilities of SDFT's teacher."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.numerics.flows import student_teacher_flow
from fstsim.theory.sdft import probability_mixing_tilt, sdft_time
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_sdft.py"
_SOURCE = "arXiv 2601.19897 (method), arXiv 2603.12163 (setting); own derivation"


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
    test=_TEST,
    tolerance=1e-7,
)

STATEMENTS = (MIXING,)
