"""Statements of section 19: where AdamW goes in a piece of many steps, and how far a path of such pieces can be off."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from fstsim.optimizers import AdamMoments, adamw_change
from fstsim.optimizers import AdamW as SteppedAdamW
from fstsim.theory.adam import adam_shift_path, log_gradient
from fstsim.theory.coarse_adam import AdamW, Moments, adam_piece, between
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_coarse_adam.py"
_SOURCE = "own derivation, on AdamW (arXiv 1711.05101)"
_ORDER_STEPS = 120
_PIECE = 20


# --- one piece --------------------------------------------------------------------------------------------------------


def _constants(rng: np.random.Generator, n: int) -> Sample:
    """Betas, weight decay, steps and age of a block: one number for all its instances."""
    beta2 = 1.0 - float(log_uniform(rng, 1e-3, 0.1, 1)[0])
    numbers = {
        "beta1": rng.choice([0.0, 0.9, rng.uniform(0.0, 0.95)]),
        "beta2": beta2,
        "decay": rng.choice([0.0, rng.uniform(0.0, 0.5)]),
        "steps": rng.integers(1, 33),
        "age": rng.choice([0.0, float(rng.integers(1, 3000))]),
    }
    return {name: np.full(n, float(value)) for name, value in numbers.items()}


def _sample_piece(rng: np.random.Generator, n: int) -> Sample:
    """Any memory and any constant gradient, of a size between 1e-6 and 10, their signs equal or not."""
    x = _constants(rng, n)
    root = log_uniform(rng, 1e-6, 10.0, n)  # of the second moment
    size = log_uniform(rng, 1e-6, 10.0, n)  # of q
    fresh = x["age"] == 0.0
    return {
        **x,
        "weight": rng.normal(size=n),
        "first": np.where(fresh, 0.0, root * rng.uniform(-1.0, 1.0, n)),
        "second": np.where(fresh, 0.0, root**2),
        "gradient": size * rng.uniform(-1.0, 1.0, n),
        "square": size**2,
        "rate": log_uniform(rng, 1e-4, 0.3, n),
    }


def _block(beta1: Array, beta2: Array, decay: Array, steps: Array, age: Array) -> tuple[AdamW, int, int]:
    return AdamW(float(beta1[0]), float(beta2[0]), 1e-8, float(decay[0])), int(steps[0]), int(age[0])


def _stepped_piece(
    weight: Array, first: Array, second: Array, gradient: Array, square: Array, rate: Array, **x: Array
) -> Array:
    """Weights after the steps of AdamW, one by one, ``square`` in place of the squared gradient."""
    adam, steps, age = _block(**x)
    for t in range(age + 1, age + steps + 1):
        first = adam.beta1 * first + (1.0 - adam.beta1) * gradient
        second = adam.beta2 * second + (1.0 - adam.beta2) * square
        direction = first / (1.0 - adam.beta1**t) / (np.sqrt(second / (1.0 - adam.beta2**t)) + adam.eps)
        weight = weight - rate * adam.weight_decay * weight - rate * direction
    return weight


def _moved(after: Array, before: Array, rate: Array, steps: int) -> Array:
    """Displacement over ``steps`` learning rates, from 50 upward so that it does not vanish."""
    return 50.0 + (after - before) / (rate * steps)


def _derive_piece() -> Derivation:
    b, m, g = sp.symbols("b m g", positive=True)
    n = sp.symbols("n", positive=True, integer=True)
    after = b**n * m + (1 - b**n) * g
    return symbolic(
        ("m_n = b^n m_0 + (1 - b^n) g solves m_(n + 1) = b m_n + (1 - b) g, and the same for v with q",),
        [b * after + (1 - b) * g - after.subs(n, n + 1)],
    )


def _share_one_rate(x: Sample) -> Sample:
    """With weight decay pieces take the learning rates of a block, so its instances share one."""
    return {**x, "rate": np.full(x["rate"].shape, x["rate"][0])}


def _coarse_piece(
    weight: Array, first: Array, second: Array, gradient: Array, square: Array, rate: Array, **x: Array
) -> Bounds:
    adam, steps, age = _block(**x)
    ends, _ = adam_piece(weight, Moments(first, second, age), gradient, square, np.full(steps, rate[0]), adam)
    return same(_moved(ends, weight, rate, steps))


PIECE = Statement(
    slug="coarse-adam-piece",
    title="Under gradients that stay the same in distribution, n steps of AdamW are one sum in closed form",
    status="T",
    kind="identity",
    hypotheses="mean gradient g and mean square q constant over the n steps, any memory, age, learning rate and weight decay",
    latex=r"m_j=\beta_1^jm_0+(1-\beta_1^j)g,\quad v_j=\beta_2^jv_0+(1-\beta_2^j)q,\qquad\theta_n=\textstyle\prod_j(1-h_j\lambda)\theta_0-\sum_jc_j\frac{\hat m_j}{\sqrt{\hat v_j}+\epsilon},\quad c_j=h_j\prod_{i>j}(1-h_i\lambda)",
    derive=_derive_piece,
    sample=lambda rng, n: _share_one_rate(_sample_piece(rng, n)),
    exact=lambda **x: _moved(_stepped_piece(**x), x["weight"], x["rate"], int(x["steps"][0])),
    bound=_coarse_piece,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


# --- every step an aim ------------------------------------------------------------------------------------------------


def _sample_gradients(rng: np.random.Generator, n: int) -> Sample:
    x = _constants(rng, n)
    size = log_uniform(rng, 1e-5, 10.0, (n, 1))
    return {
        "beta1": x["beta1"],
        "beta2": x["beta2"],
        "decay": x["decay"],
        "rate": np.full(n, float(log_uniform(rng, 1e-3, 0.3, 1)[0])),
        "weight": rng.normal(size=n),
        "gradients": size * rng.standard_normal((n, 24)),
    }


def _stepped(beta1: Array, beta2: Array, decay: Array, rate: Array, weight: Array, gradients: Array) -> Array:
    """The simulator's AdamW."""
    how = SteppedAdamW(float(rate[0]), float(beta1[0]), float(beta2[0]), 1e-8, float(decay[0]))
    at, moments = weight[:, None], AdamMoments.zeros((weight.size, 1))
    for g in gradients.T:
        at = at + adamw_change(at, g[:, None], moments, how)
    return _moved(at[:, 0], weight, rate, gradients.shape[1])


def _aimed(beta1: Array, beta2: Array, decay: Array, rate: Array, weight: Array, gradients: Array) -> Bounds:
    adam = AdamW(float(beta1[0]), float(beta2[0]), 1e-8, float(decay[0]))
    at, moments = weight, Moments(np.zeros(weight.size), np.zeros(weight.size))
    for g in gradients.T:
        at, moments = adam_piece(at, moments, g, g * g, rate[:1], adam)
    return same(_moved(at, weight, rate, gradients.shape[1]))


STEPS = Statement(
    slug="coarse-adam-steps",
    title="Pieces of one step, with the gradient of one batch, are AdamW itself",
    status="T",
    kind="identity",
    hypotheses="q = g^2 of each step's own gradient; any gradients, against the simulator's AdamW step by step",
    latex=r"n=1,\ q=g^2:\qquad\theta_{k+1}=(1-h\lambda)\theta_k-h\frac{\hat m_{k+1}}{\sqrt{\hat v_{k+1}}+\epsilon}",
    derive=lambda: nothing("the closed form at n = 1 is the recursion of AdamW"),
    sample=_sample_gradients,
    exact=_stepped,
    bound=_aimed,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


# --- noise of q -------------------------------------------------------------------------------------------------------


def _sample_noisy(rng: np.random.Generator, n: int) -> Sample:
    """A memory and a gradient of one sign, no decay; q off by a factor between .2 and 5, often by little."""
    x = _share_one_rate(_sample_piece(rng, n))
    x["first"], x["gradient"] = np.abs(x["first"]), np.abs(x["gradient"])
    x["gradient"] = np.maximum(x["gradient"], 1e-3 * np.sqrt(x["square"]))
    off = np.exp(rng.uniform(-1.6, 1.6, n) * rng.choice([0.05, 1.0], n))
    return {name: value for name, value in x.items() if name not in ("decay", "weight", "rate")} | {"factor": off}


def _noisy_piece(factor: Array, **x: Array) -> Array:
    """How far a piece goes, learning rate 1, with ``factor`` times the mean square."""
    zero = np.zeros(factor.shape)
    moved = _stepped_piece(
        zero, x["first"], x["second"], x["gradient"], factor * x["square"], np.ones(factor.shape),
        beta1=x["beta1"], beta2=x["beta2"], decay=zero, steps=x["steps"], age=x["age"],
    )  # fmt: skip
    return -moved


def _noise_bounds(factor: Array, **x: Array) -> Bounds:
    plain = _noisy_piece(np.ones(factor.shape), **x)
    kept = x["beta2"] ** x["steps"] * x["second"]
    share = 1.0 - kept / (kept + (1.0 - x["beta2"] ** x["steps"]) * x["square"])
    other = plain / np.sqrt(1.0 + share * (factor - 1.0))
    return np.minimum(plain, other), np.maximum(plain, other)


def _derive_noise() -> Derivation:
    b, v, q, z = sp.symbols("b v q z", positive=True)
    n = sp.symbols("n", positive=True)
    after = b**n * v + (1 - b**n) * q
    share = (1 - b**n) * q / after
    return symbolic(
        (
            "v with z q in place of q is v (1 + s (z - 1)), s the share of q in v",
            "that share grows with the step: its derivative has the sign of -log b > 0",
        ),
        [
            b**n * v + (1 - b**n) * z * q - after * (1 + share * (z - 1)),
            sp.diff(share, n) + sp.log(b) * b**n * q * v / after**2,
        ],
    )


NOISE = Statement(
    slug="coarse-adam-noise",
    title="A mean square that is off by a factor z moves a piece by at most sqrt(1 + s (z - 1)), s its share of what v remembers",
    status="T",
    kind="bound",
    hypotheses="m_0 and g of one sign, no weight decay; s the share of q in v at the end of the piece; eps >= 0",
    latex=r"\min\Big\{1,\frac1{\sqrt{1+s(z-1)}}\Big\}\le\frac{\Delta\theta(zq)}{\Delta\theta(q)}\le\max\Big\{1,\frac1{\sqrt{1+s(z-1)}}\Big\},\qquad s=\frac{(1-\beta_2^n)q}{v_n}",
    derive=_derive_noise,
    sample=_sample_noisy,
    exact=_noisy_piece,
    bound=_noise_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


# --- paths of pieces --------------------------------------------------------------------------------------------------


def _gradient(base_log_odds: Array, shift: Array) -> Array:
    """Of the mean forward KL of prompts that share a shift, as in `adam_shift_path`."""
    value: Array = np.exp(log_gradient(base_log_odds, shift))
    return value


def coarse_shift(base_log_odds: Array, step_size: float, steps: int, piece: int, adam: AdamW) -> Array:
    """Shared shift ``(...)`` after ``steps`` steps in pieces of ``piece``: predicted under a constant gradient, corrected with one on its way."""
    at = np.zeros(base_log_odds.shape[:-1])
    moments = Moments(np.zeros(at.shape), np.zeros(at.shape))
    for _ in range(steps // piece):
        g = _gradient(base_log_odds, at)
        if piece == 1:
            at, moments = adam_piece(at, moments, g, g * g, [step_size], adam)
            continue
        ahead, _ = adam_piece(at, moments, g, g * g, np.full(piece, step_size), adam)
        end = _gradient(base_log_odds, ahead)
        for j in range(piece):
            own, square = between((g, g * g), (end, end * end), j / piece)
            at, moments = adam_piece(at, moments, own, square, [step_size], adam)
    return at


def _sample_shared(rng: np.random.Generator, n: int) -> Sample:
    """Prompts around any log-odds; a step that moves the gradient by up to 2 % and a run that moves it by e."""
    return {
        "base_log_odds": rng.uniform(-4.0, 2.0, (n, 1)) + rng.uniform(0.0, 2.0, (n, 1)) * rng.standard_normal((n, 3)),
        "step_size": np.full(n, float(log_uniform(rng, 2e-3, 0.01, 1)[0])),
        "beta1": np.full(n, rng.choice([0.0, 0.5, 0.9])),
        "beta2": np.full(n, rng.choice([0.99, 0.999])),
    }


def _of(step_size: Array, beta1: Array, beta2: Array) -> tuple[float, AdamW]:
    return float(step_size[0]), AdamW(float(beta1[0]), float(beta2[0]), 0.0)


def _path_end(base_log_odds: Array, step_size: Array, beta1: Array, beta2: Array) -> Array:
    h, _ = _of(step_size, beta1, beta2)
    return -adam_shift_path(base_log_odds, h, _ORDER_STEPS, float(beta1[0]), float(beta2[0]))[-1]


def _clock_bounds(base_log_odds: Array, step_size: Array, beta1: Array, beta2: Array) -> Bounds:
    h, adam = _of(step_size, beta1, beta2)
    return same(-coarse_shift(base_log_odds, h, _ORDER_STEPS, 1, adam))


CLOCK = Statement(
    slug="coarse-adam-clock",
    title="The clock of one shared logit is the coarse path of one parameter in pieces of one step",
    status="T",
    kind="identity",
    hypotheses="prompts that share one parameter, forward KL, exact gradients, eps = 0 (adam-clock bounds this path)",
    latex=r"x_T\ \text{of adam-clock}=\text{the path of pieces}\ n=1,\ g=G(x),\ q=G(x)^2",
    derive=lambda: nothing("both are the recursion of Adam on the gradient G(x) = mean sigmoid(s_i + x)"),
    sample=_sample_shared,
    exact=_path_end,
    bound=_clock_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
    max_examples=10_000,
)


def _in_pieces(base_log_odds: Array, step_size: Array, beta1: Array, beta2: Array) -> Bounds:
    h, adam = _of(step_size, beta1, beta2)
    return same(-coarse_shift(base_log_odds, h, _ORDER_STEPS, _PIECE, adam))


ORDER = Statement(
    slug="coarse-adam-order",
    title="Pieces that are predicted and then corrected follow AdamW to second order in their length, with two gradients a piece",
    status="A",
    kind="approximation",
    hypotheses="smooth gradients of one sign, pieces of n = 20 steps of 120 here; the error falls at least like n^2, by the tests",
    latex=r"\theta_T(n)-\theta_T(1)=O\big((nh)^2\big)",
    derive=lambda: nothing(
        "along a piece gradients go evenly from one end to the other: their error is of second order"
    ),
    sample=_sample_shared,
    exact=_path_end,
    bound=_in_pieces,
    source=_SOURCE,
    test=_TEST,
    max_examples=10_000,
)

STATEMENTS = (PIECE, STEPS, NOISE, CLOCK, ORDER)
