"""The compiled sums against the numpy sums, over the whole legal range; the latter stand against mpmath and quadrature."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fstsim import logistic_normal
from fstsim.logistic_normal import MAX_SCALE

compiled_sums = pytest.importorskip("fstsim.compiled_sums", reason="numba is not installed")
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
    both, one = compiled_sums.bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    loc, scale = points(rng, 20_000)
    pairs = (
        (both(loc, scale), logistic_normal._numpy_mean_slope(loc, scale, mean=True, slope=True)),
        (one(loc, scale), logistic_normal._numpy_softplus(loc, scale)),
    )
    for compiled, plain in pairs:
        np.testing.assert_array_equal(compiled[0], plain[0])  # the exponent
        for got, wanted in zip(compiled[1:], plain[1:], strict=True):
            assert np.isfinite(wanted).all()
            np.testing.assert_allclose(got, wanted, rtol=AGREEMENT, atol=1e-300)


def test_points_do_not_depend_on_their_neighbours(rng: np.random.Generator) -> None:
    both, one = compiled_sums.bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    loc, scale = points(rng, 200)
    for function in (both, one):
        alone = np.concatenate([function(loc[k : k + 1], scale[k : k + 1]) for k in range(loc.size)], axis=1)
        np.testing.assert_array_equal(function(loc, scale), alone)


def test_takes_arrays_of_any_layout() -> None:
    both, _ = compiled_sums.bound_to(logistic_normal._CORRECTED, logistic_normal._PLAIN)
    loc = np.linspace(-3.0, 3.0, 14)
    np.testing.assert_array_equal(both(loc[::2], np.broadcast_to(2.0, 7)), both(loc[::2].copy(), np.full(7, 2.0)))


def test_without_numba_the_numpy_sums_serve() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from fstsim import logistic_normal as ln\n"
        "assert ln._compiled() is None\n"
        "print(float(ln.logistic_normal_mean(-1.0, 3.0)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert float(out.stdout) == pytest.approx(float(logistic_normal.logistic_normal_mean(-1.0, 3.0)), rel=AGREEMENT)
