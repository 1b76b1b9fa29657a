"""The simulator's half of the bridge figure: the same experiments on the Gaussian mixture, read as the model's are.

Modes lie `SEPARATION` standard deviations apart, as two different texts do: they do not overlap. Only the weight is trained.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim import SGD, AdamW, ForwardKL, GradientDescent, TwoModeProblem, TwoModeState, simulate
from fstsim.fast_slow import group_update
from fstsim.intervals import student_interval
from fstsim.llm.validation.prediction import BaseMasses
from fstsim.method_objectives import TTTDiscover
from fstsim.theory.sequences import SequenceLaw

Array = NDArray[np.float64]
SEPARATION = 8.0
RUNS = 16  # independent SGD runs behind a point
_LR = 0.1
_MOST_UPDATES = 100_000
_LEASH_UPDATES = 800
_WEAK = 1e-3  # inverse temperature at which the entropic utility is expected reward


def _learners(problem: TwoModeProblem, log_odds: Array) -> TwoModeState:
    """One learner for each entry of ``log_odds``, its modes where those of the problem are."""
    means = (*log_odds.shape, problem.dimension)
    return TwoModeState(log_odds, np.broadcast_to(problem.mean_old, means), np.broadcast_to(problem.mean_new, means))


def replay(share: float, start: float, steps: int, batch: int) -> tuple[float, float, float]:
    """Old mass at the end (mean over the last quarter) of SGD on data with a share of old samples, with its 95 % interval."""
    problem = TwoModeProblem.separated(SEPARATION)
    initial = _learners(problem, np.full(RUNS, logit(start)))
    how = SGD(_LR, batch, "em", "weight")
    run = simulate(problem, ForwardKL(problem, share), initial, how, steps, np.random.default_rng(17))
    mean, low, high = map(float, student_interval(run.old_mass[-max(1, steps // 4) :].mean(axis=0)))
    return mean, low, high


def leash(base: BaseMasses, strength: float, batch: int = 64) -> tuple[float, float]:
    """New and old mass at the end of SGD on ``E r - strength KL(q || base)``, one learner a prompt, then averaged.

    The learner's second mode is everything but the new answer; the old answer keeps its share of it.
    """
    problem = TwoModeProblem.separated(SEPARATION)
    start = _learners(problem, -logit(base.new))
    objective = TTTDiscover(problem, start, 0.0, 1.0, _WEAK, _WEAK * strength, labelled=True)
    how = SGD(
        0.5 * _LR / _WEAK, batch, "em", "weight"
    )  # natural gradient: the leash pulls back at the same rate from anywhere
    run = simulate(problem, objective, start, how, _LEASH_UPDATES, np.random.default_rng(19))
    rest = run.old_mass[-_LEASH_UPDATES // 4 :].mean(axis=0)
    new = 1.0 - rest
    old = np.where(base.same, new, base.old * rest / (1.0 - base.new))
    return float(new.mean()), float(old.mean())


def escape_times(new: Array, group: int, problems: int) -> Array:
    """Time (1/rate) until the mean success of prompts with base success ``new (P,)`` is 1/2, of `RUNS` independent runs.

    All log-odds move by one shift. An update draws ``problems`` prompts and ``group`` rollouts of each, advantages divided
    by the group's standard deviation. RuntimeError where no run comes to an end.
    """
    rng = np.random.default_rng(23)
    x, shift, out = logit(new), np.zeros(RUNS), np.zeros(RUNS)
    for step in range(1, _MOST_UPDATES):
        drawn = rng.integers(len(x), size=(1, problems, RUNS))
        p = expit(x[drawn] + shift)
        shift = shift + _LR * group_update(rng.binomial(group, p), group, p, "normalised")[0].mean(axis=0)
        done = expit(x[:, None] + shift).mean(axis=0) >= 0.5
        out[done & (out == 0.0)] = _LR * (step - 0.5)
        if out.all():
            return out
    raise RuntimeError(f"no escape from mean success {new.mean():g} in {_MOST_UPDATES:,} updates")


def escape(new: Array, easiest: Array, group: int, problems: int) -> tuple[float, float, float]:
    """Time to success 1/2 over that of the ``easiest`` task: geometric mean over runs, and its 95 % interval."""
    logs = np.log(escape_times(new, group, problems)) - np.log(escape_times(easiest, group, problems)).mean()
    middle, low, high = np.exp(student_interval(logs))
    return float(middle), float(low), float(high)


def forgetting(tokens: Array, time: Array, law: SequenceLaw, clip: float = 1.0, updates: int = 400) -> Array:
    """Old mass at ``time (T,)`` of exact descent on new data alone, over that at 0: a learner a decision, ``tokens (P, L)``.

    Its answers are products over decisions, averaged over prompts. Under `adam` the learner has the optimizer of the model,
    ``time`` is in learning rates (whole steps of the last entry over T - 1), and ``clip`` is the largest gradient that gets through, over the first.
    """
    problem = TwoModeProblem.separated(SEPARATION)
    decision = tokens < 1.0
    initial = _learners(problem, logit(tokens[decision]))
    steps = len(time) - 1 if law == "adam" else updates
    lr = float(time[-1]) / steps
    if law == "adam":
        how: AdamW | GradientDescent = AdamW(lr, train="weight", clip=clip * float(tokens[decision].mean()))
    else:
        how = GradientDescent(lr, "em" if law == "fisher" else "logit", "weight")  # without overlap `em` is Fisher-Rao
    run = simulate(problem, ForwardKL(problem), initial, how, steps)
    masses = np.ones((len(time), *tokens.shape))
    masses[:, decision] = run.old_mass[np.rint(np.asarray(time) / lr).astype(np.int64)]
    mean = masses.prod(axis=-1).mean(axis=-1)
    return np.asarray(mean / mean[0])
