"""Statements on replay with clipped gradients."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from fstsim.theory.clipping import clipped_replay_bias_bound, clipped_replay_mass
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_clipping.py"
_SOURCE = "Huber (1964) for the estimate; own derivation"


def _derive_bound() -> Derivation:
    d, c, v = sp.symbols("d c v", positive=True)
    x = 2 * c - sp.sqrt(4 * c**2 - v)
    return symbolic(
        ("d^2 / (4 c) - (d - c) is a square: the excess over c is at most d^2 / (4 c)", "x = (v + x^2) / (4 c)"),
        [d**2 / (4 * c) - (d - c) - (d - 2 * c) ** 2 / (4 * c), x - (v + x**2) / (4 * c)],
    )


def _sample(rng: np.random.Generator, n: int) -> Sample:
    share, batch = rng.uniform(0.001, 0.999, n), rng.integers(1, 33, n).astype(np.float64)
    least = np.sqrt(share * (1.0 - share) / batch) / 2.0
    return {"share": share, "batch": batch, "clip": least * np.exp(rng.uniform(1e-3, 1.0, n) * np.log(1.0 / least))}


def _bias(share: Array, batch: Array, clip: Array) -> Array:
    bias = np.abs(clipped_replay_mass(share, batch, clip) - share)
    return np.where(bias > 1e-10, bias, np.nan)  # where next to nothing is cut, only rounding would be compared


def _bounds(share: Array, batch: Array, clip: Array) -> Bounds:
    return None, clipped_replay_bias_bound(share, batch, clip)


BIAS = Statement(
    slug="replay-clipped",
    title="Clipping gradients moves the end of replay from its share towards its median",
    status="T",
    kind="bound",
    hypotheses="forward KL with replay on one logit, batches of N, gradients cut at c > sqrt(v)/2, v = lambda(1-lambda)/N",
    latex=r"\mathbb E\,\mathrm{clip}_c\big(\tfrac KN-\beta^*\big)=0\ \Rightarrow\ |\beta^*-\lambda|\le2c-\sqrt{4c^2-v}\approx\frac v{4c},"
    r"\quad v=\tfrac{\lambda(1-\lambda)}N",
    derive=_derive_bound,
    sample=_sample,
    exact=_bias,
    bound=_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-5,  # a bisection in [0, 1]: 1e-16 of a bias of 1e-10
)


def _derive_single() -> Derivation:
    lam, c = sp.symbols("lambda c", positive=True)
    beta = lam * c / (1 - lam)
    return symbolic(("one demonstration, the old one cut: (1 - lambda) beta = lambda c",), [(1 - lam) * beta - lam * c])


def _sample_single(rng: np.random.Generator, n: int) -> Sample:
    return {"share": rng.uniform(1e-4, 0.499, n), "clip": log_uniform(rng, 1e-3, 1.0, n)}


def _single(share: Array, clip: Array) -> Bounds:
    value = share * np.minimum(1.0, clip / (1.0 - share))
    return value, value


SINGLE = Statement(
    slug="replay-clipped-single",
    title="One demonstration a batch: clipping multiplies a rare share by the clip over the size of its gradient",
    status="T",
    kind="identity",
    hypotheses="N = 1, lambda < 1/2",
    latex=r"\beta^*=\lambda\min\Big(1,\frac c{1-\lambda}\Big)",
    derive=_derive_single,
    sample=_sample_single,
    exact=lambda share, clip: clipped_replay_mass(share, 1, clip),
    bound=_single,
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (BIAS, SINGLE)
