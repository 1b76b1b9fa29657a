r"""A league of predictors of what a run forgets, on the same runs: from the base alone, or from what the run itself shows.

For every old prompt with log-probability \(\ell_i\) of its answer, and \(D_t = \sum_{s<t} h_s\) the sum of learning rates:

- ``forecast``: coarse Adam;
- ``kernel``: \(-D_t\, \nabla\ell_i \cdot u\), one step of Adam's direction \(u = g/(\sqrt q + \epsilon)\) at the base (2407.10490);
- ``cosine``: \(-D_t \cos(\nabla\ell_i, g)\), its sign and size from the angle between gradients alone;
- ``overlap``: \(-D_t\) times the Bhattacharyya coefficient of old and new behaviour on the prompt (`drift-under-forward-KL`);
- ``kl``: KL(now || base) of the run on the new prompts, a quadratic of it (RL's Razor, 2509.04259): one number for all prompts;
- ``loss``: \(\sum h \sqrt{loss}\) of the run (2605.20005): one number for all prompts; SFT only.

The first two are nats and are held against the run as they stand. For the others a line, for the last two a quadratic, is
fitted to the very changes that they are judged by: their \(R^2\) is the most that they can say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fstsim.llm.forecast.agreement import r_squared, spearman
from fstsim.llm.forecast.aim import take_aim
from fstsim.llm.forecast.forecast import Given
from fstsim.llm.forecast.reading import Asked
from fstsim.llm.forecast.rule import Rule
from fstsim.llm.forecast.start import moving
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs, sample_once
from fstsim.theory.coarse_adam import AdamW

Array = NDArray[np.float64]

_MOST = 1e-30  # a norm below it has no direction


@dataclass(frozen=True)
class AtBase:
    """By skill, a number for each old prompt: ``kernel`` nats for each unit of summed learning rates, ``cosine``, ``overlap``."""

    kernel: Mapping[str, Array]
    cosine: Mapping[str, Array]
    overlap: Mapping[str, Array]


@dataclass(frozen=True)
class Entry:
    """One predictor: ``fitted`` numbers taken from the run, R2 over prompts and steps, mean rank correlation within a step."""

    name: str
    fitted: int
    r2: float
    rank: float


def at_base(given: Given, *, batches: int = 10, seed: int = 0) -> AtBase:
    """Predictors that need the base alone, the gradient from ``batches`` batches of the run; the policy is at the base after it.

    Raises InputError where the optimizer has no rule.
    """
    rule = Rule.of(given.config.train).optimizer
    path = given.path(0)
    field = path.field
    aim = take_aim(
        field.weights, field.learner, field.context, field.task, np.random.default_rng(seed), batches=batches
    )
    along = [g / (q.sqrt() + rule.eps) if isinstance(rule, AdamW) else g for g, q in zip(aim.g, aim.q, strict=True)]
    kernel, cosine, overlap = {}, {}, {}
    new = field.context.prompts[0] or _words(given)
    for asked in given.reader().asked():
        rows = np.array([gradient_products(given.policy, asked, k, along, aim.g) for k in range(len(asked.problems))])
        kernel[asked.name], cosine[asked.name] = -rows[:, 0], -rows[:, 1]
        overlap[asked.name] = overlap_of_outputs(given.base, asked, new, given.config.train.probe.max_new_tokens)
    return AtBase(kernel, cosine, overlap)


def _words(given: Given) -> str:
    from fstsim.llm.types import rule_words

    return rule_words(given.task, given.policy.template) or ""


def gradient_products(
    policy: Policy, asked: Asked, k: int, along: Sequence[torch.Tensor], gradient: Sequence[torch.Tensor]
) -> tuple[float, float]:
    r"""\(\nabla\ell \cdot u\) and \(\cos(\nabla\ell, g)\) of answer ``k``, by one backward pass; the gradients of the model are cleared."""
    model = policy.model
    model.zero_grad(set_to_none=True)
    shown = [policy.encode(asked.context, asked.problems[k])]
    with torch.enable_grad():
        policy.answer_logprobs(shown, [policy.encode_answer(asked.answers[k])]).sum().backward()
    product = inner = own = size = 0.0
    for parameter, u, g in zip(moving(policy), along, gradient, strict=True):
        size += float(g.double().square().sum())
        if parameter.grad is not None:
            mine = parameter.grad
            product += float((mine * u).double().sum())
            inner += float((mine * g).double().sum())
            own += float(mine.double().square().sum())
    model.zero_grad(set_to_none=True)
    norm = float(np.sqrt(own * size))
    return product, inner / norm if norm > _MOST else 0.0


@torch.no_grad()
def overlap_of_outputs(base: Policy, asked: Asked, new: str, max_new_tokens: int) -> Array:
    """Bhattacharyya coefficient of the base in the old context and in ``new``, the new task's, ``(n,)``, in [0, 1].

    Over two answers a prompt, the old one and what the base writes in the new context: nearly all the mass of either side.
    """
    problems = list(asked.problems)
    written = base.decode(sample_once(base, (new,), problems, 0, max_new_tokens))
    old, other = (
        answer_logprobs(base, (asked.context, new), problems, list(answers)) for answers in (asked.answers, written)
    )
    differ = np.array([a != b for a, b in zip(asked.answers, written, strict=True)])
    return np.asarray(np.minimum(np.exp(old.mean(0)) + np.where(differ, np.exp(other.mean(0)), 0.0), 1.0))


def best_fit(x: Array, y: Array, degree: int) -> Array:
    """Values at ``x`` of the polynomial of least squares."""
    if np.ptp(x) == 0.0:
        return np.full_like(y, y.mean())
    return np.asarray(np.polyval(np.polyfit(x, y, min(degree, len(np.unique(x)) - 1)), x))


def league(
    base: AtBase, held: Mapping[str, Any], distance: Mapping[int, float], losses: Mapping[int, float] | None = None
) -> list[Entry]:
    """Predictors on one run: ``held`` is what `compare.compare` returned with ``rerun``, ``distance`` the summed rates by step.

    ``losses`` is the sum of rate times root of the loss by step, None where a loss says nothing (RL).
    """
    rows = [row for row in held["rows"] if "changes" in row]
    names = list(rows[0]["changes"])
    true = [_joined(row["changes"], names, "run") for row in rows]

    def scaled(values: Mapping[str, Array]) -> list[Array]:
        every = np.concatenate([values[name] for name in names])
        return [distance[row["step"]] * every for row in rows]

    def flat(each: Sequence[float]) -> list[Array]:
        return [np.full(len(t), value) for t, value in zip(true, each, strict=True)]

    points: list[tuple[str, int, list[Array]]] = [
        ("forecast", 0, [_joined(row["changes"], names, "forecast") for row in rows]),
        ("kernel", 0, scaled(base.kernel)),
        ("cosine", 1, scaled(base.cosine)),
        ("overlap", 1, [-x for x in scaled(base.overlap)]),
        ("kl", 2, flat([row["means"]["kl_to_base"]["run"] for row in rows])),
    ]
    if losses is not None:
        points.append(("loss", 2, flat([losses[row["step"]] for row in rows])))
    return [_entry(name, degree, x, true) for name, degree, x in points]


def _joined(changes: Mapping[str, Any], names: Sequence[str], which: str) -> Array:
    return np.concatenate([np.asarray(changes[name][which], dtype=np.float64) for name in names])


def _entry(name: str, degree: int, x: Sequence[Array], true: Sequence[Array]) -> Entry:
    whole, y = np.concatenate(list(x)), np.concatenate(list(true))
    predicted = best_fit(whole, y, degree) if degree else whole
    ranks = [spearman(a, b) for a, b in zip(x, true, strict=True)]
    rank = float(np.mean(ranks)) if np.isfinite(ranks).all() else float("nan")
    return Entry(name, degree + 1 if degree else 0, r_squared(predicted, y), rank)
