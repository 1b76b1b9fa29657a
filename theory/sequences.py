r"""Behaviours of several decisions: an old answer that is L tokens long is lost faster than one that is a single choice.

The old behaviour takes L decisions with masses ``beta_l = sigmoid(s_l)``, each given the old ones before it; its mass
is their product P. Under token cross-entropy on new data every decision follows a one-token law, and ``-log P`` adds
up:

| law    | decisions                                         | late                     | against one token of the same mass        |
|--------|---------------------------------------------------|--------------------------|-------------------------------------------|
| logit  | each its own flow ``ds/dt = -sigmoid(s)``         | ``P ~ t^-L``             | never above it; a power of it in the end   |
| fisher | each ``beta_l e^-t`` (natural gradient)           | ``P = P_0 e^(-L t)``     | the same curve with an L times faster clock|
| adam   | one shared shift, `theory.adam`                   | ``L h`` nats a step      | early ``sum (1 - beta_l)`` of that         |

A clock that is calibrated on the run absorbs the factor L of `fisher` and none of the curvature of the other two:
decisions near 1 first hide the shift (``sum (1 - beta_l)`` is small) and then each pays in full. Entries equal to 1 are
no decision (padding, or a token that both behaviours share). Source: own derivation; statements `sequence-*`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from fstsim.errors import InputError
from fstsim.theory.adam import BETAS, adam_shift_path
from fstsim.theory.forward_kl import mass_forgetting_separated
from fstsim.theory.numerics.inputs import finite, nonnegative, positive

Array = NDArray[np.float64]
SequenceLaw = Literal["logit", "fisher", "adam"]

_MOST_STEPS = 1_000_000
_SLOWEST, _FASTEST = 1e-8, 1e4  # clocks searched by `sequence_clock`


def _masses(value: ArrayLike) -> Array:
    b = np.asarray(value, dtype=np.float64)
    if b.ndim < 1 or b.shape[-1] < 1:
        raise InputError(f"token_masses must have decisions on its last axis, got shape {b.shape}")
    if not ((b > 0.0) & (b <= 1.0)).all():
        raise InputError("token_masses must lie in (0, 1]; 1 marks a token that is no decision")
    return b


def _surprise(masses: Array, shift: Array) -> Array:
    """``-log P = sum_l softplus(-(s_l + x))``; a mass of 1 costs nothing."""
    cost: Array = np.logaddexp(0.0, -(logit(masses) + shift[..., None])).sum(axis=-1)
    return cost


def sequence_mass(token_masses: ArrayLike, shift: ArrayLike) -> Array:
    """Mass ``prod_l sigmoid(s_l + x)`` of the old answer when all its decisions' log-odds moved by ``x``.

    ``token_masses (..., L)`` at ``x = 0``, ``shift (...)``.

    >>> float(sequence_mass([0.5, 1.0], 0.0))
    0.5
    """
    return np.exp(-_surprise(_masses(token_masses), finite(shift, "shift")))


def sequence_shift_bounds(token_masses: ArrayLike, shift: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on ``-log P`` after a shift ``x <= 0``, from sums over decisions.

    ``max(-log P_0 + |x| sum (1 - beta_l), L |x| - sum s_l) <= -log P <= -log P_0 + L |x|``: softplus is convex with
    slope between ``1 - beta_l`` and 1. Statement `sequence-shift` [T].
    """
    b, x = _masses(token_masses), finite(shift, "shift")
    if not (x <= 0.0).all():
        raise InputError(f"shift must be at most 0 (the old behaviour loses), got {shift!r}")
    decision = b < 1.0
    start = -np.log(b).sum(axis=-1)
    late = decision.sum(axis=-1) * -x - np.where(decision, logit(np.where(decision, b, 0.5)), 0.0).sum(axis=-1)
    return np.maximum(start - x * (1.0 - b).sum(axis=-1), late), start - x * decision.sum(axis=-1)


def sequence_logit_bounds(token_masses: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the mass of L decisions that each follow the logit flow for a time t.

    ``prod 1/(1/beta_l + t) <= P(t) <= min(prod 1/(1/beta_l + (1 - beta_l) t), beta_W(prod beta_l, t))``: ``d(1/beta)/dt
    = 1 - beta``, and the last is the one-token law, which is slower since ``P (1 - P) <= sum beta_l (1 - beta_l)``.
    ``t`` broadcasts against the leading axes of ``token_masses (..., L)``. Statement `sequence-logit` [T].
    """
    b, time = _masses(token_masses), nonnegative(t, "t")[..., None]
    decision = b < 1.0
    lower = np.where(decision, b / (1.0 + b * time), 1.0).prod(axis=-1)
    upper = (b / (1.0 + b * (1.0 - b) * time)).prod(axis=-1)
    return lower, np.minimum(upper, _one_token(b.prod(axis=-1), time[..., 0]))


def _one_token(masses: Array, time: ArrayLike) -> Array:
    """The logit law, at which a mass of 1 stays; a product of masses that underflowed stays 0."""
    decision = (masses > 0.0) & (masses < 1.0)
    return np.where(decision, mass_forgetting_separated(np.where(decision, masses, 0.5), time), masses)


def sequence_forgetting(
    token_masses: ArrayLike,
    t: ArrayLike,
    law: SequenceLaw,
    *,
    clock: float = 1.0,
    betas: tuple[float, float] = BETAS,
    clip: float = 1.0,
) -> Array:
    r"""Mass of each old answer after ``t`` steps of forward KL on new data: ``(*t.shape, n)`` for ``token_masses (n, L)``.

    ``clock`` is time a step (`logit`, `fisher`) or log-odds a step at full speed (`adam`), the one number that the base
    cannot tell. Under `adam` all decisions of all prompts share one shift, which Adam moves on their mean gradient
    (``betas``, ``eps = 0``, ``clip`` as in `adam_shift_path`), and ``t`` must be whole. With one token a prompt (L = 1)
    these are the one-token laws. Raises InputError on an unknown law, masses outside (0, 1], negative t, or a clock
    that is not positive.

    >>> masses = [[0.5, 0.9], [0.6, 1.0]]
    >>> sequence_forgetting(masses, [0, 10], "adam", clock=0.1).round(3).tolist()
    [[0.45, 0.6], [0.209, 0.358]]
    """
    b, steps = _masses(token_masses), nonnegative(t, "t")
    if b.ndim != 2:
        raise InputError(f"token_masses must be (prompts, decisions), got shape {b.shape}")
    positive(clock, "clock")
    decision = b < 1.0
    if law == "logit":
        return _one_token(b, clock * steps[..., None, None]).prod(axis=-1)
    if law == "fisher":
        return b.prod(axis=-1) * np.exp(-clock * steps[..., None] * decision.sum(axis=-1))
    if law != "adam":
        raise InputError(f"law must be one of {', '.join(get_args(SequenceLaw))}; got {law!r}")
    if not ((steps == np.floor(steps)) & (steps <= _MOST_STEPS)).all():
        raise InputError(f"t must be whole steps, at most {_MOST_STEPS:,}, under the law adam")
    if not decision.any():
        return np.ones((*steps.shape, b.shape[0]))
    path = adam_shift_path(logit(b[decision]), clock, int(steps.max(initial=0.0)), *betas, clip=clip)
    return np.exp(-_surprise(b, path[steps.astype(int)][..., None]))


def sequence_clock(
    token_masses: ArrayLike,
    step: float,
    after: float,
    law: SequenceLaw,
    *,
    betas: tuple[float, float] = BETAS,
    clip: float = 1.0,
) -> float:
    """The clock with which `sequence_forgetting` gives the mean mass ``after`` at ``step``: bisection in its logarithm.

    Raises InputError unless ``after`` lies between 0 and the mean mass of the base.
    """
    b = _masses(token_masses)
    if not 0.0 < after < float(b.prod(axis=-1).mean()):
        raise InputError(
            f"after must lie between 0 and the mean mass {b.prod(axis=-1).mean():.3g} of the base, got {after!r}"
        )
    low, high = _SLOWEST, _FASTEST
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        mean = float(sequence_forgetting(b, step, law, clock=middle, betas=betas, clip=clip).mean())
        low, high = (middle, high) if mean > after else (low, middle)
    return float(np.sqrt(low * high))
