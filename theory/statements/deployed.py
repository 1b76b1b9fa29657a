"""Statements of section 20.1: what KL from the base a deployed system must have for its success, and who has no more."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import logsumexp

from fstsim.theory.deployed import deployed_kl_floor
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_deployed.py"
_SOURCE = "own derivation (data processing); systems of arXiv 2502.12134, 2401.08565, 2305.16291, 2508.16153"
_OUTCOMES = 6


def sample_systems(rng: np.random.Generator, n: int) -> Sample:
    """Log-probabilities of six completions of the base, what a system adds to each, and which are right: up to 700 nats."""
    logits = log_uniform(rng, 0.1, 200.0, (n, 1)) * rng.standard_normal((n, _OUTCOMES))
    shift = log_uniform(rng, 1e-6, 200.0, (n, 1)) * rng.standard_normal((n, _OUTCOMES))
    right = rng.random((n, _OUTCOMES)) < rng.random((n, 1))
    right[:, 0], right[:, -1] = True, False
    return {
        "base": logits - logsumexp(logits, axis=-1, keepdims=True),
        "shift": shift,
        "right": right.astype(np.float64),
    }


def success_log_odds(logps: Array, right: Array) -> Array:
    """Log-odds of writing a right completion, nats."""
    there = np.where(right > 0.0, logps, -np.inf)
    away = np.where(right > 0.0, -np.inf, logps)
    return logsumexp(there, axis=-1) - logsumexp(away, axis=-1)


def divergence(base: Array, shift: Array) -> Array:
    """KL(system || base), nats, of the system with probabilities base times e^shift, normalised.

    A sum of terms that are at least 0, in log-ratios that are not taken between probabilities next to 1: nothing cancels.
    """
    share = np.exp(base)
    shift = shift - np.take_along_axis(shift, base.argmax(axis=-1)[:, None], axis=-1)  # the largest keeps its digits
    with np.errstate(over="ignore"):
        gained = (share * np.expm1(shift)).sum(axis=-1)  # exactly without the largest, which is all but 1 of the rest
    total = np.where(gained < np.inf, np.log1p(gained), logsumexp(base + shift, axis=-1))
    u = total[:, None] - shift  # log of base over system
    system = np.exp(base - u)
    near = np.where(np.abs(u) < 1.0, u, 0.0)
    series = near * near * (0.5 + near * (1.0 / 6.0 + near * (1.0 / 24.0 + near / 120.0)))
    close = system * np.where(np.abs(near) < 1e-3, series, np.expm1(near) - near)  # p (e^u - 1 - u)
    return np.asarray(np.where(np.abs(u) < 1.0, close, share - system * (1.0 + u)).sum(axis=-1))


def _gain(base: Array, shift: Array, chosen: NDArray[np.bool_]) -> tuple[Array, Array]:
    """What the log-mass of the chosen completions gains: the shift of the largest, and what the others add to that."""
    logps = np.where(chosen, base, -np.inf)
    largest = np.take_along_axis(shift, logps.argmax(axis=-1)[:, None], axis=-1)
    share = np.exp(logps - logsumexp(logps, axis=-1, keepdims=True))
    with np.errstate(over="ignore", invalid="ignore"):
        added = np.log1p((share * np.where(chosen, np.expm1(shift - largest), 0.0)).sum(axis=-1))
        far = logsumexp(logps + shift, axis=-1) - logsumexp(logps, axis=-1) - largest[:, 0]
    return largest[:, 0], np.where(np.isfinite(added), added, far)


def _floor(base: Array, shift: Array, right: Array) -> Bounds:
    before = success_log_odds(base, right)
    (up, more), (down, less) = _gain(base, shift, right > 0.0), _gain(base, shift, right == 0.0)
    gap = (up - down) + (more - less)  # not between the two log-odds, which far out have too few digits for it
    return deployed_kl_floor(before + gap, before, gap), None


FLOOR = Statement(
    slug="deployed-kl-floor",
    title="Whatever its state, a system's KL to the base is at least that of its success alone",
    status="T",
    kind="bound",
    hypotheses="one problem; p success of the system, p0 of the bare base, both in (0, 1); any completions",
    latex=r"\mathrm{KL}(\text{system}\Vert\text{base})\ \ge\ k(\operatorname{logit}p,\operatorname{logit}p_0)=p\log\frac p{p_0}+(1-p)\log\frac{1-p}{1-p_0}",
    derive=lambda: nothing(
        "data processing: whether a completion is right is a function of it",
        "equality in Jensen's inequality needs a constant ratio on right and on wrong completions: the tilt of the base",
    ),
    sample=sample_systems,
    exact=lambda base, shift, right: divergence(base, shift),  # noqa: ARG005
    bound=_floor,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _derive_tilt() -> Derivation:
    a, b, c = sp.symbols("a b c", positive=True)  # two right completions and a wrong one of the base
    w = sp.symbols("w", positive=True)  # e^x of the tilt
    total = w * (a + b) + c
    tilted = [w * a / total, w * b / total, c / total]
    p, p0 = sp.together(tilted[0] + tilted[1]), (a + b) / (a + b + c)
    kl = sum(t * sp.log(t * (a + b + c) / q) for t, q in zip(tilted, (a, b, c), strict=True))
    floor = p * sp.log(p / p0) + (1 - p) * sp.log((1 - p) / (1 - p0))
    return symbolic(
        (
            "the ratio to the base is w S/T on right completions and S/T on wrong ones",
            "so KL is that of the two masses",
        ),
        [sp.expand_log(sp.simplify(kl - floor), force=True)],
    )


def sample_tilts(rng: np.random.Generator, n: int) -> Sample:
    """A base, which of its completions are right, and a tilt of either sign."""
    x = sample_systems(rng, n)
    tilt = rng.choice((-1.0, 1.0), n) * log_uniform(rng, 1e-6, 300.0, n)
    return {"base": x["base"], "right": x["right"], "tilt": tilt}


def _tilt_floor(base: Array, right: Array, tilt: Array) -> Bounds:
    before = success_log_odds(base, right)
    return same(deployed_kl_floor(before + tilt, before, tilt))


TILT = Statement(
    slug="deployed-kl-tilt",
    title="The exponential tilt of the base on success has exactly the floor: no excess",
    status="T",
    kind="identity",
    hypotheses="as deployed-kl-floor; the system is the base times e^x on right completions, normalised",
    latex=r"p(y)\propto p_0(y)\,e^{x\,r(y)}\ \Rightarrow\ \operatorname{logit}p=\operatorname{logit}p_0+x,\quad \mathrm{KL}=k(\operatorname{logit}p_0+x,\operatorname{logit}p_0)",
    derive=_derive_tilt,
    sample=sample_tilts,
    exact=lambda base, right, tilt: divergence(base, right * tilt[:, None]),
    bound=_tilt_floor,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)

STATEMENTS = (FLOOR, TILT)
