"""Simulations against what the theory says they must do: closed-form flows, orders of convergence, noise, bookkeeping."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit, logit, ndtr, wrightomega

from fstsim.errors import InputError
from fstsim.general import expectation, kl_divergence
from fstsim.logistic_normal import logistic_normal_mean, logistic_normal_slope
from fstsim.objectives import ForwardKL, Objective, ReverseKL
from fstsim.optimizers import SGD, GradientDescent, GradientFlow
from fstsim.overlap import harmonic_overlap, overlap_gap
from fstsim.simulate import Part, gradient_flow, simulate
from fstsim.trajectory import COLUMNS, Trajectory
from fstsim.two_mode import TwoModeProblem, TwoModeState

FALSE_ALARM = 1e-6  # chance that a statistical test here rejects correct code under another seed
FLOW = 1e-7  # error allowed to a flow solved to rtol 1e-9: local errors add up over a hundred steps, not more,
# because gradient flows of these losses contract in the directions that are measured

SKEWED = TwoModeProblem(0.6, [0.0, 1.0], [2.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])


def flat(run: Trajectory) -> np.ndarray:
    return np.concatenate([run.log_odds[..., None], run.mean_old, run.mean_new], axis=-1)


def assert_same(first: Trajectory, second: Trajectory) -> None:
    """Bit for bit, measurements included."""
    assert first.status == second.status
    for name in ("step", "time", "samples", "log_odds", "mean_old", "mean_new"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, second.columns()[name], err_msg=name)


# --- flows with a closed form (components right, only the weight moves) ----------------------------------------------


@pytest.mark.parametrize("old_fraction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("delta", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("beta", [0.1, 0.9])
def test_fisher_flow_is_exponential_for_every_overlap(delta: float, old_fraction: float, beta: float) -> None:
    """1.4: ``beta(t) = alpha + (beta_0 - alpha) exp(-t)`` in the Fisher-Rao metric."""
    problem = TwoModeProblem.separated(delta)
    flow = GradientFlow(step_time=0.5, geometry="fisher", train="weight")
    run = simulate(problem, ForwardKL(problem, old_fraction), problem.initial(beta), flow, 20)
    np.testing.assert_allclose(
        run.old_mass, old_fraction + (beta - old_fraction) * np.exp(-run.time), rtol=0.0, atol=FLOW
    )
    np.testing.assert_array_equal(run.time, 0.5 * np.arange(21))


def separated_log_odds(beta: float, t: np.ndarray) -> np.ndarray:
    """``ds/dt = -sigmoid(s)``: ``y + log y = y_0 + log y_0 + t`` for ``y = exp(-s)`` (1.3a)."""
    y = np.exp(-logit(beta))
    return -np.log(wrightomega(y + np.log(y) + t).real)


@pytest.mark.parametrize("beta", [0.05, 0.5, 0.99])
def test_separated_law(beta: float) -> None:
    """At delta = 12, ``kappa <= BC / (2 sqrt(beta (1 - beta)))`` is 2e-7 at the end: the ODE is off by this factor."""
    problem = TwoModeProblem.separated(12.0)
    flow = GradientFlow(step_time=0.1, growth=1.3, train="weight")
    run = simulate(problem, ForwardKL(problem), problem.initial(beta), flow, 30)
    exact = separated_log_odds(beta, run.time)
    kappa = float(harmonic_overlap(max(abs(exact[-1]), abs(exact[0])), 12.0))
    # s moves by log(time) in all, so a relative change of speed by kappa moves it by at most kappa times its slope
    # in log time, which is below 1, plus the solver's part
    np.testing.assert_allclose(run.log_odds, exact, rtol=0.0, atol=kappa * run.time[-1] * run.old_mass[0] + 10 * FLOW)
    assert run.time[-1] * run.old_mass[-1] == pytest.approx(1.0, abs=0.05)  # the 1/t law


@pytest.mark.parametrize("delta", [1.0, 2.0, 4.0])
def test_overlapping_flow_lies_between_its_bounds(delta: float) -> None:
    """1.3(b) and (c): ``beta_W(t) <= beta <= beta_W((1 - kappa(t)) t)``, and the time as an integral over s."""
    problem = TwoModeProblem.separated(delta)
    flow = GradientFlow(step_time=0.1, growth=1.5, train="weight")
    run = simulate(problem, ForwardKL(problem), problem.initial(0.4), flow, 20)
    kappa = harmonic_overlap(run.log_odds, delta)
    assert (run.log_odds >= separated_log_odds(0.4, run.time) - FLOW).all()
    assert (run.log_odds <= separated_log_odds(0.4, (1.0 - kappa) * run.time) + FLOW).all()

    def wait(s: float) -> float:
        return (1.0 + np.exp(-s)) / float(overlap_gap(s, delta))

    for k in (5, 12, 20):
        time, error = integrate.quad(wait, run.log_odds[k], run.log_odds[0], epsrel=1e-10)
        slack = 10.0 * FLOW * wait(float(run.log_odds[k]))  # an error of s is an error of t at the local speed
        assert time == pytest.approx(float(run.time[k]), abs=slack + error)


def test_separated_laws_of_the_other_geometries() -> None:
    """1.4 without overlap: ``beta_0 exp(-t)`` (em) and ``(1 - beta)^2 = (1 - beta_0)^2 + 2 t`` (prob)."""
    problem, beta = TwoModeProblem.separated(14.0), 0.6
    em = simulate(
        problem, ForwardKL(problem), problem.initial(beta), GradientFlow(0.25, geometry="em", train="weight"), 20
    )
    np.testing.assert_allclose(em.old_mass, beta * np.exp(-em.time), rtol=1e-6)
    hit = beta - beta**2 / 2.0
    flow = GradientFlow(hit / 20.0, geometry="prob", train="weight")
    prob = simulate(problem, ForwardKL(problem), problem.initial(beta), flow, 19)
    np.testing.assert_allclose(prob.old_mass, 1.0 - np.sqrt((1.0 - beta) ** 2 + 2.0 * prob.time), rtol=0.0, atol=1e-6)


def test_geometries_differ_in_the_weight_and_agree_in_the_means() -> None:
    """The table of `fstsim.optimizers`: ``dbeta/dt`` at one state is -g times 1/m, m the metric; the means move alike."""
    problem = TwoModeProblem.separated(2.0)
    objective, state, tiny = ForwardKL(problem, 0.2), problem.initial(0.7, 0.3), 1e-5
    gradient = objective.gradient(state)
    g, spread = float(gradient.log_odds), 0.7 * 0.3
    gap = float(overlap_gap(state.log_odds, 2.3))
    speeds = {"logit": -spread * g, "em": -g, "prob": -g / spread, "fisher": -g / gap}
    for geometry, speed in speeds.items():
        moves = [
            simulate(problem, objective, state, GradientFlow(tiny, geometry=geometry), 1),
            simulate(problem, objective, state, GradientDescent(tiny, geometry=geometry), 1),
        ]
        for run in moves:  # the second derivative of beta is of order one: a relative error of tiny
            assert np.diff(run.old_mass)[0] / tiny == pytest.approx(speed, rel=1e-3)
            np.testing.assert_allclose(np.diff(run.mean_old[:, 0])[0] / tiny, -gradient.mean_old[0], rtol=1e-3)


@given(st.floats(0.02, 0.98), st.floats(0.0, 1.0), st.floats(0.3, 6.0))
def test_em_step_is_the_em_update(beta: float, old_fraction: float, delta: float) -> None:
    """``geometry="em"`` at lr 1: the new weight is the mean responsibility of the training data, ``E_train[r_o]``."""
    problem = TwoModeProblem.separated(delta)
    optimizer = GradientDescent(1.0, geometry="em", train="weight")
    run = simulate(problem, ForwardKL(problem, old_fraction), problem.initial(beta), optimizer, 1)
    step = 0.4 / max(1.0, delta)
    x = np.arange(-9.5, delta + 9.5, step)
    old, new = stats.norm.pdf(x), stats.norm.pdf(x - delta)
    train, r_o = old_fraction * old + (1.0 - old_fraction) * new, beta * old / (beta * old + (1.0 - beta) * new)
    assert float(run.old_mass[1]) == pytest.approx(step * train @ r_o, abs=1e-11)


@given(st.floats(0.02, 0.98), st.floats(0.01, 0.99), st.floats(0.3, 6.0))
def test_fisher_step_lands_on_the_target(beta: float, old_fraction: float, delta: float) -> None:
    """One step of lr 1 from anywhere: ``beta + (alpha - beta)``; half of it with lr 1/2."""
    problem = TwoModeProblem.separated(delta)
    for lr in (0.5, 1.0):
        optimizer = GradientDescent(lr, geometry="fisher", train="weight")
        run = simulate(problem, ForwardKL(problem, old_fraction), problem.initial(beta), optimizer, 1)
        assert float(run.old_mass[1]) == pytest.approx(beta + lr * (old_fraction - beta), abs=1e-9)


# --- descent against flow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda p: ForwardKL(p, 0.3), ReverseKL])
@pytest.mark.parametrize("geometry", ["logit", "em"])
def test_descent_converges_to_the_flow_with_order_one(make, geometry: str) -> None:
    """The error is ``c_1 h + c_2 h^2 + ...``, so the slope of its logarithm between h and h/2 is ``1 + c h`` and one
    Richardson step leaves ``1 + O(h^2)``, the square of that deviation."""
    problem, duration = SKEWED, 3.0
    objective, initial = make(problem), problem.initial(0.2, [0.5, 0.3])
    exact = gradient_flow(problem, objective, initial, duration, GradientFlow(geometry=geometry, rtol=1e-11))(duration)
    final = np.concatenate([exact.log_odds[None], exact.mean_old, exact.mean_new])
    errors = []
    for steps in (40, 80, 160, 320):
        run = simulate(problem, objective, initial, GradientDescent(duration / steps, geometry=geometry), steps)
        errors.append(np.linalg.norm(flat(run)[-1] - final))
    slopes = -np.diff(np.log2(errors))
    deviation = np.abs(slopes - 1.0)
    assert (deviation < 0.1).all()
    assert deviation[2] < 0.6 * deviation[0]  # 1/4 in the limit
    assert 2.0 * slopes[2] - slopes[1] == pytest.approx(1.0, abs=max(10.0 * deviation[1] ** 2, 1e-3))


# --- joint flows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delta", "remaining"), [(1.0, 0.441), (2.0, 0.271), (3.0, 0.0663)])
def test_joint_forward_flow_collapses_with_weight_left(delta: float, remaining: float) -> None:
    """1.6 [N]: the old component ends on the new mean with ``beta_inf > 0``; what vanishes is the old *region*.

    Collapse is algebraic: ``D ~ (2 beta^2 t)^(-1/2)``, and beta is then within ``D^2 / 4`` of its limit (its late
    invariant is ``beta sqrt(1 - exp(-D^2)) / D``)."""
    problem = TwoModeProblem.separated(delta)
    run = simulate(problem, ForwardKL(problem), problem.initial(0.5), GradientFlow(0.1, growth=1.3), 52)
    final = run.state()
    gap = float(np.abs(final.mean_old - final.mean_new)[0])
    assert gap < 2.0 / np.sqrt(2.0 * remaining**2 * run.time[-1])
    assert float(final.old_mass) == pytest.approx(remaining, rel=gap**2 + 0.5e-3 / remaining * 10 ** (remaining < 0.1))
    assert float(np.abs(final.mean_old - delta)[0]) <= gap
    assert (np.diff(run.old_mass) <= FLOW).all()
    # Pinsker: the mass of the old region is that of the new data plus at most sqrt(L / 2)
    loss = ForwardKL(problem).value(run.states)
    assert (np.diff(loss) <= FLOW).all()
    assert (run.old_region_mass <= ndtr(-delta / 2.0) + np.sqrt(np.maximum(loss, 0.0) / 2.0) + FLOW).all()


def test_capture() -> None:
    """1.6 [N]: a new component that starts too far lets the *old* one be overwritten, while its weight grows."""
    problem = TwoModeProblem.separated(5.0)
    run = simulate(problem, ForwardKL(problem), problem.initial(0.5, 5.5), GradientFlow(2.0), 100)
    assert float(run.old_mass[-1]) > 0.95
    assert float(run.drift[-1]) == pytest.approx(5.0, abs=0.1)
    assert float(run.old_region_mass[-1]) < 0.05  # the measure that is not fooled


@pytest.mark.parametrize("geometry", ["logit", "em", "fisher"])
@pytest.mark.parametrize(("beta", "error"), [(0.2, [0.6, 0.2]), (0.9, [-0.3, 0.3]), (0.5, [1.5, -0.5])])
def test_reverse_flow_falls_to_the_target(geometry: str, beta: float, error: list[float]) -> None:
    """R is a Lyapunov function of its gradient flow in any metric; here every run ends at the target."""
    problem = SKEWED
    objective = ReverseKL(problem)
    flow = GradientFlow(0.2, growth=1.1, geometry=geometry)
    run = simulate(problem, objective, problem.initial(beta, error), flow, 40)  # to time 89
    value = objective.value(run.states)
    # R moves by |gradient| times the solver's error, and the gradient is of order one
    assert (np.diff(value) <= FLOW).all()
    assert value[10] < value[0]
    assert float(value[-1]) == pytest.approx(0.0, abs=FLOW)
    assert float(run.old_mass[-1]) == pytest.approx(problem.alpha, abs=1e-4)  # R is quadratic: sqrt(FLOW)
    assert float(run.drift[-1]) < 1e-3


# --- stochastic gradients --------------------------------------------------------------------------------------------


def test_every_realisation_stays_above_the_separated_iterate(rng: np.random.Generator) -> None:
    """1.5(i) and (ii): ``s_k >= x_k`` with ``x_{k+1} = x_k - h sigmoid(x_k)`` for every path (responsibilities are
    positive), and the odds are a supermartingale: their mean does not grow beyond its noise. (iv): Ville."""
    for delta, batch, lr in ((1.0, 1, 0.5), (3.0, 4, 0.9), (6.0, 2, 0.1)):
        problem, runs, steps, beta = TwoModeProblem.separated(delta), 3000, 80, 0.5
        initial = TwoModeState(np.full(runs, logit(beta)), problem.mean_old, problem.mean_new)
        run = simulate(problem, ForwardKL(problem), initial, SGD(lr, batch, train="weight"), steps, rng)
        x = logit(beta)
        for k in range(1, steps + 1):
            x = x - lr * expit(x)
            assert (run.log_odds[k] >= x - 1e-12 * k).all()
        odds = np.exp(run.log_odds)
        change = np.diff(odds, axis=0)
        noise = change.std(axis=1, ddof=1) / np.sqrt(runs)
        assert (change.mean(axis=1) <= stats.norm.isf(FALSE_ALARM / 3.0 / steps) * noise).all()
        for level in (1.5, 3.0):
            exceeded = int((odds.max(axis=0) >= level * odds[0, 0]).sum())
            assert exceeded <= stats.binom.isf(FALSE_ALARM / 6.0, runs, 1.0 / level)


class LinearNoise:
    """Theory 14.2: mean and variance of ``s_{k+1} = s_k + h g_hat(s_k)`` about the Euler population iterate.

    ``V' = (1 + h J)^2 V + h^2 nu``, ``b' = (1 + h J) b + h J' V / 2`` with drift f, ``J = f'`` and ``nu(s)`` the variance
    of one update's gradient. J and J' are central differences of the exact drift.
    """

    def __init__(self, objective: Objective, noise, s0: float, lr: float, steps: int) -> None:
        p, h = objective.problem, 1e-3

        def drift(s: np.ndarray) -> np.ndarray:
            return -objective.gradient(TwoModeState(s, p.mean_old, p.mean_new)).log_odds

        s, v, b = s0, 0.0, 0.0
        rows = [(s, v, b)]
        self.jacobians = []
        for _ in range(steps):
            low, f, high = drift(s + h * np.array([-1.0, 0.0, 1.0]))
            j, j2 = (high - low) / (2.0 * h), (high - 2.0 * f + low) / h**2
            self.jacobians.append((s, j))
            v, b, s = (1.0 + lr * j) ** 2 * v + lr**2 * noise(s), (1.0 + lr * j) * b + 0.5 * lr * j2 * v, s + lr * f
            rows.append((s, v, b))
        self.mean, self.variance, self.bias = np.array(rows, dtype=np.float64).T


def forward_noise(objective: ForwardKL, batch: int):
    """14.1: ``(E r_o^2 - (E r_o)^2) / N`` with ``E_c[r_o^2] = LN - LP``; components right, one dimension."""
    delta, share = objective.problem.separation, objective.old_fraction
    weights, side = np.array([share, 1.0 - share]), np.array([0.5, -0.5]) * delta**2

    def variance(s: float) -> float:
        first, both = logistic_normal_mean(s + side, delta), logistic_normal_slope(s + side, delta)
        return float(weights @ (first - both) - (weights @ first) ** 2) / batch

    return variance


def reverse_noise(objective: ReverseKL, batch: int):
    """Variance of a sample covariance of ``A = log q/p`` and the score: ``(mu_22 - c^2) / N + (s_A^2 s_g^2 + c^2) /
    (N (N - 1))``, moments by quadrature."""
    p = objective.problem

    def variance(s: float) -> float:
        state = TwoModeState(s, p.mean_old, p.mean_new)
        q, mean = state.mixture(p.covariance), float(objective.value(state))

        def moments(x: np.ndarray) -> np.ndarray:
            g, a = q.responsibilities(x)[:, 0] - expit(s), q.log_prob(x) - p.mixture.log_prob(x) - mean
            return np.stack([a**2 * g**2, a * g, a**2, g**2], axis=-1)

        both, cross, ratio, score = expectation(q, moments).value
        return float((both - cross**2) / batch + (ratio * score + cross**2) / (batch * (batch - 1.0)))

    return variance


@pytest.mark.parametrize("setting", ["new data", "replay", "overlap", "reverse"])
def test_sgd_against_the_population_iterate(setting: str, rng: np.random.Generator) -> None:
    """The mean of R runs lies within ``z sqrt(V / R)`` of the Euler iterate plus bias at all checkpoints, and 95% of the
    runs within ``1.96 sqrt(V)``, up to the binomial noise of R runs. z for all checkpoints together."""
    runs, steps, batch = 1500, 120, 32
    every = np.arange(8, steps + 1, 8)
    problem = TwoModeProblem.separated(1.5 if setting == "overlap" else 3.0, alpha=0.4)
    objective = {"new data": ForwardKL(problem), "overlap": ForwardKL(problem), "replay": ForwardKL(problem, 0.3)}.get(
        setting, ReverseKL(problem)
    )
    lr, beta = (0.4, 0.2) if setting == "reverse" else (0.1, 0.6)
    make_noise = reverse_noise if isinstance(objective, ReverseKL) else forward_noise
    theory = LinearNoise(objective, make_noise(objective, batch), float(logit(beta)), lr, steps)
    initial = TwoModeState(np.full(runs, logit(beta)), problem.mean_old, problem.mean_new)
    run = simulate(problem, objective, initial, SGD(lr, batch, train="weight"), steps, rng)

    population = simulate(problem, objective, problem.initial(beta), GradientDescent(lr, train="weight"), steps)
    np.testing.assert_allclose(population.log_odds, theory.mean, rtol=0.0, atol=1e-12)

    gap = run.log_odds[every] - (theory.mean + theory.bias)[every, None]
    spread = np.sqrt(theory.variance[every])
    z = stats.norm.isf(FALSE_ALARM / 2.0 / every.size)
    assert (np.abs(gap.mean(axis=1)) <= z * spread / np.sqrt(runs)).all()
    inside = (np.abs(gap) <= stats.norm.ppf(0.975) * spread[:, None]).sum(axis=1)
    # 0.01 for the law itself: the linear-noise band is Gaussian, the runs slightly skewed
    assert (inside >= stats.binom.ppf(FALSE_ALARM / every.size, runs, 0.94)).all()
    assert (inside <= stats.binom.isf(FALSE_ALARM / every.size, runs, 0.96)).all()


def test_forward_jacobian() -> None:
    """14.2: ``J = sum_k w_k LP(a_k, delta) - beta (1 - beta)``."""
    problem, share = TwoModeProblem.separated(3.0), 0.3
    objective = ForwardKL(problem, share)
    theory = LinearNoise(objective, forward_noise(objective, 8), 0.4, 0.1, 20)
    for s, j in theory.jacobians:
        slopes = logistic_normal_slope(s + np.array([4.5, -4.5]), 3.0)
        exact = np.array([share, 1.0 - share]) @ slopes - expit(s) * expit(-s)
        assert j == pytest.approx(float(exact), abs=1e-6)  # h^2 / 6 times a third derivative below 1


def test_four_times_the_batch_halves_the_spread(rng: np.random.Generator) -> None:
    """To leading order in the noise; F limits of two sample variances of nearly normal values, 1% for the order."""
    problem, runs = TwoModeProblem.separated(2.0), 1000
    initial = TwoModeState(np.zeros(runs), problem.mean_old, problem.mean_new)
    spread = [
        simulate(problem, ForwardKL(problem), initial, SGD(0.1, n, train="weight"), 40, rng).log_odds[-1].var(ddof=1)
        for n in (64, 256)
    ]
    ratio = spread[0] / spread[1] / 4.0
    low, high = stats.f.ppf(FALSE_ALARM / 2.0, runs - 1, runs - 1), stats.f.isf(FALSE_ALARM / 2.0, runs - 1, runs - 1)
    assert 0.99 * low < ratio < 1.01 * high


# --- equivalent runs -------------------------------------------------------------------------------------------------


def spread_states(problem: TwoModeProblem, shape: tuple[int, ...]) -> TwoModeState:
    shift = np.linspace(-1.0, 1.0, 8).reshape(shape)
    return TwoModeState(shift, problem.mean_old + shift[..., None], problem.mean_new - 0.5 * shift[..., None])


@pytest.mark.parametrize("optimizer", [GradientDescent(0.2), SGD(0.2, 4), GradientFlow(0.3, rtol=1e-5)])
@pytest.mark.parametrize("make", [ForwardKL, ReverseKL])
def test_layout_of_the_batch_does_not_matter(make, optimizer) -> None:
    """8 x 1 and 1 x 8 learners are the same eight; without noise so are eight runs of one."""
    objective = make(SKEWED)

    def run(state: TwoModeState) -> Trajectory:
        return simulate(SKEWED, objective, state, optimizer, 6, np.random.default_rng(5))

    tall, wide = run(spread_states(SKEWED, (8, 1))), run(spread_states(SKEWED, (1, 8)))
    np.testing.assert_array_equal(flat(tall)[:, :, 0], flat(wide)[:, 0])
    if not isinstance(optimizer, SGD):
        for k in (0, 3, 7):
            first = TwoModeState(tall.log_odds[0, k, 0], tall.mean_old[0, k, 0], tall.mean_new[0, k, 0])
            alone = run(first)
            np.testing.assert_allclose(flat(alone), flat(tall)[:, k, 0], rtol=0.0, atol=FLOW)


@pytest.mark.parametrize("optimizer", [GradientDescent(0.2), SGD(0.2, 4)])
def test_a_run_in_two_parts_is_one_run(optimizer) -> None:
    objective, initial = ForwardKL(SKEWED, 0.2), SKEWED.initial(0.7, [0.4, 0.1])
    whole = simulate(SKEWED, objective, initial, optimizer, 12, np.random.default_rng(9))
    rng = np.random.default_rng(9)
    first = simulate(SKEWED, objective, initial, optimizer, 5, rng)
    second = simulate(SKEWED, objective, first.state(), optimizer, 7, rng, part=Part(start=5))
    assert_same(first.then(second), whole)


def test_a_flow_in_two_parts_is_one_flow() -> None:
    """Also when its times are unevenly spaced; the two parts take other solver steps."""
    objective, initial = ReverseKL(SKEWED), SKEWED.initial(0.7, [0.4, 0.1])
    flow = GradientFlow(0.1, growth=1.4)
    whole = simulate(SKEWED, objective, initial, flow, 12)
    first = simulate(SKEWED, objective, initial, flow, 5)
    both = first.then(simulate(SKEWED, objective, first.state(), flow, 7, part=Part(start=5)))
    np.testing.assert_allclose(both.time, whole.time, rtol=1e-13)
    np.testing.assert_allclose(flat(both), flat(whole), rtol=0.0, atol=FLOW)
    dense = gradient_flow(SKEWED, objective, initial, float(whole.time[-1]), flow)(whole.time)
    np.testing.assert_allclose(dense.log_odds, whole.log_odds, rtol=0.0, atol=FLOW)


# --- the trajectory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
@pytest.mark.parametrize("optimizer", [GradientDescent(0.1), SGD(0.1, 5), GradientFlow(0.1)])
@pytest.mark.parametrize("steps", [0, 4])
def test_every_array_has_one_row_a_step(optimizer, steps: int, shape: tuple[int, ...], rng) -> None:
    state = TwoModeState(np.zeros(shape), SKEWED.mean_old, SKEWED.mean_new)
    run = simulate(SKEWED, ReverseKL(SKEWED), state, optimizer, steps, rng)
    assert run.log_odds.shape == (steps + 1, *shape)
    assert run.mean_old.shape == run.mean_new.shape == (steps + 1, *shape, 2)
    columns = run.columns()
    assert tuple(columns) == COLUMNS
    for name, column in columns.items():
        assert column.shape == ((steps + 1,) if name in {"step", "time", "samples"} else (steps + 1, *shape)), name
        assert np.isfinite(column).all(), name
    assert run.status == "completed"
    assert run.steps == steps
    np.testing.assert_array_equal(run.step, np.arange(steps + 1))
    np.testing.assert_array_equal(run.samples, (5 if isinstance(optimizer, SGD) else 0) * np.arange(steps + 1))


def test_measurements() -> None:
    """Each column from its definition, at a state where nothing is trivial."""
    problem = SKEWED
    run = simulate(problem, ForwardKL(problem), problem.initial(0.3, [0.5, -0.2]), GradientDescent(0.4), 5)
    base = run.state(0).mixture(problem.covariance)
    for k in (0, 5):
        state = run.state(k)
        q = state.mixture(problem.covariance)
        beta = float(state.old_mass)
        assert run.old_mass[k] == beta
        assert run.entropy[k] == pytest.approx(-beta * np.log(beta) - (1.0 - beta) * np.log(1.0 - beta), rel=1e-12)
        shift = state.mean_old - problem.mean_old
        assert run.drift[k] == pytest.approx(np.sqrt(shift @ np.linalg.solve(problem.covariance, shift)), abs=1e-12)
        assert run.kl_to_base[k] == pytest.approx(float(kl_divergence(q, base).value), abs=1e-9)
        assert run.kl_from_base[k] == pytest.approx(float(kl_divergence(base, q).value), abs=1e-9)

        # the side of x: log of the ratio of the target's components, linear in x, so normal under each component
        normal = np.linalg.solve(problem.covariance, problem.mean_old - problem.mean_new)
        middle, spread = 0.5 * (problem.mean_old + problem.mean_new), np.sqrt(normal @ problem.covariance @ normal)
        inside = [ndtr((m - middle) @ normal / spread) for m in (state.mean_old, state.mean_new)]
        assert run.old_region_mass[k] == pytest.approx(beta * inside[0] + (1.0 - beta) * inside[1], rel=1e-10)
        assert run.reward[k] == pytest.approx(1.0 - run.old_region_mass[k], rel=1e-12)

        wait, error = integrate.quad(lambda s: 1.0 / (expit(s) * expit(-s)), float(state.log_odds), logit(0.9))
        assert run.relearn[k] == pytest.approx(wait, abs=10 * error + 1e-9)
    assert run.kl_to_base[0] == run.kl_from_base[0] == 0.0
    assert simulate(problem, ForwardKL(problem), problem.initial(0.95), GradientDescent(0.1), 0).relearn[0] == 0.0


def example_run(tmp_path: Path) -> tuple[Trajectory, Path]:
    state = spread_states(SKEWED, (2, 4))
    run = simulate(SKEWED, ReverseKL(SKEWED), state, SGD(0.1, 3), 4, np.random.default_rng(1))
    run.save(tmp_path / "run.npz")
    return run, tmp_path / "run.npz"


def test_save_and_load(tmp_path: Path) -> None:
    run, path = example_run(tmp_path)
    again = Trajectory.load(path)
    assert_same(run, again)
    for name in ("alpha", "mean_old", "mean_new", "covariance"):
        np.testing.assert_array_equal(getattr(run.problem, name), getattr(again.problem, name))
    again.save(str(tmp_path / "new folder" / "again.npz"))
    assert_same(run, Trajectory.load(str(tmp_path / "new folder" / "again.npz")))
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["again.npz"]  # no temporary file is left
    with np.load(path, allow_pickle=False) as data:  # would raise on any pickled array
        assert all(data[name].dtype != object for name in data.files)


class Alarm:
    """Unpickling this would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_what_is_no_trajectory_is_refused(tmp_path: Path) -> None:
    _, path = example_run(tmp_path)
    whole = path.read_bytes()
    with np.load(path) as data:
        arrays = dict(data)

    def npz(name: str, **changes: np.ndarray) -> Path:
        np.savez(tmp_path / name, **{**arrays, **changes})
        return tmp_path / name

    files = {
        "pickled member": npz("member.npz", log_odds=np.array([Alarm()], dtype=object)),
        "pickled header": npz("header.npz", header=np.array(Alarm(), dtype=object)),
        "text header": npz("text.npz", header=np.array("not json")),
        "no alpha": npz("alpha.npz", header=np.array('{"status": "completed"}')),
        "bad problem": npz("problem.npz", problem_covariance=-np.eye(2)),
    }
    del arrays["mean_new"]
    files["missing member"] = npz("missing.npz")
    for name, content in {
        "pickle": pickle.dumps(Alarm()),
        "empty": b"",
        "words": b"log_odds,mean_old\n1,2\n",
        "truncated": whole[: len(whole) // 2],
        "torn": whole[:200] + bytes(200) + whole[400:],
    }.items():
        files[name] = tmp_path / name
        files[name].write_bytes(content)
    np.save(tmp_path / "array.npy", np.zeros(3))
    files["array"] = tmp_path / "array.npy"
    files["folder"] = tmp_path
    for name, file in files.items():
        with pytest.raises(InputError, match=r"not a trajectory|is not a file"):
            pytest.fail(f"{name} was read: {Trajectory.load(file)}")
    with pytest.raises(InputError, match="there is no file"):
        Trajectory.load(tmp_path / "nowhere.npz")


# --- divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [30.0, 1e8, 1e300])
def test_divergence_is_a_status_not_a_warning(lr: float, tmp_path: Path) -> None:
    """nan from the first step that is not finite; measurements and files still work; no warning (they are errors)."""
    problem = TwoModeProblem.separated(3.0)
    run = simulate(problem, ForwardKL(problem), problem.initial(0.3, 1.0), GradientDescent(lr), 60)
    assert run.status == "diverged"
    lost = ~np.isfinite(flat(run)).all(axis=-1)
    first = int(lost.argmax())
    assert first > 0
    assert np.isnan(flat(run)[first:]).all()
    for name, column in run.columns().items():
        assert column.shape == (61,), name
        assert np.isfinite(column[:first]).all(), name
    with pytest.raises(InputError, match="finite"):
        _ = run.states
    run.save(tmp_path / "run.npz")
    assert_same(run, Trajectory.load(tmp_path / "run.npz"))


def test_divergence_of_a_batch_under_noise(rng: np.random.Generator) -> None:
    """The learners stop together: one table has one length."""
    problem = TwoModeProblem.separated(3.0)
    state = TwoModeState(np.zeros(4), problem.mean_old, problem.mean_new)
    run = simulate(problem, ForwardKL(problem), state, SGD(50.0, 2), 100, rng)
    assert run.status == "diverged"
    assert np.isnan(flat(run)[-1]).all()


# --- input -----------------------------------------------------------------------------------------------------------


def test_progress_counts_the_steps(rng: np.random.Generator) -> None:
    seen: list[int] = []
    for optimizer in (GradientDescent(0.1), SGD(0.1, 2), GradientFlow(0.1)):
        seen.clear()
        simulate(SKEWED, ReverseKL(SKEWED), SKEWED.initial(0.5), optimizer, 4, rng, part=Part(progress=seen.append))
        assert seen[-1] == 4
        assert seen == sorted(seen)


def test_same_seed_same_run_and_no_hidden_randomness() -> None:
    def run(seed: int) -> Trajectory:
        return simulate(SKEWED, ReverseKL(SKEWED), SKEWED.initial(0.5), SGD(0.1, 4), 5, np.random.default_rng(seed))

    assert_same(run(3), run(3))
    assert not np.array_equal(run(3).log_odds, run(4).log_odds)


def test_bad_runs_are_named(rng: np.random.Generator) -> None:
    objective, initial, optimizer = ReverseKL(SKEWED), SKEWED.initial(0.5), GradientDescent(0.1)
    other = TwoModeProblem.separated(2.0)
    with pytest.raises(InputError, match="another problem"):
        simulate(other, objective, initial, optimizer, 1)
    with pytest.raises(InputError, match="dimension 1, the problem 2"):
        simulate(SKEWED, objective, other.initial(0.5), optimizer, 1)
    with pytest.raises(InputError, match="steps must be nonnegative"):
        simulate(SKEWED, objective, initial, optimizer, -1)
    with pytest.raises(InputError, match="pass rng"):
        simulate(SKEWED, objective, initial, SGD(0.1, 4), 1)
    with pytest.raises(InputError, match="batch must be at least 2"):
        simulate(SKEWED, objective, initial, SGD(0.1, 1), 1, rng)
    with pytest.raises(InputError, match="one learner"):
        gradient_flow(SKEWED, objective, spread_states(SKEWED, (8,)), 1.0)
    with pytest.raises(InputError, match="time must lie in"):
        gradient_flow(SKEWED, objective, initial, 1.0)([0.5, 1.5])


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: GradientDescent(0.0), "lr must be positive"),
        (lambda: GradientDescent(np.nan), "lr must be positive"),
        (lambda: GradientDescent(0.1, geometry="euclid"), "geometry must be one of"),
        (lambda: GradientDescent(0.1, train="means"), "train must be one of"),
        (lambda: SGD(-0.1, 4), "lr must be positive"),
        (lambda: SGD(0.1, 0), "batch must be at least 1"),
        (lambda: GradientFlow(0.0), "step_time must be positive"),
        (lambda: GradientFlow(np.inf), "step_time must be positive"),
        (lambda: GradientFlow(1.0, growth=0.9), "growth must be at least 1"),
        (lambda: GradientFlow(1.0, rtol=0.0), "rtol must be positive"),
        (lambda: GradientFlow(1.0, geometry=""), "geometry must be one of"),
    ],
)
def test_bad_optimizers_are_named(make, what: str) -> None:
    with pytest.raises(InputError, match=what):
        make()
