r"""RL on a chat model: groups without signal, what a context in its place saves, and a behaviour that conflicts.

`FORM` is what RL finds by itself. In the context of its rule in words the base is nearer to it: what the context carries
the weights need not, which is the allocation law of two channels with a fast one that stands still. The run without a
context goes on with `OWN`, which asks on the same prompts for what the base wrote before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.special import logit

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sdft import rule_context
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.validation.claim import Chapter, Claim, Records
from fstsim.llm.validation.distance import kl_saved, log_odds_of
from fstsim.llm.validation.equilibria import measure_dead_groups
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.scale import FORM, OWN, SIZES, TOKENS, Size, demonstrated, free_config
from fstsim.llm.validation.prediction import Prediction, measure_base, predict_dead_groups
from fstsim.llm.validation.sequences import silent_share, stalled_from_left
from fstsim.llm.validation.times import CLOCKS, log_time_ratios, measured_time_ratio
from fstsim.theory import kl_reduction

BARE_RUN, TOLD_RUN = "language-rl", "language-rl-told"
"""RL on `FORM`, then on `OWN`, without a context; and on `FORM` with its rule in words."""
MATCHED = 0.3
"""Reward at which distances are compared, and to which steps are counted."""
_ROLLOUTS = 240  # a seed, of the base


def _learner(size: Size) -> PolicyGradient:
    return PolicyGradient(problems=size.groups, rollouts=size.rollouts, max_new_tokens=TOKENS)


def groups(scale: Scale, base: Policy) -> Chapter:
    """Share of groups without signal before training, among real rollouts; no run is needed."""
    size, task = SIZES[scale], demonstrated(FORM)
    near = predict_dead_groups(measure_base(base, task, size.held), size.rollouts)
    prediction = replace(
        near, name=f"language-{near.name}", label=Label("chat-without-signal", x=size.rollouts), resolution=0.3
    )

    def measured(records: Records) -> list[float]:
        return measure_dead_groups(records.base, task, size.held, records.seeds, size.rollouts, _ROLLOUTS)

    return Chapter((Claim(prediction, (), measured),))


def context(scale: Scale, base: Policy) -> Chapter:
    """P9 and P10 with a context that stands still: KL of the context-free policy at matched reward, and steps to that reward."""
    size, task = SIZES[scale], demonstrated(FORM)
    held_out = list(task.problems("test"))[: size.held]
    words = rule_context(base, task)
    with torch.no_grad():
        masses = np.exp(answer_logprobs(base, ("", words), held_out, [task.answer(p) for p in held_out]))
    told = Planned(TOLD_RUN, replace(free_config(size, _learner(size)), context=words), write_model=False)
    pair = (BARE_RUN, TOLD_RUN)
    saved = _saved(*(log_odds_of(float(mass)) for mass in masses.mean(1)))
    claims = [Claim(saved, pair, _on_form(size, kl_saved(*pair, MATCHED)))]
    alone, with_words = (logit(np.clip(mass, 1e-12, 1.0 - 1e-12)) for mass in masses)
    times = log_time_ratios(alone, with_words, MATCHED, size.rollouts)
    for clock, value in times.items():
        quantity = (
            f"log of steps of RL on {FORM} to reward {MATCHED} over those in the context of its rule, {clock} clock"
        )
        label = Label("context-speed-up", run=BARE_RUN, against=TOLD_RUN, law=clock)
        near = (value, value - 0.25, value + 0.25)
        prediction = Prediction(f"language-told-{clock}", label, CLOCKS[clock], quantity, *near, 1.5)
        claims.append(Claim(prediction, pair, _on_form(size, measured_time_ratio(*pair, MATCHED))))
    return Chapter(tuple(claims), (_both_behaviours(size), told))


def _both_behaviours(size: Size) -> Planned:
    return Planned(BARE_RUN, free_config(size, _learner(size), (FORM, OWN)), write_model=False)


def _on_form(size: Size, measured: Callable[[Records], list[float]]) -> Callable[[Records], list[float]]:
    """The same of the first stage alone."""
    return lambda records: measured(replace(records, last=size.free_steps))


def _saved(start: float, told: float) -> Prediction:
    """The weights need what the context does not carry, of the gain to the matched reward."""
    gain = log_odds_of(MATCHED) - start
    share = float(np.clip(1.0 - (told - start) / gain, 0.0, 1.0))
    value = float(kl_reduction(start, start + gain, share))
    return Prediction(
        "language-kl-saved", Label("context-kl-saved", run=TOLD_RUN, against=BARE_RUN), "fast-slow-allocation",
        f"KL to the base saved at reward {MATCHED} on {FORM} by its rule in the context, without context",
        value, value - 0.15, min(1.0, value + 0.15), 0.5,
    )  # fmt: skip


def conflict(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001 -- what is left is measured where the second stage begins
    """Loss of plasticity: after RL on `FORM`, how often no group of a step on `OWN` has a signal."""
    size = SIZES[scale]
    blank = Prediction(
        "language-conflict", Label("chat-stall", run=BARE_RUN, x=size.free_steps), "plasticity-stall",
        f"share of steps without a signal of RL on {OWN} after {size.free_steps} steps on {FORM}",
        np.nan, np.nan, np.nan, 0.5, f"success on {OWN} that the stage on {FORM} left",
    )  # fmt: skip
    claim = Claim(
        blank,
        (BARE_RUN,),
        silent_share(BARE_RUN, size.free_steps),
        stalled_from_left(blank, BARE_RUN, (size.free_steps, _learner(size)), same=0.0),
    )
    return Chapter((claim,), (_both_behaviours(size),))
