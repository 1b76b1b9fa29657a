"""The drift certificate against its own inequalities, each expectation by a plain trapezoid in `mpmath`."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy.special import logit

from fstsim.theory.drift import drift_certificates


def misassigned(loc: float, scale: float) -> float:
    """``E sigma(loc + scale U)``."""
    h = mpf(1) / (4 * max(1.0, scale))
    return float(
        mp.fsum(mp.npdf(k * h) * h / (1 + mp.exp(-loc - scale * k * h)) for k in range(int(-12 / h), int(12 / h) + 1))
    )


@pytest.mark.parametrize(
    ("delta", "alpha", "beta0", "v0"),
    [(6.0, 0.5, 0.5, 0.3), (6.0, 0.3, 0.6, 0.0), (7.0, 0.4, 0.7, -0.2), (9.0, 0.2, 0.5, 1.0), (7.2, 0.56, 0.45, -1.5)],
)
def test_the_disturbance_of_the_new_mean_solves_its_equation(
    delta: float, alpha: float, beta0: float, v0: float
) -> None:
    found = drift_certificates(delta, alpha, beta0, v0)
    rho, low, high, d = float(found.rho), float(found.s_low), float(found.s_high), delta
    closest = min(abs(d + c * v0) for c in np.linspace(0.0, 1.0, 101))
    g = closest - rho - float(found.d_minus)  # the disturbance, from the closest approach that is left
    span, m, s_a = max(abs(v0), g), float(found.d_minus), float(logit(alpha))
    root = np.sqrt(np.pi / 2.0)
    wanted_rho = root * max(np.exp(-low / 2 - m * m / 8), np.exp(-s_a / 2 - d * d / 8 + d * rho / 2))
    learner = min(root * np.exp(high / 2 - m * m / 8), (d + span + rho) * misassigned(high - m * m / 2, m))
    target = d * misassigned(s_a - d * d / 2 + d * (max(0.0, -v0) + g), d)
    # a certificate stands 1e-6 outside of its fixed point
    assert rho == pytest.approx(wanted_rho, rel=1e-4)
    assert g == pytest.approx(max(learner, target), rel=1e-4)


def test_the_learners_own_misassignment_decides_somewhere() -> None:
    """Without this instance the sum of distances in the equation would not be tested."""
    found = drift_certificates(6.0, 0.3, 0.6, 0.0)
    m, high = float(found.d_minus), float(found.s_high)
    g, rho = float(found.V), float(found.rho)
    own = (6.0 + g + rho) * misassigned(high - m * m / 2, m)
    assert own < np.sqrt(np.pi / 2.0) * np.exp(high / 2 - m * m / 8)
    assert own > 6.0 * misassigned(float(logit(0.3)) - 18.0 + 6.0 * g, 6.0)
