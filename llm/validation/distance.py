"""Claims about distance from the base: fast-slow training at matched reward, drift against overlap, forgetting against KL.

Predictions P9, P10, P4; forgetting against KL is the empirical law of RL's Razor (2509.04259; R^2 0.96 in its toy, 0.71 in its
language models), which in the two-mode mixture is exact, because mass and KL determine each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.special import logit

from fstsim.association import quadratic_r2
from fstsim.crossings import first_crossing
from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import RuleTask, parse_rules
from fstsim.llm.types import Problem
from fstsim.llm.validation.claim import Chapter, Claim, Records, Rows
from fstsim.llm.validation.equilibria import PROBLEMS, TASK
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Array, Prediction
from fstsim.llm.validation.times import NEW_ONLY
from fstsim.theory import kl_reduction, time_to_reward

MATCHED = 0.8
"""Reward at which distances and samples are compared."""
EARLY = 0.3
"""Reward of RL up to which its rate is measured."""
BINS = 8


def log_odds_of(p: float) -> float:
    """Log-odds of a mean success, finite at 0 and 1."""
    return float(logit(min(max(p, 1e-12), 1.0 - 1e-12)))


def fast_slow(scale: Scale, base: Policy) -> Chapter:
    """P9 and P10: RL and FST on tasks that words describe; KL of the context-free policy at matched reward, and samples."""
    claims, runs = [], []
    for name in ("digits:plus",) if scale == "smoke" else ("digits:plus", "strings:rotate"):
        task = parse_rules(name)
        held_out = list(task.problems("test"))[: PROBLEMS[scale]]
        answers = [task.answer(p) for p in held_out]
        with torch.no_grad():
            bare, told = np.exp(answer_logprobs(base, ("", " ".join(task.rules)), held_out, answers)).mean(1)
        start, capacity = log_odds_of(bare), log_odds_of(told) - log_odds_of(bare)
        config = TrainConfig(
            tasks=(name,),
            steps={"smoke": 30, "small": 60, "paper": 120}[scale],
            learner=PolicyGradient(problems=24 if scale == "smoke" else 48),
            probe=ProbeConfig(every=2, problems=PROBLEMS[scale], exam=16),
        )
        pair = (f"{task.rules[0]}-rl", f"{task.rules[0]}-fst")
        runs += [Planned(pair[0], config), Planned(pair[1], replace(config, method="fst"))]
        gain = log_odds_of(MATCHED) - start
        reduction = float(kl_reduction(start, start + gain, max(0.0, 1.0 - capacity / gain)))
        quantity = f"KL to the base saved by FST at reward {MATCHED} on {name}, without context"
        kl = Prediction(
            f"kl-saved-{task.rules[0]}", Label("kl-saved", run=pair[1], against=pair[0]), "fast-slow-allocation", quantity,
            reduction, reduction - 0.15, 1.0, 0.5,
        )  # fmt: skip
        claims.append(Claim(kl, pair, kl_saved(*pair)))
        blank = Prediction(
            f"speed-up-{task.rules[0]}", Label("speed-up", run=pair[1], against=pair[0]), "fast-slow-search-time",
            f"log of samples of RL over samples of FST to reward {MATCHED} on {name}", np.nan, np.nan, np.nan, 1.5,
            f"rate of RL until reward {EARLY}, and log-odds that the first fast round found",
        )  # fmt: skip
        claims.append(Claim(blank, pair, _speed_up(*pair), _from_rates(blank, pair, start, capacity)))
    return Chapter(tuple(claims), tuple(runs))


def kl_saved(rl: str, fst: str, reward: float = MATCHED) -> Callable[[Records], list[float]]:
    """Share of KL(no context || base) of the run ``rl`` that the run ``fst`` does without at a ``reward``, a number a seed."""

    def at(rows: Rows, column: str) -> float:
        measured = [row for row in rows if row.get("reward") is not None]
        kl = np.array([row.get(column, row["kl_to_base"]) for row in measured])  # the same where no context is used yet
        return first_crossing(kl, np.array([row["reward"] for row in measured]), reward, "log-odds")

    def read(records: Records) -> list[float]:
        pairs = zip(records.rows(rl), records.rows(fst), strict=True)
        return [1.0 - at(b, "kl_to_base_no_context") / at(a, "kl_to_base") for a, b in pairs]

    return read


def _samples(rows: Rows) -> tuple[Array, Array]:
    measured = [row for row in rows if row.get("reward") is not None]
    return np.array([float(row["samples"]) for row in measured]), np.array([row["reward"] for row in measured])


def _speed_up(rl: str, fst: str) -> Callable[[Records], list[float]]:
    def read(records: Records) -> list[float]:
        pairs = zip(records.rows(rl), records.rows(fst), strict=True)
        reached = [[first_crossing(*_samples(rows), MATCHED, "log-odds") for rows in pair] for pair in pairs]
        return [float(np.log(a / b)) for a, b in reached]

    return read


def _from_rates(
    blank: Prediction, pair: tuple[str, str], start: float, capacity: float
) -> Callable[[Records], Prediction]:
    """Search with the measured rates: slow from the beginning of RL, fast from the first round, a sample each unit of time."""

    def calibrated(records: Records) -> Prediction:
        values = []
        for alone, both in zip(records.rows(pair[0]), records.rows(pair[1]), strict=True):
            early = first_crossing(*_samples(alone), EARLY, "log-odds")
            slow = float(time_to_reward(start, log_odds_of(EARLY), 1.0, mobility="normalised")) / early
            samples, reward = _samples(both)
            fast = (log_odds_of(reward[1]) - log_odds_of(reward[0])) / samples[1]
            if not (np.isfinite(slow) and fast > 0.0):
                continue
            end = log_odds_of(MATCHED)
            rl = float(time_to_reward(start, end, slow, mobility="normalised"))
            fst = float(time_to_reward(start, end, slow, fast, capacity, "search", "normalised"))
            values.append(np.log(rl / fst))
        value = float(np.mean(values)) if values else np.nan
        return replace(blank, value=value, low=value - 0.35, high=value + 0.35)

    return calibrated


# --- drift against overlap (P4) ------------------------------------------------------------------------------------


def overlap_slope(scale: Scale, base: Policy) -> Chapter:
    """P4: what the old rules lose, prompt by prompt, against the overlap of old and new behaviour on that prompt.

    The force on an old mode is gated by the Bhattacharyya coefficient of old and new behaviour, with exponent one. On a
    prompt that names an old rule it is measured on the base: old behaviour is the base in that context, new behaviour
    the base in the context of the new rule.
    """
    own, overlap, prompts = old_prompts(base, parse_rules(TASK), 24 if scale == "smoke" else 64)
    claims = []
    for name, slug, what in (
        (NEW_ONLY, "drift-under-forward-KL", "SFT"),
        ("escape-plus", "old-mean-force", "RL"),
    ):
        prediction = Prediction(
            f"overlap-{what.lower()}", Label("overlap", run=name), slug, f"slope of log lost log-probability of old answers on log overlap, {what} on {TASK}",
            1.0, 0.75, 1.25, 1.0,
        )  # fmt: skip

        def measured(records: Records, name: str = name) -> list[float]:
            found = []
            for seed in range(records.seeds):
                now = old_answers(records.trained(name, seed), prompts)
                found.append(binned_slope(np.log(overlap), own - now))
            return found

        claims.append(Claim(prediction, (name,), measured))
    return Chapter(tuple(claims))


OldPrompt = tuple[str, Problem, str, str]
"""Context that names an old rule, problem, its right answer, and the new rule's answer."""


@torch.no_grad()
def old_prompts(base: Policy, task: RuleTask, problems: int) -> tuple[Array, Array, list[OldPrompt]]:
    """Prompts of the old rules of the task's family; log-probability of their answers, and overlap with the new behaviour.

    Overlap is the Bhattacharyya coefficient over the two right answers, which hold nearly all the mass of either side.
    Prompts on which both answers are the same text are left out.
    """
    found: list[OldPrompt] = []
    for word in FAMILIES[task.family].rules:
        if word in task.rules:
            continue
        old = RuleTask(task.family, (word,))
        found += [
            (word, problem, old.answer(problem), task.answer(problem))
            for problem in list(old.problems("test"))[:problems]
            if old.answer(problem) != task.answer(problem)
        ]
    new = [(" ".join(task.rules), p, a, b) for _, p, a, b in found]
    swapped = [(c, p, b, a) for c, p, a, b in found]
    new_swapped = [(c, p, b, a) for c, p, a, b in new]
    old_old, old_new = old_answers(base, found), old_answers(base, swapped)
    new_old, new_new = old_answers(base, new), old_answers(base, new_swapped)
    overlap = np.exp((old_old + new_old) / 2.0) + np.exp((old_new + new_new) / 2.0)
    return old_old, np.minimum(overlap, 1.0), found


@torch.no_grad()
def old_answers(policy: Policy, prompts: Sequence[OldPrompt]) -> Array:
    """Log-probability of each prompt's first answer, nats."""
    values = []
    for word in dict.fromkeys(c for c, *_ in prompts):
        chosen = [(p, a) for c, p, a, _ in prompts if c == word]
        values.append(answer_logprobs(policy, (word,), [p for p, _ in chosen], [a for _, a in chosen])[0])
    return np.concatenate(values)


def binned_slope(x: Array, lost: Array, bins: int = BINS) -> float:
    """Slope of the log of the mean loss on the mean of ``x``, over bins of equal size; nan with fewer than 3 bins that lost."""
    order = np.argsort(x, kind="stable")
    means = [(x[part].mean(), lost[part].mean()) for part in np.array_split(order, bins)]
    kept = np.array([(a, np.log(b)) for a, b in means if b > 0.0])
    return float(np.polyfit(kept[:, 0], kept[:, 1], 1)[0]) if len(kept) >= 3 else float("nan")


# --- forgetting against KL -----------------------------------------------------------------------------------------


def razor(runs: Sequence[str]) -> Chapter:
    """Forgetting against KL over all methods and checkpoints: R^2 of one quadratic, for either direction of KL."""
    claims = []
    for direction, name in (("to", "KL(now || base)"), ("from", "KL(base || now)")):
        prediction = Prediction(
            f"razor-{direction}-base", Label("razor", law=direction), "fast-slow-kl",
            f"R^2 of accuracy lost on old skills against {name}, one quadratic for all methods", 0.71, 0.5, 1.0, 0.5,
        )  # fmt: skip

        def measured(records: Records, column: str = f"kl_{direction}_base") -> list[float]:
            found = []
            for seed in range(records.seeds):
                points = [point for run in runs for point in forgetting_points(records, run, seed, column)]
                found.append(quadratic_r2(*np.array(points).T))
            return found

        claims.append(Claim(prediction, tuple(runs), measured))
    return Chapter(tuple(claims))


def forgetting_points(records: Records, run: str, seed: int, column: str) -> list[tuple[float, float]]:
    """``(KL without context, accuracy lost)`` of every measured row after the start."""
    rows = records.rows(run)[seed]
    measured = [row for row in rows if row.get("drift") is not None and row["step"] > 0]
    away = f"{column}_no_context"  # the same where no context is used
    return [(float(row[away if away in row else column]), float(row["drift"])) for row in measured]
