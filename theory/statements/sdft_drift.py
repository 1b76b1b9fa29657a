"""Statements of section 8.5, the old mean under SDFT: accumulated overlap force, drift by the path of the weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.divergences import reverse_kl_gradient
from fstsim.theory.numerics.flows import flow_end
from fstsim.theory.sdft import sdft_path_drift
from fstsim.theory.statements.instances import log_uniform, once
from fstsim.theory.statements.statement import Bounds, Sample, Statement
from fstsim.theory.statements.symbolic import nothing

Array = NDArray[np.float64]
_TEST = "tests/theory/test_sdft.py"
_SOURCE = "arXiv 2601.19897 (method), arXiv 2603.12163 (setting); own derivation"


_DURATION, _STEPS = 20.0, 40


@once
def _drift_flow(delta: Array, beta0: Array, tilt: Array, ema_rate: Array) -> tuple[Array, Array, Array]:
    """Full flow with overlap from right components: ``A(T)``, the integral of ``beta |f|``, the final old mass."""
    n = delta.size
    zero = np.zeros(n)
    y = np.stack([logit(beta0), zero, delta, logit(beta0), zero, delta, zero])  # student, teacher, integral

    def velocity(y: Array) -> tuple[Array]:
        g_s, g_o, g_n = reverse_kl_gradient(
            y[0], y[1][:, None], y[2][:, None], y[3] - tilt, y[4][:, None], y[5][:, None]
        )
        overlap_force = g_o[:, 0] - expit(y[0]) * (y[1] - y[4])
        student = np.stack([-g_s, -g_o[:, 0], -g_n[:, 0]])
        return (np.concatenate([student, ema_rate * (y[:3] - y[3:6]), np.abs(overlap_force)[None]]),)

    (y,) = flow_end(velocity, (y,), _DURATION, _STEPS)
    return np.maximum(np.abs(y[1]), np.abs(y[4])), y[6], expit(y[0])


def _sample_drift(rng: np.random.Generator, n: int) -> Sample:
    return {
        "delta": rng.uniform(5.0, 9.0, n),
        "beta0": rng.uniform(0.3, 0.7, n),
        "tilt": rng.uniform(0.3, 1.5, n),
        "ema_rate": log_uniform(rng, 0.05, 1.0, n),
    }


def _drift(delta: Array, beta0: Array, tilt: Array, ema_rate: Array) -> Array:
    return _drift_flow(delta, beta0, tilt, ema_rate)[0]


def _path_drift(delta: Array, beta0: Array, tilt: Array, ema_rate: Array) -> Bounds:
    value = sdft_path_drift(beta0, _drift_flow(delta, beta0, tilt, ema_rate)[2], tilt, delta)
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
    bound=lambda delta, beta0, tilt, ema_rate: (None, _drift_flow(delta, beta0, tilt, ema_rate)[1]),
    source=_SOURCE,
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
    test=_TEST,
    max_examples=2000,
)

STATEMENTS = (DRIFT, PATH_DRIFT)
