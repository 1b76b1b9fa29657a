"""Statement of section 6.5: where the old mass rests when the policy writes the old demonstrations itself."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from fstsim.theory.replay_own import own_replay_bounds, own_replay_equilibrium
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]


def _derive() -> Derivation:
    u, lam, big_n = sp.symbols("u lambda N", positive=True)
    b = 1 - u
    # over beta: the force, and what the equation of the rest says
    force = (lam * (1 - u**big_n) * u - (1 - lam) * b) / b
    rest = lam * (1 - u ** (big_n + 1)) / b - 1
    two = sp.Symbol("beta", positive=True)
    return symbolic(
        (
            "ds/dt over beta is lambda (1 + u + ... + u^N) - 1 with u = 1 - beta: it falls in beta, from lambda (N + 1) - 1",
            "one try: the rest is 2 - 1/lambda",
        ),
        [sp.expand(force - rest), sp.expand((lam * (1 - (1 - two) ** 2) - two).subs(two, 2 - 1 / lam))],
    )


def _sample(rng: np.random.Generator, n: int) -> Sample:
    tries = np.floor(log_uniform(rng, 1.0, 1e5, n))
    # next to the share at which the old mass is lost, on either side, and anywhere
    near = np.exp(rng.choice([-1.0, 1.0], n) * log_uniform(rng, 1e-6, 0.3, n)) / (tries + 1.0)
    share = sometimes(rng, near, rng.uniform(0.0, 1.0, n), 0.3)
    return {"replay_fraction": np.clip(share, 1e-9, 1.0 - 1e-9), "tries": tries}


OWN = Statement(
    slug="replay-forward-own",
    title="Replay of own right answers rests below its share, and keeps nothing at a share of 1 / (tries + 1)",
    status="T",
    kind="bound",
    hypotheses="two answers, one decision; a share lambda of old prompts with N tries each, what finds no own right answer left out",
    latex=r"\dot s=\lambda\,(1-(1-\beta)^N)(1-\beta)-(1-\lambda)\beta,\qquad \beta^*=\lambda\,(1-(1-\beta^*)^{N+1}),\qquad "
    r"\tfrac{2}{N(N+1)}\max(0,N+1-\tfrac1\lambda)\le\beta^*\le\lambda\,(1-(1-\lambda)^{N+1})",
    derive=_derive,
    sample=_sample,
    exact=own_replay_equilibrium,
    bound=own_replay_bounds,
    source="method of arXiv 2605.29495, own derivation",
    test="tests/theory/test_replay_own.py",
    tolerance=1e-8,  # next to the threshold the rest is a small difference
)

STATEMENTS = (OWN,)
