r"""Exact logistic-normal integrals: the one numerical routine behind everything exact here.

With equal covariances the log-ratio of two Gaussian components is linear in ``x``, so under any
Gaussian it is itself Gaussian, ``z = loc + scale * U`` with ``U ~ N(0, 1)``. Every expectation of
the two-mode theory is then one of three scalar functions, in any dimension:

    SP(a, d) = E softplus(z),    LN(a, d) = E sigmoid(z),    LP(a, d) = E sigmoid'(z),

with ``dSP/da = LN``, ``dLN/da = LP`` and ``dSP/dd = d * LP`` (heat equation).

Method: the *tilted trapezoid*. For ``a <= 0`` put ``t = clip(-a / d**2, 0, 1)``; exponential tilting gives

    E f(a + d U) = exp(t a + t**2 d**2 / 2) * E g_t(c + d U),    g_t(z) = exp(-t z) f(z),    c = a + t d**2,

whose integrand is of order one where the Gaussian has its mass, so the sum keeps its *relative*
accuracy however small the value is. The trapezoid of step ``h`` errs by ``exp(-2 pi^2 / h^2)`` (the Gaussian)
and by ``exp(-2 pi^2 q / (d h))``, ``q = 1, 3, ...`` (the poles of the sigmoid at +-i pi q). For LN and LP the
pair ``q = 1`` is a residue in closed form and is subtracted, which makes the step three times longer at the
same accuracy; softplus has branch points there and keeps the short step ``h = 0.5 / max(1, d)``. Positive
locations follow from ``LN(a) = 1 - LN(-a)``, ``SP(a) = a + SP(-a)``, ``LP(a) = LP(-a)``.

Speed: the nodes are equally spaced, so ``exp(z)`` at all of them is an outer product of two short vectors
(a few tens of exponentials a point instead of hundreds), with points along the contiguous axis. With numba installed
(extra ``[fast]``) the same sums are compiled loops, several times as fast (`fstsim.compiled_sums`).

Source: arXiv 2603.12163 (setting), statement `logistic-normal`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError

if TYPE_CHECKING:
    from fstsim.compiled import Bound

Array = NDArray[np.float64]

_CUTOFF = 9.0  # standard deviations kept on each side: the tail beyond is 2e-19
_FINE = 16  # nodes of one fine block of the outer product; a power of two, and u = 0 is a node
_BLOCK = 512  # points treated together: a working array of _FINE x _BLOCK doubles stays in the cache
_ABOVE_ONE = 1.0 + np.finfo(np.float64).eps
MAX_SCALE = 64.0  # exp(9 * scale) must not overflow


class _Nodes(NamedTuple):
    """Trapezoid nodes ``u = coarse[i] + j step``, their spacing and their Gaussian weights ``(i, j)``."""

    step: float
    coarse: Array
    weights: Array


def _make_nodes(step: float) -> _Nodes:
    blocks = int(np.ceil((2.0 * _CUTOFF / step + 1.0) / _FINE))
    coarse = step * _FINE * (np.arange(blocks, dtype=np.float64) - 0.5 * blocks)
    u = coarse[:, None] + step * np.arange(_FINE, dtype=np.float64)
    weights = step * np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)
    return _Nodes(step, coarse, np.asarray(weights, dtype=np.float64))


def _plain_step(scale: float) -> float:
    """Step that resolves the first singularity, at +-i pi."""
    return 0.5 / max(1.0, scale)


def _corrected_step(scale: float) -> float:
    """Step that resolves the second pair of poles: ``6 pi^2 / (d h) - 9 pi^2 / (2 d^2) >= 36``, and the Gaussian."""
    return min(0.72, 6.0 * np.pi**2 / (36.0 * scale + 4.5 * np.pi**2 / scale))


# One table of nodes per factor 2^(1/4) in scale: no point pays for more than 1.2 times its own need.
_LEVELS_PER_OCTAVE = 4
_TOPS = [2.0 ** (k / _LEVELS_PER_OCTAVE) for k in range(6 * _LEVELS_PER_OCTAVE + 1)]
_PLAIN = tuple(_make_nodes(_plain_step(top)) for top in _TOPS)
_CORRECTED = tuple(_make_nodes(_corrected_step(top)) for top in _TOPS)


def _validate(loc: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
    a, d = np.broadcast_arrays(np.asarray(loc, dtype=np.float64), np.asarray(scale, dtype=np.float64))
    if not np.isfinite(a).all():
        raise InputError("loc must be finite (got nan or inf)")
    if not ((d >= 0.0) & (d <= MAX_SCALE)).all():
        raise InputError(f"scale must lie in [0, {MAX_SCALE:g}] (got {d.min():g} to {d.max():g})")
    return a, d


def _blocks(scale: Array, tables: tuple[_Nodes, ...]) -> Iterator[tuple[_Nodes, NDArray[np.intp]]]:
    """Indices of ``scale`` grouped by node table, at most ``_BLOCK`` at a time."""
    level = np.ceil(_LEVELS_PER_OCTAVE * np.log2(np.maximum(scale, 1.0)) - 1e-9).astype(np.intp)
    for k in np.unique(level):
        index = np.flatnonzero(level == k)
        for start in range(0, index.size, _BLOCK):
            yield tables[k], index[start : start + _BLOCK]


def _exp_rows(base: Array, slope: Array, nodes: _Nodes) -> Iterator[Array]:
    """``exp(base + slope * u)`` for one coarse block of nodes after another, each ``(_FINE, len(base))``.

    The array yielded is overwritten by the next one.
    """
    fine, out = np.empty((_FINE, base.size)), np.empty((_FINE, base.size))
    fine[0] = 1.0
    power, filled = np.exp(nodes.step * slope), 1
    while filled < _FINE:  # powers by doubling: 4 roundings at most
        np.multiply(fine[:filled], power, out=fine[filled : 2 * filled])
        power, filled = power * power, 2 * filled
    for shift in nodes.coarse:
        yield np.multiply(fine, np.exp(base + shift * slope), out=out)


class _Tilt(NamedTuple):
    """``E f(-|a| + d U) = exp(exponent) * E exp(-t z) f(z)``, ``z = center + d U`` (flat arrays)."""

    t: Array
    center: Array
    exponent: Array


def _tilt(loc: Array, scale: Array) -> _Tilt:
    a = -np.abs(loc)
    variance = scale * scale
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # -a >= d^2 is the clipped case t = 1 (also d = 0 < -a); a = 0 is t = 0 (also d = 0)
        t = np.where(-a >= variance, 1.0, -a / variance)
    t = np.where(a == 0.0, 0.0, t)
    center = np.where(t < 1.0, 0.0, np.minimum(a + variance, 0.0))
    return _Tilt(t, center, t * a + 0.5 * t * t * variance)


def _pole_corrections(t: Array, center: Array, scale: Array, step: float) -> tuple[Array, Array]:
    """What the trapezoid sums of exp(-t z) sigmoid(z) and exp(-t z) sigmoid'(z) owe to the poles at +-i pi.

    The sum exceeds the integral by ``2 Re[2 pi i Res f m]`` at the upper pole, ``m(u) = 1 / (exp(-2 pi i u / h) - 1)``
    with nodes at multiples of h. Below scale h/2 the pole lies above the Gaussian's own saddle and has no part in it.
    """
    mean, slope = np.zeros(scale.size), np.zeros(scale.size)
    i = np.flatnonzero((scale > 0.5 * step) & (center == 0.0))
    height, angle = np.pi / scale[i], np.pi * t[i]  # with center 0 the pole lies on the imaginary axis: all is real
    decay = np.exp(-2.0 * np.pi * height / step)
    m = decay / (1.0 - decay)  # the exponent is below -11: no cancellation
    p = np.exp(0.5 * height * height) * m * (4.0 * np.pi / np.sqrt(2.0 * np.pi)) / scale[i]
    sin, cos = np.sin(angle), np.cos(angle)
    mean[i] = p * sin
    slope[i] = p * ((2.0 * np.pi / step * (1.0 + m) - height) * cos / scale[i] + sin * t[i])

    i = np.flatnonzero((scale > 0.5 * step) & (center < 0.0) & (center > -12.0 * scale))  # farther out: below e^-72
    if i.size:
        d = scale[i]
        u_pole = (1j * np.pi - center[i]) / d
        m = 1.0 / np.expm1(-2j * np.pi * u_pole / step)
        q = -np.exp(-0.5 * u_pole * u_pole) * m / (d * np.sqrt(2.0 * np.pi))  # center < 0 only at t = 1
        mean[i] = -4.0 * np.pi * q.imag
        slope[i] = 4.0 * np.pi * ((q / d) * (2j * np.pi / step * (1.0 + m) - u_pole - d)).imag
    return mean, slope


@cache
def _compiled() -> Bound | None:
    """The sums as compiled loops, None without numba; asked for at first use."""
    try:
        from fstsim.compiled import bound_to
    except ImportError:
        return None
    return bound_to(_CORRECTED, _PLAIN)


def _mean_slope(loc: Array, scale: Array, *, mean: bool, slope: bool) -> tuple[Array, Array, Array]:
    """``(exponent, mean sum, slope sum)`` at ``-|loc|``, flat; a sum not asked for may stay zero."""
    compiled = _compiled()
    if compiled is None:
        return _numpy_mean_slope(loc, scale, mean=mean, slope=slope)
    exponent, of_mean, of_slope = compiled.mean_slope(loc, scale)
    return exponent, of_mean, of_slope


def _softplus(loc: Array, scale: Array) -> tuple[Array, Array]:
    """``(exponent, softplus sum)`` at ``-|loc|``, flat."""
    compiled = _compiled()
    if compiled is None:
        return _numpy_softplus(loc, scale)
    exponent, value = compiled.softplus(loc, scale)
    return exponent, value


def _numpy_mean_slope(loc: Array, scale: Array, *, mean: bool, slope: bool) -> tuple[Array, Array, Array]:
    """``(exponent, mean sum, slope sum)`` at ``-|loc|``, flat; a sum not asked for stays zero."""
    tilt = _tilt(loc, scale)
    out_mean, out_slope = np.zeros(loc.size), np.zeros(loc.size)
    for nodes, i in _blocks(scale, _CORRECTED):
        t, c, d = tilt.t[i], tilt.center[i], scale[i]
        sum_mean, sum_slope = (-error for error in _pole_corrections(t, c, d, nodes.step))
        # e = exp(z), r = exp((1 - t) z)
        for weights, e, r in zip(
            nodes.weights, _exp_rows(c, d, nodes), _exp_rows((1.0 - t) * c, (1.0 - t) * d, nodes), strict=True
        ):
            e += 1.0
            r /= e  # exp(-t z) sigmoid(z)
            if mean:
                sum_mean += weights @ r
            if slope:
                r /= e  # exp(-t z) sigmoid(z) sigmoid(-z)
                sum_slope += weights @ r
        out_mean[i], out_slope[i] = sum_mean, sum_slope
    return tilt.exponent, out_mean, out_slope


def _numpy_softplus(loc: Array, scale: Array) -> tuple[Array, Array]:
    """``(exponent, softplus sum)`` at ``-|loc|``, flat."""
    tilt = _tilt(loc, scale)
    out = np.zeros(loc.size)
    for nodes, i in _blocks(scale, _PLAIN):
        c, d, rest = tilt.center[i], scale[i], 1.0 - tilt.t[i]
        for weights, e, r in zip(
            nodes.weights, _exp_rows(c, d, nodes), _exp_rows(rest * c, rest * d, nodes), strict=True
        ):
            # exp(-t z) log(1 + e^z) = r * log1p(e) / e, and log1p(e) / e = log(u) / (u - 1) to rounding, u = fl(1 + e)
            e += 1.0
            np.maximum(e, _ABOVE_ONE, out=e)
            ratio = np.log(e)
            e -= 1.0
            ratio /= e
            ratio *= r
            out[i] += weights @ ratio
    return tilt.exponent, out


def logistic_normal_mean(loc: ArrayLike, scale: ArrayLike) -> Array:
    r"""Mean of a logistic-normal variable, ``LN(a, d) = E sigmoid(a + d U)``, ``U ~ N(0, 1)``.

    ``loc`` (any shape) and ``scale`` in [0, 64] broadcast; relative error below 1e-12, also in the far
    lower tail. Values below 1e-308 underflow: use :func:`log_logistic_normal_mean`.

    >>> round(float(logistic_normal_mean(0.0, 3.0)), 14)
    0.5

    Raises InputError on nan, infinite locations or a scale outside [0, 64]. Statement `logistic-normal`.
    """
    a, d = _validate(loc, scale)
    exponent, mean, _ = _mean_slope(a.ravel(), d.ravel(), mean=True, slope=False)
    lower = (np.exp(exponent) * mean).reshape(a.shape)
    return np.where(a < 0.0, lower, 1.0 - lower)


def logistic_normal_slope(loc: ArrayLike, scale: ArrayLike) -> Array:
    r"""Slope of the logistic-normal mean, ``LP(a, d) = E sigmoid'(a + d U) = dLN/da``.

    Shapes, range and errors as :func:`logistic_normal_mean`; even in ``loc``. Statement `logistic-normal`.
    """
    a, d = _validate(loc, scale)
    exponent, _, slope = _mean_slope(a.ravel(), d.ravel(), mean=False, slope=True)
    return (np.exp(exponent) * slope).reshape(a.shape)


def expected_softplus(loc: ArrayLike, scale: ArrayLike) -> Array:
    r"""Expected softplus, ``SP(a, d) = E log(1 + exp(a + d U))``, in nats.

    Shapes, range and errors as :func:`logistic_normal_mean`; ``SP(a) - SP(-a) = a``. Statement `logistic-normal`.
    """
    a, d = _validate(loc, scale)
    exponent, value = _softplus(a.ravel(), d.ravel())
    return (np.exp(exponent) * value).reshape(a.shape) + np.maximum(a, 0.0)


def log_logistic_normal_mean(loc: ArrayLike, scale: ArrayLike) -> Array:
    """Natural log of :func:`logistic_normal_mean`, finite however small the mean is."""
    a, d = _validate(loc, scale)
    exponent, mean, _ = _mean_slope(a.ravel(), d.ravel(), mean=True, slope=False)
    lower = (exponent + np.log(mean)).reshape(a.shape)
    return np.where(a < 0.0, lower, np.log1p(-np.exp(lower)))


def log_logistic_normal_slope(loc: ArrayLike, scale: ArrayLike) -> Array:
    """Natural log of :func:`logistic_normal_slope`, finite however small the slope is."""
    a, d = _validate(loc, scale)
    exponent, _, slope = _mean_slope(a.ravel(), d.ravel(), mean=False, slope=True)
    return (exponent + np.log(slope)).reshape(a.shape)


def log_expected_softplus(loc: ArrayLike, scale: ArrayLike) -> Array:
    """Natural log of :func:`expected_softplus`, finite however small the value is."""
    a, d = _validate(loc, scale)
    exponent, value = _softplus(a.ravel(), d.ravel())
    lower = (exponent + np.log(value)).reshape(a.shape)
    with np.errstate(divide="ignore"):
        upper = np.log(np.maximum(a, 0.0) + np.exp(lower))
    return np.where(a > 0.0, upper, lower)


def responsibility_moments(loc: ArrayLike, scale: ArrayLike) -> tuple[Array, Array, Array]:
    """``(E r, E (1 - r), E r (1 - r))`` of a responsibility ``r = sigmoid(a + d U)``, in one pass over the nodes.

    Shapes, range and errors as :func:`logistic_normal_mean`; each keeps its relative accuracy. What a gradient needs.
    """
    a, d = _validate(loc, scale)
    exponent, mean, slope = _mean_slope(a.ravel(), d.ravel(), mean=True, slope=True)
    factor = np.exp(exponent)
    lower = (factor * mean).reshape(a.shape)
    upper = 1.0 - lower
    negative = a < 0.0
    return np.where(negative, lower, upper), np.where(negative, upper, lower), (factor * slope).reshape(a.shape)


def misassigned(loc: ArrayLike, scale: ArrayLike, *, own: bool = False) -> tuple[Array, Array]:
    """``LN(-|a|, d)`` and ``SP(-|a|, d)`` in one pass: how often, and how strongly, a sample is taken for one of the other mode.

    Shapes, range and errors as :func:`logistic_normal_mean`. ``own`` says that ``loc[1] = loc[0] - scale[0]**2`` and ``scale[1] =
    scale[0]``, as for the two modes of one mixture: both are then read off one integral where that is accurate.
    """
    a, d = _validate(loc, scale)
    compiled = _compiled()
    if compiled is None:
        return logistic_normal_mean(-np.abs(a), d), expected_softplus(-np.abs(a), d)
    rows = (a.shape[0], -1) if own else (1, -1)
    mean, softplus = compiled.mean_softplus(a.reshape(rows), d.reshape(rows), own)
    return mean.reshape(a.shape), softplus.reshape(a.shape)
