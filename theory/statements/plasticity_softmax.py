"""Statement of section 13.4: relearning one of K behaviours of a softmax policy."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.theory.numerics.flows import flow_end
from fstsim.theory.plasticity import softmax_relearning_bounds, softmax_start
from fstsim.theory.statements.statement import Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_plasticity.py"
_SOURCE = "arXiv 2605.12484 (setting); own derivation"


def _derive_softmax() -> Derivation:
    a, b, c = sp.symbols("a b c", positive=True)
    total = a + b + c
    pi = [a / total, b / total, c / total]
    theta = [pi[0] * (1 - pi[0]), -pi[0] * pi[1], -pi[0] * pi[2]]  # behaviour 0 is rewarded
    rest = pi[1] + pi[2]
    r = [pi[1] / rest, pi[2] / rest]
    rate = theta[0] - r[0] * theta[1] - r[1] * theta[2]
    spread = r[0] ** 2 + r[1] ** 2
    # d r_j = r_j (theta_j' - mean theta'), per unit of pi_k (1 - pi_k)
    change = [r[j] * (theta[j + 1] - r[0] * theta[1] - r[1] * theta[2]) / (pi[0] * rest) for j in (0, 1)]
    cubes = r[0] ** 3 + r[1] ** 3
    return symbolic(
        (
            "dl/dt = pi_k (1 - pi_k)(1 + C), C = sum r_j^2 (shown for K = 3)",
            "dC = -2 (sum r^3 - (sum r^2)^2) <= 0 by Cauchy-Schwarz: the rest equalises, C falls toward 1/(K-1)",
        ),
        [
            rate - pi[0] * (1 - pi[0]) * (1 + spread),
            2 * (r[0] * change[0] + r[1] * change[1]) + 2 * (cubes - spread**2),
        ],
    )


def _sample_softmax(rng: np.random.Generator, n: int) -> Sample:
    logits = rng.normal(0.0, rng.uniform(0.2, 2.5), (n, int(rng.integers(2, 9))))
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {"pi": pi, "target": expit(logit(pi[:, 0]) + rng.uniform(0.1, 8.0, n))}


def _softmax_time(pi: Array, target: Array) -> Array:
    """Exact time by Runge-Kutta on the logits, with the log-odds of behaviour 0 as the independent variable."""
    _, start, _, end = softmax_start(pi, 0, target)
    theta, time = np.log(pi), np.zeros(target.shape)

    def velocity(theta: Array, _: Array) -> tuple[Array, Array]:
        p = np.exp(theta - theta.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        move = -p[:, :1] * p
        move[:, 0] += p[:, 0]
        rest = p[:, 1:] / p[:, 1:].sum(axis=1, keepdims=True)
        rate = move[:, 0] - (rest * move[:, 1:]).sum(axis=1)
        return move / rate[:, None], 1.0 / rate

    return flow_end(velocity, (theta, time), end - start, 60)[1]


SOFTMAX = Statement(
    slug="plasticity-softmax",
    title="Relearning one of K behaviours: bracketed by how the rest of the mass is spread",
    status="T",
    kind="bound",
    hypotheses="softmax policy, reward 1 for behaviour k, unit rate",
    latex=r"\frac{\Delta F}{1+C_0}\le T\le\frac{K-1}K\Delta F,\qquad C=\sum_{j\ne k}\frac{\pi_j^2}{(1-\pi_k)^2}\in[\tfrac1{K-1},1]",
    derive=_derive_softmax,
    sample=_sample_softmax,
    exact=_softmax_time,
    bound=lambda pi, target: softmax_relearning_bounds(pi, 0, target),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-5,  # fixed-step integration; for K = 2 both bounds are equalities
)

STATEMENTS = (SOFTMAX,)
