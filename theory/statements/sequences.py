"""Statements on behaviours of several decisions: their mass is a product, and each factor has its own clock."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.optimizers import weight_velocity
from fstsim.overlap import overlap_gap
from fstsim.theory.adam import adam_shift_bounds, adam_shift_path
from fstsim.theory.forward_kl import mass_forgetting_separated
from fstsim.theory.numerics.flows import flow_end
from fstsim.theory.sequences import sequence_logit_bounds, sequence_mass, sequence_shift_bounds
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import sigmoid, softplus, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_sequences.py"
_SOURCE = "own derivation"
_STEPS = 100


def _sample_masses(rng: np.random.Generator, n: int) -> Array:
    """Three decisions each: some undecided, some nearly certain, some rare."""
    return expit(rng.uniform(-3.0, 3.0, (n, 1)) + 2.0 * rng.standard_normal((n, 3)))


# --- every decision its own logit -------------------------------------------------------------------------------------


def _derive_logit() -> Derivation:
    s = sp.symbols("s", real=True)
    p, q = sp.symbols("p q", positive=True)
    b = sigmoid(s)
    slack = p * (1 - p) * (1 - q) + q * (1 - q) * (1 - p**2)
    return symbolic(
        (
            "d(1/beta)/dt = 1 - beta along ds/dt = -sigmoid(s)",
            "p (1-p) + q (1-q) = p q (1 - p q) + p (1-p)(1-q) + q (1-q)(1-p^2): two decisions lose faster than one",
        ),
        [sp.diff(1 / b, s) * (-b) - (1 - b), p * (1 - p) + q * (1 - q) - p * q * (1 - p * q) - slack],
    )


def _sample_logit(rng: np.random.Generator, n: int) -> Sample:
    rare = log_uniform(rng, 1e-90, 0.1, (n, 1)) * np.ones((1, 3))
    masses = np.where(rng.random((n, 1)) < 0.2, rare, _sample_masses(rng, n))
    return {"token_masses": masses, "t": log_uniform(rng, 0.01, 1e4, n)}


LOGIT = Statement(
    slug="sequence-logit",
    title="L decisions are forgotten like t^(-L), and never more slowly than one of the same mass",
    status="T",
    kind="bound",
    hypotheses="each decision follows the logit flow of forward KL on new data, without overlap",
    latex=r"\prod_l\frac1{1/\beta_l+t}\le P(t)\le\min\Big\{\prod_l\frac1{1/\beta_l+(1-\beta_l)t},\ \beta_W\big(\textstyle\prod_l\beta_l,t\big)\Big\}",
    derive=_derive_logit,
    sample=_sample_logit,
    exact=lambda token_masses, t: mass_forgetting_separated(token_masses, t[:, None]).prod(axis=-1),
    bound=sequence_logit_bounds,
    source=_SOURCE,
    test=_TEST,
)


# --- natural gradient ---------------------------------------------------------------------------------------------------


def _derive_fisher() -> Derivation:
    b, t = sp.symbols("beta t", positive=True)
    k = sp.symbols("L", positive=True)
    return symbolic(
        ("d log(beta e^-t)/dt = -1 for each of L decisions: P_0 e^(-L t)",),
        [k * sp.diff(sp.log(b * sp.exp(-t)), t) + k],
    )


def _fisher_flow(token_masses: Array, delta: Array, t: Array) -> Array:
    """Product of natural-gradient flows of mixtures with overlap, each integrated in its log-odds."""
    s = logit(token_masses)
    separation = np.broadcast_to(delta[:, None], s.shape)

    def velocity(s: Array) -> tuple[Array]:
        return (weight_velocity(s, expit(s) * overlap_gap(s, separation), separation, "fisher"),)

    (s,) = flow_end(velocity, (s,), t, _STEPS)
    return expit(s).prod(axis=-1)


def _fisher_law(token_masses: Array, delta: Array, t: Array) -> Bounds:  # noqa: ARG001
    value = token_masses.prod(axis=-1) * np.exp(-token_masses.shape[1] * t)
    return value, value


FISHER = Statement(
    slug="sequence-fisher",
    title="Under the natural gradient L decisions are one with an L times faster clock",
    status="T",
    kind="identity",
    hypotheses="each decision follows the Fisher-Rao flow of forward KL on new data; any overlap",
    latex=r"P(t)=P(0)\,e^{-Lt}\quad\Rightarrow\quad P(3t_c)/P(0)=\big(P(t_c)/P(0)\big)^3\ \text{ for every }L",
    derive=_derive_fisher,
    sample=lambda rng, n: {
        "token_masses": expit(rng.uniform(-4.0, 2.0, (n, 3))),
        "delta": rng.uniform(0.5, 8.0, n),
        "t": rng.uniform(0.01, 2.0, n),
    },
    exact=_fisher_flow,
    bound=_fisher_law,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-5,  # fixed-step integration
    max_examples=200,
)


# --- one shared shift, and Adam ---------------------------------------------------------------------------------------


def _derive_shift() -> Derivation:
    s = sp.symbols("s", real=True)
    return symbolic(
        (
            "-log sigmoid(s) = softplus(-s), whose slope in -s is 1 - sigmoid(s)",
            "its second derivative sigmoid (1 - sigmoid) is positive: convex, above its tangent, below slope 1",
            "softplus(-s) = softplus(s) - s >= -s",
        ),
        [
            sp.diff(softplus(-s), s) + (1 - sigmoid(s)),
            sp.diff(softplus(-s), s, 2) - sigmoid(s) * (1 - sigmoid(s)),
            softplus(-s) + sp.log(sigmoid(s)),
        ],
    )


def _surprise(token_masses: Array, shift: Array) -> Array:
    return -np.log(sequence_mass(token_masses, shift))


SHIFT = Statement(
    slug="sequence-shift",
    title="A shared shift of the log-odds costs little early and L times itself late",
    status="T",
    kind="bound",
    hypotheses="all L decisions move by the same x <= 0",
    latex=r"\max\Big\{-\log P_0+|x|\sum_l(1-\beta_l),\ L|x|-\sum_ls_l\Big\}\le-\log P(x)\le-\log P_0+L|x|",
    derive=_derive_shift,
    sample=lambda rng, n: {
        "token_masses": _sample_masses(rng, n),
        "shift": -log_uniform(rng, 0.01, 50.0, n),
    },
    exact=_surprise,
    bound=sequence_shift_bounds,
    source=_SOURCE,
    test=_TEST,
)


def _sample_adam(rng: np.random.Generator, n: int) -> Sample:
    return {
        "token_masses": _sample_masses(rng, n),
        "step_size": log_uniform(rng, 1e-3, 0.1, n),
        "t": rng.integers(1, _STEPS + 1, n).astype(np.float64),
    }


def _adam_surprise(token_masses: Array, step_size: Array, t: Array) -> Array:
    path = adam_shift_path(logit(token_masses), step_size, int(t.max()))
    return _surprise(token_masses, path[t.astype(int), np.arange(t.size)])


def _adam_bounds(token_masses: Array, step_size: Array, t: Array) -> Bounds:
    lower, upper = adam_shift_bounds(logit(token_masses), step_size, int(t.max()))
    rows = (t.astype(int), np.arange(t.size))
    return (
        sequence_shift_bounds(token_masses, -np.log(lower[rows]))[0],
        sequence_shift_bounds(token_masses, -np.log(upper[rows]))[1],
    )


ADAM = Statement(
    slug="sequence-adam",
    title="Under Adam an answer of L decisions loses at most L h nats a step",
    status="T",
    kind="bound",
    hypotheses="decisions share one shift that Adam (0.9, 0.999) moves on their mean gradient, eps = 0, h = lr x gain",
    latex=r"\max\Big\{\sum_l(1-\beta_l)\log y^-_t,\ L\log y^-_t-\sum_l\log\tfrac1{1-\beta_l}\Big\}\le\log\tfrac{P_0}{P(t)}\le L\log y^+_t\le Lht",
    derive=_derive_shift,
    sample=_sample_adam,
    exact=_adam_surprise,
    bound=_adam_bounds,
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (LOGIT, FISHER, SHIFT, ADAM)
