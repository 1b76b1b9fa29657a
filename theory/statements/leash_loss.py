"""Statements of section 17.1 and 17.2: where a KL leash as a loss rests, and which baselines change its strength."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logsumexp
from scipy.stats import binom

from fstsim.theory.leash_loss import (
    effective_tau,
    leash_loss_answer,
    leash_loss_answer_bounds,
    leash_loss_policy,
    leash_loss_value_bounds,
    leash_path_kl,
    normalised_tau_bounds,
)
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_leash_loss.py"
_SOURCE = "own derivation, on the KL term of GRPO (arXiv 2402.03300)"
_DECISIONS = 3
_SEQUENCES = 2**_DECISIONS
_ROUNDS = 50  # each leaves 0.4 of the error of the last token, and then of those before it


# --- any tree of tokens -----------------------------------------------------------------------------------------------


def sample_tree(rng: np.random.Generator, n: int) -> Sample:
    """Three decisions between two tokens; rewards of any sign on the eight sequences, half of the time only 0 and 1."""
    reward = rng.uniform(-1.0, 1.0, (n, _SEQUENCES))
    reward = np.where(rng.random((n, 1)) < 0.5, reward, np.floor(reward + 1.0))
    reward[:, -1] = np.maximum(reward[:, -1], 0.05)
    return {
        "base": rng.dirichlet(np.full(_SEQUENCES, 0.7), n) * 0.999 + 0.001 / _SEQUENCES,
        "reward": reward,
        "tau": log_uniform(rng, 0.15, 5.0, n),
    }


def binary_choices(policy: Array) -> list[Array]:
    """Log-odds ``(n, 2^t)`` of the second token after every prefix of t tokens."""
    found = []
    for t in range(_DECISIONS):
        masses = policy.reshape(len(policy), 2**t, 2, -1).sum(axis=-1)
        found.append(np.log(masses[..., 1]) - np.log(masses[..., 0]))
    return found


def binary_tree(choices: list[Array]) -> Array:
    """Probabilities of whole sequences, by their choices from the first to the last."""
    log_q = np.zeros((len(choices[0]), 1))
    for x in choices:
        both = np.stack((log_expit(-x), log_expit(x)), axis=-1)
        log_q = (log_q[..., None] + both).reshape(len(x), -1)
    return np.exp(log_q)


def _climb(base: Array, reward: Array, tau: Array) -> Array:
    r"""The policy to which gradient ascent leads when prefixes are drawn from it but only next tokens are differentiated.

    Per prefix h and in its log-odds x the gradient of ``E_q[r] - tau sum_h sg(q(h)) KL(q_h || p_h)`` is
    ``q(h) q_h (1 - q_h) [E(r | h, 1) - E(r | h, 0) - tau (x - x_p)]``; steps are divided by what stands before the brackets.
    """
    given = binary_choices(base)
    at = [x.copy() for x in given]
    rate = 1.0 / tau[:, None]
    for _ in range(_ROUNDS):
        q = binary_tree(at)
        won = q * reward
        steps = []
        for t, x in enumerate(at):
            mass = q.reshape(len(q), 2**t, 2, -1).sum(axis=-1)
            mean = won.reshape(len(q), 2**t, 2, -1).sum(axis=-1) / mass
            steps.append(mean[..., 1] - mean[..., 0] - tau[:, None] * (x - given[t]))
        at = [x + 0.6 * rate * step for x, step in zip(at, steps, strict=True)]
    return binary_tree(at)


def _odds(policy: Array, reward: Array) -> Array:
    """Expected reward, from 1 upward so that it never vanishes."""
    return 2.0 + (policy * reward).sum(axis=-1)


def _derive_prefix() -> Derivation:
    x, given, high, low, tau = sp.symbols("x x_p Q_1 Q_0 tau", real=True)
    q, p = 1 / (1 + sp.exp(-x)), 1 / (1 + sp.exp(-given))
    kl = q * sp.log(q / p) + (1 - q) * sp.log((1 - q) / (1 - p))
    slope = sp.diff(q * high + (1 - q) * low - tau * kl, x)
    return symbolic(
        ("d/dx [q Q_1 + (1 - q) Q_0 - tau KL(q || p)] = q (1 - q) [Q_1 - Q_0 - tau (x - x_p)]",),
        [sp.expand_log(sp.simplify(slope - q * (1 - q) * (high - low - tau * (x - given))), force=True)],
    )


PREFIX = Statement(
    slug="leash-loss-prefix",
    title="A KL leash as a loss tilts each token by the reward to come, without the leash to come",
    status="T",
    kind="identity",
    hypotheses="prefixes drawn from q, only next-token distributions differentiated; any finite tree of tokens and rewards",
    latex=r"\log\frac{q_t(a)}{p_t(a)}=\frac{V_{t+1}(a)-V_t}\tau+\mathrm{KL}(q_t\Vert p_t),\qquad V_t=E_{q_t}V_{t+1},\quad V_L=r",
    derive=_derive_prefix,
    sample=sample_tree,
    exact=lambda base, reward, tau: _odds(_climb(base, reward, tau), reward),
    bound=lambda base, reward, tau: same(_odds(leash_loss_policy(base, reward, tau), reward)),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _log_ratio(base: Array, reward: Array, tau: Array) -> Array:
    """Of the last sequence's probability at rest to the base's, found by ascent."""
    return _climb(base, reward, tau)[:, -1] / base[:, -1]


def _spent(base: Array, reward: Array, tau: Array) -> Bounds:
    q = leash_loss_policy(base, reward, tau)
    weight = reward / tau[:, None] + leash_path_kl(q, base)
    return same(np.exp(weight[:, -1] - logsumexp(weight, b=base, axis=-1)))


def _derive_spent() -> Derivation:
    return nothing(
        "log q_t(a) / p_t(a) = (V_(t+1)(a) - V_t) / tau + KL(q_t || p_t): the average over q_t fixes the constant",
        "summed along y the V telescope to r(y) - V_0",
    )


SPENT = Statement(
    slug="leash-loss-spent",
    title="A KL leash as a loss is a tilt that also rewards the KL which the path spends",
    status="T",
    kind="identity",
    hypotheses="as leash-loss-prefix; K(y) the sum of KL(q_t || p_t) along y",
    latex=r"q(y)=p(y)\,e^{(r(y)-V_0)/\tau+K(y)},\qquad \frac{q(y)}{q(y')}\Big/\frac{q_{\rm tilt}(y)}{q_{\rm tilt}(y')}=e^{K(y)-K(y')}",
    derive=_derive_spent,
    sample=sample_tree,
    exact=_log_ratio,
    bound=_spent,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)


def _sample_positive_tree(rng: np.random.Generator, n: int) -> Sample:
    """Rewards between 0 and 1, one of each, so that the bound is no difference of near-equal numbers."""
    x = sample_tree(rng, n)
    x["reward"] = np.abs(x["reward"])
    x["reward"][:, -1] = 1.0
    return x


BRACKET = Statement(
    slug="leash-loss-bracket",
    title="Under a KL leash as a loss the reward at rest lies above the leashed optimum, by at most L D^2 / (8 tau)",
    status="T",
    kind="bound",
    hypotheses="as leash-loss-prefix; L decisions, rewards within a range D; W the optimum of E[r] - tau KL",
    latex=r"W\le V_0\le W+\frac{LD^2}{8\tau},\qquad W=\tau\log E_p\,e^{r/\tau}",
    derive=lambda: nothing(
        "e^(V_0 / tau) = E_p e^(r / tau + K) with 0 <= K",
        "KL of an exponential tilt by a function of range D / tau is at most D^2 / (8 tau^2): Hoeffding",
    ),
    sample=_sample_positive_tree,
    exact=lambda base, reward, tau: (_climb(base, reward, tau) * reward).sum(axis=-1),
    bound=leash_loss_value_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


# --- one right answer -------------------------------------------------------------------------------------------------


def _derive_answer() -> Derivation:
    p, rest, tau = sp.symbols("p P tau", positive=True)
    soft = tau * sp.log(1 - rest + rest * sp.exp(1 / tau))
    chosen = p * sp.exp(soft / tau) / (1 - p + p * sp.exp(soft / tau))
    tilt = rest * sp.exp(1 / tau) / (1 - rest + rest * sp.exp(1 / tau))
    whole = p * rest * sp.exp(1 / tau) / (1 - p * rest + p * rest * sp.exp(1 / tau))
    return symbolic(
        ("the tilt factorises: sigmoid(logit p + W / tau) times the tilt of the rest, W the soft value of the rest",),
        [chosen * tilt - whole],
    )


ANSWER = Statement(
    slug="leash-loss-answer",
    title="One right answer: a KL leash as a loss holds more of it than the tilt, the same for one decision",
    status="T",
    kind="bound",
    hypotheses="reward 1 for one answer of L tokens of base masses p_t, 0 for all others",
    latex=r"\sigma\big(\mathrm{logit}\textstyle\prod_tp_t+\tfrac1\tau\big)\le V_0\le\prod_t\sigma\big(\mathrm{logit}\,p_t+\tfrac1\tau\big),\quad V_t=q_tV_{t+1},\ q_t=\sigma\big(\mathrm{logit}\,p_t+\tfrac{V_{t+1}}\tau\big)",
    derive=_derive_answer,
    sample=lambda rng, n: {
        "token_masses": expit(rng.uniform(-4.0, 4.0, (n, rng.integers(1, 7)))),
        "tau": log_uniform(rng, 0.1, 5.0, n),
    },
    exact=leash_loss_answer,
    bound=leash_loss_answer_bounds,
    source=_SOURCE,
    test=_TEST,
)


# --- what baselines do ------------------------------------------------------------------------------------------------


def _sample_baseline(rng: np.random.Generator, n: int) -> Sample:
    base = rng.uniform(-5.0, 2.0, n)
    # the success at rest, and with it the strength that holds it there: no root has to be found
    return {
        "base_log_odds": base,
        "log_odds": base + log_uniform(rng, 0.05, 6.0, n),
        "group_size": rng.integers(2, 17, n).astype(float),
    }


def _group_gradient(log_odds: Array, group_size: Array, kind: str) -> Array:
    """Expected ``(1 / G) sum A_i d log q(y_i) / dx`` of groups of a binary reward: every number of successes in turn."""
    p, total = expit(log_odds), np.zeros(log_odds.shape)
    for k in range(1, int(group_size.max())):
        mean = np.where(k < group_size, k / group_size, 0.5)  # past the end nothing counts
        good, bad = 1.0 - mean, -mean
        if kind == "leave-one-out":
            good, bad = 1.0 - (k - 1.0) / (group_size - 1.0), -k / (group_size - 1.0)
        if kind == "normalised":
            spread = np.sqrt(mean * (1.0 - mean))
            good, bad = good / spread, bad / spread
        update = mean * good * (1.0 - p) - (1.0 - mean) * bad * p
        total += np.where(k < group_size, binom.pmf(k, group_size, p) * update, 0.0)
    return total


def _strength(base_log_odds: Array, log_odds: Array, group_size: Array, kind: str) -> Array:
    """Strength of the leash as a loss at which the expected update vanishes at ``log_odds``."""
    slope = np.exp(log_expit(log_odds) + log_expit(-log_odds)) * (log_odds - base_log_odds)
    return _group_gradient(log_odds, group_size, kind) / slope


def _at_rest(base_log_odds: Array, log_odds: Array, group_size: Array) -> Array:  # noqa: ARG001
    """The tau whose tilt this success is."""
    return 1.0 / (log_odds - base_log_odds)


def _baseline(base_log_odds: Array, log_odds: Array, group_size: Array) -> Bounds:
    own, others = (
        effective_tau(_strength(base_log_odds, log_odds, group_size, kind), group_size, kind, "loss")
        for kind in ("centred", "leave-one-out")
    )
    return np.maximum(own, others), np.minimum(own, others)


def _derive_baseline() -> Derivation:
    g, own, others = sp.symbols("G r m", positive=True)
    mean = (own + (g - 1) * others) / g
    return symbolic(
        (
            "r - (r + (G - 1) m) / G = (G - 1) / G (r - m), m the mean of the others, which is independent of the rollout",
        ),
        [own - mean - (g - 1) / g * (own - others)],
    )


BASELINE = Statement(
    slug="leash-loss-baseline",
    title="Centred advantages weaken the reward beside a KL leash as a loss: its tau is tau G / (G - 1)",
    status="T",
    kind="identity",
    hypotheses="groups of G independent rollouts, one on-policy update; with leave-one-out, or a leash in the reward, tau stays",
    latex=r"E\tfrac1G\sum_iA_i\nabla\log q(y_i)=\tfrac{G-1}G\nabla E[r]\ \Rightarrow\ \tau_{\rm eff}=\tfrac G{G-1}\tau\ (\text{centred, as a loss})",
    derive=_derive_baseline,
    sample=_sample_baseline,
    exact=_at_rest,
    bound=_baseline,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _normalised(base_log_odds: Array, log_odds: Array, group_size: Array) -> Bounds:
    strength = _strength(base_log_odds, log_odds, group_size, "normalised")
    return normalised_tau_bounds(strength, expit(log_odds), group_size)


NORMALISED = Statement(
    slug="leash-loss-baseline-normalised",
    title="Group-normalised advantages weaken a KL leash as a loss, up to sqrt(G - 1) times, most where success is rare or sure",
    status="T",
    kind="bound",
    hypotheses="binary reward, groups of G independent rollouts, one on-policy update; p the success at rest, y = p (1 - p)",
    latex=r"\tau\max\Big\{\tfrac1{\sqrt{G-1}},\sqrt{\tfrac{Gy}{G-1}}\Big\}\le\tau_{\rm eff}=\frac{\tau y}{E\sqrt{X(1-X)}}\le\tau\frac{\sqrt{G-1+(G-2)(G-3)y}}{G-1}\le\tau",
    derive=lambda: nothing(
        "the update of a group is sqrt(X (1 - X)) along grad p / (p (1 - p)); its bounds are those of groups"
    ),
    sample=_sample_baseline,
    exact=_at_rest,
    bound=_normalised,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)

STATEMENTS = (PREFIX, SPENT, BRACKET, ANSWER, BASELINE, NORMALISED)
