"""Claims about conflicting tasks in turn, on the same prompts with other answers (prediction P12).

Without early stopping the theory's one logit has period two, whatever its odd clock: every even stage ends where the
sequence began. A context that is searched anew each time carries every stage, and the weights stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.special import expit, logit

from fstsim.crossings import first_crossing
from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sdft import rule_context
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.claim import Chapter, Claim, Records, Rows
from fstsim.llm.validation.equilibria import PROBLEMS
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Prediction, measure_base
from fstsim.theory import stall_probability

PAIRS = (("digits:plus", "digits:triple"), ("strings:rotate", "strings:sort"))
"""The first of a pair is learned from the base within the budget of a stage."""
STAGES = 4
BUDGET = 32
"""Slow steps a stage, without early stopping."""
STALLS = {("digits:negate", "digits:plus"): (12, 32), ("strings:mirror", "strings:rotate"): (32, 48)}
"""Pairs with the steps of a stage."""
MARGIN, RESOLUTION = 0.1, 0.3


def alternating(scale: Scale, base: Policy) -> Chapter:
    """P12: where RL and FST stand at the end of every stage, and how far the weights have gone."""
    if scale == "smoke":
        return Chapter(())
    claims, runs = [], []
    for first, second in PAIRS:
        word = parse_rules(first).rules[0]
        config = TrainConfig(
            tasks=(first, second) * (STAGES // 2),
            steps=BUDGET,
            lr=5e-5,
            learner=PolicyGradient(problems=48),
            probe=ProbeConfig(every=4, problems=PROBLEMS[scale], exam=16),
        )
        rl, fst = f"alternate-{word}-rl", f"alternate-{word}-fst"
        runs += [Planned(rl, config), Planned(fst, replace(config, method="fst"))]
        claims += [*_period_two(rl, second, base, PROBLEMS[scale]), _adam(rl, second)]
        claims += [*_searched(fst, second, base, PROBLEMS[scale]), _stays(word, rl, fst)]
    return Chapter(tuple(claims), tuple(runs))


def stage_end(rows: Rows, stage: int) -> dict[str, float]:
    """The row measured at the end of a stage, counted from 1."""
    return next(row for row in rows if row["step"] == stage * BUDGET)


def _at_stage(name: str, stage: int) -> Callable[[Records], list[float]]:
    return lambda records: [float(stage_end(rows, stage)["reward"]) for rows in records.rows(name)]


def _period_two(name: str, second: str, base: Policy, problems: int) -> list[Claim]:
    """Even stages end at the base's own success on the second task, the third where the first ended."""
    start = float(measure_base(base, parse_rules(second), problems).new.mean())
    claims = []
    for stage in range(2, STAGES + 1, 2):
        quantity = f"reward of RL on {second} at the end of stage {stage} of conflicting tasks in turn, no early stop"
        near = (start, start - MARGIN, start + MARGIN)
        label = Label("alternate-rl", run=name, x=stage)
        even = Prediction(f"{name}-{stage}", label, "plasticity-period-two", quantity, *near, RESOLUTION)
        claims.append(Claim(even, (name,), _at_stage(name, stage)))
    blank = Prediction(
        f"{name}-3", Label("alternate-rl", run=name, x=3), "plasticity-period-two",
        f"reward of RL at the end of stage 3, conflicting tasks in turn ({name})",
        np.nan, np.nan, np.nan, RESOLUTION, "reward at the end of stage 1",
    )  # fmt: skip

    def calibrated(records: Records) -> Prediction:
        value = float(np.mean(_at_stage(name, 1)(records)))
        return replace(blank, value=value, low=value - MARGIN, high=value + MARGIN)

    return [*claims, Claim(blank, (name,), _at_stage(name, 3), calibrated)]


def _adam(name: str, second: str) -> Claim:
    """The rival for stage 2: the log-odds of the mean reward go at the constant speed of stage 1, from where it left them."""
    blank = Prediction(
        f"{name}-2-adam", Label("alternate-rl-adam", run=name, x=2, law="adam"), "adam-clock",
        f"reward of RL on {second} at the end of stage 2, Adam's clock ({name})",
        np.nan, np.nan, np.nan, RESOLUTION, "speed of stage 1 up to reward 1/2, and what it left of the second task",
    )  # fmt: skip

    def calibrated(records: Records) -> Prediction:
        values = []
        for rows in records.rows(name):
            own = [row for row in rows if row["step"] <= BUDGET and row.get("reward") is not None]
            steps, reward = (np.array([row[c] for row in own], dtype=float) for c in ("step", "reward"))
            half = first_crossing(steps, reward, 0.5, "log-odds")
            left = float(np.clip(stage_end(rows, 1)["reward_task1"], 1e-12, 1.0 - 1e-12))
            values.append(float(expit(logit(left) - logit(reward[0]) * BUDGET / half)))
        value = float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
        return replace(blank, value=value, low=value - MARGIN, high=value + MARGIN)

    return Claim(blank, (name,), _at_stage(name, 2), calibrated)


def stalls(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001  # every chapter is called alike
    """Why RL stalls: after a first stage, how often no group of a step of the second has a signal.

    Written after the runs of `alternating`, for pairs of its own: a short first stage leaves enough of the second task, a
    long one leaves none. What is left is measured where the second stage begins; the share of steps follows.
    """
    if scale == "smoke":
        return Chapter(())
    claims, runs = [], []
    for (first, second), budgets in STALLS.items():
        a, b = parse_rules(first), parse_rules(second)
        held_out = list(a.problems("test"))[: PROBLEMS[scale]]
        same = float(np.mean([a.answer(p) == b.answer(p) for p in held_out]))
        for budget in budgets:
            learner = PolicyGradient(problems=48)
            config = TrainConfig(
                tasks=(first, second),
                steps=budget,
                lr=5e-5,
                learner=learner,
                probe=ProbeConfig(every=4, problems=PROBLEMS[scale], exam=16),
            )
            name = f"stall-{b.rules[0]}-{budget}"
            runs.append(Planned(name, config))
            blank = Prediction(
                name, Label("stall", run=name, x=budget), "plasticity-stall",
                f"share of steps without any signal in a stage of RL on {second} after {budget} steps on {first}",
                np.nan, np.nan, np.nan, 0.4, "what the first stage left of the second task",
            )  # fmt: skip
            claims.append(
                Claim(
                    blank, (name,), silent_share(name, budget), stalled_from_left(blank, name, (budget, learner), same)
                )
            )
    return Chapter(tuple(claims), tuple(runs))


def silent_share(name: str, budget: int) -> Callable[[Records], list[float]]:
    """Over the steps of the second stage."""
    return lambda records: [
        float(np.mean([row["dead_share"] == 1.0 for row in rows if row["step"] > budget]))
        for rows in records.rows(name)
    ]


def stalled_from_left(
    blank: Prediction, name: str, stage: tuple[int, PolicyGradient], same: float
) -> Callable[[Records], Prediction]:
    """Groups on problems with one answer for both tasks have no signal either: they are solved already."""

    steps, learner = stage

    def calibrated(records: Records) -> Prediction:
        values = []
        for rows in records.rows(name):
            end = next(row for row in rows if row["step"] == steps)
            left = max(0.0, end["reward_task1"] - same * end["reward"]) / (1.0 - same)
            groups = learner.problems * (1.0 - same)
            values.append(float(stall_probability(left, learner.rollouts, groups)))
        value = float(np.mean(values))
        return replace(blank, value=value, low=value - 0.15, high=value + 0.15)

    return calibrated


def _searched(name: str, second: str, base: Policy, problems: int) -> list[Claim]:
    """A searching context solves every stage as far as the base does with the rules in words."""
    task = parse_rules(second)
    held_out = list(task.problems("test"))[:problems]
    with torch.no_grad():
        told = answer_logprobs(base, (rule_context(base, task),), held_out, [task.answer(p) for p in held_out])
    value = float(np.exp(told).mean())
    claims = []
    for stage in range(2, STAGES + 1, 2):
        quantity = f"reward of FST on {second} at the end of stage {stage} of conflicting tasks in turn"
        near = (value, value - MARGIN, min(1.0, value + MARGIN))
        label = Label("alternate-fst", run=name, x=stage)
        prediction = Prediction(f"{name}-{stage}", label, "plasticity-search-stage", quantity, *near, RESOLUTION)
        claims.append(Claim(prediction, (name,), _at_stage(name, stage)))
    return claims


def _stays(word: str, rl: str, fst: str) -> Claim:
    """A context that can carry the whole gain leaves the weights at the base: no share of RL's distance after an odd stage."""
    prediction = Prediction(
        f"alternate-{word}-kl-saved", Label("alternate-kl-saved", run=fst, against=rl, x=3), "fast-slow-allocation",
        f"KL to the base saved by FST at the end of stage 3 of conflicting tasks in turn, without context ({word})",
        1.0, 0.85, 1.0, 0.5,
    )  # fmt: skip

    def measured(records: Records) -> list[float]:
        pairs = zip(records.rows(rl), records.rows(fst), strict=True)
        far = [(stage_end(a, 3), stage_end(b, 3)) for a, b in pairs]
        return [1.0 - b["kl_to_base_no_context"] / a["kl_to_base"] for a, b in far]

    return Claim(prediction, (rl, fst), measured)
