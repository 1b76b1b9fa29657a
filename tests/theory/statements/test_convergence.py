"""Sections 4 and 5: certificates against flows, Fisher information against Hessians, and quoted numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import logit

from fstsim import ForwardKL, GradientFlow, InputError, ReverseKL, TwoModeProblem, TwoModeState, gradient_flow
from fstsim.theory import (
    condition_number_bound,
    convergence_certificate,
    fisher_information,
    missing_information_bound,
    missing_information_fraction,
    reverse_drift_certificate,
)
from fstsim.theory.drift import drift_certificates
from fstsim.theory.geometry import complete_information, extreme_eigenvalues

alphas = st.floats(0.05, 0.95)


def _peak(delta: float, alpha: float, beta0: float, v0: list[float]) -> tuple[float, np.ndarray]:
    problem = TwoModeProblem.separated(delta, alpha, len(v0))
    path = gradient_flow(problem, ReverseKL(problem), problem.initial(beta0, v0), 120.0, GradientFlow(rtol=1e-8))
    states = path(np.linspace(0.0, 120.0, 1201))
    return float(np.linalg.norm(states.mean_old, axis=-1).max()), states.log_odds


@pytest.mark.parametrize(
    ("v0", "beta0", "peaks", "ratios"),
    [
        (
            [-1.0],
            0.5,
            {6: 1.06e-2, 7: 2.8e-3, 8: 5.5e-4, 10: 1.0e-5, 12: 6.6e-8},
            {6: 9.5, 7: 5.8, 8: 5.1, 10: 5.0, 12: 5.2},
        ),
        ([0.0, 1.0], 0.5, {5: 4.2e-3, 6: 9.7e-4, 8: 2.6e-5}, {5: 16, 6: 15, 8: 16}),
        ([0.0], 0.2, {5: 1.9e-2, 6: 4.6e-3, 8: 1.4e-4}, {5: 7.7, 6: 6.4, 8: 5.8}),
    ],
)
def test_peak_drift_table(v0: list[float], beta0: float, peaks: dict[int, float], ratios: dict[int, float]) -> None:
    for delta, quoted in peaks.items():
        peak, log_odds = _peak(float(delta), 0.5, beta0, v0)
        assert peak == pytest.approx(quoted, rel=0.04)  # quoted to two digits
        found = reverse_drift_certificate(float(delta), 0.5, beta0, v0)
        assert found is not None
        assert found["rho"] / peak == pytest.approx(ratios[delta], rel=0.06)
        low, high = found["log_odds_range"]
        assert low <= log_odds.min() <= log_odds.max() <= high


def test_no_certificate_where_theory_has_none() -> None:
    assert reverse_drift_certificate(5.0, 0.5, 0.5, -1.0) is None
    assert reverse_drift_certificate(2.0, 0.5, 0.5, 0.0) is None


@given(st.floats(5.0, 10.0), st.floats(0.15, 0.85), st.floats(0.1, 0.9), st.floats(0.0, 2.5), st.floats(0.0, np.pi))
def test_certificate_satisfies_its_own_inequalities(
    delta: float, alpha: float, beta0: float, size: float, angle: float
) -> None:
    v0 = np.array([size * np.cos(angle), size * np.sin(angle)])
    found = drift_certificates(delta, alpha, beta0, v0)
    assume(bool(np.isfinite(found.rho)))
    assert float(found.V) >= size * (1.0 - 1e-12)
    assert float(found.s_low) <= min(logit(beta0), logit(alpha))
    assert float(found.s_high) >= max(logit(beta0), logit(alpha))
    assert 0.0 < float(found.d_minus) <= delta + size
    # the first inequality of theory 4.1, written out again
    root = np.sqrt(np.pi / 2.0)
    own = np.exp(-0.5 * float(found.s_low) - float(found.d_minus) ** 2 / 8.0)
    target = np.exp(-0.5 * logit(alpha) - delta**2 / 8.0 + 0.5 * delta * float(found.rho))
    assert float(found.rho) >= root * max(own, target) * (1.0 - 1e-9)


def test_exponent_of_the_certificate_is_an_eighth() -> None:
    delta = np.array([8.0, 10.0, 12.0, 14.0])
    rho = np.array([reverse_drift_certificate(d, 0.5, 0.2, 0.0)["rho"] for d in delta])  # type: ignore[index]
    slope = np.polyfit(delta**2, np.log(rho), 1)[0]
    assert slope == pytest.approx(-1.0 / 8.0, abs=2e-3)


def test_certified_rate_is_never_faster_than_the_asymptotic_one() -> None:
    for delta, alpha, v0 in ((8.0, 0.3, [0.5]), (10.0, 0.6, [-0.5, 0.3]), (12.0, 0.5, [0.0])):
        found = convergence_certificate(delta, alpha, alpha, v0)
        assert found is not None
        slowest = float(np.linalg.eigvalsh(fisher_information(alpha, delta, len(v0)))[0])
        assert 0.0 < found["rate"] <= slowest * (1.0 + 1e-9)
        if found["initial_distance"] == 0.0:
            continue
        problem = TwoModeProblem.separated(delta, alpha, len(v0))
        t = np.linspace(0.0, 30.0, 61)
        states = gradient_flow(problem, ReverseKL(problem), problem.initial(alpha, v0), 30.0)(t)
        w = np.maximum(
            np.linalg.norm(states.mean_old, axis=-1), np.linalg.norm(states.mean_new - problem.mean_new, axis=-1)
        )
        w = np.maximum(w, np.abs(states.log_odds - logit(alpha)) / found["scale"])
        assert (w <= found["initial_distance"] * np.exp(-found["rate"] * t) * (1.0 + 1e-5) + 1e-9).all()


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize(("alpha", "delta"), [(0.5, 0.5), (0.3, 2.5), (0.8, 5.0), (0.1, 8.0)])
def test_fisher_information_is_the_hessian_of_both_divergences(alpha: float, delta: float, dimension: int) -> None:
    problem = TwoModeProblem.separated(delta, alpha, dimension)
    theta = np.concatenate([[problem.log_odds], problem.mean_old, problem.mean_new])
    exact = fisher_information(alpha, delta, dimension)
    h = 1e-4
    for objective in (ReverseKL(problem), ForwardKL(problem, alpha)):

        def gradient(x: np.ndarray, objective=objective) -> np.ndarray:
            g = objective.gradient(TwoModeState(x[0], x[1 : 1 + dimension], x[1 + dimension :]))
            return np.concatenate([[g.log_odds], g.mean_old, g.mean_new])

        hessian = np.array([(gradient(theta + h * u) - gradient(theta - h * u)) / (2 * h) for u in np.eye(theta.size)])
        # truncation h^2/6 times third derivatives (below 20 here), rounding 1e-15 / h
        np.testing.assert_allclose(hessian, exact, atol=4e-8)


@given(alphas, st.floats(0.3, 12.0), st.integers(1, 4))
def test_information_is_between_zero_and_complete(alpha: float, delta: float, dimension: int) -> None:
    information = fisher_information(alpha, delta, dimension)
    np.testing.assert_allclose(information, information.T)
    complete = complete_information(alpha, dimension)
    assert np.linalg.eigvalsh(information)[0] >= -1e-13
    assert np.linalg.eigvalsh(complete - information)[0] >= -1e-13
    scale = np.diag(complete) ** -0.5
    missing = np.linalg.eigvalsh((complete - information) * scale[:, None] * scale[None, :])[-1]
    assert float(missing_information_fraction(alpha, delta)) >= missing - 1e-12
    assert float(missing_information_fraction(alpha, delta)) <= float(missing_information_bound(alpha, delta)) + 1e-12
    low, high = extreme_eigenvalues(alpha, delta)
    if dimension >= 2:
        values = np.linalg.eigvalsh(information)
        assert float(low) == pytest.approx(values[0], abs=1e-12)
        assert float(high) == pytest.approx(values[-1], abs=1e-12)


def test_condition_numbers_of_theory() -> None:
    quoted = {2: 11.4, 3: 3.6, 4: 2.26, 5: 2.04, 6: 2.008, 8: 2.0002}
    for delta, cond in quoted.items():
        exact = np.linalg.cond(fisher_information(0.5, delta, 1))
        assert exact == pytest.approx(cond, rel=6e-3)
        assert exact <= float(condition_number_bound(0.5, delta))
    assert np.isinf(condition_number_bound(0.5, 1.0))


def test_bad_input() -> None:
    for call in (
        lambda: fisher_information(0.0, 3.0),
        lambda: fisher_information(0.5, 0.0),
        lambda: fisher_information(0.5, 3.0, 0),
        lambda: missing_information_bound(1.0, 3.0),
        lambda: condition_number_bound(0.5, -3.0),
        lambda: reverse_drift_certificate(6.0, 1.0, 0.5, 0.0),
        lambda: reverse_drift_certificate(6.0, 0.5, 0.0, 0.0),
        lambda: convergence_certificate(6.0, 0.5, 0.5, 0.0, scale=-1.0),
    ):
        with pytest.raises(InputError):
            call()
