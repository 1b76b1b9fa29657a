"""The statement of section 3.2 on how slowly a merged state is left."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import logit

from fstsim.theory.merged import merged_growth_bound, merged_pull
from fstsim.theory.reverse_kl import merged_states, reverse_kl_gradient
from fstsim.theory.statements.instances import column, log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]


def _derive() -> Derivation:
    b, u, v, k = sp.symbols("beta u_o u_n k", positive=True)
    centre, w, split = b * u + (1 - b) * v, b * (1 - b), v - u
    return symbolic(
        (
            "beta u_o^2 + (1 - beta) u_n^2 = M^2 + w D^2",
            "dH/dD = D mmse (de Bruijn, I-MMSE), and the best linear estimate leaves w / (1 + w D^2): k - k / (1 + k) = k^2 / (1 + k)",
            "the derivative of delta E_m[r_o] in m is -delta^2 E_m[r_o r_n], at most A in size",
        ),
        [b * u**2 + (1 - b) * v**2 - centre**2 - w * split**2, k - k / (1 + k) - k**2 / (1 + k)],
    )


def _sample(rng: np.random.Generator, n: int) -> Sample:
    """Weights to a thousandth, components from next to the merged state to past the middle between the modes."""
    delta = rng.uniform(3.7, 9.0, n)
    size = log_uniform(rng, 1e-3, 1.0, n) * delta
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    small = log_uniform(rng, 1e-3, 0.5, n)
    return {
        "beta": np.where(rng.random(n) < 0.5, small, 1.0 - small),
        "alpha": rng.uniform(0.1, 0.5, n),
        "delta": delta,
        "old": size * np.cos(angle),
        "new": size * np.sin(angle),
    }


def _growth(beta: Array, alpha: Array, delta: Array, old: Array, new: Array) -> Array:
    """1 and what the flow of the means adds to ``(u_o^2 + u_n^2) / 2``, from the gradient by quadrature, for each of ``M^2 + k``."""
    middle, zero = merged_states(alpha, delta), np.zeros((delta.size, 1))
    place = column(middle + old), column(middle + new)
    _, g_old, g_new = reverse_kl_gradient(logit(beta), *place, logit(alpha), zero, column(delta))
    size = beta * old**2 + (1.0 - beta) * new**2
    return np.exp(-(old * g_old[:, 0] + new * g_new[:, 0]) / size)


def _bound(beta: Array, alpha: Array, delta: Array, old: Array, new: Array) -> Bounds:
    pull = merged_pull(alpha, delta, np.maximum(np.abs(old), np.abs(new)))
    size = beta * old**2 + (1.0 - beta) * new**2
    return None, np.exp(merged_growth_bound(beta, old, new, pull) / size)


ESCAPE = Statement(
    slug="merged-escape",
    title="A merged state is left no faster than its pull allows, and not at all while the weight stays",
    status="T",
    kind="bound",
    hypotheses="exact flow of the means, any path of the weight; both components within r of m*; the exponential of the rate is compared",
    latex=r"\tfrac12\frac d{dt}(u_o^2+u_n^2)\le A_r(M^2+k)-M^2-\frac{k^2}{1+k},\quad A_r=\delta^2\max_{|m-m^*|\le r}E_m[r_or_n],\ k=\beta(1-\beta)(u_n-u_o)^2",
    derive=_derive,
    sample=_sample,
    exact=_growth,
    bound=_bound,
    test="tests/theory/test_merged.py",
    tolerance=1e-7,  # the gradient is a quadrature
    max_examples=20_000,
)

STATEMENTS = (ESCAPE,)
