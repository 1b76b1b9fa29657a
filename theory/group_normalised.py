r"""Group-normalised policy gradient, what GRPO and CISPO groups really do to a success probability (theory 16).

A group of G rollouts with binary reward, success probability ``p = sigma(x)``, mean reward ``X = k/G``, ``v = X (1 - X)``,
advantages ``A_i = (r_i - X) / std``, one on-policy update. The realised update of the logit is exactly ``sqrt(v)``,
and 0 for a dead group (all equal). Everything follows from ``k ~ Bin(G, p)``; all sums are finite and exact.

Which plateau law holds (``T`` the escape time from ``p0 << 1``; decides how success rates are to be binned and plotted).
Local exponent ``-d log T / d log p0``, in the limit of small p0 at fixed ``y = G p0`` (`plateau_exponent` for finite ones):

    G p0      0.001   0.01   0.03   0.1    0.3    1      3      10     100
    exponent  0.997   0.978  0.947  0.870  0.749  0.599  0.522  0.504  0.500

so ``1/p0`` within 5 % for ``G p0 < 0.03``, ``p0^(-1/2)`` within 5 % for ``G p0 > 3``, and neither between: use the exact T.
Plain advantages (no std) follow ``1/p0`` for every G. Units: log-odds, updates / rate. Own derivation; `group-normalised-*`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, gammaln, log_expit

from fstsim.errors import InputError
from fstsim.theory.clocks import finite, integrate, learning_clock_between, positive

Array = NDArray[np.float64]
Baseline = Literal["mean", "leave-one-out"]
Normaliser = Literal["population", "sample", "none"]

MAX_GROUP = 10_000
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def check_probability(value: ArrayLike, name: str = "success_probability") -> Array:
    """``value`` as float64; InputError unless every entry lies in [0, 1]."""
    p = np.asarray(value, dtype=np.float64)
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise InputError(f"{name} must lie in [0, 1], got {value!r}")
    return p


def check_group(group_size: ArrayLike) -> Array:
    """``group_size`` as whole float64 numbers; InputError unless every one lies in 2..10000."""
    g = np.asarray(group_size, dtype=np.float64)
    if not ((g >= 2.0) & (g <= MAX_GROUP) & (g == np.floor(g))).all():
        raise InputError(f"group_size must be a whole number in 2..{MAX_GROUP}, got {group_size!r}")
    return g


def group_logit_update(
    mean_reward: ArrayLike,
    group_size: ArrayLike,
    baseline: Baseline = "mean",
    normaliser: Normaliser = "population",
    epsilon: float = 0.0,
) -> Array:
    r"""Realised update of the success logit by one group with mean reward X: ``c v / D``, ``v = X (1 - X)``.

    ``c`` is 1, or G/(G - 1) for the leave-one-out baseline (each advantage is that much larger); D is ``sqrt(v) + eps``,
    ``sqrt(v G/(G - 1)) + eps`` (sample) or 1 (none). A dead group gives 0. The true ``p`` drops out, because
    ``X (1 - X)(1 - p) + (1 - X) X p = v``. Raises InputError on X outside [0, 1] or a negative epsilon.
    """
    if baseline not in get_args(Baseline):
        raise InputError(f"baseline must be one of {', '.join(get_args(Baseline))}; got {baseline!r}")
    if normaliser not in get_args(Normaliser):
        raise InputError(f"normaliser must be one of {', '.join(get_args(Normaliser))}; got {normaliser!r}")
    x, g = np.broadcast_arrays(check_probability(mean_reward, "mean_reward"), check_group(group_size))
    eps = float(positive(epsilon, "epsilon", zero=True))
    v = x * (1.0 - x)
    size = g / (g - 1.0) if baseline == "leave-one-out" else np.ones(g.shape)
    if normaliser == "none":
        return size * v
    spread = np.sqrt(v * g / (g - 1.0)) if normaliser == "sample" else np.sqrt(v)
    return np.divide(size * v, spread + eps, out=np.zeros(v.shape), where=v > 0.0)


def group_normalised_drift(
    success_probability: ArrayLike,
    group_size: ArrayLike,
    baseline: Baseline = "mean",
    normaliser: Normaliser = "population",
    epsilon: float = 0.0,
) -> Array:
    r"""Expected update of the success logit, ``sum_k C(G,k) p^k (1-p)^(G-k) u(k/G)``, u = `group_logit_update` (theory 16.1).

    Population std: ``E sqrt(X (1 - X)) <= sqrt(p (1 - p))``; symmetric in p and 1 - p; ``p (1 - p)`` for G = 2;
    ``p sqrt(G - 1)`` for G p << 1. Without std: ``p (1 - p)(1 - 1/G)``, and exactly ``p (1 - p)`` with the leave-one-out
    baseline. Raises InputError on p outside [0, 1] or a group size outside 2..10000.

    >>> round(float(group_normalised_drift(0.3, 2)), 12)
    0.21
    """
    p = check_probability(success_probability)
    with np.errstate(divide="ignore"):
        return _expected(np.log(p), np.log1p(-p), check_group(group_size), baseline, normaliser, epsilon)


def drift_at(
    log_odds: Array,
    group: Array,
    baseline: Baseline = "mean",
    normaliser: Normaliser = "population",
    epsilon: float = 0.0,
) -> Array:
    """:func:`group_normalised_drift` at ``p = sigma(log_odds)``, accurate in both tails."""
    return _expected(log_expit(log_odds), log_expit(-log_odds), group, baseline, normaliser, epsilon)


def _expected(
    log_p: Array, log_q: Array, group: Array, baseline: Baseline, normaliser: Normaliser, epsilon: float
) -> Array:
    log_p, log_q, group = np.broadcast_arrays(log_p, log_q, group)
    out = np.empty(log_p.shape)
    for size in np.unique(group):
        k = np.arange(1.0, size)
        log_count = gammaln(size + 1.0) - gammaln(k + 1.0) - gammaln(size - k + 1.0)
        update = group_logit_update(k / size, size, baseline, normaliser, epsilon)
        here = group == size
        exponent = log_count + k * log_p[here][:, None] + (size - k) * log_q[here][:, None]
        out[here] = np.exp(exponent) @ update
    return out


def group_drift_bounds(success_probability: ArrayLike, group_size: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on :func:`group_normalised_drift`, within a factor sqrt 2 of each other everywhere.

    With ``y = p (1 - p)``: ``(G-1) y / sqrt(G - 1 + (G-2)(G-3) y) <= E sqrt(v) <= min(sqrt(G-1) y, sqrt((1 - 1/G) y))``,
    equalities for G = 2 and 3 (left). *Proof*. Upper: concavity with ``E v = (1 - 1/G) y``; and ``sqrt(v) = v / sqrt(v)`` with
    ``v >= (G-1)/G^2`` on live groups. Lower: Hoelder ``(E v)^3 <= (E sqrt v)^2 E v^2``, and factorial moments give
    ``G^3 E v^2 = (G-1)^2 y + (G-1)(G-2)(G-3) y^2``. The ratio of the bounds is largest at ``y = 1/G``, below sqrt 2.
    """
    p, g = np.broadcast_arrays(check_probability(success_probability), check_group(group_size))
    y = p * (1.0 - p)
    lower = (g - 1.0) * y / np.sqrt(g - 1.0 + (g - 2.0) * (g - 3.0) * y)
    return lower, np.minimum(np.sqrt(g - 1.0) * y, np.sqrt((1.0 - 1.0 / g) * y))


def epsilon_slowdown_bounds(group_size: ArrayLike, epsilon: ArrayLike) -> tuple[Array, Array]:
    r"""Bounds on how much slower an epsilon in ``std + eps`` makes the logit, at any p: ``[1 + 2 eps, 1 + eps G / sqrt(G-1)]``.

    *Proof*. On a live group ``sqrt(v)`` lies in ``[sqrt(G-1)/G, 1/2]`` and the update shrinks by ``1 + eps / sqrt(v)``.
    The upper end is reached on the plateau (lone successes): an epsilon matters only for ``eps sqrt(G) ~ 1``; for
    ``eps -> inf`` the advantages are the plain ones divided by eps, with the plain ``1/p0`` plateau for every G.
    """
    g, eps = np.broadcast_arrays(check_group(group_size), positive(epsilon, "epsilon", zero=True))
    return 1.0 + 2.0 * eps, 1.0 + eps * g / np.sqrt(g - 1.0)


def dead_group_probability(success_probability: ArrayLike, group_size: ArrayLike) -> Array:
    r"""Probability ``(1 - p)^G + p^G`` that all rewards of a group agree, so that it gives no signal (theory 16.2).

    The same for every baseline taken from the group itself and every normaliser. (A baseline b from elsewhere has no dead
    groups: its update ``X (1 - b - p) + b p`` has mean ``p (1 - p)`` for every b.)
    """
    p, g = np.broadcast_arrays(check_probability(success_probability), check_group(group_size))
    with np.errstate(divide="ignore"):
        return np.exp(g * np.log1p(-p)) + np.exp(g * np.log(p))


def log_dead_group_probability(p: Array, g: Array) -> Array:
    """Log of :func:`dead_group_probability`, relative accuracy also where nearly all groups or hardly any are dead."""
    rare = np.minimum(p, 1.0 - p)
    with np.errstate(divide="ignore"):
        none, all_ = np.exp(g * np.log1p(-rare)), rare**g
        live = -(np.expm1(g * np.log1p(-rare)) + all_)
        return np.where(live < 0.5, np.log1p(-np.minimum(live, 0.5)), np.log(none + all_))


# --- escape time (16.3) --------------------------------------------------------------------------------------------


def group_escape_time(
    log_odds: ArrayLike,
    target_log_odds: ArrayLike,
    rate: ArrayLike,
    group_size: ArrayLike,
    normaliser: Normaliser = "population",
    epsilon: float = 0.0,
) -> Array:
    r"""Time ``int dx / (rate E sqrt(X (1 - X)))`` of the mean flow from one log-odds to another, exact quadrature (theory 16.3).

    Plateau ``1 / (rate p0 sqrt(G - 1))`` for ``G p0 << 1``, ``2 / (rate sqrt(p0))`` for ``G p0 >> 1``. Negative when the
    target lies below. Raises InputError on non-finite log-odds, a rate that is not positive or a bad group size.

    >>> round(float(group_escape_time(0.0, 2.0, 1.0, 2)), 4)
    11.2537
    """
    x0, x1, eta, g = np.broadcast_arrays(
        finite(log_odds, "log_odds"),
        finite(target_log_odds, "target_log_odds"),
        positive(rate, "rate"),
        check_group(group_size),
    )
    with np.errstate(divide="ignore", over="ignore"):  # log-odds at which the drift underflows: an infinite time
        return integrate(lambda x: 1.0 / drift_at(x, g[..., None], "mean", normaliser, epsilon), x0, x1) / eta


def group_escape_bounds(
    log_odds: ArrayLike, target_log_odds: ArrayLike, rate: ArrayLike, group_size: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on :func:`group_escape_time` in closed form: both plateau laws and the passage between them.

    Integrals of `group_drift_bounds`. Upper, with ``u = sinh(x/2)``: ``4/(eta (G-1)) int sqrt(4 (G-1) u^2 + G^2 - G + 2) du``.
    Lower: plain clock ``F / sqrt(G-1)`` where ``p (1-p) < 1/G``, normalised clock ``4 sinh(x/2) / sqrt(1 - 1/G)`` elsewhere.
    So ``T_plain / sqrt(G-1) <= T``: group normalisation shortens any escape by at most sqrt(G - 1).
    """
    x0, x1, eta, g = np.broadcast_arrays(
        finite(log_odds, "log_odds"),
        finite(target_log_odds, "target_log_odds"),
        positive(rate, "rate"),
        check_group(group_size),
    )
    if not (x1 >= x0).all():
        raise InputError("target_log_odds must not lie below log_odds")
    turn = 2.0 * np.arccosh(np.maximum(1.0, 0.5 * np.sqrt(g)))  # p (1 - p) = 1/G there
    outer = learning_clock_between(np.minimum(x0, -turn), np.minimum(x1, -turn))
    outer = outer + learning_clock_between(np.maximum(x0, turn), np.maximum(x1, turn))
    inner = learning_clock_between(np.clip(x0, -turn, turn), np.clip(x1, -turn, turn), "normalised")
    lower = outer / np.sqrt(g - 1.0) + inner / np.sqrt(1.0 - 1.0 / g)
    c, d = 2.0 * np.sqrt(g - 1.0), np.sqrt(g * g - g + 2.0)

    def primitive(x: Array) -> Array:
        u = np.sinh(0.5 * x)
        return 0.5 * (u * np.hypot(c * u, d) + d * d / c * np.arcsinh(c * u / d))

    def slope(x: Array) -> Array:
        return 0.5 * np.hypot(c[..., None] * np.sinh(0.5 * x), d[..., None]) * np.cosh(0.5 * x)

    width = np.where(x1 - x0 < 1.0, x1 - x0, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = primitive(x0), primitive(x1)
        far = np.where(np.isinf(low), np.inf, high - low)
        near = 0.5 * width * (_WEIGHTS * slope(x0[..., None] + 0.5 * width[..., None] * (1.0 + _NODES))).sum(axis=-1)
        return lower / eta, 4.0 / (g - 1.0) * np.where(x1 - x0 < 1.0, near, far) / eta


def plateau_exponent(log_odds: ArrayLike, target_log_odds: ArrayLike, group_size: ArrayLike) -> Array:
    r"""Local exponent ``-d log T / d log p0`` of the escape time: 1 on the ``1/p0`` plateau, 1/2 on the ``p0^(-1/2)`` one.

    ``1 / (drift(x0) (1 - p0) T)`` with T at unit rate: exact. InputError unless the target lies above.
    """
    x0, x1, g = np.broadcast_arrays(
        finite(log_odds, "log_odds"), finite(target_log_odds, "target_log_odds"), check_group(group_size)
    )
    if not (x1 > x0).all():
        raise InputError("target_log_odds must lie above log_odds")
    return 1.0 / (drift_at(x0, g) * expit(-x0) * group_escape_time(x0, x1, 1.0, g))
