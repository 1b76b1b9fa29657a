"""Statements of section 20.3: a system that reads one of its memories is a mixture; what that does to mass, KL and reading."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from fstsim.theory.retrieval import retrieval_log_mass, softmax_reading_bounds
from fstsim.theory.statements.deployed import divergence
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_retrieval.py"
_SOURCE = "arXiv 2508.16153 (setting, equation 1); own derivation"
_CASES, _TOKENS, _OUTCOMES, _UPDATES = 5, 6, 6, 4


def _weights(rng: np.random.Generator, n: int) -> Array:
    """Log-weights of cases, ``(n, C)``: up to some hundred nats apart."""
    return log_softmax(log_uniform(rng, 1e-3, 200.0, (n, 1)) * rng.standard_normal((n, _CASES)), axis=-1)


def sample_chains(rng: np.random.Generator, n: int) -> Sample:
    """Weights of cases, and the log-probability of each token of one completion in each case's context, down to -300 nats."""
    scale = log_uniform(rng, 1e-3, 100.0, (n, 1, 1))
    return {"weights": _weights(rng, n), "tokens": -scale * rng.exponential(1.0, (n, _CASES, _TOKENS))}


def chained(weights: Array, tokens: Array) -> Array:
    """Minus log-probability of the completion, token by token: at each the cases are mixed by their posterior so far."""
    total = np.zeros(len(weights))
    for t in range(tokens.shape[-1]):
        total -= logsumexp(weights + tokens[..., t], axis=-1)
        weights = log_softmax(weights + tokens[..., t], axis=-1)
    return total


def _derive_mixture() -> Derivation:
    m, a, b, c, d = sp.symbols(
        "m a b c d", positive=True
    )  # weight of the first case; its two tokens; those of the second
    first = m * a + (1 - m) * c
    second = (m * a * b + (1 - m) * c * d) / first  # posterior weights m a / first and (1 - m) c / first
    return symbolic(
        (
            "the posterior weight of a case is prior times what it gave the tokens so far, over their sum: the sums telescope",
        ),
        [first * second - (m * a * b + (1 - m) * c * d)],
    )


MIXTURE = Statement(
    slug="retrieval-mixture",
    title="A system that reads one of its memories mixes masses: affine, and exact token by token",
    status="T",
    kind="identity",
    hypotheses="case c is read with probability mu_c, then the model answers in its context; any completion, hence any set of them",
    latex=r"\beta'=\sum_c\mu_c\beta_c,\qquad p(y_t\mid y_{<t})=\sum_c\mu_c(y_{<t})\,p_c(y_t\mid y_{<t}),\quad \mu_c(y_{<t})\propto\mu_c\,p_c(y_{<t})",
    derive=_derive_mixture,
    sample=sample_chains,
    exact=chained,
    bound=lambda weights, tokens: same(-retrieval_log_mass(weights, tokens.sum(axis=-1))),
    source=_SOURCE,
    test=_TEST,
)


def sample_mixtures(rng: np.random.Generator, n: int) -> Sample:
    """A base over six completions, weights of cases, and what each case adds to the base's log-probabilities."""
    logits = log_uniform(rng, 0.1, 100.0, (n, 1)) * rng.standard_normal((n, _OUTCOMES))
    shift = log_uniform(rng, 1e-3, 100.0, (n, 1, 1)) * rng.standard_normal((n, _CASES, _OUTCOMES))
    return {"base": log_softmax(logits, axis=-1), "weights": _weights(rng, n), "shift": shift}


def _of_cases(base: Array, shift: Array) -> Array:
    """KL(case || base) of each case, ``(n, C)``."""
    return np.stack([divergence(base, shift[:, c]) for c in range(shift.shape[1])], axis=-1)


def _mixed_divergence(base: Array, weights: Array, shift: Array) -> Array:
    """KL(mixture || base): the mixture's ratio to the base is the mean of the cases' ratios."""
    largest = np.take_along_axis(shift, base.argmax(axis=-1)[:, None, None], axis=-1)
    shift = shift - largest  # as in `divergence`: of the likeliest completion exactly 0
    with np.errstate(over="ignore"):
        gained = (np.exp(base)[:, None] * np.expm1(shift)).sum(axis=-1)
    norm = np.where(gained < np.inf, np.log1p(gained), logsumexp(base[:, None] + shift, axis=-1))
    return divergence(base, logsumexp(weights[..., None] + shift - norm[..., None], axis=1))


def _mixed_bounds(base: Array, weights: Array, shift: Array) -> Bounds:
    mu = np.exp(weights)
    mean = (mu * _of_cases(base, shift)).sum(axis=-1)
    # a case that is read nearly always has -log mu = -log1p(-the rest), which its own rounded weight has lost
    top = np.arange(weights.shape[-1]) == weights.argmax(axis=-1)[:, None]
    rest = np.where(top, 0.0, mu).sum(axis=-1)
    entropy = -np.where(top, 0.0, mu * weights).sum(axis=-1) - (1.0 - rest) * np.log1p(-rest)
    # the difference of two numbers of one size is known to some 1e-12 of them: rounding is no violation
    return np.maximum(mean - entropy - 1e-12 * (mean + entropy), 0.0), mean


MIXTURE_KL = Statement(
    slug="retrieval-mixture-kl",
    title="Reading by chance costs no more KL than its cases do on average, and at most the entropy of reading less",
    status="T",
    kind="bound",
    hypotheses="as retrieval-mixture; any base",
    latex=r"\sum_c\mu_c\,\mathrm{KL}(p_c\Vert p_0)-H(\mu)\ \le\ K_2=\mathrm{KL}(\sum_c\mu_cp_c\Vert p_0)\ \le\ \sum_c\mu_c\,\mathrm{KL}(p_c\Vert p_0)",
    derive=lambda: nothing(
        "KL is convex in its first argument",
        "the gap is sum mu KL(p_c || mixture), the information that an answer holds about its case: at most H(mu)",
    ),
    sample=sample_mixtures,
    exact=_mixed_divergence,
    bound=_mixed_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-7,
)


def sample_updates(rng: np.random.Generator, n: int) -> Sample:
    """Q in [0, 1] of five cases at the start and after each of four updates, and a temperature from 0.001 to 1000."""
    return {"q": rng.random((n, _UPDATES + 1, _CASES)), "alpha": log_uniform(rng, 1e-3, 1e3, n)}


def _surprise(logits: Array) -> Array:
    """Minus log-probability of the first case, exact where it is next to 0."""
    return np.asarray(np.logaddexp(0.0, logsumexp(logits[:, 1:], axis=-1) - logits[:, 0]))


def _exponentiated(q: Array, alpha: Array) -> Array:
    """Exponentiated weights: start at the first softmax, multiply by e^(change of Q over alpha), normalise, each time."""
    log_mu = log_softmax(q[:, 0] / alpha[:, None], axis=-1)
    for k in range(1, q.shape[1]):
        log_mu = log_softmax(log_mu + (q[:, k] - q[:, k - 1]) / alpha[:, None], axis=-1)
    return _surprise(log_mu)


def _derive_weights() -> Derivation:
    q1, q2, d1, d2 = sp.symbols("q1 q2 d1 d2", real=True)
    alpha = sp.symbols("alpha", positive=True)
    mu = sp.exp(q1 / alpha) / (sp.exp(q1 / alpha) + sp.exp(q2 / alpha))
    moved = mu * sp.exp(d1 / alpha) / (mu * sp.exp(d1 / alpha) + (1 - mu) * sp.exp(d2 / alpha))
    read = sp.exp((q1 + d1) / alpha) / (sp.exp((q1 + d1) / alpha) + sp.exp((q2 + d2) / alpha))
    return symbolic(("the normalisation of the old weights cancels",), [moved - read])


WEIGHTS = Statement(
    slug="retrieval-softmax-weights",
    title="Softmax reading of an updated Q is the exponentiated-weights rule",
    status="T",
    kind="identity",
    hypotheses="mu_k = softmax(Q_k / alpha) over the same cases; any sequence of Q; shown of one case",
    latex=r"\mu_{k+1}(c)\ \propto\ \mu_k(c)\,e^{(Q_{k+1}(c)-Q_k(c))/\alpha}",
    derive=_derive_weights,
    sample=sample_updates,
    exact=_exponentiated,
    bound=lambda q, alpha: same(_surprise(q[:, -1] / alpha[:, None])),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def sample_readings(rng: np.random.Generator, n: int) -> Sample:
    """Q in [0, 1] of up to 40 cases, often at its ends, and a temperature from 0.002 to 1000."""
    q = rng.random((n, 40))
    q = np.where(rng.random((n, 40)) < rng.random((n, 1)), np.round(q), q)
    q[:, 0] = np.where(rng.random(n) < 0.3, np.round(q[:, 0]), q[:, 0])
    return {"q": q, "alpha": log_uniform(rng, 2e-3, 1e3, n), "cases": rng.integers(1, 41, n).astype(np.float64)}


def _first_read(q: Array, alpha: Array, cases: Array) -> Array:
    there = np.arange(q.shape[1]) < cases[:, None]
    return np.asarray(np.exp(log_softmax(np.where(there, q / alpha[:, None], -np.inf), axis=-1)[:, 0]))


FLOOR = Statement(
    slug="retrieval-softmax-floor",
    title="Softmax reading keeps every case in reach: it cannot lock on the first that works",
    status="T",
    kind="bound",
    hypotheses="mu = softmax(Q / alpha) over C cases, Q in [0, 1], alpha > 0",
    latex=r"\frac1{1+(C-1)e^{1/\alpha}}\ \le\ \mu_c\ \le\ \frac1{1+(C-1)e^{-1/\alpha}}",
    derive=lambda: nothing(
        "mu_c = 1/(1 + sum over the others of e^((Q - Q_c)/alpha)), each term between e^(-1/alpha) and e^(1/alpha)"
    ),
    sample=sample_readings,
    exact=_first_read,
    bound=lambda q, alpha, cases: softmax_reading_bounds(alpha, cases),  # noqa: ARG005
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)

STATEMENTS = (MIXTURE, MIXTURE_KL, WEIGHTS, FLOOR)
