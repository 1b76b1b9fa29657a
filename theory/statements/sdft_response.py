"""Statement on anchored SDFT whose teacher follows its weights by less than the student: between a tilt and a level."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.numerics.flows import Parts, flow_to_rest, student_teacher_velocity
from fstsim.theory.sdft import sdft_response_bracket
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]


def _response(y: Array, least: Array, most: Array, bend: Array) -> Array:
    """A smooth response through 0 with slopes between ``least`` and ``most``, turning over at ``bend``."""
    ramp = 0.5 * (y + np.logaddexp(y - bend, bend - y) - np.logaddexp(bend, -bend))
    return least * y + (most - least) * ramp


def _derive() -> Derivation:
    a, k, h, b = sp.symbols("a kappa h s_b", positive=True)
    y, bend = sp.symbols("y c", real=True)
    ramp = (y + sp.log(sp.cosh(y - bend)) - sp.log(sp.cosh(bend))) / 2
    return symbolic(
        (
            "a linear response of slope kappa has its fixed point at s_b - h / (1 - a kappa)",
            "the response sampled below has slopes between 0 and 1: (1 + tanh) / 2, and is 0 at 0",
            "y* = a g(y*) - h and K y <= g(y) <= k y for y <= 0 put y* between the two lines' fixed points; a g' < 1 makes it unique",
        ),
        [
            (b - h + a * k * (-h / (1 - a * k)) - (b - h / (1 - a * k))),
            (sp.diff(ramp, y) - (1 + sp.tanh(y - bend)) / 2).rewrite(sp.exp),
            ramp.subs(y, 0),
        ],
    )


def _sample(rng: np.random.Generator, n: int) -> Sample:
    anchor, most = rng.uniform(0.0, 0.7, n), rng.uniform(0.0, 1.0, n)
    return {
        "base_log_odds": rng.uniform(-1.0, 2.5, n),
        "tilt": rng.uniform(0.0, 2.0, n) * (1.0 - anchor),
        "anchor": anchor,
        "ema_rate": rng.uniform(0.2, 1.0, n),
        "least": rng.uniform(0.0, 1.0, n) * most,
        "most": most,
        "bend": rng.uniform(-3.0, 1.0, n),
    }


def _end(
    base_log_odds: Array, tilt: Array, anchor: Array, ema_rate: Array, least: Array, most: Array, bend: Array
) -> Array:
    """Old log-odds at the end of the flow of student and averaged weights from the base."""

    def velocity(
        s: Array, sbar: Array, base: Array, taught: Array, anchor: Array, ema_rate: Array, *response: Array
    ) -> Parts:
        gap = s - (taught + anchor * _response(sbar - base, *response))
        return student_teacher_velocity(s, sbar, gap, ema_rate)

    constants = (base_log_odds, base_log_odds - tilt, anchor, ema_rate, least, most, bend)
    return flow_to_rest(velocity, (base_log_odds, base_log_odds), constants, 3000.0, 3000)[0]


def _mass_bounds(base_log_odds: Array, tilt: Array, anchor: Array, least: Array, most: Array, **_: Array) -> Bounds:
    low, high = sdft_response_bracket(base_log_odds, tilt, anchor, least, most)
    return expit(low), expit(high)


RESPONSE = Statement(
    slug="sdft-response",
    title="A teacher that follows its weights by a share ends SDFT between a tilt and a level",
    status="T",
    kind="bound",
    hypotheses="separated modes, h >= 0, response g through 0 with slopes in [k, K], a K < 1; old mass at the end",
    latex=r"s_b-\frac h{1-aK}\le s^*\le s_b-\frac h{1-ak}",
    derive=_derive,
    sample=_sample,
    exact=lambda **instance: expit(_end(**instance)),
    bound=_mass_bounds,
    source="arXiv 2601.19897 (method); own derivation",
    test="tests/theory/test_sdft.py",
    tolerance=1e-8,
    max_examples=20_000,
)

STATEMENTS = (RESPONSE,)
