"""Sections 1 and 2 against ODE solutions, Monte Carlo with its own error, and quoted numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import approx_fprime, brentq
from scipy.special import expit, logit

from fstsim import SGD, ForwardKL, GradientFlow, InputError, TwoModeProblem, TwoModeState, gradient_flow, simulate
from fstsim.divergences import expected_log_density
from fstsim.overlap import overlap_gap
from fstsim.theory import (
    forward_kl_gradient,
    late_collapse_mass,
    mass_forgetting_bounds,
    mass_forgetting_separated,
    mass_forgetting_time,
    mass_forgetting_ultimate,
    old_mean_drift_forward,
    simulate_forward_kl,
)
from fstsim.theory.overlap import second_moment_constant
from fstsim.theory.statements.forward_joint import long_flow

masses = st.floats(0.01, 0.99)


@given(st.integers(1, 4), st.integers(0, 10**6))
def test_gradient_is_the_derivative_of_the_cross_entropy(dimension: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3))
    centers = 2.0 * rng.standard_normal((3, dimension))
    theta = np.concatenate([rng.uniform(-2, 2, 1), 2.0 * rng.standard_normal(2 * dimension)])

    def loss(x: np.ndarray) -> float:
        m_o, m_n = x[1 : 1 + dimension], x[1 + dimension :]
        return float(-(weights * expected_log_density(centers, x[0], m_o, m_n)).sum())

    g = forward_kl_gradient(theta[0], theta[1 : 1 + dimension], theta[1 + dimension :], weights, centers)
    numeric = np.concatenate([approx_fprime(theta, loss, 1e-6), -approx_fprime(theta, lambda x: -loss(x), -1e-6)])
    central = 0.5 * (numeric[: theta.size] + numeric[theta.size :])
    # central difference with step 1e-6: truncation 1e-12 times third derivatives, rounding 1e-16 * |loss| / 1e-6
    np.testing.assert_allclose(np.concatenate([np.atleast_1d(x) for x in g]), central, atol=3e-8)


@given(masses, st.floats(0.5, 6.0), st.floats(0.05, 6.0))
def test_time_inverts_the_flow(beta0: float, delta: float, fall: float) -> None:
    s1 = logit(beta0) - fall
    t = float(mass_forgetting_time(beta0, expit(s1), delta))
    path = solve_ivp(
        lambda _, s: -expit(s) * overlap_gap(s, delta), (0.0, t), [logit(beta0)], rtol=1e-10, atol=1e-12, method="LSODA"
    )
    assert path.y[0, -1] == pytest.approx(s1, abs=1e-7)


@given(masses, st.floats(0.3, 10.0), st.floats(0.05, 10.0))
def test_bounds_bracket_the_exact_mass(beta0: float, delta: float, fall: float) -> None:
    beta1 = float(expit(logit(beta0) - fall))
    low, high = mass_forgetting_bounds(beta0, mass_forgetting_time(beta0, beta1, delta), delta)
    assert float(low) <= beta1 * (1.0 + 1e-10)
    assert beta1 <= float(high) * (1.0 + 1e-10)


@given(masses, st.floats(0.0, 1e9))
def test_separated_law_solves_its_ode(beta0: float, t: float) -> None:
    beta = float(mass_forgetting_separated(beta0, t))
    y0, y = (1.0 - beta0) / beta0, (1.0 - beta) / beta
    assert y + np.log(y) == pytest.approx(y0 + np.log(y0) + t, rel=1e-11, abs=1e-11)


def test_separated_law_is_one_over_t_not_exponential() -> None:
    t = np.array([1e4, 1e6, 1e8])
    np.testing.assert_allclose(t * mass_forgetting_separated(0.5, t), 1.0, atol=2e-3)


def test_intermediate_window_widens_with_separation_and_ends_in_the_square_root() -> None:
    def mass_at(t: float, delta: float) -> float:
        s = brentq(lambda s: np.log(float(mass_forgetting_time(0.5, expit(s), delta)) / t), -60.0, -1e-6)
        return float(expit(s))

    products = np.array([1e3 * mass_at(1e3, d) for d in (1.0, 2.0, 3.0, 4.0, 6.0)])
    assert (np.diff(products) < 0.0).all()  # nearer to the separated law the larger delta
    assert products[-1] == pytest.approx(1.03, abs=0.01)
    assert mass_at(1e9, 1.0) / float(mass_forgetting_ultimate(1e9, 1.0)) == pytest.approx(1.0, abs=2e-3)
    assert mass_at(1e9, 3.0) / float(mass_forgetting_ultimate(1e9, 3.0)) == pytest.approx(1.29, abs=0.01)


@pytest.mark.parametrize("old_fraction", [0.0, 0.3])
@pytest.mark.parametrize("delta", [0.7, 2.0, 5.0])
def test_fisher_rao_trajectory_is_exponential_at_every_overlap(delta: float, old_fraction: float) -> None:
    run = simulate_forward_kl(delta, 0.6, 40, 0.1, old_fraction=old_fraction, geometry="fisher", train="weight")
    expected = old_fraction + (0.6 - old_fraction) * np.exp(-run.time)
    np.testing.assert_allclose(run.old_mass, expected, rtol=1e-6)


def test_probability_geometry_never_reaches_zero_with_overlap() -> None:
    delta = 1.0
    run = simulate_forward_kl(delta, 0.5, 30, 0.2, geometry="prob", train="weight")
    floor = 0.5 * np.exp(-np.expm1(delta**2) * run.time)
    assert (run.old_mass >= floor * (1.0 - 1e-7)).all()
    assert run.old_mass[-1] < 1e-3


def test_sgd_never_falls_below_the_separated_euler_iterate() -> None:
    # theory 1.5 (i): pathwise, every realisation
    delta, lr, batch = 2.0, 0.3, 4
    problem = TwoModeProblem.separated(delta)
    start = TwoModeState(np.zeros(500), problem.mean_old, problem.mean_new)
    run = simulate(problem, ForwardKL(problem), start, SGD(lr, batch, train="weight"), 200, np.random.default_rng(3))
    euler = np.zeros(201)
    for k in range(200):
        euler[k + 1] = euler[k] - lr * expit(euler[k])
    assert (run.log_odds >= euler[:, None] - 1e-9).all()
    # Ville: the odds ever exceed c times their start with probability at most 1/c; 4.5 binomial standard errors
    odds = np.exp(run.log_odds)
    for c in (1.5, 2.0, 4.0):
        share = float((odds.max(axis=0) >= c * odds[0]).mean())
        assert share <= 1.0 / c + 4.5 * np.sqrt(0.25 / 500)
    # supermartingale: the mean odds do not rise by more than 4.5 standard errors
    change = odds[1:] - odds[:-1]
    error = change.std(axis=1) / np.sqrt(500)
    assert (change.mean(axis=1) <= 4.5 * error).all()


@pytest.mark.parametrize(("delta", "beta_inf"), [(1.0, 0.441), (2.0, 0.271), (3.0, 0.0663), (4.0, 4.47e-3)])
def test_joint_flow_ends_collapsed_with_positive_mass(delta: float, beta_inf: float) -> None:
    problem = TwoModeProblem.separated(delta)
    end = gradient_flow(problem, ForwardKL(problem), problem.initial(0.5), 1e7, GradientFlow(rtol=1e-8))(1e7)
    assert float(end.old_mass) == pytest.approx(beta_inf, rel=6e-3)
    np.testing.assert_allclose(end.mean_old, problem.mean_new, atol=0.02 * delta)  # the gap closes like t^(-1/2)


def test_many_joint_flows_at_once_are_those_of_the_simulator() -> None:
    delta, duration, share = np.array([1.5, 3.0]), np.array([1e5, 400.0]), np.array([0.0, 0.01, 1.0])
    zero = np.zeros(2)
    s, old, new = long_flow((zero, zero, delta), delta, duration, 1e-9)(share)
    for k, d in enumerate(delta):
        problem = TwoModeProblem.separated(float(d))
        flow = gradient_flow(problem, ForwardKL(problem), problem.initial(0.5), duration[k], GradientFlow(rtol=1e-10))
        states = flow(share * duration[k])
        np.testing.assert_allclose(s[k], states.log_odds, atol=1e-6)
        np.testing.assert_allclose(old[k], states.mean_old[:, 0], atol=1e-6)
        np.testing.assert_allclose(new[k], states.mean_new[:, 0], atol=1e-6)


def test_old_region_empties_although_the_weight_stays() -> None:
    problem = TwoModeProblem.separated(3.0)
    run = simulate(problem, ForwardKL(problem), problem.initial(0.5), GradientFlow(0.01, 1.08), 300)
    assert run.old_mass[-1] > 0.06
    background = 0.5 * (1.0 - 0.8663855974622838)  # P_n(A) = Phi(-delta/2) = 0.0668
    assert run.old_region_mass[-1] == pytest.approx(background, abs=2e-3)
    assert (np.diff(run.old_mass) <= 1e-9).all()


@given(st.floats(-5.0, 5.0), st.floats(-4.0, 4.0), st.floats(-4.0, 4.0))
def test_only_collapsed_states_are_stationary(s: float, m_o: float, m_n: float) -> None:
    center = np.zeros((1, 1))
    for part in forward_kl_gradient(s, [0.0], [0.0], [1.0], center):  # any weight, both means at the new data
        np.testing.assert_allclose(part, 0.0, atol=1e-15)
    # off collapse the forces on the means cannot both vanish: their combination is Var(r_o) |m_o - m_n|
    if abs(m_o - m_n) > 0.1:
        _, g_o, g_n = forward_kl_gradient(s, [m_o], [m_n], [1.0], center)
        rng = np.random.default_rng(0)
        x = rng.standard_normal(4000)
        r = expit(s + (m_o - m_n) * (x - 0.5 * (m_o + m_n)))
        assert max(abs(g_o[0]), abs(g_n[0])) >= 0.5 * float(r.var()) * abs(m_o - m_n) * 0.8


def test_late_invariant_predicts_the_plateau() -> None:
    # start late: beta small, the new mean at its adiabatic overshoot beta D
    beta, d = 1e-4, 2.0
    problem = TwoModeProblem.separated(d)
    state = TwoModeState(logit(beta), problem.mean_old, problem.mean_new + beta * d)
    horizon = 100.0 / beta**2
    end = gradient_flow(problem, ForwardKL(problem), state, horizon, GradientFlow(rtol=1e-8))(horizon)
    assert float(end.old_mass) == pytest.approx(float(late_collapse_mass(beta, d)), rel=5e-3)


def test_capture_overwrites_the_old_component() -> None:
    problem = TwoModeProblem.separated(5.0)
    end = gradient_flow(problem, ForwardKL(problem), problem.initial(0.5, 5.5), 3000.0)(3000.0)
    assert float(end.old_mass) > 0.9
    assert float(end.mean_old[0]) == pytest.approx(5.0, abs=0.1)  # at the new data


@pytest.mark.parametrize(
    ("delta", "beta0", "time"), [(4.0, 0.5, 1.0), (4.0, 0.2, 3.0), (5.0, 0.3, 10.0), (7.0, 0.5, 100.0)]
)
def test_the_drift_bound_solves_its_inequalities(delta: float, beta0: float, time: float) -> None:
    """The certificate as equations, iterated from 0; the mass without overlap loses its log-odds at the rate beta."""
    s0 = float(logit(beta0))
    end = solve_ivp(lambda _, s: -expit(s), (0.0, time), [s0], rtol=1e-11, atol=1e-12).y[0, -1]
    way, spread = np.sinh(s0 / 2.0) - np.sinh(end / 2.0), np.sqrt(expit(end) * expit(-end))
    rho = v = 0.0
    for _ in range(500):
        reach, closest = delta + (rho + v), delta - (rho + v)
        constant = float(second_moment_constant(closest))
        overlap = np.exp((4.0 * v * v - closest**2) / 8.0)
        new_rho = 4.0 * constant * reach * overlap * way / (1.0 - overlap / (2.0 * spread))
        v = constant * np.exp(s0 / 2.0) * overlap * reach / (1.0 - np.exp(s0 / 2.0) * overlap / 2.0)
        rho = new_rho
    assert v > 1e-3 * delta * np.exp(-(delta**2) / 8.0)
    assert float(old_mean_drift_forward(delta, beta0, time)[0]) == pytest.approx(rho, rel=1e-6)


@pytest.mark.parametrize("beta0", [0.5, 0.2])
@pytest.mark.parametrize("delta", [4.0, 6.0, 8.0, 10.0])
def test_drift_certificate_holds_and_is_tight(delta: float, beta0: float) -> None:
    times = np.array([1.0, 10.0, 100.0, 1e3, 1e4])
    bound, _ = old_mean_drift_forward(delta, beta0, times)
    problem = TwoModeProblem.separated(delta)
    path = gradient_flow(problem, ForwardKL(problem), problem.initial(beta0), 1e4)
    drift = path(times).mean_old[:, 0]
    certified = np.isfinite(bound)
    assert (drift[certified] <= bound[certified]).all()
    assert (bound[certified] <= 2.3 * drift[certified]).all()  # and it is not loose
    # no certificate once BC sqrt(T) exceeds about 0.3, and always one well below
    gate = np.exp(-(delta**2) / 8.0) * np.sqrt(times)
    assert not certified[gate > 0.6].any()
    assert certified[gate < 0.1].all()


@pytest.mark.parametrize("delta", [8.0, 10.0, 12.0])
def test_drift_grows_like_the_square_root_of_time(delta: float) -> None:
    times = np.geomspace(1e2, 1e4, 9)
    problem = TwoModeProblem.separated(delta)
    drift = gradient_flow(problem, ForwardKL(problem), problem.initial(0.5), 1e4)(times).mean_old[:, 0]
    slope = np.polyfit(np.log(times), np.log(drift), 1)[0]
    # sqrt(T) is the leading order for log T << delta: the saddle factor exp(-(x - 2)^2 / (2 delta^2)) of E[r_o^2] at
    # x = -log T takes (log T + 2) / delta^2 off the slope
    assert 0.5 - (np.log(times[-1]) + 2.0) / delta**2 < slope < 0.5 + 0.01


def test_bad_input() -> None:
    for call in (
        lambda: mass_forgetting_separated(0.0, 1.0),
        lambda: mass_forgetting_separated(0.5, -1.0),
        lambda: mass_forgetting_separated(0.5, np.inf),
        lambda: mass_forgetting_time(0.5, 1.0, 2.0),
        lambda: mass_forgetting_time(0.5, 0.1, 0.0),
        lambda: mass_forgetting_bounds(1.5, 1.0, 2.0),
        lambda: old_mean_drift_forward(-1.0, 0.5, 1.0),
        lambda: forward_kl_gradient(0.0, [0.0], [1.0, 2.0], [1.0], [[0.0]]),
        lambda: forward_kl_gradient(0.0, [0.0], [1.0], [0.5, 0.5], [[0.0]]),
        lambda: simulate_forward_kl(3.0, 0.0, 10),
    ):
        with pytest.raises(InputError):
            call()
