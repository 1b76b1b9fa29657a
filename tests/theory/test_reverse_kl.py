"""Section 3: reverse KL against quadrature, ODEs and direct minimisation, and quoted numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import bisect
from scipy.special import expit, logit
from scipy.stats import norm

from fstsim import GradientFlow, InputError, ReverseKL, TwoModeProblem, TwoModeState, gradient_flow
from fstsim.logistic_normal import logistic_normal_mean
from fstsim.theory import (
    merged_saddle_growth,
    merged_state,
    old_mean_force,
    old_mean_force_bounds,
    reverse_kl,
    reverse_kl_gradient,
    reverse_kl_weight_time,
    simulate_reverse_kl,
    skeleton_kl,
)
from fstsim.theory.reverse_kl import (
    merged_states,
    polyak_lojasiewicz_constant,
    weight_flow_bounds,
    weight_flow_rate,
)

log_odds = st.floats(-4.0, 4.0)


@given(log_odds, st.floats(-3, 3), st.floats(-3, 3), log_odds, st.floats(0.5, 6.0))
def test_value_and_skeleton_identity_by_quadrature(s: float, e: float, v: float, s_p: float, delta: float) -> None:
    beta, alpha = expit(s), expit(s_p)
    m_o, m_n = e, delta + v

    # trapezoid on a smooth integrand that vanishes at both ends: the error is far below rounding of the sum
    x = np.linspace(min(m_o, m_n) - 12.0, max(m_o, m_n) + 12.0, 6001)
    step = x[1] - x[0]
    q_o, q_n = np.log(beta) + norm.logpdf(x, m_o), np.log1p(-beta) + norm.logpdf(x, m_n)
    p_o, p_n = np.log(alpha) + norm.logpdf(x, 0.0), np.log1p(-alpha) + norm.logpdf(x, delta)
    q, p = np.logaddexp(q_o, q_n), np.logaddexp(p_o, p_n)
    direct = float((np.exp(q) * (q - p)).sum() * step)
    posterior = np.exp(q_o - q) * ((q_o - q) - (p_o - p)) + np.exp(q_n - q) * ((q_n - q) - (p_n - p))
    inner = float((np.exp(q) * posterior).sum() * step)
    exact = float(reverse_kl(s, [m_o], [m_n], s_p, [0.0], [delta]))
    assert exact == pytest.approx(direct, abs=1e-11)
    # R = R_sk - E_q KL(r^q || r^p)
    assert float(skeleton_kl(s, [m_o], [m_n], s_p, [0.0], [delta])) - inner == pytest.approx(exact, abs=1e-11)


@given(log_odds, st.floats(0.3, 8.0))
def test_gradient_vanishes_at_the_target_and_at_its_swap(s: float, delta: float) -> None:
    for state in ((s, [0.0], [delta]), (-s, [delta], [0.0])):
        for part in reverse_kl_gradient(*state, s, [0.0], [delta]):
            np.testing.assert_allclose(part, 0.0, atol=1e-13 * max(1.0, delta))
        assert abs(float(reverse_kl(*state, s, [0.0], [delta]))) < 1e-13


@given(log_odds, log_odds, st.floats(0.5, 10.0))
def test_weight_flow_is_the_gradient_and_obeys_its_bounds(s: float, s_p: float, delta: float) -> None:
    rate = float(weight_flow_rate(s, s_p, delta))
    gradient = float(reverse_kl_gradient(s, [0.0], [delta], s_p, [0.0], [delta])[0])
    assert rate == pytest.approx(-gradient, abs=3e-15 + 1e-12 * abs(rate))
    if abs(s - s_p) > 1e-3:
        low, high = weight_flow_bounds(s, s_p, delta)
        ratio = abs(rate) / (expit(s) * expit(-s) * abs(s - s_p))
        assert float(low) * (1 - 1e-10) <= ratio <= float(high) * (1 + 1e-10)


@given(log_odds, log_odds, st.floats(1.0, 8.0))
def test_polyak_lojasiewicz(s: float, s_p: float, delta: float) -> None:
    value = float(reverse_kl(s, [0.0], [delta], s_p, [0.0], [delta]))
    slope = float(weight_flow_rate(s, s_p, delta))
    assert slope**2 >= 2.0 * float(polyak_lojasiewicz_constant(s, s_p, delta)) * value - 1e-14


@given(st.floats(-3.0, 3.0), st.floats(0.05, 5.0), st.floats(0.1, 0.95), st.booleans())
def test_weight_time_inverts_the_separated_flow(s_alpha: float, away: float, rest: float, above: bool) -> None:
    sign = 1.0 if above else -1.0
    s0, s1 = s_alpha + sign * away, s_alpha + sign * away * rest
    t = float(reverse_kl_weight_time(s0, s1, s_alpha))
    path = solve_ivp(
        lambda _, s: -expit(s) * expit(-s) * (s - s_alpha), (0, t), [s0], rtol=1e-11, atol=1e-13, method="LSODA"
    )
    assert path.y[0, -1] == pytest.approx(s1, abs=1e-7)


def test_escape_time_from_a_rare_old_mode() -> None:
    assert float(reverse_kl_weight_time(logit(0.01), logit(0.25), 0.0)) == pytest.approx(30.8, abs=0.05)
    for delta, time in ((2.0, 69.9), (3.0, 42.0), (4.0, 34.1), (6.0, 31.0)):
        nodes = np.linspace(logit(0.01), logit(0.25), 4001)
        exact = np.trapezoid(1.0 / weight_flow_rate(nodes, 0.0, delta), nodes) if hasattr(np, "trapezoid") else np.nan
        assert np.isnan(exact) or exact == pytest.approx(time, abs=0.06)


@pytest.mark.parametrize(("delta", "growth"), [(4.0, 0.18894), (5.0, 0.06663), (6.0, 0.01935)])
def test_merged_state_is_stationary_and_splits_at_the_predicted_rate(delta: float, growth: float) -> None:
    m = merged_state(0.5, delta)
    for beta in (0.2, 0.5, 0.9):
        g = reverse_kl_gradient(logit(beta), [m], [m], 0.0, [0.0], [delta])
        for part in g:
            np.testing.assert_allclose(part, 0.0, atol=1e-11)
    assert float(merged_saddle_growth(0.5, 0.5, delta)) == pytest.approx(growth, abs=1e-5)
    # a small split grows by exp(rate t) along the exact flow
    problem = TwoModeProblem.separated(delta)
    split = 1e-5
    state = TwoModeState(0.0, [m - 0.5 * split], [m + 0.5 * split])
    duration = 1.0 / growth
    end = gradient_flow(problem, ReverseKL(problem), state, duration, GradientFlow(rtol=1e-11))(duration)
    measured = np.log(abs(float(end.mean_new[0] - end.mean_old[0])) / split) / duration
    assert measured == pytest.approx(growth, rel=2e-3)


def test_many_merged_states_are_those_of_bisection() -> None:
    alpha, delta = np.array([[0.2], [0.5], [0.8]]), np.array([5.0, 6.0, 20.0, 64.0])
    found = merged_states(alpha, delta)
    assert found.shape == (3, 4)
    for (i, j), m in np.ndenumerate(found):
        s, d = logit(alpha[i, 0]), delta[j]

        def force(m: float, s: float = s, d: float = d) -> float:
            return float(m - d + d * logistic_normal_mean(s + 0.5 * d * d - d * m, d))

        assert m == pytest.approx(bisect(force, 0.75 * d, d + 1.0, xtol=1e-13), abs=2e-13)
    with pytest.raises(InputError, match=r"no merged state near the new mean at alpha = 0\.5, delta = 0\.5"):
        merged_states(0.5, np.array([6.0, 0.5]))


def test_mode_collapse_is_metastable() -> None:
    problem = TwoModeProblem.separated(6.0)
    state = TwoModeState(logit(0.95), [4.9], [6.0])
    end = gradient_flow(problem, ReverseKL(problem), state, 6000.0)(6000.0)
    assert float(ReverseKL(problem).value(end)) == pytest.approx(0.689, abs=0.004)


@given(log_odds, log_odds, st.floats(1.0, 15.0))
def test_old_mean_force_bounds(s: float, s_p: float, delta: float) -> None:
    force = float(old_mean_force(s, s_p, delta))
    gradient = abs(float(reverse_kl_gradient(s, [0.0], [delta], s_p, [0.0], [delta])[1][0]))
    assert force == pytest.approx(gradient, rel=1e-9, abs=1e-14)  # the gradient is a difference of two probabilities
    low, high = old_mean_force_bounds(s, s_p, delta)
    assert float(low) <= force * (1 + 1e-9) + 1e-300
    assert force <= float(high) * (1 + 1e-9) + 1e-300


def test_force_bounds_are_tight_where_it_matters() -> None:
    s = np.linspace(0.05, 1.0, 20)
    for delta in (4.0, 8.0, 12.0):
        low, high = old_mean_force_bounds(s, -s, delta)
        force = old_mean_force(s, -s, delta)
        assert (high / force).max() < 1.36
        assert (force / low).max() < 1.14


def test_reverse_flow_decreases_and_reaches_the_target() -> None:
    run = simulate_reverse_kl(5.0, 0.4, 0.2, [-1.0, 0.5], 80, 1.0)
    problem = TwoModeProblem.separated(5.0, 0.4, 2)
    values = ReverseKL(problem).value(run.states)
    assert (np.diff(values) <= 1e-10).all()
    assert values[-1] < 1e-8
    assert run.drift[-1] < 1e-4 < run.drift.max()  # transient


def test_bad_input() -> None:
    for call in (
        lambda: reverse_kl_weight_time(1.0, -1.0, 0.0),
        lambda: reverse_kl_weight_time(1.0, 0.0, 0.0),
        lambda: merged_state(0.0, 5.0),
        lambda: merged_state(0.5, -5.0),
        lambda: merged_state(0.5, 0.5),
        lambda: reverse_kl(0.0, [0.0], [1.0, 2.0], 0.0, [0.0], [1.0]),
        lambda: old_mean_force_bounds(0.0, 1.0, 0.0),
        lambda: simulate_reverse_kl(3.0, 1.0, 0.5, 0.0, 10),
    ):
        with pytest.raises(InputError):
            call()
