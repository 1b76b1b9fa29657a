"""Statements on replay with gradients clipped by their norm: answers of several tokens, batches of several prompts."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.stats import binom

from fstsim.theory.clipping_tokens import clipped_prompts_bounds, clipped_prompts_mass, clipped_tokens_mass
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_clipping_tokens.py"
_SOURCE = "Huber (1964) for the estimate; own derivation"
_TOKENS = 3
_NEWTON, _CUTS = 80, 20


# --- one prompt, several tokens -------------------------------------------------------------------------------------------


def _sample_tokens(rng: np.random.Generator, n: int) -> Sample:
    share, batch = rng.uniform(0.01, 0.99, n), rng.integers(1, 13, n).astype(np.float64)
    # as far down as the rest is one point, and not an interval
    least = np.sqrt(_TOKENS * share * (1.0 - share) / batch)
    return {
        "share": share,
        "batch": batch,
        "clip": least * np.exp(rng.uniform(0.0, 1.0, n) * np.log(1.2 * np.sqrt(_TOKENS) / least)),
        "start": rng.uniform(0.02, 0.98, (n, _TOKENS)),
    }


def _loss(masses: Array, ratio: Array, chance: Array, clip: Array) -> Array:
    """Mean over batches of Huber's loss of the distance of the masses ``(n, L)`` from K / N."""
    far = np.linalg.norm(masses[:, None, :] - ratio[..., None], axis=-1)
    c = clip[:, None]
    return np.asarray((chance * np.where(far <= c, 0.5 * far * far, c * (far - 0.5 * c))).sum(-1))


def _descend(share: Array, batch: Array, clip: Array, start: Array) -> Array:
    """Masses ``(n, L)`` at rest, from where they start: Newton's steps on the mean of Huber losses, damped."""
    k = np.arange(batch.max() + 1.0)
    chance = np.where(k <= batch[:, None], binom.pmf(k, batch[:, None], share[:, None]), 0.0)
    ratio = k / batch[:, None]
    at, here, rows = start.copy(), np.eye(_TOKENS), np.arange(len(start))
    for _ in range(_NEWTON):
        y, shares, chances, c = at[rows], ratio[rows], chance[rows], clip[rows]
        gap = y[:, None, :] - shares[..., None]
        far = np.linalg.norm(gap, axis=-1)
        cut = far > c[:, None]
        weight = np.where(cut, c[:, None] / np.where(cut, far, 1.0), 1.0) * chances
        slope = (weight[..., None] * gap).sum(1)
        along = np.where(cut, weight / np.where(cut, far * far, 1.0), 0.0)
        curve = weight.sum(1)[:, None, None] * here - np.einsum("nk,nki,nkj->nij", along, gap, gap)
        newton = np.linalg.solve(curve + 1e-13 * here, slope[..., None])[..., 0]
        value, size = _loss(y, shares, chances, c), 1.0 / np.maximum(1.0, np.linalg.norm(newton, axis=1))
        worse = np.arange(len(y))
        for _ in range(_CUTS):
            trial = y[worse] - size[worse, None] * newton[worse]
            worse = worse[_loss(trial, shares[worse], chances[worse], c[worse]) > value[worse]]
            if worse.size == 0:
                break
            size[worse] *= 0.5
        # where the loss is straight, its own slope: a step of 1 never makes it worse, since its slope changes by at most 1
        step = size[:, None] * newton
        step[worse] = slope[worse]
        at[rows] = y - step
        rows = rows[(at[rows] != y).any(axis=1)]  # a step that changes nothing would change nothing again
        if rows.size == 0:
            break
    return at


def _derive_tokens() -> Derivation:
    b1, b2, r, c, n = sp.symbols("b1 b2 r c L", positive=True)
    far = sp.sqrt((b1 - r) ** 2 + (b2 - r) ** 2)
    return symbolic(
        (
            "the clipped gradient is that of Huber's loss of the distance",
            "at equal masses the weight is min(1, (c / sqrt L) / |beta - K/N|)",
        ),
        [
            sp.diff(c * (far - c / 2), b1) - c * (b1 - r) / far,
            c / sp.sqrt(n * (b1 - r) ** 2) - (c / sp.sqrt(n)) / sp.sqrt((b1 - r) ** 2),
        ],
    )


TOKENS = Statement(
    slug="replay-clipped-tokens",
    title="Clipping by the norm treats an answer of L tokens as one logit whose gradients are cut at c / sqrt(L)",
    status="T",
    kind="identity",
    hypotheses="forward KL with replay, L logits of one prompt, demonstrations old or new throughout, the gradient cut to length c; from any start",
    latex=r"\beta_k^*=\beta^*,\qquad\mathbb E\,\mathrm{clip}_{c/\sqrt L}\big(\tfrac KN-\beta^*\big)=0",
    derive=_derive_tokens,
    sample=_sample_tokens,
    # other weights on each token: equal means do not hide unequal masses
    exact=lambda share, batch, clip, start: _descend(share, batch, clip, start) @ np.array([3.0, 2.0, 1.0]) / 6.0,
    bound=lambda share, batch, clip, start: same(clipped_tokens_mass(share, batch, clip, _TOKENS)),  # noqa: ARG005
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-6,
    max_examples=5_000,
)


# --- several prompts ------------------------------------------------------------------------------------------------------


def _derive_prompts() -> Derivation:
    b, n, k = sp.symbols("beta N k", positive=True)
    y, o = sp.symbols("y o", positive=True)
    # of the gradient, squared, times N^2 / L, with k old ones
    length = k * (1 - b) ** 2 + (n - k) * b**2
    least = n * b**2 / ((1 - b) ** 2 + (n - 1) * b**2)
    return symbolic(
        (
            "one more old demonstration among k makes the squared length longer by (1 - beta)^2 - beta^2",
            "from none to one the ratio of lengths is least; in odds y it is y sqrt(N) / sqrt(1 + (N - 1) y^2)",
            "y >= o y sqrt(N) / sqrt(1 + (N - 1) y^2) is y^2 >= (N o^2 - 1) / (N - 1)",
        ),
        [
            sp.expand(length.subs(k, k + 1) - length - ((1 - b) ** 2 - b**2)),
            sp.simplify(least.subs(b, y / (1 + y)) - n * y**2 / (1 + (n - 1) * y**2)),
            sp.simplify((1 + (n - 1) * (n * o**2 - 1) / (n - 1)) - n * o**2),
        ],
    )


def _sample_prompts(rng: np.random.Generator, n: int) -> Sample:
    batch = np.floor(log_uniform(rng, 1.0, 65.0, n))
    tokens = np.floor(log_uniform(rng, 1.0, 200.0, n))
    return {
        "share": np.where(rng.random(n) < 0.5, rng.uniform(0.001, 0.5, n), log_uniform(rng, 1e-4, 0.5, n)),
        "batch_size": batch,
        "clip": log_uniform(rng, 1e-4, 2.0, n) * np.sqrt(tokens / batch),
        "tokens": tokens,
    }


PROMPTS = Statement(
    slug="replay-clipped-prompts",
    title="Prompts that share nothing: however hard the clipping, a share whose odds exceed 1 / sqrt(N) is not lost",
    status="T",
    kind="bound",
    hypotheses="as replay-clipped-tokens, the N prompts of a batch with logits of their own, lambda <= 1/2, o = lambda / (1 - lambda)",
    latex=r"\max\Big\{\min\big(\lambda,\,o\,c\sqrt{N/L}\big),\ \tfrac{y}{1+y}\Big\}\le\beta^*\le\lambda,\quad y=\sqrt{\tfrac{(No^2-1)_+}{N-1}},"
    r"\qquad\tfrac{\beta^*}{1-\beta^*}=o\,\frac{\mathbb E\,w_{K'+1}}{\mathbb E\,w_{K'}}",
    derive=_derive_prompts,
    sample=_sample_prompts,
    exact=clipped_prompts_mass,
    bound=clipped_prompts_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-7,  # a bisection in [0, 1], of masses down to 1e-9
)

STATEMENTS = (TOKENS, PROMPTS)
