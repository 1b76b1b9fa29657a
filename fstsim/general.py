r"""Mixtures without a closed form: unequal covariances, K modes. Quadrature for D <= 2, Monte Carlo for any D.

Two modes with one covariance need none of this: their divergences and gradients are exact in any dimension in
`fstsim.divergences`, their misassignment probabilities in `fstsim.overlap`. Use those wherever they apply.

Everything is a sum over components, ``E_p f = sum_k w_k E f(mean_k + L_k U)``, ``U ~ N(0, I)``, ``cov_k = L_k L_k'``:

- ``method="quadrature"``: the trapezoid rule in the whitened coordinates ``u`` of each component, on ``|u| <= 9``
  (the tail beyond is 3e-18). The first step resolves the sharpest transition between two components that the
  integrand can see; it is then halved until two sums differ by at most ``rtol`` times ``E|f|`` (the largest one, of
  a vector) or by ``atol = 1e-14``, the rounding of a function of order one. For an analytic integrand the error of the
  finer sum is about the *square* of that difference.
- ``method="monte-carlo"``: ``samples`` points, shared among the components in proportion to their weights
  (stratified, which never has a larger variance than sampling the mixture), and the standard error of the mean.

Source: arXiv 2603.12163 (setting), statement `beyond-equal-covariance`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.mixtures import GaussianMixture, cholesky

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
Method = Literal["quadrature", "monte-carlo"]

_RADIUS = 9.0  # whitened radius of the grid
_STEP = 0.75  # first step, in units of the sharpest transition: the trapezoid then errs by exp(-2 pi^2 / 0.75) = 4e-12
_FIRST_POINTS = 2.0**18  # the first grid is not finer than this: halving goes on from there
_MOST_POINTS = 2.0**22  # then give up: a few seconds a component
_BLOCK = 1 << 14  # points evaluated together


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value and its standard error, of one shape; the error is 0 for quadrature, which is deterministic."""

    value: Array
    standard_error: Array


@dataclass(frozen=True, eq=False)
class MixtureGradient:
    """Gradient with respect to the policy's ``logits (K,)`` (weights = softmax(logits)) and ``means (K, D)``."""

    logits: Estimate
    means: Estimate


@dataclass(frozen=True)
class _How:
    """A validated choice of method."""

    method: Method
    rtol: float
    samples: int
    rng: np.random.Generator | None
    atol: float = 1e-14

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(f"method must be one of {', '.join(get_args(Method))}; got {self.method!r}")
        if not 1e-14 <= self.rtol < 1.0:
            raise InputError(f"rtol must lie in [1e-14, 1), got {self.rtol!r}")
        if not self.atol >= 0.0:
            raise InputError(f"atol must be nonnegative, got {self.atol!r}")
        if self.samples < 2:
            raise InputError(f"samples must be at least 2, got {self.samples!r}")
        if self.method == "monte-carlo" and self.rng is None:
            raise InputError("monte-carlo draws samples: pass rng, a numpy.random.Generator")

    def expectation(self, mean: Array, root: Array, function: Function, sharpness: float, share: float) -> Estimate:
        """``E f(mean + root U)``, with ``share`` of the samples."""
        if self.rng is not None and self.method == "monte-carlo":
            samples = max(2, round(share * self.samples))
            f = _values(function, mean + self.rng.standard_normal((samples, mean.size)) @ root.T)
            return Estimate(f.mean(axis=0), f.std(axis=0, ddof=1) / np.sqrt(samples))
        if mean.size > 2:
            raise InputError(f"quadrature serves dimensions 1 and 2, got {mean.size}: use method 'monte-carlo'")
        value = _trapezoid(mean, root, function, sharpness, self.rtol, self.atol)
        return Estimate(value, np.zeros_like(value))


def _values(function: Function, x: Array) -> Array:
    f = np.asarray(function(x), dtype=np.float64)
    if f.shape[:1] != x.shape[:1]:
        raise InputError(f"function must map ({x.shape[0]}, D) to ({x.shape[0]}, ...), got shape {f.shape}")
    return f


def _grid(step: float, shift: Sequence[float]) -> Iterator[tuple[Array, Array]]:
    """Blocks of ``(nodes (N, D), weights (N,))`` of one trapezoid grid in the ball of radius 9, moved by ``shift``."""
    n = int(np.ceil(_RADIUS / step)) + 1
    axis = step * np.arange(-n, n + 1)
    tail_axes = [axis + s for s in shift[1:]]
    tail = np.stack([a.ravel() for a in np.meshgrid(*tail_axes, indexing="ij")], axis=-1) if tail_axes else None
    rows = max(1, _BLOCK // (1 if tail is None else len(tail)))
    norm = step / np.sqrt(2.0 * np.pi)
    for start in range(0, axis.size, rows):
        head = (axis + shift[0])[start : start + rows]
        if tail is None:
            u = head[:, None]
        else:
            u = np.concatenate([np.repeat(head, len(tail))[:, None], np.tile(tail, (head.size, 1))], axis=-1)
        square = (u * u).sum(axis=-1)
        inside = square <= _RADIUS**2
        if inside.any():
            yield u[inside], norm ** len(shift) * np.exp(-0.5 * square[inside])


def _trapezoid(mean: Array, root: Array, function: Function, sharpness: float, rtol: float, atol: float) -> Array:
    """``E f(mean + root U)`` by step halving; the coarse sum is kept, only the nodes in between are new."""
    dimension = mean.size

    def total(step: float, shift: Sequence[float]) -> tuple[Array, Array]:
        value, size = np.zeros(()), np.zeros(())
        for u, weights in _grid(step, shift):
            f = _values(function, mean + u @ root.T)
            value = value + np.tensordot(weights, f, axes=1)
            size = size + np.tensordot(weights, np.abs(f), axes=1)
        return value, size

    def points(step: float) -> float:
        return float((2.0 * _RADIUS / step) ** dimension)

    step = max(_STEP / max(1.0, sharpness), 2.0 * _RADIUS / _FIRST_POINTS ** (1.0 / dimension))
    value, size = total(step, [0.0] * dimension)
    while True:
        between = list(itertools.product((0.0, 0.5 * step), repeat=dimension))[1:]
        sums = [total(step, shift) for shift in between]
        finer = (value + sum(s[0] for s in sums)) / 2.0**dimension
        size = (size + sum(s[1] for s in sums)) / 2.0**dimension
        if not np.isfinite(finer).all():
            raise InputError("function must be finite wherever the mixture has mass")
        if np.abs(finer - value).max(initial=0.0) <= max(rtol * size.max(initial=0.0), atol):
            return finer
        value, step = finer, 0.5 * step
        if points(0.5 * step) > _MOST_POINTS:
            raise RuntimeError(
                f"quadrature has not reached rtol {rtol:g} with {points(step):.0f} points a component: "
                "use method 'monte-carlo'"
            )


def _sharpness(root: Array, seen: Sequence[GaussianMixture]) -> float:
    r"""Largest slope, in whitened coordinates ``x = c + root u``, of the log-ratio of two components where it is 0.

    Component j gives way to i at about ``r = sqrt(2 log(f_j / f_i)(m_j))`` of its own standard deviations, where its
    log density has slope ``r`` (whitened by itself): for one covariance that is ``D = |m_i - m_j|`` exactly. The poles
    of a responsibility lie at distance pi / slope from the real axis, and they decide the step of the trapezoid.
    """
    worst = 0.0
    means = np.concatenate([g.means for g in seen])
    roots = np.concatenate([g._roots for g in seen])
    log_density = np.concatenate([g.component_log_prob(means) for g in seen], axis=-1)  # (at mean j, of component i)
    advantage = np.diagonal(log_density)[:, None] - log_density
    radius = np.sqrt(2.0 * np.maximum(advantage, 0.0).max(axis=1))
    for own_root, r in zip(roots, radius, strict=True):
        worst = max(worst, float(np.linalg.norm(np.linalg.solve(own_root, root), 2)) * max(1.0, float(r)))
    return worst


def _by_component(mixture: GaussianMixture, function: Function, seen: Sequence[GaussianMixture], how: _How) -> Estimate:
    """``E_{f_k}[function]``, ``(K, ...)``, zero without weight; ``seen`` is what ``function`` is made of."""
    alive = np.flatnonzero(mixture.weights > 0.0)
    parts = []
    for k in alive:
        root = mixture._roots[k]
        sharpness = _sharpness(root, seen) if how.method == "quadrature" else 1.0
        parts.append(how.expectation(mixture.means[k], root, function, sharpness, float(mixture.weights[k])))
    value = np.zeros((mixture.components, *parts[0].value.shape))
    error = np.zeros_like(value)
    value[alive] = [part.value for part in parts]
    error[alive] = [part.standard_error for part in parts]
    return Estimate(value, error)


def _combine(coefficients: Array, parts: Estimate) -> Estimate:
    """``sum_k c_k part_k`` of independent parts."""
    value = np.tensordot(coefficients, parts.value, axes=1)
    return Estimate(value, np.sqrt(np.tensordot(coefficients**2, parts.standard_error**2, axes=1)))


def expectation(
    mixture: GaussianMixture,
    function: Function,
    *,
    method: Method = "quadrature",
    rtol: float = 1e-10,
    atol: float = 1e-14,
    samples: int = 100_000,
    rng: np.random.Generator | None = None,
) -> Estimate:
    r"""``E_p[f(x)]`` for a vectorised ``function: (N, D) -> (N, ...)``; the estimate has the shape ``(...)``.

    Quadrature starts from a step made for functions of the mixture's own densities. A function with finer detail is
    met by halving; one that jumps is not (RuntimeError), and one that oscillates within the first step can deceive it.
    For a function that is small everywhere lower ``atol``. See the module docstring for both methods.
    Raises InputError on an unknown method, a missing ``rng``, quadrature in more than two dimensions, or a function
    that has the wrong shape or is not finite.

    >>> mixture = GaussianMixture([0.25, 0.75], [[0.0], [4.0]], [[[1.0]], [[0.25]]])
    >>> expectation(mixture, lambda x: np.concatenate([x, x * x], axis=-1)).value.round(9)
    array([ 3.    , 12.4375])
    """
    how = _How(method, rtol, samples, rng, atol)
    return _combine(mixture.weights, _by_component(mixture, function, (mixture,), how))


def _check_dimensions(p: GaussianMixture, q: GaussianMixture) -> None:
    if p.dimension != q.dimension:
        raise InputError(f"mixtures must have one dimension, got {p.dimension} and {q.dimension}")


def kl_divergence(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    method: Method = "quadrature",
    rtol: float = 1e-10,
    samples: int = 100_000,
    rng: np.random.Generator | None = None,
) -> Estimate:
    r"""``KL(p || q) = E_p[log p - log q]`` in nats, for any two Gaussian mixtures of one dimension.

    Quadrature (D <= 2) is good to ``rtol`` times ``E_p|log p/q|``, so a KL far below that loses relative digits. Two
    modes with one covariance: `fstsim.divergences.two_mode_kl` is exact in any dimension; use it there.
    Raises as :func:`expectation`, and InputError on unequal dimensions.

    >>> p = GaussianMixture([1.0], [[0.0]], [[1.0]])
    >>> q = GaussianMixture([1.0], [[1.0]], [[4.0]])
    >>> round(float(kl_divergence(p, q).value - (np.log(2.0) + 2.0 / 8.0 - 0.5)), 12)
    0.0
    """
    _check_dimensions(p, q)
    how = _How(method, rtol, samples, rng)
    return _combine(p.weights, _by_component(p, lambda x: p.log_prob(x) - q.log_prob(x), (p, q), how))


def forward_kl_gradients(
    target: GaussianMixture,
    policy: GaussianMixture,
    *,
    method: Method = "quadrature",
    rtol: float = 1e-10,
    samples: int = 100_000,
    rng: np.random.Generator | None = None,
) -> MixtureGradient:
    r"""Gradient of ``KL(target || policy)`` in the policy's logits and means.

        d/dlogit_k = -E_target[r_k - w_k],      d/dmean_k = -E_target[r_k cov_k^-1 (x - mean_k)]

    with ``r_k(x)`` the policy's responsibilities (``grad log q`` in the parameters). Two modes with one covariance:
    `fstsim.divergences.forward_kl_gradient` is exact in any dimension. Raises as :func:`kl_divergence`.
    """
    _check_dimensions(target, policy)
    how = _How(method, rtol, samples, rng)

    def parameter_score(x: Array) -> Array:  # (N, K, 1 + D)
        r = policy.responsibilities(x)[..., None]
        return np.concatenate([r - policy.weights[:, None], -r * policy.component_score(x)], axis=-1)

    g = _combine(-target.weights, _by_component(target, parameter_score, (target, policy), how))
    return MixtureGradient(
        Estimate(g.value[:, 0], g.standard_error[:, 0]), Estimate(g.value[:, 1:], g.standard_error[:, 1:])
    )


def reverse_kl_gradients(
    target: GaussianMixture,
    policy: GaussianMixture,
    *,
    method: Method = "quadrature",
    rtol: float = 1e-10,
    samples: int = 100_000,
    rng: np.random.Generator | None = None,
) -> MixtureGradient:
    r"""Gradient of ``KL(policy || target)`` in the policy's logits and means. With ``A = log policy / target``:

        d/dlogit_k = E_q[(r_k - w_k) A] = w_k (E_k[A] - sum_j w_j E_j[A])
        d/dmean_k  = E_q[r_k cov_k^-1 (x - mean_k) A] = w_k E_k[grad_x A]

    ``E_k`` is over component k. The first equality is the score having mean zero; the second, for the mean, is Stein's
    lemma ``E_k[cov_k^-1 (x - mean_k) A] = E_k[grad_x A]``, so no covariance need equal another. Two modes with one
    covariance: `fstsim.divergences.reverse_kl_gradient` is exact in any dimension. Raises as :func:`kl_divergence`.
    """
    _check_dimensions(target, policy)
    how = _How(method, rtol, samples, rng)

    def log_ratio_and_slope(x: Array) -> Array:  # (N, 1 + D)
        log_ratio = policy.log_prob(x) - target.log_prob(x)
        return np.concatenate([log_ratio[:, None], policy.score(x) - target.score(x)], axis=-1)

    parts = _by_component(policy, log_ratio_and_slope, (policy, target), how)
    w = policy.weights
    value, error = parts.value, parts.standard_error
    mixing = w[:, None] * (np.eye(w.size) - w)  # d w_k / d logit_j: symmetric, rows sum to zero
    return MixtureGradient(
        Estimate(mixing @ value[:, 0], np.sqrt(mixing**2 @ error[:, 0] ** 2)),
        Estimate(w[:, None] * value[:, 1:], w[:, None] * error[:, 1:]),
    )


def misassignment_estimate(
    mixture: GaussianMixture,
    *,
    method: Method = "quadrature",
    rtol: float = 1e-10,
    samples: int = 100_000,
    rng: np.random.Generator | None = None,
) -> Estimate:
    r"""Misassignment matrix ``M_ij = E_{f_i}[r_j]``, ``(K, K)``: how much of component i is taken for component j.

    Off the diagonal ``M_ij = w_j BC_ij E_mid[sqrt(f_i f_j) / p]`` over the midpoint Gaussian, the normalised
    ``sqrt(f_i f_j)``: its integrand is at most ``1 / (2 sqrt(w_i w_j))``, so the *relative* error does not grow with
    the separation, which sampling ``f_i`` could not reach. ``w_i M_ij = w_j M_ji`` and row sums of 1 hold by
    construction. Monte Carlo draws ``samples`` points for every pair. Two modes with one covariance:
    `fstsim.overlap.misassignment_probability`. Raises InputError on a zero weight, else as :func:`expectation`.
    Statement `beyond-equal-covariance` (theory 15).
    """
    how = _How(method, rtol, samples, rng)
    w, k = mixture.weights, mixture.components
    if not (w > 0.0).all():
        raise InputError(f"misassignment needs positive weights, got {w.tolist()}")
    precision = [np.linalg.inv(root @ root.T) for root in mixture._roots]
    value, variance = np.zeros((k, k)), np.zeros((k, k))
    for i, j in itertools.combinations(range(k), 2):
        cov = np.linalg.inv(0.5 * (precision[i] + precision[j]))
        root = cholesky(0.5 * (cov + cov.T))
        mid = 0.5 * cov @ (precision[i] @ mixture.means[i] + precision[j] @ mixture.means[j])
        log_f = mixture.component_log_prob(mid)[[i, j]]
        # sqrt(f_i f_j) = BC N(mid, cov); both sides at mid give BC
        log_bc = 0.5 * log_f.sum() + 0.5 * mid.size * np.log(2.0 * np.pi) + np.log(np.diagonal(root)).sum()

        def shared(x: Array, pair: tuple[int, int] = (i, j)) -> Array:
            log_pair = mixture.component_log_prob(x)[:, pair]
            return np.exp(0.5 * log_pair.sum(axis=-1) - mixture.log_prob(x))

        part = how.expectation(mid, root, shared, _sharpness(root, (mixture,)), 1.0)
        scale = np.exp(log_bc) * np.array([w[j], w[i]])  # of M_ij and of M_ji
        value[[i, j], [j, i]] = scale * part.value
        variance[[i, j], [j, i]] = (scale * part.standard_error) ** 2
    # every pair is drawn independently, so the variances of a row add up
    np.fill_diagonal(value, 1.0 - value.sum(axis=1))
    np.fill_diagonal(variance, variance.sum(axis=1))
    return Estimate(value, np.sqrt(variance))


def misassignment_matrix(
    weights: ArrayLike,
    means: ArrayLike,
    covs: ArrayLike,
    method: Method = "quadrature",
    *,
    samples: int = 100_000,
    rng: np.random.Generator | None = None,
) -> Array:
    """Value of :func:`misassignment_estimate`: ``weights (K,)``, ``means (K, D)``, ``covs (D, D)`` or ``(K, D, D)``.

    >>> misassignment_matrix([0.5, 0.5], [[-1.0], [1.0]], [[1.0]]).sum(axis=1)
    array([1., 1.])
    """
    return misassignment_estimate(GaussianMixture(weights, means, covs), method=method, samples=samples, rng=rng).value
