"""Closed forms of the theory against the same formulas in `mpmath`, over the whole range that their inputs may have.

Each `Case` names a function, its formula written independently (as plainly as it stands in a textbook: hundreds of digits
make cancellation harmless), and what its arguments are drawn from: log-odds up to 700 either way, masses down to 1e-300
and up to 1 - 1e-16, separations from 1e-8 on, arguments that nearly agree. A value beyond the largest double must come
out as infinity of the right sign, one below the smallest as (nearly) 0, and nothing may warn.
"""

# ruff: noqa: ARG005, PLC3002  # a formula takes all arguments of its function, and names a part of itself by a lambda
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest
from closed_forms import (
    FINITE,
    LOG_ODDS,
    MASS,
    RATE,
    SEPARATION,
    SHARE,
    TILT,
    Array,
    Case,
    bern,
    clock,
    constant,
    logit,
    near,
    one_of,
    phi,
    powers,
    sig,
    signed,
    soft,
    uniform,
    whole,
    worst,
)
from mpmath import mp, mpf

from fstsim.labelled import Whitened, labelled_kl
from fstsim.overlap import bhattacharyya_coefficient, overlap_gap
from fstsim.replay_objectives import replay_importance_weights
from fstsim.theory import (
    adam,
    clipping,
    clocks,
    fast_slow,
    forward_kl,
    group_batches,
    group_normalised,
    leashes,
    maps,
    noise,
    oapl,
    overlap,
    plasticity,
    replay,
    sdft,
    sequences,
    stall,
    starvation,
    ttt,
)
from fstsim.theory.reverse_kl import (
    old_mean_force,
    reverse_kl_weight_time,
    skeleton_kl,
    skeleton_kl_gradient,
    weight_flow_rate,
)

# --- the table --------------------------------------------------------------------------------------------------------


def _weight_time(a: mpf, b: mpf, c: mpf) -> mpf:
    with mp.workdps(60):
        x0, x1 = abs(a - c), abs(b - c)
        k = c if a < c else -c
        digits = int(max(x0, x1) / 2.3) + 60
    with mp.workdps(min(digits, 1500)):
        return 2 * mp.log(x0 / x1) + mp.exp(k) * (mp.e1(x1) - mp.e1(x0)) + mp.exp(-k) * (mp.ei(x0) - mp.ei(x1))


def _same_side(a: Array, b: Array, c: Array) -> Any:
    return (np.sign(a - c) * np.sign(b - c) > 0) & (np.abs(a) < 705) & (np.abs(b) < 705)


def _recovery(b0: mpf, b1: mpf, a: mpf, h: mpf, n: mpf) -> tuple[mpf, mpf]:
    flow = _weight_time(logit(b0), logit(b1), logit(a)) / h
    if (1 - 2 * b1) * (logit(a) - logit(b1)) < 1:
        return mp.nan, mp.nan
    return flow, flow + 1 / (n * b0 * (1 - b0)) if n <= 3 else mp.nan


def _masses_up(rng: np.random.Generator, n: int) -> Array:
    b1 = one_of(uniform(0.001, 0.4), powers(-200, -3))(rng, n)
    b0 = b1 * one_of(uniform(0.01, 0.99), powers(-80, -1), lambda r, m: 1.0 - 10.0 ** r.uniform(-15, -1, m))(rng, n)
    a = one_of(uniform(0.9, 0.999), lambda r, m: 1.0 - 10.0 ** r.uniform(-15.9, -2, m))(rng, n)
    return np.stack([b0, b1, a], axis=-1)


def _search(mobility: str, s0: mpf, x: mpf, eta: mpf, nu: mpf) -> mpf:
    if mobility == "plain":
        root = mp.sqrt(eta / (eta + 4 * nu))
        gate = 2 / mp.sqrt(eta * (eta + 4 * nu)) * (mp.atanh(root * mp.tanh(x / 2)) - mp.atanh(root * mp.tanh(s0 / 2)))
    elif eta == 2 * nu:
        gate = (mp.tanh(x / 4) - mp.tanh(s0 / 4)) / nu
    else:
        root = mp.sqrt(mpmath.mpc((eta - 2 * nu) / (eta + 2 * nu)))
        apart = mp.sqrt(mpmath.mpc(eta**2 - 4 * nu**2))
        gate = mp.re(4 / apart * (mp.atanh(root * mp.tanh(x / 4)) - mp.atanh(root * mp.tanh(s0 / 4))))
    return (x - s0) / nu - eta / nu * gate


def _separated(b0: mpf, t: mpf) -> mpf:
    """``1 / (1 + y)``, ``y + log y = y0 + log y0 + t``, by Newton from above in ``log y``."""
    y0 = (1 - b0) / b0
    c = y0 + mp.log(y0) + t
    x = min(c, mp.log(c)) if c > 1 else c  # e^x + x = c, convex in x
    for _ in range(200):
        step = (mp.exp(x) + x - c) / (mp.exp(x) + 1)
        x -= step
        if abs(step) < mpf(10) ** -(mp.dps // 2 + 10):
            break
    return 1 / (1 + mp.exp(x))


def _skeleton(s: mpf, e: mpf, p: mpf, v: mpf) -> mpf:
    return bern(sig(s), sig(p)) + sig(s) * e * e / 2 + sig(-s) * v * v / 2


def _oapl_gradient(s: mpf, lag: mpf, t: mpf, ro: mpf, rn: mpf) -> mpf:
    goal = lag - (rn - ro) / t
    return (
        2
        * t
        * t
        * (sig(lag) * sig(-s) * mp.log(sig(s) / sig(goal)) - sig(-lag) * sig(s) * mp.log(sig(-s) / sig(-goal)))
    )


def _entropic_shift(s: mpf, g: mpf) -> mpf:
    return mp.expm1(g) / (sig(s) + sig(-s) * mp.exp(g))


def _unleashed(a: mpf, b: mpf, g: mpf) -> mpf:
    return ((a + mp.exp(a) - b - mp.exp(b)) + mp.exp(g) * (a - mp.exp(-a) - b + mp.exp(-b))) / mp.expm1(g)


def _gamma(b: mpf, lam: mpf) -> mpf:
    if lam == 0:
        return 1 / b + mp.log((1 - b) / b)
    if lam == 1:
        return 1 / (1 - b) + mp.log(b / (1 - b))
    return mp.log(b) / lam + mp.log(1 - b) / (1 - lam) - mp.log(abs(lam - b)) / (lam * (1 - lam))


def _leash(base: mpf, eta: mpf) -> mpf:
    """Root of ``1 + e^s + eta (s - base) = 0``."""
    with mp.workdps(60):
        c = base - 1 / eta
        w = c - mp.log(eta)  # W(e^w)
        y = mp.exp(w) if w < 0 else (w - mp.log(w) if w > 3 else mpf(1))
        for _ in range(60):
            y = y * (1 + w - mp.log(y)) / (1 + y) if y > 0 else mpf(0)
        return c - y


def _drift_at(x: mpf, g: int) -> mpf:
    p, q = sig(x), sig(-x)
    return mp.fsum(mp.binomial(g, k) * p**k * q ** (g - k) * mp.sqrt(mpf(k) * (g - k)) / g for k in range(1, g))


def _noise(b: mpf, ao: mpf, an: mpf, n: mpf, lam: mpf) -> mpf:
    old, new = lam + (1 - lam) * b, (1 - lam) * (1 - b)
    gain = b * (1 - b) * (ao - an)
    return gain**2 * ((old - new) ** 2 / (old * new * n) + 2 / (n * (n - 1)))


def _band(baseline: str, b: mpf, ao: mpf, an: mpf, n: mpf, lam: mpf) -> mpf:
    old, new = lam + (1 - lam) * b, (1 - lam) * (1 - b)
    wo, wn = b / old, (1 - b) / new
    if baseline == "optimal":
        return mpf(0)
    c = {
        "none": mpf(0),
        "mean": b * ao + (1 - b) * an,
    }[baseline]
    return old * new * (wo * (1 - b) * (ao - c) + wn * b * (an - c)) ** 2 / n


def _steady(r: mpf, b1: mpf, b2: mpf) -> mpf:
    room = 1 - b2 * mp.exp(2 * r)
    return (1 - b1) / (1 - b1 * mp.exp(r)) * mp.sqrt(room / (1 - b2)) if room > 0 else mpf(0)


def _late(h: mpf, b1: mpf, b2: mpf) -> mpf:
    with mp.workdps(40):
        low, high = mpf(0), min(h, -mp.log(b2) / 2)
        for _ in range(110):
            middle = (low + high) / 2
            low, high = (low, middle) if middle > h * _steady(middle, b1, b2) else (middle, high)
        return low


def _step_bound(t: mpf, b1: mpf, b2: mpf) -> mpf:
    q = b1 * b1 / b2
    spread = t if q == 1 else (1 - q**t) / (1 - q)
    return (1 - b1) / (1 - b1**t) * mp.sqrt((1 - b2**t) / (1 - b2) * spread)


def _fisher_rate(s: mpf, rho: mpf, a: mpf) -> tuple[mpf, mpf, mpf]:
    c = sig(s) * sig(-s)
    low = c * rho * (1 - a) / (c + rho)
    return (c + rho - mp.sqrt((c + rho) ** 2 - 4 * c * rho * (1 - a))) / 2, low, 2 * low


def _mixed_map(rate: mpf, target: mpf, s: mpf, k: mpf) -> mpf:
    keep = (1 - rate) ** k
    old = keep * sig(s) + (1 - keep) * target
    return mp.log(old / (keep * sig(-s) + (1 - keep) * (1 - target)))


def _affine(a: mpf, drift_: mpf, s: mpf, k: mpf) -> mpf:
    return s - k * drift_ if a == 1 else a**k * s - drift_ * (1 - a**k) / (1 - a)


def _affine_map(a: Array, drift_: Array, s: Array, k: Array) -> Array:
    return np.array(
        [float(maps.LogOddsMap(x, 0.0, 0.0, d).iterate(y, n)) for x, d, y, n in zip(a, drift_, s, k, strict=True)]
    )


def _mixed(rate: Array, target: Array, s: Array, k: Array) -> Array:
    return np.array(
        [float(maps.ProbabilityMap(x, t).iterate(y, n)) for x, t, y, n in zip(rate, target, s, k, strict=True)]
    )


def _absolute(*columns: Array) -> Array:
    return np.max(np.abs(np.stack(columns)), axis=0)


def _escape_bounds(x: mpf, y: mpf, r: mpf, g: mpf) -> tuple[mpf, mpf]:
    turn = 2 * mp.acosh(max(mpf(1), mp.sqrt(g) / 2))

    def clip(z: mpf) -> mpf:
        return min(max(z, -turn), turn)

    lower = (clock(min(y, -turn)) - clock(min(x, -turn)) + clock(max(y, turn)) - clock(max(x, turn))) / mp.sqrt(g - 1)
    lower += (clock(clip(y), "n") - clock(clip(x), "n")) / mp.sqrt(1 - 1 / g)
    c, d = 2 * mp.sqrt(g - 1), mp.sqrt(g * g - g + 2)

    def primitive(z: mpf) -> mpf:
        u = mp.sinh(z / 2)
        return (u * mp.sqrt(c * c * u * u + d * d) + d * d / c * mp.asinh(c * u / d)) / 2

    return lower / r, 4 / (g - 1) * (primitive(y) - primitive(x)) / r


def _sdft_scale(a: Array, b: Array, c: Array, h: Array, r: Array) -> Array:
    with np.errstate(over="ignore"):
        return _absolute(clocks.learning_clock_between(b, a) / h, (a - c) / (r * h))


def _refreshes(m: mpf, b: mpf, r: mpf, t: mpf, a: mpf) -> mpf:
    plain = t * (logit(b) - logit(m)) / r
    if a == 1:
        return plain
    used = (1 - a) * plain
    if used >= 1:
        return mp.inf
    return mp.log(1 - used) / mp.log(a) if a > 0 else mpf(0)


def _leashed(s0: mpf, leash: mpf, room: mpf, g: mpf) -> mpf:
    """Root in the drift of ``g sigma'(s + room) / sigma'(s) = leash drift``, by bisection of its logarithm."""
    reach = mp.log(g / leash)
    low, high = reach - room, reach + room
    for _ in range(260):
        y = (low + high) / 2
        s = s0 + mp.exp(y)
        ratio = room + 2 * soft(s) - 2 * soft(s + room)
        low, high = (low, y) if y - reach > ratio else (y, high)
    return s0 + mp.exp(low)


def _tilted(s0: mpf, g: mpf, lam: mpf) -> mpf:
    low, high = min(s0, mpf(0)) - 2 / lam, s0  # the shift is at most 2 below 0, and positive
    for _ in range(220):
        s = (low + high) / 2
        low, high = (low, s) if s + _entropic_shift(s, g) / lam > s0 else (s, high)
    return low


def _basins(s: mpf, q: mpf, a: mpf, drift_: mpf, d: mpf) -> tuple[mpf, mpf]:
    labelled = mp.exp(a * s + (1 - a) * q - drift_)
    near_, far = phi(d / 2), phi(-d / 2)
    up, down = a * mp.exp(s) + (1 - a) * mp.exp(q), a * mp.exp(-s) + (1 - a) * mp.exp(-q)
    return labelled * near_ / (near_ + far * up), labelled * (near_ + far * down) / near_


def _trapezoid(f: Callable[[mpf], mpf], d: mpf, center: mpf) -> mpf:
    """``E f(center + U)``: nodes for what varies over ``1 / d``."""
    h = mpf(1) / (4 * max(1, d))
    return mp.fsum(mp.npdf(k * h) * h * f(center + k * h) for k in range(-int(12 / h), int(12 / h) + 1))


def _leash_balance(base: Array, strength: Array, d: Array) -> Array:
    """``eta int_s^base (1 - kappa) / ((1 + e^s)(1 - kappa(s)))`` at the root that was found: 1."""
    root = leashes.kl_leash_log_odds(base, strength, d, "reverse")
    out = []
    for s, b, eta, delta in zip(root, base, strength, d, strict=True):
        with mp.workdps(50):
            work = _flow_rate(mpf(float(s)), mpf(float(b)), mpf(float(delta))) / (
                sig(mpf(float(s))) * sig(mpf(-float(s)))
            )
            out.append(
                float(mpf(float(eta)) * work / ((1 + mp.exp(mpf(float(s)))) * _gap(mpf(float(s)), mpf(float(delta)))))
            )
    return np.array(out)


def _flow_rate(s: mpf, p: mpf, d: mpf) -> mpf:
    """By the divergence's own gradient, ``E_o[log q/p] - E_n[log q/p]``."""

    def log_ratio(x: mpf) -> mpf:
        f, g = mp.exp(-x * x / 2), mp.exp(-((x - d) ** 2) / 2)
        return mp.log((sig(s) * f + sig(-s) * g) / (sig(p) * f + sig(-p) * g))

    return -sig(s) * sig(-s) * (_trapezoid(log_ratio, d, mpf(0)) - _trapezoid(log_ratio, d, d))


def _force(s: mpf, p: mpf, d: mpf) -> mpf:
    """By the misassignment probabilities of learner and target."""

    def wrong(x: mpf) -> mpf:
        return sig(-s - d * d / 2 + d * x) - sig(-p - d * d / 2 + d * x)

    return sig(s) * d * abs(_trapezoid(wrong, d, mpf(0)))


def _gap(s: mpf, d: mpf) -> mpf:
    """``1 - kappa = E_p[(r - beta)^2] / (beta (1 - beta))`` in the form ``beta (1 - beta) int (f - g)^2 / q``."""
    with mp.workdps(max(30, int(abs(s) / 2.3) + int(d * d / 2.3) + 30)):
        b, c = sig(s), sig(-s)
        h = mpf(1) / (4 * max(1, d))
        first, last = int(mp.floor((-12 - d) / h)), int(mp.ceil((12 + 2 * d) / h))
        total = mpf(0)
        for k in range(first, last + 1):
            f, g = mp.npdf(k * h), mp.npdf(k * h - d)
            total += (f - g) ** 2 / (b * f + c * g)
        return b * c * h * total


def _responsibility(s: mpf, m: mpf, d: mpf) -> mpf:
    """Variance of ``sigma`` at ``N(s, d)`` and ``N(s + m, d)`` in equal shares."""
    h = mpf(1) / (4 * max(1, d))
    n = int((12 + 2 * d) / h)
    second = mpf(float(s) + float(m))  # as the function is given it
    points = [(mp.npdf(k * h) * h / 2, sig(x + d * k * h)) for k in range(-n, n + 1) for x in (s, second)]
    mean = mp.fsum(w * r for w, r in points) / mp.fsum(w for w, _ in points)
    return mp.fsum(w * (r - mean) ** 2 for w, r in points)


CASES = (
    Case("bhattacharyya_coefficient", bhattacharyya_coefficient, lambda d: mp.exp(-d * d / 8), (SEPARATION,)),
    Case("total_variation", overlap.total_variation, lambda d: mp.erf(d / 2 / mp.sqrt(2)), (SEPARATION,)),
    Case(
        "sech_mean_bounds",
        overlap.sech_mean_bounds,
        lambda s, d: (
            min(1, mp.sqrt(2 * mp.pi) / d * mp.exp(-(mp.pi**2 + s * s) / (2 * d * d))),
            min(1, mp.sqrt(2 * mp.pi) / d),
        ),
        (FINITE, SEPARATION),
        digits=50,
    ),
    Case(
        "logistic_normal_bounds (tails)",
        lambda a, d: overlap.logistic_normal_bounds(-a, d)[0],
        lambda a, d: max(
            (phi(-a / d) + mp.exp(-a + d * d / 2) * phi(a / d - d)) / 2,
            mp.exp(-a * a / (2 * d * d))
            * mp.sqrt(mp.pi / 2)
            / (d * mp.sin(mp.pi * a / d / d))
            * mp.exp(-(mp.pi**2) * (1 + mp.cos(mp.pi * a / d / d) ** 2) / (2 * (d * mp.sin(mp.pi * a / d / d)) ** 2))
            if a < d * d
            else 0,
        ),
        (one_of(uniform(0, 40), powers(-8, 2.8)), SEPARATION),
        digits=60,
    ),
    Case(
        "logistic_normal_bounds (upper)",
        lambda a, d: overlap.logistic_normal_bounds(-a, d)[1],
        lambda a, d: min(
            [phi(-a / d) + mp.exp(-a + d * d / 2) * phi(a / d - d)]
            + (
                [
                    mp.exp(-a * a / (2 * d * d)) * mp.sqrt(mp.pi / 2) / (d * mp.sin(mp.pi * a / d / d)),
                    mp.exp(-a * a / (2 * d * d)) * (a / d / d) ** (a / d / d) * (1 - a / d / d) ** (1 - a / d / d),
                ]
                if a < d * d
                else []
            )
        ),
        (one_of(uniform(0, 40), powers(-8, 2.8)), SEPARATION),
        digits=60,
    ),
    Case(
        "weight_information_bounds",
        overlap.weight_information_bounds,
        lambda s, d: (
            4 * mp.erf(d / 2 / mp.sqrt(2)) ** 2,
            min((1 + mp.exp(s)) * (1 + mp.exp(-s)), mp.expm1(d * d)),
        ),
        (LOG_ODDS, SEPARATION),
    ),
    Case(
        "misassignment_bound_table",
        lambda s, d: tuple(overlap.misassignment_bound_table(s, d)[k] for k in ("U1", "U5")),
        lambda s, d: (
            mp.exp(-s / 2 - d * d / 8) / 2,
            phi(-d / 2 - s / d) + mp.exp(-s) * phi(-d / 2 + s / d),
        ),
        (LOG_ODDS, SEPARATION),
        digits=60,
    ),
    # forward KL
    Case(
        "mass_forgetting_separated",
        forward_kl.mass_forgetting_separated,
        _separated,
        (MASS, one_of(powers(-12, 12), constant(0.0))),
        digits=330,
    ),
    Case(
        "mass_forgetting_ultimate",
        forward_kl.mass_forgetting_ultimate,
        lambda t, d: (2 * mp.expm1(d * d) * t) ** mpf(-0.5),
        (powers(-12, 12), SEPARATION),
    ),
    Case(
        "late_collapse_mass",
        forward_kl.late_collapse_mass,
        lambda b, d: b * mp.sqrt(-mp.expm1(-d * d)) / d,
        (MASS, SEPARATION),
    ),
    Case(
        "old_mean_drift_forward (leading)",
        lambda d, b, t: forward_kl.old_mean_drift_forward(d, b, t)[1],
        lambda d, b, t: (
            mp.sqrt(2 * mp.pi) * mp.exp(-d * d / 8) * (mp.sinh(logit(b) / 2) - mp.sinh(logit(_separated(b, t)) / 2))
        ),
        (SEPARATION, MASS, one_of(powers(-12, 10), uniform(0.1, 50))),
        digits=330,
    ),
    # reverse KL
    Case(
        "skeleton_kl",
        lambda s, p, e, v: skeleton_kl(s, e[:, None], v[:, None], p, np.zeros((1, 1)), np.zeros((1, 1))),
        lambda s, p, e, v: _skeleton(s, e, p, v),
        (near(FINITE), constant(0.0, 1e-9, 0.5, 1e-200), constant(0.0, 1e-9, 0.5)),
        keep=lambda s, p, e, v: (np.abs(s) < 710) & (np.abs(p) < 710),
    ),
    Case(
        "labelled_kl",
        lambda s, p: labelled_kl(
            Whitened(s, np.zeros((1, 1)), np.zeros((1, 1))), Whitened(p, np.zeros((1, 1)), np.zeros((1, 1)))
        ),
        lambda s, p: bern(sig(s), sig(p)),
        (near(LOG_ODDS),),
    ),
    Case(
        "reverse_kl_weight_time",
        reverse_kl_weight_time,
        _weight_time,
        (near(LOG_ODDS), LOG_ODDS),
        keep=_same_side,
    ),
    Case(
        "reverse_kl_weight_time (near the target)",
        lambda c, x, y: reverse_kl_weight_time(c + x, c + y, c),
        lambda c, x, y: _weight_time(mpf(float(c) + float(x)), mpf(float(c) + float(y)), c),
        (one_of(uniform(-20, 20), constant(0.0)), near(powers(-13, 2))),
        keep=lambda c, x, y: (c + x > c) & (c + y > c),
        digits=400,
    ),
    Case(
        "recovery_time_bounds",
        starvation.recovery_time_bounds,
        _recovery,
        (_masses_up, powers(-4, 0), whole(2, 6)),
        keep=lambda b0, b1, a, h, n: (
            (b0 > 0) & (b0 < b1) & (np.abs((1 - 2 * b1) * (np.log(a / (1 - a)) - np.log(b1 / (1 - b1))) - 1) > 1e-9)
        ),
        digits=400,
    ),
    Case(
        "skeleton_kl_gradient",
        lambda s, p: skeleton_kl_gradient(s, 0.0, 0.0, p, 0.0, 0.0)[0],
        lambda s, p: sig(s) * sig(-s) * (s - p),
        (near(LOG_ODDS),),
    ),
    # clocks, relearning and two channels
    Case("learning_clock", clocks.learning_clock, clock, (FINITE,), keep=lambda x: np.abs(x) < 1000),
    Case(
        "learning_clock (normalised)",
        partial(clocks.learning_clock, mobility="normalised"),
        lambda x: clock(x, "normalised"),
        (FINITE,),
        keep=lambda x: np.abs(x) < 2000,
    ),
    Case(
        "learning_clock_between",
        clocks.learning_clock_between,
        lambda x, y: clock(y) - clock(x),
        (near(FINITE),),
        keep=lambda x, y: (np.abs(x) < 1500) & (np.abs(y) < 1500),
        tolerance=1e-12,
        digits=1500,
    ),
    Case(
        "learning_clock_between (normalised)",
        partial(clocks.learning_clock_between, mobility="normalised"),
        lambda x, y: clock(y, "normalised") - clock(x, "normalised"),
        (near(FINITE),),
        keep=lambda x, y: (np.abs(x) < 3000) & (np.abs(y) < 3000),
        tolerance=1e-12,
        digits=1500,
    ),
    Case(
        "inverse_learning_clock",
        lambda x: clocks.inverse_learning_clock(clocks.learning_clock(x)),
        lambda x: x,
        (one_of(LOG_ODDS, signed(powers(-300, 0))),),
    ),
    Case(
        "inverse_learning_clock (normalised)",
        lambda x: clocks.inverse_learning_clock(clocks.learning_clock(x, "normalised"), "normalised"),
        lambda x: x,
        (one_of(LOG_ODDS, signed(powers(-300, 0))),),
    ),
    Case(
        "no_context_kl",
        fast_slow.no_context_kl,
        lambda s, p: bern(sig(s), sig(p)),
        (near(FINITE),),
        keep=lambda s, p: (np.abs(s) < 705) & (np.abs(p) < 2000),
        digits=1200,
    ),
    Case(
        "no_context_kl (far)",
        fast_slow.no_context_kl,
        lambda s, p: sig(s) * (s - p) - soft(s) + soft(p) if abs(s) < 1000 else (soft(-p) if s > 0 else soft(p)),
        (FINITE, LOG_ODDS),
        keep=lambda s, p: np.abs(s - p) > 1000,
        digits=1200,
    ),
    Case(
        "kl_reduction",
        fast_slow.kl_reduction,
        lambda s, t, v: 1 - bern(sig(s + v * (t - s)), sig(s)) / bern(sig(t), sig(s)),
        (near(LOG_ODDS, above=True), SHARE),
        tolerance=1e-10,
        digits=1300,
    ),
    Case(
        "search_phase_time",
        fast_slow.search_phase_time,
        partial(_search, "plain"),
        (near(LOG_ODDS), RATE, RATE),
    ),
    Case(
        "search_phase_time (normalised)",
        partial(fast_slow.search_phase_time, mobility="normalised"),
        partial(_search, "normalised"),
        (near(LOG_ODDS), RATE, RATE),
    ),
    Case(
        "fast_slow_allocation",
        fast_slow.fast_slow_allocation,
        lambda a, b, r, g: max(a / (a + b), 1 - r / g),
        (RATE, RATE, powers(-6, 3), powers(-6, 3)),
    ),
    Case(
        "time_to_reward (gradient)",
        fast_slow.time_to_reward,
        lambda s, x, a, b, r: (lambda x1: (clock(x1) - clock(s)) / (a + b) + (clock(x) - clock(x1)) / a)(
            min(x, s + r * (1 + a / b))
        ),
        (near(LOG_ODDS, above=True), RATE, RATE, powers(-6, 3)),
        tolerance=1e-9,
        digits=1300,
    ),
    Case(
        "skill_per_drift_ratio",
        fast_slow.skill_per_drift_ratio,
        lambda s, r: (1 + mp.exp(s + r)) / (1 + mp.exp(s)),
        (LOG_ODDS, powers(-12, 2.9)),
        scale=None,
    ),
    Case(
        "relearning_time",
        plasticity.relearning_time,
        lambda x, y, r: (clock(y) - clock(x)) / r,
        (near(LOG_ODDS), RATE),
    ),
    Case(
        "kl_gap",
        plasticity.kl_gap,
        lambda s, b: soft(-s) + (s - b) * sig(-s),
        (near(FINITE),),
        keep=lambda s, b: (np.abs(s) < 705) & (np.abs(b) < 1e5),
        digits=1300,
    ),
    Case(
        "drift_from_kl_gap",
        lambda s, b: plasticity.drift_from_kl_gap(plasticity.kl_gap(s, b), b),
        lambda s, b: s,
        (one_of(uniform(1, 30), uniform(1, 690)), one_of(uniform(-30, 0.5), uniform(-680, 0.5))),
    ),
    # groups
    Case(
        "dead_group_probability",
        group_normalised.dead_group_probability,
        lambda p, g: (1 - p) ** g + p**g,
        (SHARE, whole(2, 64)),
    ),
    Case(
        "1 / first_signal_wait",
        group_batches.first_signal_wait,
        lambda p, g, b: (lambda live: (1 / live, (1 - live) / live**2))(1 - ((1 - p) ** g + p**g) ** b),
        (MASS, whole(2, 64), whole(1, 20)),
        digits=1300,
    ),
    Case(
        "rare_escape_wait",
        group_batches.rare_escape_wait,
        lambda p, r, g, b: (lambda j: (1 / (g * b * p * (1 - mp.exp(-j))), mp.sqrt(mp.tanh(j / 2))))(
            r * mp.sqrt(g - 1) / (g * b)
        ),
        (MASS, RATE, whole(2, 64), whole(1, 20)),
    ),
    Case(
        "stall_probability",
        stall.stall_probability,
        lambda p, g, n: ((1 - p) ** g + p**g) ** n,
        (SHARE, whole(2, 64), powers(0, 16)),
    ),
    Case(
        "stall_bounds",
        stall.stall_bounds,
        lambda p, g, n: (max(1 - n * g * p, 0), mp.exp(-n * g * p * (1 - p) ** (g - 1))),
        (SHARE, whole(2, 64), powers(0, 16)),
    ),
    Case(
        "group_drift_bounds",
        group_normalised.group_drift_bounds,
        lambda p, g: (
            lambda y: (
                (g - 1) * y / mp.sqrt(g - 1 + (g - 2) * (g - 3) * y),
                min(mp.sqrt(g - 1) * y, mp.sqrt((1 - 1 / g) * y)),
            )
        )(p * (1 - p)),
        (SHARE, whole(2, 10000)),
    ),
    Case(
        "drift_at",
        group_normalised.drift_at,
        lambda x, g: _drift_at(x, int(g)),
        (LOG_ODDS, whole(2, 40)),
        digits=40,
    ),
    Case(
        "group_escape_bounds",
        group_normalised.group_escape_bounds,
        _escape_bounds,
        (near(LOG_ODDS, above=True), RATE, whole(2, 200)),
        digits=1300,
    ),
    # starvation
    Case(
        "starvation_probability",
        starvation.starvation_probability,
        lambda b, n, r: ((1 - r) * (1 - b)) ** n,
        (SHARE, whole(1, 200), MASS),
    ),
    Case(
        "zero_signal_probability",
        starvation.zero_signal_probability,
        lambda b, n, r: (lambda o: (1 - o) ** n + o**n)(r + (1 - r) * b),
        (SHARE, whole(1, 200), MASS),
        scale=None,
    ),
    Case(
        "expected_batches_to_old",
        starvation.expected_batches_to_old,
        lambda b, n, r: 1 / (1 - ((1 - r) * (1 - b)) ** n),
        (MASS, whole(1, 200), one_of(MASS, constant(0.0))),
    ),
    Case(
        "effective_sample_fraction",
        starvation.effective_sample_fraction,
        lambda s, r: (lambda b: 1 / (b * b / (r + (1 - r) * b) + (1 - b) / (1 - r)))(sig(s)),
        (LOG_ODDS, one_of(MASS, constant(0.0))),
    ),
    Case(
        "replay_gradient_variance",
        starvation.replay_gradient_variance,
        lambda s, p, r: (lambda b, o: (b * (1 - b) * (p - s)) ** 2 * (1 - b - o) ** 2 / (o * (1 - o)))(
            sig(s), r + (1 - r) * sig(s)
        ),
        (near(LOG_ODDS), one_of(MASS, constant(0.0))),
        digits=1300,
    ),
    Case(
        "replay_harm_threshold",
        starvation.replay_harm_threshold,
        lambda b: max((1 - 2 * b) / (1 - b), 0),
        (one_of(MASS, lambda rng, n: 0.5 - 10.0 ** rng.uniform(-15, -1, n)),),
    ),
    Case(
        "replay_harm_threshold (mean)",
        partial(starvation.replay_harm_threshold, baseline="mean"),
        lambda b: max(((1 - b) ** 3 / ((1 - b) ** 3 + b**3) - b) / (1 - b), 0),
        (one_of(MASS, lambda rng, n: 0.5 - 10.0 ** rng.uniform(-15, -1, n)),),
    ),
    Case(
        "replay_importance_weights",
        replay_importance_weights,
        lambda q, o, r: 1 / ((1 - r) + r * mp.exp(o - q)),
        (near(LOG_ODDS), one_of(MASS, constant(0.0))),
    ),
    *(
        Case(
            f"separated_gradient_variance ({baseline})",
            lambda b, ao, an, n, lam, baseline=baseline: noise.separated_gradient_variance(b, ao, an, n, baseline, lam),
            _noise if baseline == "leave-one-out" else partial(_band, baseline),
            (MASS, near(one_of(uniform(-5, 5), signed(powers(-9, 6)))), whole(2, 500), one_of(MASS, constant(0.0))),
            tolerance=1e-11,
            digits=700,
        )
        for baseline in ("leave-one-out", "none", "mean", "optimal")
    ),
    # replay and leashes under forward KL
    Case(
        "replay_time",
        replay.replay_time,
        lambda a, b, lam: _gamma(b, lam) - _gamma(a, lam),
        (near(MASS), SHARE),
        keep=lambda a, b, lam: np.sign(a - lam) * np.sign(b - lam) > 0,
        tolerance=1e-10,
        digits=1300,
    ),
    Case(
        "kl_leash_log_odds (forward)",
        leashes.kl_leash_log_odds,
        lambda s, e: logit(e * sig(s) / (1 + e)),
        (LOG_ODDS, one_of(RATE, powers(-300, 300))),
        scale=lambda s, e: np.ones(s.shape),
        digits=1300,
    ),
    Case(
        "kl_leash_log_odds (reverse, separated)",
        lambda s, e: leashes.kl_leash_log_odds(s, e, None, "reverse"),
        _leash,
        (LOG_ODDS, RATE),
        scale=lambda s, e: np.maximum(np.abs(s), 1.0) + 1.0 / e,
        digits=60,
    ),
    # SDFT, OAPL, TTT-Discover
    Case(
        "sdft_fixed_point",
        sdft.sdft_fixed_point,
        lambda s, h, a: s - h / (1 - a),
        (LOG_ODDS, signed(TILT), MASS),
        scale=lambda s, h, a: _absolute(s, h / (1 - a)),
    ),
    Case(
        "sdft_time",
        sdft.sdft_time,
        lambda a, b, c, h, r: (clock(a) - clock(b)) / h + (a - c) / (r * h),
        (near(LOG_ODDS), LOG_ODDS, TILT, RATE),
        scale=_sdft_scale,
        digits=1300,
    ),
    Case("sdft_local_rate", sdft.sdft_local_rate, _fisher_rate, (LOG_ODDS, RATE, MASS), digits=1300),
    Case(
        "probability_mixing_tilt",
        sdft.probability_mixing_tilt,
        lambda b, g: mp.log((1 - (1 - g) * b) / ((1 - g) * (1 - b))),
        (MASS, one_of(MASS, constant(0.0))),
        digits=700,
    ),
    Case(
        "sdft_path_drift",
        lambda b1, b0, h, d: sdft.sdft_path_drift(b0, b1, h, d),
        lambda b1, b0, h, d: (
            mp.sqrt(mp.pi / 2)
            * mp.exp(h / 2 - d * d / 8)
            * (lambda x, y: x - 1 / x - y + 1 / y)(mp.sqrt(1 / b1 - 1), mp.sqrt(1 / b0 - 1))
        ),
        (near(MASS, above=True), TILT, SEPARATION),
        keep=lambda b1, b0, h, d: b0 < 1.0,
        digits=1300,
    ),
    Case(
        "oapl_log_odds",
        oapl.oapl_log_odds,
        lambda s, r, t, k, a: s - r / t * ((1 - a**k) / (1 - a) if a < 1 else k),
        (LOG_ODDS, signed(TILT), RATE, powers(-2, 6), SHARE),
        scale=lambda s, r, t, k, a: _absolute(s, r / t * np.minimum(k, 1.0 / np.maximum(1.0 - a, 1e-300))),
        digits=700,
    ),
    Case(
        "oapl_retention_refreshes",
        lambda m, b, r, t, a: oapl.oapl_retention_refreshes(b, r, t, m, a),
        _refreshes,
        (near(MASS, above=True), RATE, RATE, SHARE),
        keep=lambda m, b, r, t, a: b < 1.0,
        digits=700,
    ),
    Case(
        "oapl_loss_gradient",
        oapl.oapl_loss_gradient,
        _oapl_gradient,
        (near(LOG_ODDS), RATE, signed(TILT), signed(TILT)),
        keep=lambda s, lag, t, a, b: np.abs(a - b) / t < 1e5,
        digits=1300,
    ),
    Case(
        "oapl_loss_gradient (near its root)",
        lambda s, lag: oapl.oapl_loss_gradient(s, lag, 1.0, 0.0, 0.0),
        lambda s, lag: _oapl_gradient(s, lag, mpf(1), mpf(0), mpf(0)),
        (near(LOG_ODDS),),
        digits=1300,
    ),
    Case("entropic_shift", ttt.entropic_shift, _entropic_shift, (LOG_ODDS, signed(TILT))),
    Case(
        "entropic_retention_threshold",
        ttt.entropic_retention_threshold,
        lambda s, g, a: _entropic_shift(logit(a), g) / (s - logit(a)) if s > logit(a) else mp.inf,
        (LOG_ODDS, TILT, MASS),
    ),
    Case(
        "entropic_unleashed_time",
        ttt.entropic_unleashed_time,
        _unleashed,
        (near(LOG_ODDS), TILT),
        digits=1300,
    ),
    # Adam and clipping
    Case(
        "adam_step_bound",
        adam.adam_step_bound,
        _step_bound,
        (one_of(whole(1, 20), powers(0, 7)), one_of(uniform(0, 0.999), MASS), one_of(uniform(0.5, 0.9999), MASS)),
        keep=lambda t, b1, b2: (t == np.floor(t)) & (b1 > 1e-100) & (b2 > 1e-100) & (b1 * b1 / b2 * t < 1e3),
        digits=300,
    ),
    Case(
        "adam_steady_step",
        adam.adam_steady_step,
        _steady,
        (one_of(powers(-12, -1), constant(0.0)), near(one_of(uniform(0.01, 0.9999), MASS), above=True)),
        keep=lambda r, b1, b2: b2 < 1.0,
        digits=330,
    ),
    Case(
        "adam_late_rate",
        adam.adam_late_rate,
        _late,
        (powers(-6, 1), near(one_of(uniform(0.01, 0.9999), uniform(0.9, 0.99999)), above=True)),
        tolerance=1e-9,
        digits=40,
    ),
    Case(
        "clipped_replay_bias_bound",
        clipping.clipped_replay_bias_bound,
        lambda lam, n, c: (lambda v: 2 * c - mp.sqrt(4 * c * c - v) if 4 * c * c > v else mp.nan)(lam * (1 - lam) / n),
        (MASS, whole(1, 10000), one_of(powers(-3, 0), powers(-150, 150))),
        keep=lambda lam, n, c: np.abs(np.log(4 * n) + 2 * np.log(c) - np.log(lam) - np.log1p(-lam)) > 1e-9,
        digits=1300,
    ),
    # sequences of decisions and maps
    Case(
        "sequence_mass",
        lambda b, c, x: sequences.sequence_mass(np.stack([b, c], axis=-1), x),
        lambda b, c, x: 1 / ((1 + (1 - b) / b * mp.exp(-x)) * (1 + (1 - c) / c * mp.exp(-x))),
        (MASS, one_of(MASS, constant(1.0)), LOG_ODDS),
    ),
    Case(
        "LogOddsMap.iterate",
        _affine_map,
        _affine,
        (
            one_of(uniform(-1, 1), lambda rng, n: 1.0 - 10.0 ** rng.uniform(-16, -1, n), constant(1.0, 0.0)),
            signed(TILT),
            LOG_ODDS,
            whole(0, 1000),
        ),
        scale=lambda a, d, s, k: _absolute(s, np.abs(d)),
    ),
    Case(
        "ProbabilityMap.iterate",
        _mixed,
        _mixed_map,
        (MASS, MASS, LOG_ODDS, one_of(whole(0, 50), powers(-3, 3))),
        scale=lambda r, t, s, k: np.ones(s.shape),
        digits=1300,
    ),
    Case(
        "leashed_optimum",
        fast_slow.leashed_optimum,
        _leashed,
        (LOG_ODDS, RATE, one_of(powers(-12, 2.9), uniform(0, 20)), powers(-3, 0)),
        scale=lambda s, e, r, g: np.maximum(np.abs(s), 1.0),
        digits=50,
        examples=20,
    ),
    Case(
        "entropic_tilt_log_odds",
        ttt.entropic_tilt_log_odds,
        _tilted,
        (LOG_ODDS, TILT, RATE),
        scale=lambda s, g, lam: np.maximum(np.abs(s), 1.0) + -np.expm1(-g) / lam,
        digits=60,
        examples=15,
    ),
    Case(
        "basin_odds_bounds",
        lambda s, q, a, h, d: maps.basin_odds_bounds(np.stack([a, 1.0 - a], axis=-1), np.stack([s, q], axis=-1), h, d),
        _basins,
        (near(LOG_ODDS), constant(0.0, 0.25, 0.5, 0.875), signed(TILT), SEPARATION),
        digits=60,
    ),
    Case(
        "product_log_odds",
        lambda s, q, x, y: maps.product_log_odds(
            [0.5, 0.75], np.stack([s, q], axis=-1), np.stack([x, y], axis=-1)[..., None], np.zeros((1, 2, 1)), 0.0
        ),
        lambda s, q, x, y: s / 2 + 3 * q / 4 - (x * x / 2 + 3 * y * y / 4 - (x / 2 + 3 * y / 4) ** 2 * 4 / 5) / 2,
        (near(one_of(uniform(-5, 5), constant(0.0))), near(one_of(uniform(-50, 50), uniform(1e6, 2e6)))),
        scale=lambda s, q, x, y: _absolute(s, q),
    ),
    Case(
        "overlap_gap",
        overlap_gap,
        _gap,
        (one_of(uniform(-20, 20), uniform(-1000, 1000)), one_of(powers(-8, 0), uniform(0.5, 8))),
        digits=30,
        examples=6,
    ),
    Case(
        "kl_leash_log_odds (reverse)",
        _leash_balance,
        lambda s, away, d: mpf(1),
        (uniform(-10, 5), uniform(0.1, 5), one_of(powers(-7, -1), uniform(0.1, 4))),
        digits=50,
        examples=8,
        tolerance=1e-9,
    ),
    Case(
        "weight_flow_rate",
        weight_flow_rate,
        _flow_rate,
        (near(one_of(uniform(-5, 5), uniform(-60, 60))), one_of(uniform(0.3, 6), powers(-6, 0))),
        digits=60,
        examples=5,
    ),
    Case(
        "old_mean_force",
        old_mean_force,
        _force,
        (near(one_of(uniform(-5, 5), uniform(-60, 60))), one_of(uniform(0.3, 6), powers(-6, 0))),
        digits=80,
        examples=5,
    ),
    Case(
        "responsibility_variance",
        lambda s, m, d: noise.responsibility_variance(np.array([0.5, 0.5]), np.stack([s, s + m], axis=-1), d),
        _responsibility,
        (one_of(uniform(-5, 5), uniform(-300, 300)), constant(0.0, 1e-9, 2.0), one_of(powers(-8, 0), uniform(0.1, 6))),
        digits=300,
        examples=4,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_closed_form(case: Case) -> None:
    off, where = worst(case, np.random.default_rng(16), case.examples)
    assert off < case.tolerance, where


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_closed_form_wide(case: Case) -> None:
    for seed in range(5):
        off, where = worst(case, np.random.default_rng(seed), 10 * case.examples)
        assert off < case.tolerance, where
