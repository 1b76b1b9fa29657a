"""Exact divergences and gradients against direct numerical integration, autograd and finite differences.

The reference integrates the *definition* on a grid in 1-D and 2-D with torch float64, densities written out, so that
autograd gives the gradient of exactly that sum; it shares no formula with `fstsim.divergences`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit, log_expit, logit

from fstsim.divergences import (
    expected_log_density,
    forward_kl_gradient,
    reverse_kl,
    reverse_kl_gradient,
    two_mode_kl,
)
from fstsim.errors import InputError
from fstsim.logistic_normal import expected_softplus, logistic_normal_mean, logistic_normal_slope
from fstsim.objectives import ForwardKL, ReverseKL
from fstsim.overlap import bhattacharyya_coefficient, harmonic_overlap, overlap_gap, weight_fisher_information
from fstsim.two_mode import TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened

Params = tuple[np.ndarray, np.ndarray, np.ndarray]  # log-odds, old mean, new mean

# --- random instances ------------------------------------------------------------------------------------------------


def vectors(d: int, size: float) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.floats(-size, size), min_size=d, max_size=d).map(np.array)


@st.composite
def mixtures(draw, d: int, size: float = 3.0) -> Params:
    return np.asarray(draw(st.floats(-4.0, 4.0))), draw(vectors(d, size)), draw(vectors(d, size))


@st.composite
def pairs(draw, max_dimension: int = 4, size: float = 3.0) -> tuple[Params, Params]:
    d = draw(st.integers(1, max_dimension))
    return draw(mixtures(d, size)), draw(mixtures(d, size))


# --- the reference: direct integration in torch ----------------------------------------------------------------------


def grid(*params: Params) -> tuple[torch.Tensor, float]:
    """Nodes ``(N, D)`` and their volume, 9 standard deviations around all means.

    The responsibilities have poles at distance ``pi / D`` from the real axis, D the largest separation, where the
    Gaussian is ``exp(pi^2 / 2 D^2)``: the trapezoid errs by ``exp(-2 pi^2 / (h D) + pi^2 / 2 D^2)`` and a factor
    ``2 pi / h`` for a double pole, which is below 1e-15 for ``h = 0.45 / max(1, D)``.
    """
    means = np.stack([m for p in params for m in p[1:]])
    separation = max(float(np.linalg.norm(p[1] - p[2])) for p in params)
    step = 0.45 / max(1.0, separation)
    axes = [
        torch.arange(low - 9.0, high + 9.0 + step, step, dtype=torch.float64)
        for low, high in zip(means.min(axis=0), means.max(axis=0), strict=True)
    ]
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([m.ravel() for m in mesh], dim=-1), step ** len(axes)


def torch_log_density(params: tuple[torch.Tensor, ...], x: torch.Tensor) -> torch.Tensor:
    s, old, new = params
    parts = [
        torch.nn.functional.logsigmoid(sign * s) - 0.5 * ((x - m) ** 2).sum(-1) for sign, m in ((1, old), (-1, new))
    ]
    return torch.logaddexp(*parts) - 0.5 * x.shape[-1] * math.log(2.0 * math.pi)


def integrated(p: Params, q: Params, learner: int) -> tuple[float, list[np.ndarray]]:
    """``KL(p || q)`` and its gradient in the parameters of ``p`` (learner 0) or of ``q`` (learner 1)."""
    x, volume = grid(p, q)
    tensors = [[torch.tensor(v, dtype=torch.float64, requires_grad=k == learner) for v in (p, q)[k]] for k in (0, 1)]
    log_p, log_q = (torch_log_density(tuple(t), x) for t in tensors)
    value = volume * (log_p.exp() * (log_p - log_q)).sum()
    value.backward()
    gradients = [t.grad.numpy() for t in tensors[learner] if t.grad is not None]
    return value.item(), gradients


def assert_gradient(actual: Params, expected: list[np.ndarray], atol: float) -> None:
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0.0, atol=atol)


def forward_gradient(target: Params, q: Params) -> Params:
    weights = np.stack([expit(target[0]), expit(-target[0])], axis=-1)
    return forward_kl_gradient(*q, weights, np.stack(target[1:], axis=-2))


@given(pairs(1, size=5.0))
def test_autograd_of_one_dimensional_integrals(pair: tuple[Params, Params]) -> None:
    p, q = pair
    value, gradient = integrated(p, q, 1)
    assert float(two_mode_kl(Whitened(*p), Whitened(*q))) == pytest.approx(value, abs=1e-11)
    assert_gradient(forward_gradient(p, q), gradient, 1e-10)
    value, gradient = integrated(q, p, 0)
    assert float(reverse_kl(*q, *p)) == pytest.approx(value, abs=1e-11)
    assert_gradient(reverse_kl_gradient(*q, *p), gradient, 1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_autograd_of_two_dimensional_integrals(seed: int) -> None:
    """Four means in general position: nothing is collinear."""
    rng = np.random.default_rng(seed)
    p, q = ((rng.normal(scale=1.5), *rng.normal(scale=1.5, size=(2, 2))) for _ in range(2))
    value, gradient = integrated(p, q, 1)
    assert float(two_mode_kl(Whitened(*p), Whitened(*q))) == pytest.approx(value, abs=1e-11)
    assert_gradient(forward_gradient(p, q), gradient, 1e-10)
    value, gradient = integrated(q, p, 0)
    assert float(reverse_kl(*q, *p)) == pytest.approx(value, abs=1e-11)
    assert_gradient(reverse_kl_gradient(*q, *p), gradient, 1e-10)


# --- gradients against values ----------------------------------------------------------------------------------------


def finite_difference(value: Callable[[Params], np.ndarray], at: Params, step: float) -> list[np.ndarray]:
    """Central differences with one Richardson step: error ``O(step^4)`` and rounding over ``step``."""
    flat = np.concatenate([np.atleast_1d(v) for v in at])
    d = at[1].size

    def central(h: float) -> np.ndarray:
        moved = flat + h * np.concatenate([np.eye(flat.size), -np.eye(flat.size)])
        r = value((moved[:, 0], moved[:, 1 : 1 + d], moved[:, 1 + d :]))
        return (r[: flat.size] - r[flat.size :]) / (2.0 * h)

    g = (4.0 * central(step / 2.0) - central(step)) / 3.0
    return [g[0], g[1 : 1 + d], g[1 + d :]]


@given(pairs())
def test_finite_differences(pair: tuple[Params, Params]) -> None:
    """In up to four dimensions. With ``h = 1e-2`` Richardson leaves ``h^4 / 480`` times a fifth derivative. That is,
    by Stein's lemma, an expectation of a Hermite polynomial of degree 5 (norm ``sqrt(5!)``, times 5 for the mixture's
    own dependence) against a log-ratio of size ``L``; rounding is ``1e-14 L / h``."""
    p, q = pair
    step = 1e-2
    size = 1.0 + max(float(np.abs(a - b).max()) for a in p[1:] for b in q[1:]) ** 2 + abs(p[0]) + abs(q[0])
    atol = step**4 / 480.0 * 5.0 * math.sqrt(120.0) * size + 1e-14 * size / step
    assert_gradient(
        forward_gradient(p, q), finite_difference(lambda at: two_mode_kl(Whitened(*p), Whitened(*at)), q, step), atol
    )
    assert_gradient(reverse_kl_gradient(*q, *p), finite_difference(lambda at: reverse_kl(*at, *p), q, step), atol)


@given(pairs())
def test_zero_gradient_at_the_target_and_at_the_swapped_target(pair: tuple[Params, Params]) -> None:
    (s, old, new), _ = pair
    size = 1.0 + float(np.linalg.norm(old - new)) ** 2
    for at in ((s, old, new), (-s, new, old)):
        assert float(reverse_kl(*at, s, old, new)) == pytest.approx(0.0, abs=1e-13 * size)
        zeros = [np.zeros(()), np.zeros(old.size), np.zeros(old.size)]
        assert_gradient(reverse_kl_gradient(*at, s, old, new), zeros, 1e-13 * size)
        assert_gradient(forward_gradient((s, old, new), at), zeros, 1e-13 * size)


@given(pairs())
def test_merged_states_are_stationary_in_the_weight(pair: tuple[Params, Params]) -> None:
    """``m_o = m_n``: the weight means nothing there, for either divergence."""
    (s, old, new), (s_q, merged, _) = pair
    assert float(reverse_kl_gradient(s_q, merged, merged, s, old, new)[0]) == 0.0
    assert float(forward_gradient((s, old, new), (s_q, merged, merged))[0]) == pytest.approx(0.0, abs=1e-15)


# --- invariances -----------------------------------------------------------------------------------------------------


def assert_same_kl(p: Params, q: Params, p2: Params, q2: Params) -> None:
    for first, second in (
        (two_mode_kl(Whitened(*p), Whitened(*q)), two_mode_kl(Whitened(*p2), Whitened(*q2))),
        (two_mode_kl(Whitened(*q), Whitened(*p)), two_mode_kl(Whitened(*q2), Whitened(*p2))),
    ):
        assert float(first) == pytest.approx(float(second), rel=1e-12, abs=1e-12)


@given(pairs())
def test_label_swap(pair: tuple[Params, Params]) -> None:
    p, q = pair
    swapped_p, swapped_q = (-p[0], p[2], p[1]), (-q[0], q[2], q[1])
    for p2, q2 in ((swapped_p, q), (p, swapped_q), (swapped_p, swapped_q)):
        assert_same_kl(p, q, p2, q2)
    for gradient in (lambda at: reverse_kl_gradient(*at, *p), lambda at: forward_gradient(p, at)):
        g, swapped = gradient(q), gradient(swapped_q)
        assert_gradient((-swapped[0], swapped[2], swapped[1]), list(g), 1e-12)


@given(pairs(), st.integers(0, 2**32 - 1))
def test_rotations_and_translations(pair: tuple[Params, Params], seed: int) -> None:
    p, q = pair
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(p[1].size, p[1].size)))[0]
    shift = rng.normal(size=p[1].size)
    p2, q2 = ((s, rotation @ old + shift, rotation @ new + shift) for s, old, new in (p, q))
    assert_same_kl(p, q, p2, q2)
    for gradient in (lambda at, to: reverse_kl_gradient(*at, *to), lambda at, to: forward_gradient(to, at)):
        g, moved = gradient(q, p), gradient(q2, p2)
        assert_gradient(moved, [g[0], rotation @ g[1], rotation @ g[2]], 1e-11)


@given(pairs(), st.integers(0, 2**32 - 1))
def test_linear_changes_of_coordinates(pair: tuple[Params, Params], seed: int) -> None:
    """``x -> A x`` with covariance ``A A'``: values stay, mean gradients become ``A^-T g`` (theory 0, whitening)."""
    p, q = pair
    assume(np.linalg.norm(p[1] - p[2]) > 1e-3)
    d = p[1].size
    a = np.random.default_rng(seed).normal(size=(d, d)) + 2.0 * np.eye(d)
    assume(np.linalg.cond(a) < 50.0)
    alpha = float(expit(p[0]))
    plain = TwoModeProblem(alpha, p[1], p[2], np.eye(d))
    moved = TwoModeProblem(alpha, a @ p[1], a @ p[2], a @ a.T)
    state, moved_state = TwoModeState(*q), TwoModeState(q[0], a @ q[1], a @ q[2])
    assert moved.separation == pytest.approx(plain.separation, rel=1e-10)
    for make in (ForwardKL, lambda problem: ForwardKL(problem, 0.3), ReverseKL):
        first, second = make(plain), make(moved)
        assert float(first.value(state)) == pytest.approx(float(second.value(moved_state)), rel=1e-9, abs=1e-10)
        g, h = first.gradient(state), second.gradient(moved_state)
        expected = [g.log_odds, np.linalg.solve(a.T, g.mean_old), np.linalg.solve(a.T, g.mean_new)]
        assert_gradient((h.log_odds, h.mean_old, h.mean_new), expected, 1e-9)


# --- the skeleton and the sign ---------------------------------------------------------------------------------------


def skeleton(q: Params, p: Params) -> float:
    """``KL(beta || alpha) + beta |e|^2 / 2 + (1 - beta) |v|^2 / 2``."""
    s, s_p = float(q[0]), float(p[0])
    total = 0.0
    for weight, gain, m, mu in (
        (expit(s), log_expit(s) - log_expit(s_p), q[1], p[1]),
        (expit(-s), log_expit(-s) - log_expit(-s_p), q[2], p[2]),
    ):
        total += float(weight * (gain + 0.5 * ((m - mu) ** 2).sum()))
    return total


@given(pairs())
def test_positive_and_below_the_skeleton(pair: tuple[Params, Params]) -> None:
    p, q = pair
    bound = skeleton(q, p)
    value = float(reverse_kl(*q, *p))
    assert -1e-13 * (1.0 + bound) <= value <= bound + 1e-12 * (1.0 + bound)


@given(pairs(1, size=4.0))
def test_skeleton_identity(pair: tuple[Params, Params]) -> None:
    """``R = R_sk - E_q KL(r^q || r^p)`` (theory 3.2), the last term by direct integration."""
    p, q = pair
    x, volume = grid(p, q)
    nodes = x.numpy()

    def log_odds(s: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return s + nodes @ (old - new) - 0.5 * (old @ old - new @ new)

    z_q, z_p = log_odds(*q), log_odds(*p)
    mode_kl = expit(z_q) * (log_expit(z_q) - log_expit(z_p)) + expit(-z_q) * (log_expit(-z_q) - log_expit(-z_p))
    density = torch_log_density(tuple(torch.as_tensor(v) for v in q), x).exp().numpy()
    expected = skeleton(q, p) - volume * density @ mode_kl
    assert float(reverse_kl(*q, *p)) == pytest.approx(expected, abs=1e-11 * (1.0 + skeleton(q, p)))


# --- theory 1 and 2: forward KL ---------------------------------------------------------------------------------------


@given(pairs(1, size=4.0), st.floats(-4.0, 4.0))
def test_stein_identity(pair: tuple[Params, Params], center: float) -> None:
    """1.1: ``E_c[r_o (x - m_o)] = E_c[r_o] (c - m_o) + E_c[r_o r_n] (m_o - m_n)``, by direct integration."""
    (s, old, new), _ = pair
    c = np.array([center])
    x, volume = grid((s, old, new), (s, c, c))
    x = x.numpy()[:, 0]
    weight = volume * np.exp(-0.5 * (x - center) ** 2) / np.sqrt(2.0 * np.pi)
    r = expit(s + (old - new) * (x - 0.5 * (old + new)))
    a, d = s + (old - new) * (center - 0.5 * (old + new)), np.abs(old - new)
    r_o, both = logistic_normal_mean(a, d), logistic_normal_slope(a, d)
    np.testing.assert_allclose(weight @ r, r_o, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(weight @ (r * (1.0 - r)), both, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(weight @ r**2, r_o - both, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(weight @ (r * (x - old)), r_o * (c - old) + both * (old - new), rtol=0.0, atol=1e-11)


odds = st.floats(-9.0, 9.0)
separations = st.floats(0.05, 12.0)
shares = st.floats(0.0, 1.0)


@given(odds, separations, shares)
def test_weight_velocity_when_the_components_are_right(s: float, delta: float, share: float) -> None:
    """1.2: ``ds/dt = (alpha - beta) (1 - kappa)``, and ``-beta^2 (1 - beta) D < 0`` on new data alone."""
    old, new = np.zeros(1), np.array([delta])
    beta = float(expit(s))
    velocity = -float(forward_kl_gradient(s, old, new, [share, 1.0 - share], [old, new])[0])
    assert velocity == pytest.approx((share - beta) * float(overlap_gap(s, delta)), abs=1e-13)
    alone = -float(forward_kl_gradient(s, old, new, [1.0], [new])[0])
    assert alone == pytest.approx(-beta * float(overlap_gap(s, delta)), rel=1e-9, abs=1e-15)
    assert alone == pytest.approx(
        -(beta**2) * expit(-s) * float(weight_fisher_information(s, delta)), rel=1e-12, abs=1e-15
    )
    assert alone <= 1e-16


@given(pairs(3))
def test_old_mean_force_on_new_data(pair: tuple[Params, Params]) -> None:
    """2.1: ``E_n[r_o^2] (mu_n - m_o) + E_n[r_o r_n] (mu_n - m_n)`` and its twin."""
    (_, _, mu_n), (s, m_o, m_n) = pair
    gap = m_o - m_n
    a, d = s + gap @ (mu_n - 0.5 * (m_o + m_n)), np.linalg.norm(gap)
    r_o, r_n, both = logistic_normal_mean(a, d), logistic_normal_mean(-a, d), logistic_normal_slope(a, d)
    _, g_o, g_n = forward_kl_gradient(s, m_o, m_n, [1.0], mu_n[None])
    np.testing.assert_allclose(-g_o, (r_o - both) * (mu_n - m_o) + both * (mu_n - m_n), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(-g_n, r_n * (mu_n - m_n) + both * (m_n - m_o), rtol=0.0, atol=1e-12)


@given(odds, separations, st.integers(1, 3))
def test_old_mean_force_is_toward_the_new_data_and_gated(s: float, delta: float, d: int) -> None:
    """2.1 with ``m_n = mu_n``: direction ``mu_n - m_o``, size at most ``C(delta) delta exp(s/2) BC``."""
    m_o, m_n = np.zeros(d), np.zeros(d)
    m_n[-1] = delta
    force = -forward_kl_gradient(s, m_o, m_n, [1.0], m_n[None])[1]
    assert force[-1] >= 0.0
    np.testing.assert_allclose(force[:-1], 0.0, atol=1e-16)
    envelope = np.exp(s / 2.0) * float(bhattacharyya_coefficient(delta))
    gate = min(3.0 * np.sqrt(3.0) / 16.0, np.sqrt(np.pi / 8.0) / delta) * delta * envelope
    assert float(force[-1]) <= gate * (1.0 + 1e-11) + 1e-15
    assert gate <= np.sqrt(np.pi / 8.0) * envelope * (1.0 + 1e-12)


@given(pairs())
def test_the_flow_stops_inside_only_when_the_modes_have_merged(pair: tuple[Params, Params]) -> None:
    """1.6: on new data the means' forces sum to ``mu_n - beta' m_o - ...``; a collapsed state is stationary."""
    (_, _, mu_n), (s, m_o, m_n) = pair
    collapsed = forward_kl_gradient(s, mu_n, mu_n, [1.0], mu_n[None])
    for part in collapsed:
        np.testing.assert_allclose(part, 0.0, atol=1e-15)
    # grad of the summed log-likelihood in x has mean zero under p: r_o (x - m_o) + r_n (x - m_n) = -score of q.
    _, g_o, g_n = forward_kl_gradient(s, m_o, m_n, [1.0], mu_n[None])
    gap = m_o - m_n
    a, d = s + gap @ (mu_n - 0.5 * (m_o + m_n)), np.linalg.norm(gap)
    r_o = logistic_normal_mean(a, d)
    np.testing.assert_allclose(-(g_o + g_n), mu_n - r_o * m_o - (1.0 - r_o) * m_n, rtol=0.0, atol=1e-12)


# --- theory 3: reverse KL ---------------------------------------------------------------------------------------------


@given(pairs())
def test_reverse_kl_in_closed_form(pair: tuple[Params, Params]) -> None:
    """3.1 as it is written: expected softplus for the value, misassignment probabilities for the forces."""
    (s_p, mu_o, mu_n), (s, m_o, m_n) = pair
    beta, rest = expit(s), expit(-s)
    e, v, size, delta = m_o - mu_o, m_n - mu_n, np.linalg.norm(m_n - m_o), np.linalg.norm(mu_n - mu_o)
    along = mu_n - mu_o  # delta u
    a_oq, a_nq = -s - size**2 / 2.0, s - size**2 / 2.0
    a_op, a_np = -s_p - delta**2 / 2.0 + along @ e, s_p - delta**2 / 2.0 - along @ v
    sp_oq, sp_op = expected_softplus(a_oq, size), expected_softplus(a_op, delta)
    sp_nq, sp_np = expected_softplus(a_nq, size), expected_softplus(a_np, delta)
    old = log_expit(s) - log_expit(s_p) + e @ e / 2.0 + sp_oq - sp_op
    new = log_expit(-s) - log_expit(-s_p) + v @ v / 2.0 + sp_nq - sp_np
    scale = 1.0 + float(e @ e + v @ v + delta**2 + size**2) + abs(s) + abs(s_p)
    assert float(reverse_kl(s, m_o, m_n, s_p, mu_o, mu_n)) == pytest.approx(beta * old + rest * new, abs=1e-13 * scale)
    omega = sp_oq - sp_op - sp_nq + sp_np
    expected = [
        beta * rest * (s - s_p + (e @ e - v @ v) / 2.0 + omega),
        beta * (e + logistic_normal_mean(a_oq, size) * (m_n - m_o) - logistic_normal_mean(a_op, delta) * (mu_n - mu_o)),
        rest * (v + logistic_normal_mean(a_nq, size) * (m_o - m_n) - logistic_normal_mean(a_np, delta) * (mu_o - mu_n)),
    ]
    assert_gradient(reverse_kl_gradient(s, m_o, m_n, s_p, mu_o, mu_n), expected, 1e-13 * scale)


def legendre(low: float, high: float, function: Callable[[np.ndarray], np.ndarray]) -> float:
    """Gauss-Legendre on pieces of length at most 1/4: in ``s`` the integrands are analytic within ``pi``."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(low, high, max(2, int(4.0 * abs(high - low)) + 2))
    middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    return float((half[:, None] * weights * function(middle[:, None] + half[:, None] * nodes)).sum())


def weight_only_gradient(s: float, s_p: float, delta: float) -> float:
    old, new = np.zeros(1), np.array([delta])
    return float(reverse_kl_gradient(s, old, new, s_p, old, new)[0])


@given(st.floats(-5.0, 5.0), st.floats(-5.0, 5.0), separations)
def test_reverse_weight_flow(s: float, s_p: float, delta: float) -> None:
    """3.3: ``dR/ds = sigmoid'(s) int_{s_alpha}^s (1 - kappa)``, i.e. ``dR/dbeta = int D dbeta``, and its two sides."""
    slope = expit(s) * expit(-s)
    gradient = weight_only_gradient(s, s_p, delta)
    integral = legendre(s_p, s, lambda x: overlap_gap(x, delta))
    assert gradient == pytest.approx(slope * integral, abs=1e-13 * (1.0 + delta**2))
    in_beta = legendre(s_p, s, lambda x: weight_fisher_information(x, delta) * expit(x) * expit(-x))
    assert gradient / slope == pytest.approx(in_beta, abs=1e-13 * (1.0 + delta**2) / slope)
    ceiling = slope * abs(s - s_p)
    floor = ceiling * (1.0 - float(harmonic_overlap(max(abs(s), abs(s_p)), delta)))
    assert floor - 1e-13 * (1.0 + delta**2) <= abs(gradient) <= ceiling + 1e-13 * (1.0 + delta**2)


@given(st.floats(-5.0, 5.0), st.floats(-5.0, 5.0), separations)
def test_polyak_lojasiewicz(s: float, s_p: float, delta: float) -> None:
    """3.3: ``|dR/ds|^2 >= 2 mu R`` with ``mu = 2 min(sigmoid')^2 (1 - kappa_max)`` between ``s`` and ``s_alpha``."""
    old, new = np.zeros(1), np.array([delta])
    far = max(abs(s), abs(s_p))
    mu = 2.0 * float(expit(far) * expit(-far)) ** 2 * (1.0 - float(harmonic_overlap(far, delta)))
    value = float(reverse_kl(s, old, new, s_p, old, new))
    gradient = weight_only_gradient(s, s_p, delta)
    slack = 1e-13 * (1.0 + delta**2) * (1.0 + abs(gradient))  # rounding of the gradient and of R
    assert gradient**2 >= 2.0 * mu * value - slack


@given(st.floats(-5.0, 5.0), st.floats(-5.0, 5.0), st.floats(0.0, 1.0), st.floats(-5.0, 5.0), separations)
def test_reverse_kl_is_convex_in_the_weight(s1: float, s2: float, share: float, s_p: float, delta: float) -> None:
    old, new = np.zeros(1), np.array([delta])
    beta, rest = (share * expit(k * s1) + (1.0 - share) * expit(k * s2) for k in (1.0, -1.0))
    first, second, between = (
        float(reverse_kl(s, old, new, s_p, old, new)) for s in (s1, s2, np.log(beta) - np.log(rest))
    )
    assert between <= share * first + (1.0 - share) * second + 1e-13 * (1.0 + delta**2)


# --- the pieces, shapes and errors -----------------------------------------------------------------------------------


@given(pairs(1, size=4.0), st.floats(-4.0, 4.0))
def test_expected_log_density(pair: tuple[Params, Params], center: float) -> None:
    q, _ = pair
    c = np.array([center])
    x, volume = grid(q, (q[0], c, c))
    weight = volume * np.exp(-0.5 * (x.numpy()[:, 0] - center) ** 2) / np.sqrt(2.0 * np.pi)
    log_q = torch_log_density(tuple(torch.as_tensor(v) for v in q), x).numpy()
    expected = weight @ log_q + 0.5 * (np.log(2.0 * np.pi) + 1.0)
    assert float(expected_log_density(c, *q)) == pytest.approx(expected, abs=1e-11 * (1.0 + abs(expected)))


def test_a_lost_mode_is_an_infinite_log_odds() -> None:
    """A one-mode ``p`` is the limit of small weights, and its KL to itself is 0."""
    q = (0.3, [0.0, 1.0], [2.0, -1.0])
    for s, center in ((np.inf, [1.0, 1.0]), (-np.inf, [-2.0, 0.5])):
        p = (s, [1.0, 1.0], [-2.0, 0.5])
        nearly = (np.sign(s) * 40.0, *p[1:])  # the other weight is 4e-18
        assert float(two_mode_kl(Whitened(*p), Whitened(*q))) == pytest.approx(
            float(two_mode_kl(Whitened(*nearly), Whitened(*q))), rel=1e-14
        )
        assert float(two_mode_kl(Whitened(*p), Whitened(0.0, center, center))) == pytest.approx(0.0, abs=1e-15)
    gaussian = (np.inf, [0.0], [9.0])
    assert float(two_mode_kl(Whitened(*gaussian), Whitened(0.0, [3.0], [3.0]))) == pytest.approx(4.5, rel=1e-15)


def test_far_apart_nothing_is_lost() -> None:
    """At separation 40 the overlap is ``exp(-200)``: the skeleton is exact, and the old-mean force has its size."""
    value = float(reverse_kl(0.5, [0.1], [40.2], -0.3, [0.0], [40.0]))
    assert value == pytest.approx(skeleton((0.5, np.array([0.1]), np.array([40.2])), (-0.3, 0.0, 40.0)), rel=1e-13)
    force = float(reverse_kl_gradient(2.0, [0.0], [40.0], 0.0, [0.0], [40.0])[1][0])
    # beta delta int_{s_alpha}^s xi, xi ~ (sqrt(pi/8) / delta) exp(-x/2 - delta^2/8) (theory 3.5)
    leading = float(expit(2.0)) * np.sqrt(np.pi / 8.0) * 2.0 * (np.exp(-1.0) - 1.0) * np.exp(-200.0)
    assert force == pytest.approx(leading, rel=(np.pi**2 + 9.0) / (2.0 * 40.0**2))


def test_batches_broadcast(rng: np.random.Generator) -> None:
    s, m_o, m_n = rng.normal(size=(4, 1)), rng.normal(size=(5, 3)), rng.normal(size=(4, 5, 3))
    target = (logit(0.3), rng.normal(size=3), rng.normal(size=3))
    weights, centers = rng.dirichlet(np.ones(3), size=(4, 5)), rng.normal(size=(4, 5, 3, 3))
    value = reverse_kl(s, m_o, m_n, *target)
    reverse = reverse_kl_gradient(s, m_o, m_n, *target)
    forward = forward_kl_gradient(s, m_o, m_n, weights, centers)
    assert value.shape == (4, 5)
    for g in (reverse, forward):
        assert [part.shape for part in g] == [(4, 5), (4, 5, 3), (4, 5, 3)]
    for i, j in np.ndindex(4, 5):
        one = (s[i, 0], m_o[j], m_n[i, j])
        assert float(reverse_kl(*one, *target)) == pytest.approx(float(value[i, j]), rel=1e-13)
        assert_gradient(reverse_kl_gradient(*one, *target), [part[i, j] for part in reverse], 1e-13)
        single = forward_kl_gradient(*one, weights[i, j], centers[i, j])
        assert_gradient(single, [part[i, j] for part in forward], 1e-13)


def test_one_dimension_may_be_written_as_scalars() -> None:
    scalar = reverse_kl_gradient(0.1, 0.0, 2.0, 0.0, 0.0, 3.0)
    assert_gradient(scalar, list(reverse_kl_gradient(0.1, [0.0], [2.0], 0.0, [0.0], [3.0])), 0.0)
    first = forward_kl_gradient(0.1, 0.0, 2.0, [0.2, 0.8], [0.0, 3.0])
    assert_gradient(first, list(forward_kl_gradient(0.1, [0.0], [2.0], [0.2, 0.8], [[0.0], [3.0]])), 0.0)


def test_unequal_dimensions_are_named() -> None:
    with pytest.raises(InputError, match="share their last axis"):
        reverse_kl(0.0, [0.0], [1.0, 0.0], 0.0, [0.0], [1.0])
    with pytest.raises(InputError, match="share their last axis"):
        reverse_kl_gradient(0.0, [0.0], [1.0], 0.0, [0.0, 1.0], [1.0, 0.0])
    with pytest.raises(InputError, match="centers must be"):
        forward_kl_gradient(0.0, [0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [[0.0, 0.0]])
    with pytest.raises(InputError, match="centers must be"):
        forward_kl_gradient(0.0, [0.0, 0.0], [1.0, 0.0], [0.5, 0.5], np.zeros((2, 3)))


def test_nan_is_named_and_not_taken_for_a_lost_mode() -> None:
    for at in range(6):
        arguments = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
        arguments[at] = np.nan
        for function in (
            lambda *six: two_mode_kl(Whitened(*six[:3]), Whitened(*six[3:])),
            reverse_kl,
            reverse_kl_gradient,
        ):
            with pytest.raises(InputError, match="nan"):
                function(*arguments)


@pytest.mark.parametrize(("log_odds", "distance"), [(-12.0, 2e-4), (-12.0, 1e-6)])
def test_the_weight_of_a_rare_mode_near_data_that_is_off(log_odds: float, distance: float) -> None:
    """``beta - E[r_o]`` under data beside the new mean, where the difference is far smaller than its terms: by mpmath."""
    with mpmath.workdps(40):
        s, gap = mpmath.mpf(log_odds), mpmath.mpf(2)

        def responsibility(x: mpmath.mpf) -> mpmath.mpf:
            return mpmath.npdf(x, gap + mpmath.mpf(distance), 1) / (1 + mpmath.exp(-s + gap * x - gap**2 / 2))

        beta = 1 / (1 + mpmath.exp(-s))
        exact = beta - mpmath.quad(responsibility, [gap + distance + k for k in range(-20, 21, 4)])
    found = forward_kl_gradient(log_odds, [0.0], [2.0], [1.0], [[2.0 + distance]])[0]
    assert float(found) == pytest.approx(float(exact), rel=1e-9, abs=0.0)
