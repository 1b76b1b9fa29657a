"""Statement on stages in which no group has a signal."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.stats import binom

from fstsim.theory.stall import stall_bounds
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]


def _derive() -> Derivation:
    p, group = sp.symbols("p G", positive=True)
    size = 5
    signal = 1 - (1 - p) ** size - p**size
    exactly_one = size * p * (1 - p) ** (size - 1)
    others = sum(sp.binomial(size, k) * p**k * (1 - p) ** (size - k) for k in range(2, size))
    return symbolic(
        (
            "a signal is a group with 1 to G - 1 successes: at least the groups with exactly one (G = 5)",
            "1 - (1 - p)^G <= G p: equal at p = 0, and the slopes are G (1 - p)^(G - 1) <= G",
        ),
        [sp.expand(signal - exactly_one - others), sp.diff(1 - (1 - p) ** group, p) - group * (1 - p) ** (group - 1)],
    )


def _sample(rng: np.random.Generator, n: int) -> Sample:
    p, group = log_uniform(rng, 1e-100, 0.5, n), rng.integers(2, 17, n).astype(float)
    successes = log_uniform(rng, 1e-3, 10.0, n)
    return {"p": p, "group": group, "groups": np.ceil(successes / (group * p))}


def _no_signal(p: Array, group: Array, groups: Array) -> Array:
    """Of the binomial distribution's survival function: no group with 1 to G - 1 successes."""
    signal = binom.sf(0, group, p) - binom.pmf(group, group, p)
    return np.exp(groups * np.log1p(-signal))


def _bounds(p: Array, group: Array, groups: Array) -> Bounds:
    return stall_bounds(p, group, groups)


STALL = Statement(
    slug="plasticity-stall",
    title="Finite groups stall: drift beyond log(N G) leaves a stage of N groups without any signal",
    status="T",
    kind="bound",
    hypotheses="binary reward, independent rollouts, success probability p = sigmoid(-S) at the start of the stage; any baseline from the group itself",
    latex=r"1-NGe^{-S}\le1-NGp\le P(\text{stall})=\big((1-p)^G+p^G\big)^N\le e^{-NGp(1-p)^{G-1}}",
    derive=_derive,
    sample=_sample,
    exact=_no_signal,
    bound=_bounds,
    source="own derivation, on the groups of GRPO (arXiv 2402.03300)",
    test="tests/theory/test_stall.py",
    tolerance=1e-9,
)

STATEMENTS = (STALL,)
