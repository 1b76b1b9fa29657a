"""Closed forms of the newer chapters against `mpmath`, with the arguments and the measure of `test_against_mpmath`.

Chains, demonstrators, own replay, clipped replay, the response bracket, softmax relearning and what follows from a KL.
"""

# ruff: noqa: ARG005, PLC3002  # a formula takes all arguments of its function, and names a part of itself by a lambda
from __future__ import annotations

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
    Case,
    bern,
    clock,
    constant,
    logit,
    near,
    one_of,
    powers,
    sig,
    signed,
    uniform,
    whole,
    worst,
)
from mpmath import mp, mpf

from fstsim.logits import bernoulli_kl
from fstsim.overlap import overlap_gap
from fstsim.theory import (
    adam,
    chain_mass,
    clipping,
    deployed,
    fast_slow,
    geometry,
    modes,
    plasticity,
    replay_own,
    sdft,
    sdft_demonstrator,
    sequences,
)

_LARGE_RATE = one_of(RATE, powers(-200, 200))
_GAP = one_of(uniform(-1, 1), signed(powers(-12, 0)), constant(0.0, 1.0, -1.0))


def _chain_rest(lam: mpf, w: mpf, g: mpf) -> mpf:
    if g == 0:
        return lam
    b = w - g
    root = mp.sqrt(b * b + 4 * g * w * lam)
    return min(max((root - b) / (2 * g), mpf(0)), mpf(1))


def _undemonstrated(s: mpf, t: mpf, r: mpf) -> mpf:
    goal = clock(s) + t / r
    low, high = min(s, t), max(s, t)
    for _ in range(400):
        middle = (low + high) / 2
        low, high = (middle, high) if clock(middle) + middle / r < goal else (low, middle)
    return low


def _own(lam: mpf, n: mpf) -> mpf:
    m = n + 1
    if lam * m <= 1:
        return mpf(0)
    if lam == 1:
        return mpf(1)
    low, high = mpf(0), mpf(1)
    for _ in range(500):
        b = (low + high) / 2
        low, high = (b, high) if lam * (1 - (1 - b) ** m) > b else (low, b)
    return low


def _own_bounds(lam: mpf, n: mpf) -> tuple[mpf, mpf]:
    m = n + 1
    return max(2 * (m - 1 / lam) / (m * n), mpf(0)), lam * (1 - (1 - lam) ** m) if lam * m > 1 else mpf(0)


def _clipped(lam: mpf, n: mpf, c: mpf) -> mpf:
    size, low, high = int(n), mpf(0), mpf(1)
    weights = [mp.binomial(size, k) * lam**k * (1 - lam) ** (size - k) for k in range(size + 1)]
    for _ in range(400):
        b = (low + high) / 2
        pull = mp.fsum(w * min(max(mpf(k) / size - b, -c), c) for k, w in enumerate(weights))
        low, high = (b, high) if pull > 0 else (low, b)
    return low


def _demonstrator(s: mpf, rho: mpf, lam: mpf) -> tuple[mpf, mpf, mpf]:
    c = sig(s) * sig(-s)
    total, lower = c + rho + lam, c * lam / (c + rho + lam)
    return (total - mp.sqrt(total**2 - 4 * c * lam)) / 2, lower, 2 * lower


def _speed(s: mpf, t: mpf) -> mpf:
    return mpf(1) if s == t else (sig(s) - sig(t)) / (sig(s) * sig(-s) * (s - t))


def _speeds(u: mpf) -> tuple[mpf, mpf]:
    u = abs(u)
    return (mpf(1), mpf(1)) if u == 0 else (-mp.expm1(-u) / u, mp.expm1(u) / u)


def _close_share(rng: np.random.Generator, n: int) -> np.ndarray:
    """A share and a number of tries that nearly pays for itself."""
    tries = rng.integers(1, 60, n).astype(np.float64)
    return np.stack([(1.0 + 10.0 ** rng.uniform(-15, 0, n)) / (tries + 1.0), tries], axis=-1)


def _drift(kl: mpf, base: mpf) -> mpf:
    low, high = base, base + 800
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if bern(sig(middle), sig(base)) < kl else (low, middle)
    return low


CASES = (
    Case(
        "chain_mass_rest",
        chain_mass.chain_mass_rest,
        _chain_rest,
        (SHARE, one_of(RATE, uniform(0.5, 1), constant(1.0), powers(-300, 300)), _GAP),
        digits=700,
        tolerance=1e-12,
    ),
    Case(
        "chain_mass_rest (nearly as much paid as asked)",
        lambda pair, other, lam: chain_mass.chain_mass_rest(lam, pair, -other),
        lambda pair, other, lam: _chain_rest(lam, pair, -other),
        (near(uniform(0.01, 1)), one_of(lambda rng, n: 1.0 - 10.0 ** rng.uniform(-16, -1, n), SHARE)),
        digits=700,
        tolerance=1e-12,
    ),
    Case(
        "chain_mass_rate",
        chain_mass.chain_mass_rate,
        lambda u, lam, w, g: w * (lam - sig(u)) + g * sig(u) * sig(-u),
        (LOG_ODDS, SHARE, RATE, _GAP),
        scale=lambda u, lam, w, g: np.maximum(w * lam, np.maximum(w, np.abs(g)) / (1.0 + np.exp(-u))),
        digits=700,
    ),
    Case(
        "chain_log_odds_paid (no time)",
        lambda u, g: chain_mass.chain_log_odds_paid(u, 1e-9, g),
        lambda u, g: u,
        (FINITE, _GAP),
        tolerance=1e-8,
        scale=lambda u, g: np.maximum(np.abs(u), 1.0),
    ),
    Case(
        "demonstrator_rate",
        sdft_demonstrator.demonstrator_rate,
        _demonstrator,
        (LOG_ODDS, one_of(_LARGE_RATE, constant(0.0)), one_of(_LARGE_RATE, constant(0.25))),
        digits=1300,
    ),
    Case(
        "undemonstrated_end",
        sdft_demonstrator.undemonstrated_end,
        _undemonstrated,
        (near(FINITE), RATE),
        keep=lambda s, t, r: (np.abs(s) < 2000) & (np.abs(t) < 2000),
        scale=lambda s, t, r: np.maximum(np.abs(s), np.abs(t)) * 1e-3 + 1e-3,
        digits=950,
        examples=15,
    ),
    Case(
        "forward_speed_ratio",
        sdft_demonstrator.forward_speed_ratio,
        _speed,
        (near(FINITE),),
        keep=lambda s, t: (np.abs(s) < 3000) & (np.abs(t) < 3000),
        digits=3000,
    ),
    Case("forward_speed_bounds", sdft_demonstrator.forward_speed_bounds, _speeds, (FINITE,), digits=60),
    Case(
        "sdft_response_bracket",
        sdft.sdft_response_bracket,
        lambda s, h, a, k, top: (s - h / (1 - a * top), s - h / (1 - a * k)),
        (constant(0.0), TILT, one_of(MASS, uniform(0.99, 1)), near(one_of(SHARE, MASS), above=True)),
        keep=lambda s, h, a, k, top: top <= 1.0,
        digits=60,
    ),
    Case(
        "sdft_retention_horizon",
        sdft.sdft_retention_horizon,
        lambda s, h, r, m: max(s - h - logit(m), mpf(0)) / (r * h),
        (LOG_ODDS, TILT, RATE, MASS),
        keep=lambda s, h, r, m: h > 0,
        scale=lambda s, h, r, m: (np.abs(s) + h + 700.0) / (r * h),
        digits=330,
    ),
    Case(
        "own_replay_equilibrium",
        replay_own.own_replay_equilibrium,
        _own,
        (SHARE, one_of(whole(1, 64), whole(1, 1000))),
        digits=340,
        tolerance=1e-12,
        examples=15,
    ),
    Case(
        "own_replay_equilibrium (where it begins)",
        replay_own.own_replay_equilibrium,
        _own,
        (_close_share,),
        digits=60,
        tolerance=1e-10,
        examples=20,
    ),
    Case(
        "own_replay_bounds",
        replay_own.own_replay_bounds,
        _own_bounds,
        (MASS, whole(1, 1000)),
        digits=340,
    ),
    Case("own_replay_bounds (where it begins)", replay_own.own_replay_bounds, _own_bounds, (_close_share,), digits=60),
    Case(
        "clipped_replay_mass",
        clipping.clipped_replay_mass,
        _clipped,
        (one_of(uniform(0.001, 0.999), powers(-100, -3)), whole(1, 6), one_of(powers(-3, 0), uniform(0.01, 1.5))),
        keep=lambda lam, n, c: (n * c > 1.0) | (n == 1),  # else the solutions may be an interval
        digits=220,
        examples=12,
        tolerance=1e-10,
    ),
    Case(
        "drift_from_kl (to the base)",
        lambda b, rise: plasticity.drift_from_kl(bernoulli_kl(b + rise, b), b, "to_base"),
        lambda b, rise: mpf(float(b) + float(rise)),
        (uniform(-30, 30), one_of(powers(-8, 0), uniform(0, 3))),
        tolerance=1e-6,
        scale=lambda b, rise: np.abs(b) + rise,
    ),
    Case(
        "search_time",
        lambda s, x, e, r: fast_slow.search_time(s, x, e, r, "plain"),
        lambda s, x, e, r: mp.quad(lambda y: 1 / (e * sig(y) * sig(-y) + r), mp.linspace(s, x, 40)),
        (near(uniform(-12, 12), above=True), RATE, RATE),
        digits=30,
        examples=6,
        tolerance=1e-9,
    ),
    Case(
        "slow_rate_share",
        fast_slow.slow_rate_share,
        lambda a, b: a / (a + b),
        (one_of(_LARGE_RATE, constant(0.0)), powers(-300, 300)),
    ),
    Case(
        "deployed_kl_floor",
        deployed.deployed_kl_floor,
        lambda x, y: bern(sig(x), sig(y)),
        (near(LOG_ODDS),),
        digits=1300,
    ),
    Case(
        "fisher_information (of the weight)",
        lambda s, d: np.array(
            [
                geometry.fisher_information(a, b)[0, 0] / (a * (1.0 - a))
                for a, b in zip(1.0 / (1.0 + np.exp(-s)), d, strict=True)
            ]
        ),
        lambda s, d: mpf(float(overlap_gap(float(s), float(d)))),
        (uniform(-5, 5), SEPARATION),
        tolerance=1e-9,
        digits=40,
        examples=10,
    ),
    Case(
        "missing_information_bound",
        geometry.missing_information_bound,
        lambda a, d: (
            lambda s, c: min(
                c * (2 + d * d / 4),
                c
                * mp.sqrt(2 * mp.pi)
                / d
                * (
                    1
                    + (1 - a) * ((d / 2 + s / d) ** 2 + (mp.pi / d) ** 2)
                    + a * ((d / 2 - s / d) ** 2 + (mp.pi / d) ** 2)
                ),
            )
        )(logit(a), mp.exp(-d * d / 8) / 2 / mp.sqrt(a * (1 - a))),
        (MASS, SEPARATION),
        digits=330,
    ),
    Case(
        "softmax_relearning_bounds",
        lambda p, goal, q: plasticity.softmax_relearning_bounds(
            np.stack([p, (1.0 - p) * q, (1.0 - p) * (1.0 - q)], axis=-1), 0, goal
        )[1],
        lambda p, goal, q: 2 * (clock(logit(goal)) - clock(logit(p))) / 3,
        (near(uniform(0.001, 0.999), above=True), uniform(0.01, 0.99)),
        keep=lambda p, goal, q: goal < 1.0,
        tolerance=1e-9,
        scale=lambda p, goal, q: 1e-3 / (p * (1.0 - goal)),
        digits=50,
    ),
    Case(
        "total_misassignment_bound",
        lambda w, b: modes.total_misassignment_bound(
            np.stack([w, 1.0 - w], axis=-1),
            np.stack([np.ones_like(b), b, b, np.ones_like(b)], axis=-1).reshape(-1, 2, 2),
        )[..., 0],
        lambda w, b: mp.sqrt((1 - w) / w) * b / 2,
        (uniform(1e-9, 1 - 1e-9), SHARE),
    ),
    Case(
        "sequence_shift_bounds",
        lambda b, c, x: sequences.sequence_shift_bounds(np.stack([b, c], axis=-1), -x),
        lambda b, c, x: (
            max(-mp.log(b * c) + x * (2 - b - c), 2 * x - logit(b) - logit(c)),
            -mp.log(b * c) + 2 * x,
        ),
        (MASS, MASS, one_of(powers(-12, 3), constant(0.0))),
        scale=lambda b, c, x: -np.log(b) - np.log(c) + x,
        digits=330,
    ),
    Case(
        "sequence_logit_bounds (lower)",
        lambda b, c, t: sequences.sequence_logit_bounds(np.stack([b, c], axis=-1), t)[0],
        lambda b, c, t: 1 / ((1 / b + t) * (1 / c + t)),
        (MASS, MASS, one_of(powers(-12, 12), constant(0.0))),
        digits=330,
    ),
    Case(
        "adam_shift_path (one step)",
        lambda s, h: adam.adam_shift_path(s[:, None], h, 1)[1],
        lambda s, h: -h,
        (LOG_ODDS, powers(-12, 1)),
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
