"""Statements of sections 8.6 and 8.7: SDFT whose teacher is pulled to a demonstrator, and SDFT by forward KL."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.numerics.flows import flow_end
from fstsim.theory.sdft_demonstrator import (
    demonstrator_drift_bound,
    demonstrator_fixed_point,
    demonstrator_rate,
    forward_speed_bounds,
    undemonstrated_end,
)
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_sdft_demonstrator.py"
_SOURCE = "own derivation on the model of SDFT (arXiv 2601.19897, 2603.12163)"
_PIECES = 12
_IMPLICIT = 180


# --- where it ends ----------------------------------------------------------------------------------------------------


def _sample_pulled(rng: np.random.Generator, n: int) -> Sample:
    rho, lam = log_uniform(rng, 1e-3, 10.0, n), log_uniform(rng, 1e-3, 10.0, n)
    return {
        "log_odds": rng.uniform(-6.0, 6.0, n),
        "demonstrator_log_odds": rng.uniform(-5.0, 5.0, n),
        "tilt": rng.choice([0.0, 1.0], n) * rng.uniform(0.0, 1.5, n) / (1.0 + rho / lam),
        "ema_rate": rho,
        "strength": lam,
    }


def _final_mass(log_odds: Array, demonstrator_log_odds: Array, tilt: Array, ema_rate: Array, strength: Array) -> Array:
    """The flow to its end, by the linearly implicit rule in steps that grow: no rate is too fast or too slow for it."""
    s, bar = log_odds, log_odds
    for k in range(_IMPLICIT):
        h = 0.1 * 1.15**k
        slope = expit(s) * expit(-s)
        u, v = -slope * (s - bar + tilt), ema_rate * (s - bar) + strength * (demonstrator_log_odds - bar)
        # (1 - h J) step = h velocity, J with the slope as it is now
        a, b = 1.0 + h * slope, -h * slope
        c, d = -h * ema_rate, 1.0 + h * (ema_rate + strength)
        det = a * d - b * c
        s, bar = s + h * (d * u - b * v) / det, bar + h * (a * v - c * u) / det
    return expit(s)


def _fixed_mass(log_odds: Array, demonstrator_log_odds: Array, tilt: Array, ema_rate: Array, strength: Array) -> Bounds:  # noqa: ARG001
    return same(expit(demonstrator_fixed_point(demonstrator_log_odds, tilt, ema_rate, strength)))


def _derive_pulled() -> Derivation:
    s, bar, d, h = sp.symbols("s sbar d h", real=True)
    rho, lam, c, r = sp.symbols("rho lambda c r", positive=True)
    rest = {bar: d - h * rho / lam, s: d - h * (1 + rho / lam)}
    jacobian = sp.Matrix([[-c, c], [rho, -rho - lam]])
    return symbolic(
        (
            "s = sbar - h and rho (s - sbar) + lambda (s_d - sbar) = 0 at s = s_d - h (1 + rho / lambda)",
            "the rates solve r^2 - (c + rho + lambda) r + c lambda = 0",
        ),
        [
            (s - bar + h).subs(rest),
            (rho * (s - bar) + lam * (d - bar)).subs(rest),
            (jacobian + r * sp.eye(2)).det() - (r**2 - (c + rho + lam) * r + c * lam),
        ],
    )


ANCHOR = Statement(
    slug="sdft-demonstrator-anchor",
    title="A teacher pulled to a demonstrator: the old mass ends at the demonstrator's share, however weak the pull",
    status="T",
    kind="identity",
    hypotheses="separated modes, lambda > 0, any start; the share is reached without tilt (h = 0); its limit lambda -> 0 with tilt is -inf",
    latex=r"\dot{\bar s}=\rho(s-\bar s)+\lambda(s_d-\bar s),\quad \dot s=-\sigma'(s)(s-\bar s+h)\ \Rightarrow\ s\to s_d-h\big(1+\tfrac\rho\lambda\big)",
    derive=_derive_pulled,
    sample=_sample_pulled,
    exact=_final_mass,
    bound=_fixed_mass,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _slow_rate(fixed_log_odds: Array, ema_rate: Array, strength: Array) -> Array:
    c = expit(fixed_log_odds) * expit(-fixed_log_odds)
    rows = [np.stack([-c, c], axis=-1), np.stack([ema_rate, -ema_rate - strength], axis=-1)]
    return -np.linalg.eigvals(np.stack(rows, axis=-2)).real.max(axis=-1)


RATE = Statement(
    slug="sdft-demonstrator-rate",
    title="The rate at which it gets to the demonstrator's share, within a factor 2",
    status="T",
    kind="bound",
    hypotheses="local rate at the fixed point, c = sigmoid'(s*)",
    latex=r"\frac{c\lambda}{c+\rho+\lambda}\le r\le\frac{2c\lambda}{c+\rho+\lambda}",
    derive=_derive_pulled,
    sample=lambda rng, n: {
        "fixed_log_odds": rng.uniform(-5.0, 5.0, n),
        "ema_rate": log_uniform(rng, 1e-2, 10.0, n),
        "strength": log_uniform(rng, 1e-2, 10.0, n),
    },
    exact=_slow_rate,
    bound=lambda fixed_log_odds, ema_rate, strength: demonstrator_rate(fixed_log_odds, ema_rate, strength)[1:],
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,  # eigenvalues of matrices with entries of different size
)


# --- the old mean -----------------------------------------------------------------------------------------------------


def _sample_forces(rng: np.random.Generator, n: int) -> Sample:
    """Weights and forces that change from piece to piece, in half of the instances the largest force all along."""
    force = rng.uniform(-1.0, 1.0, (n, _PIECES))
    force[rng.random(n) < 0.5] = 1.0
    return {
        "mass": rng.uniform(0.05, 1.0, (n, _PIECES)),
        "force": force * log_uniform(rng, 0.01, 1.0, (n, 1)),
        "ema_rate": log_uniform(rng, 0.05, 2.0, n),
        "strength": log_uniform(rng, 0.05, 2.0, n),
        "t": log_uniform(rng, 1.0, 500.0, n),
    }


def _drift(mass: Array, force: Array, ema_rate: Array, strength: Array, t: Array) -> Array:
    """Largest distance of the student's old mean at the end of a piece: each piece by the matrix exponential."""
    at, most = np.zeros((t.size, 2, 1)), np.zeros(t.size)
    for beta, f in zip(mass.T, force.T, strict=True):
        rows = [np.stack([-beta, beta], axis=-1), np.stack([ema_rate, -ema_rate - strength], axis=-1)]
        matrix = np.stack(rows, axis=-2)
        push = np.stack([-beta * f, np.zeros(t.size)], axis=-1)[..., None]
        rest = -np.linalg.solve(matrix, push)
        values, vectors = np.linalg.eig(matrix)  # real: the product of the entries off the diagonal is positive
        decay = np.exp(values * (t / _PIECES)[:, None])
        at = rest + (vectors * decay[:, None, :]) @ np.linalg.solve(vectors, at - rest)
        most = np.maximum(most, np.abs(at[:, 0, 0]))
    return most


DRIFT = Statement(
    slug="sdft-demonstrator-drift",
    title="A demonstrator with the right means bounds the drift of the old mean for all time, by (1 + rho / lambda) f",
    status="T",
    kind="bound",
    hypotheses="overlap pushes the student's old mean with a force below f; teacher's means pulled with the same lambda; start at the right means",
    latex=r"\dot m_o=-\beta[(m_o-\bar m_o)+f],\ \dot{\bar m}_o=\rho(m_o-\bar m_o)+\lambda(\mu_o-\bar m_o)\ \Rightarrow\ |m_o-\mu_o|\le\big(1+\tfrac\rho\lambda\big)\sup|f|",
    derive=lambda: nothing(
        "|m_o - mu_o| <= (1 + rho / lambda) f, |mbar_o - mu_o| <= (rho / lambda) f is a set that no flow leaves"
    ),
    sample=_sample_forces,
    exact=_drift,
    bound=lambda force, ema_rate, strength, **_: (
        None,
        demonstrator_drift_bound(np.abs(force).max(axis=-1), ema_rate, strength),
    ),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


# --- without a demonstrator -------------------------------------------------------------------------------------------


def _met(log_odds: Array, teacher_log_odds: Array, ema_rate: Array) -> Array:
    def velocity(s: Array, sbar: Array) -> tuple[Array, Array]:
        return -expit(s) * expit(-s) * (s - sbar), ema_rate * (s - sbar)

    slowest = ema_rate + np.minimum(
        *(expit(x) * expit(-x) for x in (log_odds, teacher_log_odds))
    )  # the gap decays at rho + sigma'(s), least at one of the ends
    return expit(flow_end(velocity, (log_odds, teacher_log_odds), 25.0 / slowest, 2000)[0])


def _derive_none() -> Derivation:
    s, bar = sp.symbols("s sbar", real=True)
    rho = sp.symbols("rho", positive=True)
    mobility = sp.exp(s) / (1 + sp.exp(s)) ** 2
    clock = 2 * s + sp.exp(s) - sp.exp(-s)
    rate = sp.diff(clock, s) * -mobility * (s - bar) + rho * (s - bar) / rho
    return symbolic(("F(s) + sbar / rho is constant along the flow",), [rate])


NONE = Statement(
    slug="sdft-demonstrator-none",
    title="Without a demonstrator nothing is promised: student and teacher meet where their start says",
    status="T",
    kind="identity",
    hypotheses="lambda = 0, h = 0, separated modes (with a tilt the old mass is lost: sdft-series-resistance)",
    latex=r"F(s)+\tfrac{\bar s}\rho=\text{const},\quad s-\bar s\to0:\qquad F(s_\infty)+\tfrac{s_\infty}\rho=F(s_0)+\tfrac{\bar s_0}\rho",
    derive=_derive_none,
    sample=lambda rng, n: {
        "log_odds": rng.uniform(-4.0, 4.0, n),
        "teacher_log_odds": rng.uniform(-4.0, 4.0, n),
        "ema_rate": log_uniform(rng, 0.05, 2.0, n),
    },
    exact=_met,
    bound=lambda log_odds, teacher_log_odds, ema_rate: same(
        expit(undemonstrated_end(log_odds, teacher_log_odds, ema_rate))
    ),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-6,
    max_examples=10_000,
)


# --- forward KL -------------------------------------------------------------------------------------------------------


def _derive_forward() -> Derivation:
    s, u = sp.symbols("s u", real=True)

    def sigma(x: sp.Expr) -> sp.Expr:
        return 1 / (1 + sp.exp(-x))

    target = s - u
    forward = sp.diff(
        sigma(target).subs(s, sp.Symbol("k")) * sp.log(1 + sp.exp(-s)) + (1 - sigma(target).subs(s, sp.Symbol("k"))) * sp.log(1 + sp.exp(s)),
        s,
    )  # fmt: skip
    return symbolic(
        (
            "the gradient of KL(teacher || student) in the log-odds is sigma(s) - sigma(s_T)",
            "sigma(s) - sigma(s - u) = sigma(s) sigma(u - s) (1 - e^-u), and sigma(u - s) / sigma(-s) lies between 1 and e^u",
        ),
        [
            forward - (sigma(s) - sigma(target).subs(s, sp.Symbol("k"))),
            sigma(s) - sigma(s - u) - sigma(s) * sigma(u - s) * (1 - sp.exp(-u)),
        ],
    )


def _sample_speeds(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-8.0, 8.0, n),
        "gap": log_uniform(rng, 0.01, 4.0, n) * rng.choice([-1.0, 1.0], n),
    }


def _speeds(log_odds: Array, gap: Array) -> Array:
    """Forward over reverse speed, both outcomes in turn, in extended precision."""
    s, u = (np.asarray(x, dtype=np.longdouble) for x in (log_odds, gap))
    q = [1 / (1 + np.exp(-x)) for x in (s, -s)]
    p = [1 / (1 + np.exp(-x)) for x in (s - u, u - s)]
    forward = -(p[0] * q[1] - p[1] * q[0])  # of -sum p log q
    reverse = q[0] * q[1] * (np.log(q[0] / p[0]) - np.log(q[1] / p[1]))
    return np.asarray(forward / reverse, dtype=np.float64)


FORWARD = Statement(
    slug="sdft-forward",
    title="SDFT by forward KL rests where SDFT by reverse KL does, at speeds that differ by bounded factors",
    status="T",
    kind="bound",
    hypotheses="separated modes, any teacher; u = s - s_T the student's log-odds less the teacher's; equal speeds as u -> 0",
    latex=r"\frac{1-e^{-|u|}}{|u|}\le\frac{\sigma(s)-\sigma(s-u)}{\sigma'(s)\,u}\le\frac{e^{|u|}-1}{|u|}",
    derive=_derive_forward,
    sample=_sample_speeds,
    exact=_speeds,
    bound=lambda log_odds, gap: forward_speed_bounds(gap),  # noqa: ARG005
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)

STATEMENTS = (ANCHOR, RATE, DRIFT, NONE, FORWARD)
