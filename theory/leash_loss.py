r"""Where a KL leash that is taken as a loss holds a policy of several tokens, and what baselines make of its strength (theory 17).

A policy q writes sequences token by token; the base is p. The *leash in the reward* maximises ``E[r] - tau KL(q || p)`` of
whole sequences and rests at the tilt ``p e^(r / tau)``. The *leash as a loss*, as GRPO implementations have it, adds
``tau sum_t KL(q_t || p_t)`` along sampled tokens and differentiates the next-token distributions, not which prefixes are
visited. It rests where, at every prefix, ``q_t ~ p_t e^(V_(t+1) / tau)`` with V the success to come under q itself:

    q(y) = p(y) exp((r(y) - V_0) / tau + K(y)),   K(y) = sum_t KL(q_t || p_t) along y,

a tilt by the reward *and* by the KL that the path spends. For one decision K is the same for all and both leashes agree.
A tree of tokens is an array of sequence probabilities ``(..., A^L)`` in lexicographic order: A tokens, L decisions;
a shorter sequence is one with sure tokens at its end. Source: own derivation; statements `leash-loss-*`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, logsumexp

from fstsim.errors import InputError
from fstsim.theory.group_normalised import group_drift_bounds, group_normalised_drift
from fstsim.theory.numerics.inputs import finite, mass, positive

Array = NDArray[np.float64]
Baseline = Literal["centred", "leave-one-out", "normalised"]
Leash = Literal["reward", "loss"]
_STEP, _CLIMB, _HALVINGS = 0.125, 600, 50  # log-odds
_SURE = 34.0  # log-odds beyond which a success probability is 1 in float64


def token_tree(base: ArrayLike, tokens: int) -> tuple[Array, int]:
    """Sequence probabilities ``(..., A^L)``, checked, and the number of decisions L."""
    p = np.asarray(base, dtype=np.float64)
    if tokens < 2:
        raise InputError(f"tokens must be at least 2, got {tokens}")
    size = p.shape[-1] if p.ndim else 0
    length = round(np.log(size) / np.log(tokens)) if size else 0
    if length < 1 or tokens**length != size:
        raise InputError(f"base must have {tokens}^L sequences on its last axis, got {size}")
    if not ((p >= 0.0).all() and np.allclose(p.sum(axis=-1), 1.0, rtol=0.0, atol=1e-9)):
        raise InputError("base must hold probabilities that sum to 1 over sequences")
    return p, length


def token_decisions(policy: Array, tokens: int, length: int) -> list[Array]:
    """Next-token distributions ``(..., A^t, A)`` after every prefix of t tokens; uniform where the prefix has no mass."""
    found = []
    for t in range(length):
        masses = policy.reshape(*policy.shape[:-1], tokens**t, tokens, -1).sum(axis=-1)
        total = masses.sum(axis=-1, keepdims=True)
        found.append(np.where(total > 0.0, masses / np.where(total > 0.0, total, 1.0), 1.0 / tokens))
    return found


Decision = Callable[[Array, Array, Array], Array]
"""``decide(given, value, strength)``: next-token probabilities ``(..., A)`` at every prefix, from those of the base, the value
to come after each token, and the strength of the leash ``(..., 1, 1)``."""


def rest_from_last_token(base: ArrayLike, reward: ArrayLike, tau: ArrayLike, tokens: int, decide: Decision) -> Array:
    """Sequence probabilities ``(..., A^L)`` of a policy that decides by ``decide`` at every prefix, from the last token to the first.

    ``value`` at a prefix is the mean of that after its tokens, and the reward at the end. Arguments and errors as in
    `leash_loss_policy`.
    """
    p, length = token_tree(base, tokens)
    value, strength = finite(reward, "reward"), positive(tau, "tau")[..., None, None]
    p, value = np.broadcast_arrays(p, value)
    chosen = []
    for given in reversed(token_decisions(p, tokens, length)):
        value = value.reshape(given.shape)
        q = decide(given, value, strength)
        value = (q * value).sum(axis=-1)
        chosen.append(q)
    policy = np.ones((*p.shape[:-1], 1))
    for q in reversed(chosen):
        policy = (policy[..., None] * q).reshape(*q.shape[:-2], -1)
    return policy


def _tilted(given: Array, value: Array, strength: Array) -> Array:
    tilted = given * np.exp((value - value.max(axis=-1, keepdims=True)) / strength)
    return np.asarray(tilted / tilted.sum(axis=-1, keepdims=True))


def leash_loss_policy(base: ArrayLike, reward: ArrayLike, tau: ArrayLike, tokens: int = 2) -> Array:
    r"""Sequence probabilities ``(..., A^L)`` at which the leash as a loss rests.

    From the last token to the first ``q_t(a) ~ p_t(a) e^(V_(t+1)(a) / tau)``, ``V_t = sum_a q_t(a) V_(t+1)(a)``, ``V_L = r``;
    the only rest with the support of the base. ``base`` and ``reward (..., A^L)``, ``tau (...)`` in units of reward a nat.
    Statement `leash-loss-prefix` [T]. Raises InputError on what is no tree or no probability, and unless tau is positive.

    >>> leash_loss_policy([0.9, 0.05, 0.025, 0.025], [0, 0, 0, 1], 0.25).round(3).tolist()
    [0.258, 0.014, 0.013, 0.715]
    """
    return rest_from_last_token(base, reward, tau, tokens, _tilted)


def sequence_tilt(base: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Array:
    """Where the leash in the reward rests: ``p e^(r / tau)``, normalised; ``base`` and ``reward (..., S)``, ``tau (...)``.

    >>> sequence_tilt([0.9, 0.05, 0.025, 0.025], [0, 0, 0, 1], 0.25).round(3).tolist()
    [0.385, 0.021, 0.011, 0.583]
    """
    r, strength = finite(reward, "reward"), positive(tau, "tau")[..., None]
    tilted = np.asarray(base, dtype=np.float64) * np.exp((r - r.max(axis=-1, keepdims=True)) / strength)
    return tilted / tilted.sum(axis=-1, keepdims=True)


def leash_path_kl(policy: ArrayLike, base: ArrayLike, tokens: int = 2) -> Array:
    """``K(y) = sum_t KL(q_t || p_t)`` along every sequence, nats, ``(..., A^L)``: what the leash as a loss shows for it."""
    q, length = token_tree(policy, tokens)
    p, _ = token_tree(base, tokens)
    total = np.zeros(np.broadcast_shapes(q.shape, p.shape))
    for t, (a, b) in enumerate(
        zip(token_decisions(q, tokens, length), token_decisions(p, tokens, length), strict=True)
    ):
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(a > 0.0, a * (np.log(a) - np.log(b)), 0.0)
        total = total + np.repeat(terms.sum(axis=-1), tokens ** (length - t), axis=-1)
    return total


def leash_loss_value_bounds(base: ArrayLike, reward: ArrayLike, tau: ArrayLike, tokens: int = 2) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the expected reward at rest, ``W <= V <= W + L D^2 / (8 tau)``, from the base alone.

    ``W = tau log E_p e^(r / tau)`` is the most that ``E[r] - tau KL`` can be, L the number of decisions and D the range of
    the reward. Statement `leash-loss-bracket` [T]. Errors as `leash_loss_policy`.
    """
    p, length = token_tree(base, tokens)
    r, strength = finite(reward, "reward"), positive(tau, "tau")
    least = strength * logsumexp(r / strength[..., None], b=p, axis=-1)
    return least, np.minimum(least + length * np.ptp(r, axis=-1) ** 2 / (8.0 * strength), r.max(axis=-1))


def leash_loss_answer(token_masses: ArrayLike, tau: ArrayLike) -> Array:
    r"""Success at rest where one answer of L tokens is right: ``V_t = q_t V_(t+1)``, ``q_t = sigmoid(logit p_t + V_(t+1) / tau)``.

    ``token_masses (..., L)`` are the base's masses of its tokens, each given those before; 1 is no decision. ``tau (...)``.

    >>> leash_loss_answer([0.5, 0.2], [0.5, 1e9]).round(3).tolist()
    [0.51, 0.1]
    """
    p, strength = np.asarray(token_masses, dtype=np.float64), positive(tau, "tau")
    if p.ndim < 1 or not ((p > 0.0) & (p <= 1.0)).all():
        raise InputError("token_masses must lie in (0, 1] and have tokens on the last axis; 1 marks no decision")
    value = np.ones(np.broadcast_shapes(p.shape[:-1], strength.shape))
    for t in range(p.shape[-1] - 1, -1, -1):
        value = expit(logit(p[..., t]) + value / strength) * value
    return value


def leash_loss_answer_bounds(token_masses: ArrayLike, tau: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on `leash_loss_answer`: the sequence tilt, and every token tilted by ``1 / tau``.

    ``sigmoid(logit P + 1 / tau) <= V <= prod_t sigmoid(logit p_t + 1 / tau)``, P the product of the masses; equal for one
    decision. Statement `leash-loss-answer` [T].
    """
    p, strength = np.asarray(token_masses, dtype=np.float64), positive(tau, "tau")
    return (
        expit(logit(p.prod(axis=-1)) + 1.0 / strength),
        expit(logit(p) + 1.0 / strength[..., None]).prod(axis=-1),
    )


def _group(group_size: ArrayLike) -> Array:
    size = np.asarray(group_size, dtype=np.float64)
    if not ((size >= 2.0) & (size == np.floor(size))).all():
        raise InputError(f"group_size must be whole and at least 2, got {group_size!r}")
    return size


def effective_tau(tau: ArrayLike, group_size: ArrayLike, baseline: Baseline, leash: Leash) -> Array:
    r"""The tau that a leash of strength ``tau`` has in effect, in groups of G rollouts.

    A centred reward contains the rollout's own, which multiplies the reward's gradient by ``(G - 1) / G``. A leash in the
    reward is scaled with it; a leash as a loss is not, and has ``tau G / (G - 1)``. Leave-one-out scales nothing. What the
    standard deviation does depends on the success: `normalised_tau`. Statement `leash-loss-baseline` [T].

    >>> round(float(effective_tau(0.35, 8, "centred", "loss")), 12)
    0.4
    """
    strength, size = positive(tau, "tau"), _group(group_size)
    if baseline not in ("centred", "leave-one-out"):
        raise InputError(f"baseline must be centred or leave-one-out, got {baseline!r}; normalised has normalised_tau")
    if leash not in get_args(Leash):
        raise InputError(f"leash must be reward or loss, got {leash!r}")
    scaled = baseline == "centred" and leash == "loss"
    return strength * (size / (size - 1.0) if scaled else np.ones(size.shape))


def normalised_tau(tau: ArrayLike, success: ArrayLike, group_size: ArrayLike) -> Array:
    r"""Effective tau of a leash as a loss beside group-normalised advantages, at a success probability p in (0, 1).

    ``tau p (1 - p) / E sqrt(X (1 - X))``, X the mean reward of a group (binary): a policy of any form at rest is one with
    this tau and the plain gradient. At most ``tau`` (reached for G = 2), ``tau / sqrt(G - 1)`` where
    success is rare or sure. Statement `leash-loss-baseline-normalised` [T].
    """
    p, size = mass(success, "success"), _group(group_size)
    return positive(tau, "tau") * p * (1.0 - p) / group_normalised_drift(p, size)


def normalised_tau_bounds(tau: ArrayLike, success: ArrayLike, group_size: ArrayLike) -> tuple[Array, Array]:
    """``(lower, upper)`` on `normalised_tau`, without a sum over groups: from `group_drift_bounds`."""
    p, size = mass(success, "success"), _group(group_size)
    low, high = group_drift_bounds(p, size)
    plain = positive(tau, "tau") * p * (1.0 - p)
    return plain / high, plain / low


def normalised_leash_answer(token_masses: ArrayLike, tau: ArrayLike, group_size: int, *, prefix: bool = False) -> Array:
    r"""Success at rest where one answer of L tokens is right and advantages are group-normalised: the least V with V = f(tau_eff(V)).

    f is `leash_loss_answer`, or with ``prefix`` (the gradient through the prefixes) the sequence tilt; tau_eff is
    `normalised_tau` at V itself. Training that begins at the base comes to the least root first. ``token_masses (..., L)`` with
    a product below 1, ``tau (...)``. Statements `leash-loss-baseline-normalised`, `leash-loss-answer`.

    >>> normalised_leash_answer([0.5, 0.2], [0.5, 2.0], 8).round(3).tolist()
    [0.969, 0.246]
    """
    p, strength = np.asarray(token_masses, dtype=np.float64), positive(tau, "tau")
    leash_loss_answer(p, strength)  # checks both
    start = logit(np.broadcast_to(p.prod(axis=-1), np.broadcast_shapes(p.shape[:-1], strength.shape)))

    def excess(x: Array) -> Array:
        at = normalised_tau(strength, expit(x), group_size)
        low = expit(logit(p.prod(axis=-1)) + 1.0 / at) if prefix else leash_loss_answer(p, at)
        return np.asarray(low - expit(x))

    # upwards from the base in log-odds until the rest falls behind; then by halves
    low = high = start
    open_ = np.ones(start.shape, dtype=bool)
    for x in start + np.arange(1, _CLIMB + 1).reshape(-1, *[1] * start.ndim) * _STEP:
        at = np.minimum(x, _SURE)
        behind = (excess(at) <= 0.0) | (at >= _SURE)
        high = np.where(open_ & behind, at, high)
        open_ &= ~behind
        low = np.where(open_, at, low)
        if not open_.any():
            break
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        ahead = excess(middle) > 0.0
        low, high = np.where(ahead, middle, low), np.where(ahead, high, middle)
    return expit(0.5 * (low + high))
