"""SGD runs of every method of the classification, and the closed-form maps that go with them (panels a, b of figure 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim import SGD, ForwardKL, Objective, ReverseKL, TwoModeProblem, TwoModeState, simulate
from fstsim.labelled import geometric_mix
from fstsim.method_loops import Regression, simulate_oapl
from fstsim.method_objectives import SDFT, TTTDiscover
from fstsim.optimizers import Geometry
from fstsim.paper.figures.drawing import sgd_runs
from fstsim.replay_objectives import Direction, KLLeash
from fstsim.theory.methods import method_map

Array = NDArray[np.float64]

BETA0 = 0.5  # every method starts from, and is anchored at, log-odds 0
DELTA = 8.0  # the maps are those of separated modes
RUNS, BATCH = 32, 64
ROUND = 12  # gradient steps in which SDFT and OAPL solve one round
WEAK = 1e-3  # inverse temperature at which the entropic utility is expected reward


class Runs(NamedTuple):
    """SGD runs of one method: time, and log-odds ``(T+1, RUNS)``."""

    time: Array
    log_odds: Array


def _problem(alpha: float = 0.5) -> TwoModeProblem:
    return TwoModeProblem.separated(DELTA, alpha)


def _descend(objective: Objective, lr: float, until: float, geometry: Geometry = "em", scale: float = 1.0) -> Runs:
    """SGD on one objective; its values are ``scale`` times those of the method."""
    problem = objective.problem
    optimizer = SGD(lr / scale, BATCH, geometry)
    run = sgd_runs(problem, objective, problem.initial(BETA0), optimizer, round(until / lr), RUNS, seed=11)
    return Runs(np.multiply(lr, run.step, dtype=np.float64), run.log_odds)


def _expected_reward(gap: float, kl_weight: float) -> TTTDiscover:
    """Expected reward less ``kl_weight`` KL(q || base), times `WEAK`."""
    problem = _problem()
    return TTTDiscover(problem, problem.initial(BETA0), 0.0, gap, WEAK, WEAK * kl_weight, labelled=True)


def _entropic(gap: float, kl_weight: float) -> TTTDiscover:
    problem = _problem()
    return TTTDiscover(problem, problem.initial(BETA0), 0.0, 1.0, gap, kl_weight, labelled=True)


def _leashed(strength: float, direction: Direction) -> KLLeash:
    problem = _problem()
    return KLLeash(problem, problem.initial(BETA0), strength, direction)


def _sdft_rounds(tilt: float, anchor: float, rounds: int) -> Runs:
    """SDFT whose teacher takes the student's place after each solved round."""
    problem, rng = _problem(), np.random.default_rng(11)
    start = problem.initial(BETA0)
    base = student = TwoModeState(
        np.full(RUNS, start.log_odds), np.tile(start.mean_old, (RUNS, 1)), np.tile(start.mean_new, (RUNS, 1))
    )
    rows = [student.log_odds[None]]
    for _ in range(rounds):
        objective = SDFT(problem, geometric_mix(problem, student, base, anchor), tilt)
        run = simulate(problem, objective, student, SGD(0.4, BATCH, "em"), ROUND, rng)
        rows.append(run.log_odds[1:])
        student = run.state()
    return Runs(np.arange(ROUND * rounds + 1) / ROUND, np.concatenate(rows))


def _oapl_rounds(gap: float, anchor: float, rounds: int) -> Runs:
    problem = _problem()
    start = problem.initial(BETA0)
    many = TwoModeState(
        np.full(RUNS, start.log_odds), np.tile(start.mean_old, (RUNS, 1)), np.tile(start.mean_new, (RUNS, 1))
    )
    rng = np.random.default_rng(11)
    run = simulate_oapl(
        problem, many, Regression(0.0, gap, 1.0, anchor=anchor), rounds, ROUND, SGD(0.2, BATCH, "em"), rng
    )
    return Runs(np.arange(ROUND * rounds + 1) / ROUND, run.log_odds)


class Plan(NamedTuple):
    """One row of the classification: its label, the hyper-parameters of `method_map`, updates of the map per unit of
    time, and the SGD runs that go with it."""

    label: str
    hyper: dict[str, float]
    per_time: float
    runs: Callable[[], Runs]
    round_steps: int = 1
    """steps of a run between the times that the map speaks of: the ends of rounds"""


PLANS = {
    "forward-kl": Plan(
        "forward KL,\nnatural gradient", {"rate": 0.1}, 10.0, lambda: _descend(ForwardKL(_problem()), 0.1, 7.0)
    ),
    "forward-kl-logit": Plan("forward KL", {}, 1.0, lambda: _descend(ForwardKL(_problem()), 0.5, 150.0, "logit")),
    "policy-gradient": Plan(
        "policy gradient", {"gap": 0.15}, 1.0, lambda: _descend(_expected_reward(0.15, 0.0), 0.5, 150.0, "logit", WEAK)
    ),
    "ttt-discover": Plan(
        "TTT, no leash",
        {"base_log_odds": 0.0, "scaled_gap": 0.5, "kl_weight": 0.0},
        1.0,
        lambda: _descend(_entropic(0.5, 0.0), 0.5, 150.0, "logit"),
    ),
    "sdft": Plan("SDFT", {"tilt": 0.5}, 1.0, lambda: _sdft_rounds(0.5, 1.0, 8), ROUND),
    "oapl": Plan("OAPL", {"gap": 0.25, "tau": 1.0}, 1.0, lambda: _oapl_rounds(0.25, 1.0, 14), ROUND),
    "reverse-kl": Plan(
        "reverse KL",
        {"target_log_odds": float(logit(0.4)), "step": 0.05},
        20.0,
        lambda: _descend(ReverseKL(_problem(0.4)), 0.05, 8.0),
    ),
    "replay": Plan(
        "replay", {"replay_fraction": 0.3, "rate": 0.1}, 10.0, lambda: _descend(ForwardKL(_problem(), 0.3), 0.1, 15.0)
    ),
    "forward-leash": Plan(
        "leash KL(base‖q)",
        {"base_log_odds": 0.0, "eta": 0.75, "rate": 0.1},
        10.0,
        # per unit of new-data loss: the natural gradient of a sum that counts 1 + eta times
        lambda: _descend(_leashed(0.75, "forward"), 0.1, 15.0, scale=1.75),
    ),
    "reverse-leash": Plan(
        "leash KL(q‖base)",
        {"base_log_odds": 0.0, "eta": 0.7},
        1.0,
        lambda: _descend(_leashed(0.7, "reverse"), 0.5, 45.0, "logit"),
    ),
    "regularised-rl": Plan(
        "RL with leash",
        {"base_log_odds": 0.0, "gap": 1.05, "kl_weight": 0.5, "step": 0.1},
        10.0,
        lambda: _descend(_expected_reward(1.05, 0.5), 0.1, 20.0, scale=WEAK),
    ),
    "ttt-leashed": Plan(
        "TTT-Discover",
        {"base_log_odds": 0.0, "scaled_gap": 3.0, "kl_weight": 0.42},
        1.0,
        lambda: _descend(_entropic(3.0, 0.42), 0.5, 60.0, "logit"),
    ),
    "sdft-anchored": Plan(
        "SDFT, anchored",
        {"base_log_odds": 0.0, "tilt": 0.5, "anchor": 0.82},
        1.0,
        lambda: _sdft_rounds(0.5, 0.82, 22),
        ROUND,
    ),
    "oapl-anchored": Plan(
        "OAPL, anchored",
        {"base_log_odds": 0.0, "gap": 0.4, "tau": 1.0, "anchor": 0.88},
        1.0,
        lambda: _oapl_rounds(0.4, 0.88, 30),
        ROUND,
    ),
}
LOST = ("forward-kl", "sdft", "oapl", "forward-kl-logit", "ttt-discover", "policy-gradient")
KEPT = tuple(name for name in PLANS if name not in LOST)


def exact_mass(name: str, time: Array) -> Array:
    """Old mass of the closed-form map (or flow) of `fstsim.theory.method_map` at ``time``."""
    plan = PLANS[name]
    method = method_map("ttt-discover" if name == "ttt-leashed" else name, **plan.hyper)
    return expit(method.iterate(np.asarray(logit(BETA0)), time * plan.per_time))


def plateau(name: str) -> float:
    """Old mass at which the method ends: 0 where it retains nothing."""
    plan = PLANS[name]
    return float(expit(method_map("ttt-discover" if name == "ttt-leashed" else name, **plan.hyper).fixed_point()))
