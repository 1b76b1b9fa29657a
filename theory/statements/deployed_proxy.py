"""Statements of section 20.2: what a proxy-tuned model has learned and forgotten, from what its small expert has."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from fstsim.theory.deployed import proxy_log_normaliser, proxy_log_odds, proxy_tilt_strength
from fstsim.theory.statements.deployed import divergence, sample_systems, success_log_odds
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_deployed_proxy.py"
_SOURCE = "own derivation; proxy-tuning is arXiv 2401.08565, the tilt is used token by token in 2310.12962"
_TOKENS, _VOCABULARY = 3, 5


# --- log-odds of whole answers ----------------------------------------------------------------------------------------


def sample_answers(rng: np.random.Generator, n: int) -> Sample:
    """Next-token logits ``(n, 2, T, V)`` of three models along two answers of three tokens, which share the first prefix.

    The first answer is tokens 0, 0, 0, the second 1, 0, 0: which tokens they are is a matter of their numbers. Scales from
    0.01 to 100 nats, alpha from -3 to 4 with 0 and 1 among them.
    """
    size = (n, 2, _TOKENS, _VOCABULARY)
    sample = {name: log_uniform(rng, 0.01, 100.0, (n, 1, 1, 1)) * rng.standard_normal(size) for name in _MODELS}
    for logits in sample.values():
        logits[:, 1, 0] = logits[:, 0, 0]
    return sample | {"alpha": np.where(rng.random(n) < 0.1, rng.integers(0, 2, n), rng.uniform(-3.0, 4.0, n))}


_MODELS = ("big", "expert", "anti")
_FIRST = np.array([[0, 0, 0], [1, 0, 0]])[None, :, :, None]


def answer_log_odds(logits: Array) -> Array:
    """Log-odds ``(n,)`` of the first answer against the second, nats."""
    picked = np.take_along_axis(log_softmax(logits, axis=-1), np.broadcast_to(_FIRST, (*logits.shape[:-1], 1)), axis=-1)
    own = picked[..., 0].sum(axis=-1)
    return np.asarray(own[:, 0] - own[:, 1])


def log_normalisers(big: Array, expert: Array, anti: Array, alpha: Array) -> Array:
    """The sum of log Z along the first answer less that along the second, ``(n,)``, nats."""
    large, tuned, before = (log_softmax(logits, axis=-1) for logits in (big, expert, anti))
    found = proxy_log_normaliser(large, tuned, before, alpha[:, None, None])
    return np.asarray(found.sum(axis=-1) @ np.array([1.0, -1.0]))


def _affine(big: Array, expert: Array, anti: Array, alpha: Array) -> Bounds:
    odds = [answer_log_odds(logits) for logits in (big, expert, anti)]
    return same(proxy_log_odds(odds[0], odds[1], odds[2], alpha, log_normalisers(big, expert, anti, alpha)))


def _derive_affine() -> Derivation:
    alpha = sp.symbols("alpha", real=True)
    p = sp.symbols("p1:5", positive=True)  # of the large model: first tokens a and b, then the second tokens
    r = sp.symbols("r1:5", positive=True)  # ratio of expert and anti-expert there
    z, za, zb = sp.symbols("Z Za Zb", positive=True)  # any normalisers: of the first prefix, behind a, behind b
    q = [p[0] * r[0] ** alpha / z, p[1] * r[1] ** alpha / z, p[2] * r[2] ** alpha / za, p[3] * r[3] ** alpha / zb]
    odds = sp.log(q[0] * q[2] / (q[1] * q[3]))
    affine = sp.log(p[0] * p[2] / (p[1] * p[3])) + alpha * sp.log(r[0] * r[2] / (r[1] * r[3]))
    bent = sp.log(z) + sp.log(za) - sp.log(z) - sp.log(zb)
    return symbolic(
        ("each token is p_M (p+ / p-)^alpha / Z of its prefix", "the normaliser of a shared prefix cancels"),
        [sp.expand_log(odds - affine + bent, force=True)],
    )


AFFINE = Statement(
    slug="proxy-affine",
    title="Proxy-tuning moves log-odds affinely in alpha, token by token; whole answers are bent by their normalisers",
    status="T",
    kind="identity",
    hypotheses="s log-odds of two answers under the large model M, the expert + and the anti-expert -, all of which give every token a probability",
    latex=r"\tilde s=s_M+\alpha(s_+-s_-)-\Big(\sum_{t\in a}\log Z_t-\sum_{t\in b}\log Z_t\Big),\quad Z_t=\mathbb E_{p_M}\big[(p_+/p_-)^\alpha\big]",
    derive=_derive_affine,
    sample=sample_answers,
    exact=lambda big, expert, anti, alpha: answer_log_odds(big + alpha[:, None, None, None] * (expert - anti)),
    bound=_affine,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-6,
)


# --- sign and size of a normaliser --------------------------------------------------------------------------------------


def sample_experts(rng: np.random.Generator, n: int) -> Sample:
    """Six tokens of the large model, which is the anti-expert too; what the expert adds to each, 0.03 to 50 nats; alpha."""
    logits = log_uniform(rng, 0.1, 50.0, (n, 1)) * rng.standard_normal((n, 6))
    shift = log_uniform(rng, 0.03, 50.0, (n, 1)) * rng.standard_normal((n, 6))
    return {"base": log_softmax(logits, axis=-1), "shift": shift, "alpha": rng.uniform(-3.0, 4.0, n)}


def _expert(base: Array, shift: Array) -> Array:
    return np.asarray(log_softmax(base + shift, axis=-1))


def _tangents(base: Array, shift: Array, alpha: Array) -> Bounds:
    away = divergence(_expert(base, shift), -shift)  # KL(M || expert)
    back = divergence(base, shift)  # KL(expert || M)
    return np.maximum(-alpha * away, (alpha - 1.0) * back), None


def _log_mean_exp(base: Array, change: Array) -> Array:
    """log E_M e^change; exact also where nearly all mass is on one token, on which ``change`` is 0."""
    with np.errstate(over="ignore"):
        gained = (np.exp(base) * np.expm1(change)).sum(axis=-1)
    return np.asarray(np.where(gained < 1e100, np.log1p(np.minimum(gained, 1e100)), logsumexp(base + change, axis=-1)))


def _log_normaliser(base: Array, shift: Array, alpha: Array) -> Array:
    """`proxy_log_normaliser` from what the expert adds, which keeps its digits where log-probabilities do not."""
    shift = shift - np.take_along_axis(shift, base.argmax(axis=-1)[:, None], axis=-1)
    return np.asarray(_log_mean_exp(base, alpha[:, None] * shift) - alpha * _log_mean_exp(base, shift))


NORMALISER = Statement(
    slug="proxy-normaliser",
    title="Where the anti-expert is the large model, a token's normaliser lies above its tangents at alpha 0 and 1",
    status="T",
    kind="bound",
    hypotheses="one prefix; p- = p_M; p+ and p_M give every token a probability; any real alpha",
    latex=r"\log Z(\alpha)\ \ge\ \max\{-\alpha\,\mathrm{KL}(p_M\Vert p_+),\ (\alpha-1)\,\mathrm{KL}(p_+\Vert p_M)\},\quad\log Z\le 0\text{ for }0\le\alpha\le1",
    derive=lambda: nothing(
        "log Z is the cumulant generating function of log p+/p_M under p_M: convex, 0 at alpha 0 and at alpha 1",
        "its slopes there are -KL(p_M || p+) and KL(p+ || p_M): a convex function lies above its tangents, below its chord",
    ),
    sample=sample_experts,
    exact=_log_normaliser,
    bound=_tangents,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-7,
)


# --- the tilt ---------------------------------------------------------------------------------------------------------


def sample_proxies(rng: np.random.Generator, n: int) -> Sample:
    """Two models over six completions, of which some are right; the leash of the expert, 0.01 to 100; alpha up to 4."""
    x = sample_systems(rng, n)
    return {
        "base": x["base"],
        "anti": sample_systems(rng, n)["base"],
        "right": x["right"],
        "tau": log_uniform(rng, 0.01, 100.0, n),
        "alpha": log_uniform(rng, 0.01, 4.0, n),
    }


def _combined_odds(base: Array, anti: Array, right: Array, tau: Array, alpha: Array) -> Array:
    expert = anti + right / tau[:, None]
    expert = expert - logsumexp(expert, axis=-1, keepdims=True)
    return success_log_odds(base + alpha[:, None] * (expert - anti), right)


def _tilted(base: Array, anti: Array, right: Array, tau: Array, alpha: Array) -> Bounds:  # noqa: ARG001
    return same(success_log_odds(base, right) + 1.0 / proxy_tilt_strength(tau, alpha))


def _derive_tilt() -> Derivation:
    alpha, tau, r, s = sp.symbols("alpha tau r s", positive=True)
    a, b, c, d, z = sp.symbols("a b c d Z", positive=True)  # two completions under M, and under the anti-expert
    expert = [c * sp.exp(r / tau) / z, d * sp.exp(s / tau) / z]
    odds = sp.log(a * (expert[0] / c) ** alpha) - sp.log(b * (expert[1] / d) ** alpha)
    tilt = sp.log(a * sp.exp(alpha * r / tau)) - sp.log(b * sp.exp(alpha * s / tau))
    return symbolic(
        ("the ratio of expert and anti-expert is e^(r/tau) / Z: the anti-expert itself drops out",),
        [sp.expand_log(odds - tilt, force=True)],
    )


TILT = Statement(
    slug="proxy-tilt",
    title="An expert that is the leashed optimum of a small model makes the large one its own, with leash tau / alpha",
    status="T",
    kind="identity",
    hypotheses="one choice among whole completions (labelled space), rewards r, p+ the tilt of p- at leash tau; alpha > 0; p- > 0",
    latex=r"p_+\propto p_-e^{r/\tau}\ \Rightarrow\ p_M(p_+/p_-)^\alpha\propto p_Me^{\alpha r/\tau}",
    derive=_derive_tilt,
    sample=sample_proxies,
    exact=_combined_odds,
    bound=_tilted,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-6,
)

STATEMENTS = (AFFINE, NORMALISER, TILT)
