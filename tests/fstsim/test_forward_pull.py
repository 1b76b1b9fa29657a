"""The pull of forward KL on both means, where one mode is rare: against sums with 60 digits, and its own mirror image.

At log-odds of -40 and data of the new mode the two terms of the old form agree to all digits of a double.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from fstsim.divergences import forward_kl_gradient

DIGITS = 60


def expected(a: mp.mpf, d: mp.mpf, powers: tuple[int, int]) -> mp.mpf:
    """``E sigmoid(z)^j sigmoid(-z)^k``, ``z = a + d U``: the trapezoid sum about the peak of its log-concave integrand.

    Its step resolves the poles at +-i pi and the Gaussian to more than 40 digits.
    """
    j, k = powers
    step = min(mp.mpf("0.17") / max(d, mp.mpf("1e-3")), mp.mpf("0.4"))
    low, high = -2 * d - 1, 2 * d + 1
    for _ in range(60):
        middle = (low + high) / 2
        r = 1 / (1 + mp.exp(-a - d * middle))
        low, high = (middle, high) if j * d * (1 - r) - k * d * r > middle else (low, middle)
    total = mp.mpf(0)
    for i in range(-int(16 / step) - 1, int(16 / step) + 2):
        u = low + i * step
        z = a + d * u
        # log sigmoid(z) and log sigmoid(-z), of which a large one is not a difference
        soft = mp.log1p(mp.exp(-abs(z)))
        total += mp.exp(-u * u / 2 - j * (soft + max(-z, 0)) - k * (soft + max(z, 0)))
    return total * step / mp.sqrt(2 * mp.pi)


@pytest.mark.parametrize(
    ("log_odds", "separation", "center"),
    [
        (-36.0, 3.0, 3.0),
        (-40.0, 1e-8, 1e-8),
        (-150.0, 12.0, 12.0),
        (-340.0, 0.5, 0.5),
        (-2.0, 25.0, 25.0),
        (-250.0, 25.0, 24.0),
        (0.0, 9.0, 9.0),
        (37.0, 2.0, 0.0),
        (300.0, 1.0, 0.0),
        (700.0, 20.0, 0.0),
        (12.0, 6.0, -3.0),
        (-700.0, 20.0, 0.0),
    ],
)
def test_against_sixty_digits(log_odds: float, separation: float, center: float) -> None:
    _, old, new = forward_kl_gradient(log_odds, [0.0], [separation], [1.0], [[center]])
    with mp.workdps(DIGITS):
        s, d, c = mp.mpf(log_odds), mp.mpf(separation), mp.mpf(center)
        a = s - d * (c - d / 2)
        both = expected(a, d, (1, 1))
        for value, square, far in ((-old[0], (2, 0), (c, c - d)), (-new[0], (0, 2), (c - d, c))):
            wanted = expected(a, d, square) * far[0] + both * far[1]
            assert (
                abs(mp.mpf(float(value)) - wanted) <= 1e-12 * abs(wanted) + 1e-290
            )  # below it there are no digits left


def test_the_modes_have_no_names() -> None:
    """Another order of the modes is another sign of the log-odds and nothing else, over all that a double can hold."""
    rng = np.random.default_rng(5)
    n = 2000
    s, d = rng.uniform(-700.0, 700.0, n), np.exp(rng.uniform(np.log(1e-8), np.log(60.0), n))
    zero, far = np.zeros((n, 1)), d[:, None]
    share = rng.uniform(0.0, 1.0, n)
    weights, centers = np.stack([share, 1.0 - share], axis=-1), np.stack([zero, far], axis=-2)
    one = forward_kl_gradient(s, zero, far, weights, centers)
    other = forward_kl_gradient(-s, far, zero, weights, centers)
    for here, there in ((one[1], other[2]), (one[2], other[1])):
        np.testing.assert_allclose(here, there, rtol=2e-12, atol=1e-290)
