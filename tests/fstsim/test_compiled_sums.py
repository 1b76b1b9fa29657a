"""The compiled sums against the numpy sums, over the whole legal range; the latter stand against mpmath and quadrature."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fstsim import logistic_normal
from fstsim.divergences import reverse_kl_gradient
from fstsim.logistic_normal import MAX_SCALE

bound_to = pytest.importorskip("fstsim.compiled", reason="numba is not installed", exc_type=ImportError).bound_to
AGREEMENT = 3e-14  # the largest difference that a million such points showed is 1.1e-14


def points(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ordinary points, far tails, tiny and largest scales, and every border between the cases of the tilt."""
    scale = np.exp(rng.uniform(np.log(1e-8), np.log(MAX_SCALE), count))
    scale[:: count // 7] = 0.0
    scale[1 :: count // 7] = MAX_SCALE
    scale[2 :: count // 7] = 2.0 ** (
        rng.integers(0, 25, scale[2 :: count // 7].size) / 4
    )  # where the node tables change
    loc = rng.uniform(-2.0, 2.0, count) * np.where(rng.random(count) < 0.5, scale**2, 40.0)
    border = rng.choice(count, count // 5, replace=False)
    loc[border] = (
        rng.choice([-1.0, 1.0], border.size) * scale[border] ** 2 * (1.0 + rng.choice([-1e-15, 0, 1e-9], border.size))
    )
    loc[rng.choice(count, count // 9, replace=False)] = 0.0
    return loc, scale


def test_agrees_with_numpy(rng: np.random.Generator) -> None:
    compiled = bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    loc, scale = points(rng, 20_000)
    pairs = (
        (compiled.mean_slope(loc, scale), logistic_normal._numpy_mean_slope(loc, scale, mean=True, slope=True)),
        (compiled.softplus(loc, scale), logistic_normal._numpy_softplus(loc, scale)),
    )
    for sums, plain in pairs:
        np.testing.assert_array_equal(sums[0], plain[0])  # the exponent
        for got, wanted in zip(sums[1:], plain[1:], strict=True):
            assert np.isfinite(wanted).all()
            np.testing.assert_allclose(got, wanted, rtol=AGREEMENT, atol=1e-300)


def test_points_do_not_depend_on_their_neighbours(rng: np.random.Generator) -> None:
    compiled = bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    loc, scale = points(rng, 200)
    for function in (compiled.mean_slope, compiled.softplus):
        alone = np.concatenate([function(loc[k : k + 1], scale[k : k + 1]) for k in range(loc.size)], axis=1)
        np.testing.assert_array_equal(function(loc, scale), alone)


def test_takes_arrays_of_any_layout() -> None:
    compiled = bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    loc = np.linspace(-3.0, 3.0, 14)
    spread, whole = (loc[::2], np.broadcast_to(2.0, 7)), (loc[::2].copy(), np.full(7, 2.0))
    np.testing.assert_array_equal(compiled.mean_slope(*spread), compiled.mean_slope(*whole))


def test_mean_and_softplus_in_one_pass(rng: np.random.Generator) -> None:
    compiled = bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    loc, scale = points(rng, 20_000)
    exponent, of_mean, _ = logistic_normal._numpy_mean_slope(loc, scale, mean=True, slope=False)
    mean, softplus = compiled.mean_softplus(loc[None], scale[None], False)[:, 0]
    there = exponent > -700.0  # below, values are no normal numbers
    np.testing.assert_allclose(mean[there], (np.exp(exponent) * of_mean)[there], rtol=AGREEMENT)
    of_softplus = logistic_normal._numpy_softplus(loc, scale)[1]
    np.testing.assert_allclose(softplus[there], (np.exp(exponent) * of_softplus)[there], rtol=AGREEMENT)


def test_both_modes_of_a_learner_from_one_pass(rng: np.random.Generator) -> None:
    compiled = bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    scale = np.exp(rng.uniform(np.log(1e-8), np.log(16.0), 20_000))
    odds = rng.uniform(-1.0, 1.0, scale.size) * scale**2  # half of them in the range where the pass is shared
    odds[:100] = 0.5 * scale[:100] ** 2 * rng.choice([-1.0, 1.0], 100)  # its border
    loc, both = np.stack([odds + 0.5 * scale**2, odds - 0.5 * scale**2]), np.stack([scale, scale])
    shared, apart = compiled.mean_softplus(loc, both, True), compiled.mean_softplus(loc, both, False)
    # what rounds off in a location of the size of scale^2 is that much in the exponent
    np.testing.assert_allclose(shared / apart, 1.0, atol=AGREEMENT + 4e-16 * float(scale.max()) ** 2)


def test_the_gradient_is_that_of_the_numpy_sums(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    odds, old, new = rng.uniform(-6.0, 6.0, 2000), rng.normal(size=(2000, 2)), rng.normal(3.0, 1.0, (2000, 2))
    state = (odds, old, new, rng.uniform(-3.0, 3.0, 2000), np.zeros(2), np.full(2, 3.0))
    compiled = reverse_kl_gradient(*state)
    monkeypatch.setattr(logistic_normal, "_compiled", lambda: None)
    for got, wanted in zip(compiled, reverse_kl_gradient(*state), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0.0, atol=1e-13)  # of terms of the size of 10


def test_without_numba_the_numpy_sums_serve() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from fstsim import logistic_normal as ln\n"
        "assert ln._compiled() is None\n"
        "print(float(ln.logistic_normal_mean(-1.0, 3.0)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert float(out.stdout) == pytest.approx(float(logistic_normal.logistic_normal_mean(-1.0, 3.0)), rel=AGREEMENT)
