"""Statements of section 1.6, the joint forward flow: collapse, mass of the old region, late collapse, capture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit, logit, ndtr

from fstsim.divergences import forward_kl_gradient, two_mode_kl
from fstsim.logistic_normal import responsibility_moments
from fstsim.theory.forward_kl import late_collapse_mass
from fstsim.theory.numerics.flows import runge_kutta
from fstsim.theory.statements.instances import column
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic
from fstsim.whitened import Whitened

Array = NDArray[np.float64]
_TEST = "tests/theory/test_forward_kl.py"


def _derive_collapse() -> Derivation:
    a, c, x, y = sp.symbols("a c x y", real=True)  # a = E r_o, c = E r_o r_n, m_o = x, m_n = y, new data at 0
    pull_old = -a * x + c * (x - y)
    pull_new = -(1 - a) * y - c * (x - y)
    variance = a - c - a**2  # E r_o^2 - (E r_o)^2, with E r_o^2 = a - c
    return symbolic(
        ("E[r_o] g_n - E[r_n] g_o = Var(r_o) (m_o - m_n) for the forces g on the two means, new data only",),
        [a * pull_new - (1 - a) * pull_old - variance * (x - y)],
    )


def _sample_joint(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-3.0, 3.0, n),
        "mean_old": 3.0 * rng.standard_normal((n, 2)),
        "mean_new": 2.0 * rng.standard_normal((n, 2)),
    }


def _joint_force(log_odds: Array, mean_old: Array, mean_new: Array) -> Array:
    origin = np.zeros((log_odds.size, 1, 2))
    _, g_o, g_n = forward_kl_gradient(log_odds, mean_old, mean_new, np.ones((log_odds.size, 1)), origin)
    old, new, _ = _new_data_moments(log_odds, mean_old, mean_new)
    return np.linalg.norm(old[:, None] * g_n - new[:, None] * g_o, axis=-1)


def _new_data_moments(log_odds: Array, mean_old: Array, mean_new: Array) -> tuple[Array, Array, Array]:
    gap = mean_old - mean_new
    loc = log_odds - 0.5 * (gap * (mean_old + mean_new)).sum(axis=-1)
    return responsibility_moments(loc, np.linalg.norm(gap, axis=-1))


def _joint_variance(log_odds: Array, mean_old: Array, mean_new: Array) -> Bounds:
    old, new, both = _new_data_moments(log_odds, mean_old, mean_new)
    value = np.abs(old * new - both) * np.linalg.norm(mean_old - mean_new, axis=-1)
    return value, value


COLLAPSE = Statement(
    slug="joint-collapse",
    title="The joint forward flow can only end collapsed: m_o = m_n = mu_n",
    status="T",
    kind="identity",
    hypotheses="new data only; g_o, g_n the forces on the means (the right side vanishes only for m_o = m_n)",
    latex=r"\mathbb E[r_o]\,g_n-\mathbb E[r_n]\,g_o=\mathrm{Var}_{p_n}(r_o)\,(m_o-m_n)",
    derive=_derive_collapse,
    sample=_sample_joint,
    exact=_joint_force,
    bound=_joint_variance,
    test=_TEST,
    tolerance=1e-7,  # Var(r_o) is a difference of second moments
)


def _old_region(log_odds: Array, mean_old: Array, mean_new: Array) -> Array:
    # half-space x_1 < -2 around an old mode at -4, new data at the origin
    return expit(log_odds) * ndtr(-2.0 - mean_old[:, 0]) + expit(-log_odds) * ndtr(-2.0 - mean_new[:, 0])


def _pinsker(log_odds: Array, mean_old: Array, mean_new: Array) -> Bounds:
    origin = np.zeros_like(mean_new)
    loss = two_mode_kl(
        Whitened(np.full(log_odds.shape, -np.inf), origin, origin), Whitened(log_odds, mean_old, mean_new)
    )
    return None, ndtr(-2.0) + np.sqrt(0.5 * np.maximum(loss, 0.0))


OLD_REGION = Statement(
    slug="old-region-mass",
    title="What vanishes is the mass of the old region, not the old weight",
    status="T",
    kind="bound",
    hypotheses="A any region; L the forward KL, which the flow decreases",
    latex=r"Q_t(A)\le P_n(A)+\sqrt{L_t/2},\qquad L_t=\mathrm{KL}(p_n\Vert q_t)",
    derive=lambda: nothing("Pinsker's inequality"),
    sample=_sample_joint,
    exact=_old_region,
    bound=_pinsker,
    test=_TEST,
)


def long_flow(
    initial: tuple[Array, Array, Array], delta: Array, duration: Array, rtol: float
) -> Callable[[Array], tuple[Array, Array, Array]]:
    """Forward flows on new data at ``delta (n,)``, as a function of ``duration (n,)``'s share of each: log-odds and means ``(n, times)``.

    All in one call of LSODA, because such flows are stiff; the Jacobian has one block of three for each flow. ``initial`` are
    log-odds, old and new means ``(n,)``. Shares ``(times,)``, or ``(n, times)`` where each flow has its own. Raises RuntimeError
    where the solver gives up.
    """
    n = delta.size
    centers, weights = column(delta)[:, None, :], np.ones((n, 1))

    def velocity(_: float, y: Array) -> Array:
        s, old, new = y.reshape(n, 3).T
        gradient = forward_kl_gradient(s, column(old), column(new), weights, centers)
        return -(duration * np.stack([gradient[0], gradient[1][:, 0], gradient[2][:, 0]])).T.ravel()

    start = np.stack(initial, axis=-1).ravel()
    # one flow's variables are next to each other, so that the Jacobian reaches two places from its diagonal
    solution = solve_ivp(
        velocity, (0.0, 1.0), start, "LSODA", dense_output=True, rtol=rtol, atol=1e-3 * rtol, lband=2, uband=2
    )
    dense = solution.sol
    if not solution.success or dense is None:
        raise RuntimeError(f"the flows could not be solved to rtol {rtol:g}: {solution.message}")

    def at(share: Array) -> tuple[Array, Array, Array]:
        shares = np.broadcast_to(share, (n, share.shape[-1]))
        each = np.stack([dense(t).reshape(n, 3, -1)[i] for i, t in enumerate(shares)])
        return each[:, 0], each[:, 1], each[:, 2]

    return at


def _late_flow(log_odds: Array, separation: Array) -> Array:
    """Final old mass of joint flows that start in the late regime, with the new mean at its adiabatic overshoot."""
    shift = expit(log_odds) * separation  # v = beta D, away from the old component
    initial = (log_odds, np.zeros_like(separation), separation + shift)
    return expit(long_flow(initial, separation, 200.0 * np.exp(-2.0 * log_odds), 1e-8)(np.ones(1))[0][:, 0])


def _late_prediction(log_odds: Array, separation: Array) -> Bounds:
    value = late_collapse_mass(expit(log_odds), separation)
    return value, value


def _derive_invariant() -> Derivation:
    d, b = sp.symbols("D beta", positive=True)
    # late flow: ds = -beta^2 (e^(D^2) - 1 - D^2) dt, dD = -beta^2 D (e^(D^2) - 1) dt, and d log beta = ds as beta -> 0
    log_invariant = sp.log(b) + sp.log(1 - sp.exp(-(d**2))) / 2 - sp.log(d)
    ds = -(b**2) * (sp.exp(d**2) - 1 - d**2)
    dd = -(b**2) * d * (sp.exp(d**2) - 1)
    return symbolic(
        ("log beta + log(1 - e^(-D^2)) / 2 - log D is constant along the late flow",),
        [ds + sp.diff(log_invariant, d) * dd],
    )


LATE_COLLAPSE = Statement(
    slug="late-collapse",
    title="The collapsing old component keeps a positive weight",
    status="A",
    kind="approximation",
    hypotheses="joint flow, beta -> 0, new mean at its overshoot v = beta D",
    latex=r"\beta\sqrt{1-e^{-D^2}}/D=\text{const}\ \Rightarrow\ \beta_\infty=\beta_1\sqrt{1-e^{-D_1^2}}/D_1>0",
    derive=_derive_invariant,
    sample=lambda rng, n: {"log_odds": rng.uniform(-9.0, -7.0, n), "separation": rng.uniform(1.0, 2.0, n)},
    exact=_late_flow,
    bound=_late_prediction,
    test=_TEST,
    max_examples=6,
)


def short_flow(log_odds0: Array, old0: Array, new0: Array, delta: Array, duration: Array) -> tuple[Array, Array, Array]:
    """Forward flows on new data at ``delta``: final log-odds, largest shift of the old mean, final old mean."""
    n = delta.size
    centers, weights = column(delta)[:, None, :], np.ones((n, 1))
    peak = np.zeros(n)
    state = (log_odds0, column(old0), column(new0))

    def gradient(s: Array, m_o: Array, m_n: Array) -> tuple[Array, Array, Array]:
        return forward_kl_gradient(s, m_o, m_n, weights, centers)

    for now in runge_kutta(gradient, state, duration, max(8, int(np.ceil(2.0 * duration.max(initial=1.0))))):
        state, peak = now, np.maximum(peak, np.abs(now[1][:, 0] - old0))
    return state[0], peak, state[1][:, 0]


def _sample_capture(rng: np.random.Generator, n: int) -> Sample:
    delta = rng.uniform(3.0, 6.0, n)
    return {"delta": delta, "new_error": delta * rng.uniform(1.25, 1.6, n), "beta0": rng.uniform(0.4, 0.6, n)}


def _captured_mass(delta: Array, new_error: Array, beta0: Array) -> Array:
    start: Array = logit(beta0)
    duration = np.full(delta.size, 20.0)
    return expit(short_flow(start, np.zeros_like(delta), delta + new_error, delta, duration)[0])


CAPTURE = Statement(
    slug="capture",
    title="A badly wrong new component is passed over: the old one is overwritten while its weight grows",
    status="N",
    kind="bound",
    hypotheses="new component at least 1.25 delta away from the new data, on the far side; beta after 20 time units",
    latex=r"|m_n-\mu_n|\gtrsim\delta\ \Rightarrow\ \beta\uparrow,\ m_o\to\mu_n",
    derive=lambda: nothing("numerical observation"),
    sample=_sample_capture,
    exact=_captured_mass,
    bound=lambda delta, new_error, beta0: (beta0, None),  # noqa: ARG005
    test=_TEST,
    tolerance=1e-6,
)

STATEMENTS = (COLLAPSE, OLD_REGION, LATE_COLLAPSE, CAPTURE)
