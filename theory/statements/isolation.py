"""Statements of section 21: what freezing a part of the weights does to the clock of a logit."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.theory.isolation import Drive, drive, forward_time, frozen_share
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_isolation.py"
_SOURCE = "own derivation, on arXiv 2508.21741"
_WEIGHTS = 5
_STEPS = 24


def _sample_frozen(rng: np.random.Generator, n: int) -> Sample:
    """Loadings of any size and sign, some 0; a frozen set that leaves one weight that moves the logit."""
    size = log_uniform(rng, 1e-3, 1e3, (n, _WEIGHTS)) * rng.choice([-1.0, 1.0], (n, _WEIGHTS))
    size = np.where(rng.random((n, _WEIGHTS)) < 0.1, 0.0, size)
    frozen = rng.random((n, _WEIGHTS)) < rng.uniform(0.0, 1.0, (n, 1))
    free = rng.integers(_WEIGHTS, size=n)
    frozen[np.arange(n), free] = False
    size[np.arange(n), free] = log_uniform(rng, 1e-3, 1e3, n)
    return {"loadings": size, "frozen": frozen.astype(np.float64), "adam": np.full(n, float(rng.integers(2)))}


def _sample_clock(rng: np.random.Generator, n: int) -> Sample:
    """Any start within 12 nats, any share of old demonstrations, often none; up to .99 of the way to the fixed point."""
    share = np.where(rng.random(n) < 0.3, 0.0, expit(rng.uniform(-12.0, 12.0, n)))
    start = rng.uniform(-12.0, 12.0, n)
    with np.errstate(divide="ignore"):
        at = logit(share)
    way = rng.uniform(0.01, 0.99, n)
    end = np.where(share > 0.0, start + way * (np.where(share > 0.0, at, 0.0) - start), start - 12.0 * way)
    return {**_sample_frozen(rng, n), "start": start, "end": end, "share": share}


_NODES, _GAUSS = np.polynomial.legendre.leggauss(128)


def _how(adam: Array) -> Drive:
    return "adam" if adam[0] else "sgd"


def _masked_time(loadings: Array, frozen: Array, adam: Array, start: Array, end: Array, share: Array) -> Array:
    """The time that the weights themselves take, frozen ones at rest: the integral of ds over the speed of s."""
    middle, half = 0.5 * (start + end)[:, None], 0.5 * (end - start)[:, None]
    slope = expit(middle + half * _NODES) - share[:, None]
    gradient = slope[..., None] * loadings[:, None, :]
    velocity = -np.sign(gradient) if adam[0] else -gradient
    velocity = np.where(frozen[:, None, :] > 0.0, 0.0, velocity)
    speed = (velocity * loadings[:, None, :]).sum(-1)
    return (_GAUSS * half / speed).sum(-1)


def _slowed_time(loadings: Array, frozen: Array, adam: Array, start: Array, end: Array, share: Array) -> Bounds:
    how = _how(adam)
    _, rest = frozen_share(loadings, frozen > 0.0, how)
    whole = drive(loadings, how).sum(-1)
    alone = np.abs(end - start) if how == "adam" else forward_time(start, end, share)
    return same(alone / whole / rest)


def _derive_clock() -> Derivation:
    s, q, at, a, b = sp.symbols("s q t a b", positive=True)
    slope = sp.Function("f")(s)
    full, masked = (a**2 + b**2) * slope, b**2 * slope
    phi = a**2 / (a**2 + b**2)
    one, part = (a + b), b
    y = sp.exp(s)
    clock = s - sp.exp(-s)
    near = (q * s + sp.log(1 - sp.exp(at - s))) / (q * (1 - q))
    inverse = 1 / (y / (1 + y) - q)
    return symbolic(
        (
            "ds/dt of the free weights is 1 - phi of ds/dt of all, phi = a^2 / (a^2 + b^2) of the squares",
            "and phi = a / (a + b) of the sizes where every weight moves at the same speed",
            "the clock of forward KL: its derivative is 1 / sigma(s) without old demonstrations",
            "and 1 / (sigma(s) - q) with the share q of them, at the distance from t = logit q",
        ),
        [
            masked - (1 - phi) * full,
            part - (1 - a / (a + b)) * one,
            sp.diff(clock, s) - (1 + y) / y,
            sp.simplify((sp.diff(near, s) - inverse).subs(at, sp.log(q / (1 - q)))),
        ],
    )


CLOCK = Statement(
    slug="isolation-clock",
    title="Freezing weights that hold the share phi of the drive multiplies every time by 1/(1 - phi), and moves no fixed point",
    status="T",
    kind="identity",
    hypotheses="log-odds linear in the weights, flow of SGD (drive |g|^2) or of signs (Adam's without memory, drive |g|_1), forward KL to "
    "any share q of old demonstrations; any loadings and any frozen set that leaves some drive",
    latex=r"\dot s=-(1-\varphi)\,R\,f'(s)\ \Rightarrow\ T_{\text{frozen}}(s_0\to s_1)=\frac{T(s_0\to s_1)}{1-\varphi},\quad"
    r"\varphi=\frac{\sum_{\text{frozen}}|g_i|^p}{\sum|g_i|^p},\ p=2\ (\text{SGD}),\ 1\ (\text{Adam});\qquad f'(s_\infty)=0\ \text{as before}",
    derive=_derive_clock,
    sample=_sample_clock,
    exact=_masked_time,
    bound=_slowed_time,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)


# --- steps in place of a flow -----------------------------------------------------------------------------------------


def _sample_steps(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_frozen(rng, n)
    how = _how(x["adam"])
    return {
        **x,
        "start": rng.uniform(-6.0, 6.0, n),
        "share": rng.choice([0.0, 1.0], n) * rng.uniform(0.0, 1.0, n),
        "rate": log_uniform(rng, 1e-3, 0.5, n) / drive(x["loadings"], how).sum(-1),
        "beta1": np.full(n, rng.choice([0.0, 0.9])),
        "beta2": np.full(n, rng.choice([0.9, 0.999])),
    }


def _direction(gradient: Array, memory: list[Array], step: int, betas: tuple[float, float]) -> Array:
    """Adam's, eps = 0; a weight without gradient rests."""
    memory[0] = betas[0] * memory[0] + (1.0 - betas[0]) * gradient
    memory[1] = betas[1] * memory[1] + (1.0 - betas[1]) * gradient**2
    size = np.sqrt(memory[1] / (1.0 - betas[1] ** step))
    return np.divide(memory[0] / (1.0 - betas[0] ** step), size, out=np.zeros_like(size), where=size > 0.0)


def _masked_steps(
    loadings: Array, frozen: Array, adam: Array, start: Array, share: Array, rate: Array, **betas: Array
) -> Array:
    """50 plus the logit after the steps of every weight by itself, the frozen ones put back after each."""
    theta, memory = np.zeros_like(loadings), [np.zeros_like(loadings), np.zeros_like(loadings)]
    pair = float(betas["beta1"][0]), float(betas["beta2"][0])
    for step in range(1, _STEPS + 1):
        s = start + (loadings * theta).sum(-1)
        gradient = (expit(s) - share)[:, None] * loadings
        move = _direction(gradient, memory, step, pair) if adam[0] else gradient
        theta = np.where(frozen > 0.0, theta, theta - rate[:, None] * move)
    return 50.0 + start + (loadings * theta).sum(-1)


def _slowed_steps(
    loadings: Array, frozen: Array, adam: Array, start: Array, share: Array, rate: Array, **betas: Array
) -> Bounds:
    """The same of one logit that knows no weights, at 1 - phi of the learning rate."""
    how = _how(adam)
    _, rest = frozen_share(loadings, frozen > 0.0, how)
    pace = rate * rest * drive(loadings, how).sum(-1)
    s, memory = start.copy(), [np.zeros_like(start), np.zeros_like(start)]
    pair = float(betas["beta1"][0]), float(betas["beta2"][0])
    for step in range(1, _STEPS + 1):
        slope = expit(s) - share
        s = s - pace * (_direction(slope, memory, step, pair) if adam[0] else slope)
    return same(50.0 + s)


def _derive_steps() -> Derivation:
    a, b, m, v, g, beta1, beta2 = sp.symbols("a b m v g beta_1 beta_2", positive=True)
    first, second = beta1 * a * m + (1 - beta1) * a * g, beta2 * a**2 * v + (1 - beta2) * a**2 * g**2
    of_slope = (beta1 * m + (1 - beta1) * g) / sp.sqrt(beta2 * v + (1 - beta2) * g**2)
    return symbolic(
        ("the moments of a weight are a and a^2 times those of the slope, so that its direction is that of the slope",),
        [sp.simplify(first / sp.sqrt(second) - of_slope), sp.simplify(b * g * b - b**2 * g)],
    )


STEPS = Statement(
    slug="isolation-steps",
    title="Steps of SGD or Adam with frozen weights are those of all weights at 1 - phi of the learning rate",
    status="T",
    kind="identity",
    hypotheses="log-odds linear in the weights, no weight decay, eps = 0, moments of 0 at the start; any learning rate, betas, share q",
    latex=r"s_{k+1}=s_k-h\,(1-\varphi)\,R\,u_k,\qquad R=\sum|a_i|^p,\quad u_k=f'(s_k)\ (\text{SGD}),\ \hat m_k/\sqrt{\hat v_k}\ \text{of}\ f'(s_0)\ \text{to}\ f'(s_k)\ (\text{Adam})",
    derive=_derive_steps,
    sample=_sample_steps,
    exact=_masked_steps,
    bound=_slowed_steps,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)

STATEMENTS = (CLOCK, STEPS)
