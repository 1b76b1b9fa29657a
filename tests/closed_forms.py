"""How closed forms are held against `mpmath`: what arguments are drawn from, a `Case`, and its largest error.

Arguments come from the whole range that is legal: log-odds up to 700 either way, masses down to 1e-300 and up to 1 - 1e-16,
separations from 1e-8 on, and arguments that nearly agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

Array = NDArray[np.float64]
Value = mpf | tuple[mpf, ...]
Draw = Callable[[np.random.Generator, int], Array]

LARGEST, SMALLEST = mpf(2) ** 1024, mpf(10) ** -290

# --- what arguments are drawn from ------------------------------------------------------------------------------------


def one_of(*draws: Draw) -> Draw:
    """Each entry from one of the draws."""

    def draw(rng: np.random.Generator, n: int) -> Array:
        values = np.stack([d(rng, n) for d in draws])
        return np.asarray(values[rng.integers(len(draws), size=n), np.arange(n)])

    return draw


def uniform(low: float, high: float) -> Draw:
    return lambda rng, n: rng.uniform(low, high, n)


def powers(low: float, high: float) -> Draw:
    """Powers of ten."""
    return lambda rng, n: 10.0 ** rng.uniform(low, high, n)


def signed(draw: Draw) -> Draw:
    return lambda rng, n: rng.choice([-1.0, 1.0], n) * draw(rng, n)


def whole(low: int, high: int) -> Draw:
    return lambda rng, n: rng.integers(low, high + 1, n).astype(np.float64)


def constant(*values: float) -> Draw:
    return lambda rng, n: rng.choice(np.array(values), n)


LOG_ODDS = one_of(uniform(-5, 5), uniform(-45, 45), uniform(-700, 700), signed(powers(-12, 0)), constant(0.0))
FINITE = one_of(LOG_ODDS, LOG_ODDS, signed(powers(3, 12)))  # where any finite number is allowed
MASS = one_of(uniform(0.001, 0.999), powers(-300, -3), lambda rng, n: 1.0 - 10.0 ** rng.uniform(-15.9, -1, n))
SEPARATION = one_of(uniform(0.1, 8), uniform(5, 64), powers(-8, 0))
TILT = one_of(uniform(0, 5), powers(-12, 0), powers(0, 2.8))
RATE = one_of(powers(-3, 1), powers(-12, 6))
SHARE = one_of(MASS, constant(0.0, 1.0))


def near(draw: Draw, *, above: bool = False) -> Draw:
    """Pairs ``(n, 2)``: unrelated, or the second a little or a unit in the last place beside the first."""

    def pair(rng: np.random.Generator, n: int) -> Array:
        first, second = draw(rng, n), draw(rng, n)
        beside = first + np.maximum(np.abs(first), 1e-3) * 10.0 ** rng.uniform(-15, -1, n) * rng.choice([-1, 1], n)
        low, high = (draw(np.random.default_rng(k), 4000) for k in (0, 0))
        beside = np.clip(beside, low.min(), high.max())
        second = np.where(rng.random(n) < 0.5, beside, second)
        if above:
            first, second = np.minimum(first, second), np.maximum(first, second)
            second = np.where(first == second, np.nextafter(second, np.inf), second)
        return np.stack([first, second], axis=-1)

    return pair


# --- the building blocks in mpmath ------------------------------------------------------------------------------------


def sig(x: mpf) -> mpf:
    return 1 / (1 + mp.exp(-x))


def soft(x: mpf) -> mpf:
    return mp.log(1 + mp.exp(x))


def logit(b: mpf) -> mpf:
    return mp.log(b / (1 - b))


def bern(b: mpf, c: mpf) -> mpf:
    return b * mp.log(b / c) + (1 - b) * mp.log((1 - b) / (1 - c))


def clock(x: mpf, mobility: str = "plain") -> mpf:
    return 2 * x + 2 * mp.sinh(x) if mobility == "plain" else 4 * mp.sinh(x / 2)


def phi(x: mpf) -> mpf:
    return mp.erfc(-x / mp.sqrt(2)) / 2


@dataclass(frozen=True)
class Case:
    """A function, its formula and its arguments; ``scale`` is the size of the terms of an affine result."""

    name: str
    function: Callable[..., Any]
    formula: Callable[..., Value]
    draw: tuple[Draw, ...]
    keep: Callable[..., Any] | None = None  # which arguments are legal together
    tolerance: float = 1e-11
    scale: Callable[..., Any] | None = None
    digits: int = 900
    examples: int = 40

    def arguments(self, rng: np.random.Generator, n: int) -> list[Array]:
        columns: list[Array] = []
        for _ in range(30):
            drawn = [d(rng, n) for d in self.draw]
            flat = [c for x in drawn for c in (x.T if x.ndim == 2 else [x])]
            good = np.ones(n, dtype=bool) if self.keep is None else np.asarray(self.keep(*flat))
            kept = [x[good] for x in flat]
            columns = kept if not columns else [np.concatenate(p) for p in zip(columns, kept, strict=True)]
            if columns[0].size >= n:
                break
        return [x[:n] for x in columns]


def _values(value: Any, n: int) -> list[Array]:
    parts = value if isinstance(value, tuple) else (value,)
    return [np.broadcast_to(np.asarray(p, dtype=np.float64), (n,)) for p in parts]


def error(got: float, want: mpf, size: float) -> float:
    """Relative error; 0 for an infinity or an underflow that is right."""
    if mp.isnan(want):
        return 0.0 if np.isnan(got) else np.inf
    if abs(want) >= LARGEST * (1 - mpf(10) ** -10):
        return (
            0.0
            if (np.isinf(got) and (got > 0) == (want > 0)) or (abs(got) > 1e308 and (got > 0) == (want > 0))
            else np.inf
        )
    if not np.isfinite(got):
        return np.inf
    return float(abs(mpf(got) - want) / max(abs(want), SMALLEST, mpf(size)))


def worst(case: Case, rng: np.random.Generator, n: int) -> tuple[float, str]:
    """Largest error of ``n`` draws, and where it is."""
    arguments = case.arguments(rng, n)
    count = arguments[0].size
    assert count >= min(n, 10), f"{case.name}: hardly any arguments are legal"
    found = _values(case.function(*arguments), count)
    sizes = np.zeros(count) if case.scale is None else np.broadcast_to(case.scale(*arguments), (count,))
    largest, where = -1.0, ""
    with mp.workdps(case.digits):
        for i in range(count):
            at = [float(x[i]) for x in arguments]
            wanted = case.formula(*(mpf(x) for x in at))
            for k, want in enumerate(wanted if isinstance(wanted, tuple) else (wanted,)):
                if want is None:
                    continue
                off = error(float(found[k][i]), mp.mpf(want), float(sizes[i]))
                if off > largest:
                    largest, where = off, f"{case.name}{tuple(at)}[{k}] = {found[k][i]!r} for {mp.nstr(want, 17)}"
    return largest, where
