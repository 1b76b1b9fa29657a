"""Claims about the near-on-policy methods: mixture distillation, SDFT, TTT-Discover, OAPL (predictions P3, P6, P7, P8).

Each is predicted per prompt from the base's log-odds of the right answer, then averaged. Where a learner estimates a
normaliser on a group, the prediction takes the group's size into account (`finite_groups`), and the exact-normaliser value
of the theory stands beside it as a rival.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.special import expit, log_expit, logit, logsumexp

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.sdft import SDFT, rule_context
from fstsim.llm.learners.ttt import TTTDiscover
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.rules import RuleTask, parse_rules
from fstsim.llm.validation.claim import Chapter, Claim, Records, curve, settled
from fstsim.llm.validation.equilibria import PROBLEMS, TASK
from fstsim.llm.validation.finite_groups import entropic_group_optimum, oapl_group_step
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Array, Prediction, measure_base
from fstsim.theory import entropic_tilt_log_odds, oapl_log_odds, sdft_fixed_point, sdft_response_bracket

ALPHAS = {"smoke": (), "small": (0.2, 0.5), "paper": (0.1, 0.2, 0.5)}
ANCHORS = {"smoke": (), "small": (0.1, 0.2, 0.3), "paper": (0.1, 0.2, 0.3, 0.4)}
LEVELS = {"smoke": (), "small": (0.15, 0.25), "paper": (0.15, 0.25, 0.35)}
"""Anchors at which the teacher in the demonstration's context is taken to stay where the base is in it."""
RATES = {"smoke": (), "small": (0.01, 0.03), "paper": (0.01, 0.03, 0.1)}
"""EMA rates of SDFT without an anchor."""
OWN_RATES = {"smoke": (), "small": (0.0, 0.005), "paper": (0.0, 0.005)}
RATE_STEPS = 40
GAPS = {"smoke": (), "small": (1.0, 2.0, 4.0), "paper": (1.0, 2.0, 4.0, 6.0)}
REFRESHES = {"smoke": 0, "small": 4, "paper": 6}
LEASH = 2.0
"""lambda of TTT-Discover."""
TAU = 1.0
PERIOD = 20
GROUP = 16
RESOLUTION = 0.15


def _config(scale: Scale, method: str, steps: int, **settings: object) -> TrainConfig:
    probe = ProbeConfig(every=10, problems=PROBLEMS[scale], exam=16)
    return TrainConfig(method=method, tasks=(TASK,), steps=steps, probe=probe, **settings)  # type: ignore[arg-type]


def _near(name: str, label: Label, slug: str, quantity: str, value: float, margin: float) -> Prediction:
    return Prediction(name, label, slug, quantity, value, value - margin, value + margin, RESOLUTION)


def _log_odds(mass: Array) -> Array:
    return np.asarray(logit(np.clip(mass, 1e-12, 1.0 - 1e-12)))


@torch.no_grad()
def _bare_and_told(base: Policy, task: RuleTask, problems: int) -> Array:
    """Log-odds of the right answer on test problems, without context and with the rules in words: ``(2, problems)``."""
    held_out = list(task.problems("test"))[:problems]
    answers = [task.answer(p) for p in held_out]
    return _log_odds(np.exp(answer_logprobs(base, ("", rule_context(base, task)), held_out, answers)))


def mixtures(scale: Scale, base: Policy) -> Chapter:
    """P3: reverse KL to a teacher mixture ends at the teacher's old mass, whatever it began with."""
    masses = measure_base(base, parse_rules(TASK), PROBLEMS[scale])
    claims, runs = [], []
    for alpha in ALPHAS[scale]:
        learner = MixtureDistillation(alpha=alpha)
        runs.append(Planned(f"mixture-{alpha:g}", _config(scale, "mixture", 160, learner=learner)))
        own = (1.0 - learner.smoothing) * np.where(masses.same, 1.0, alpha)
        value = float((own + learner.smoothing * masses.old).mean())
        quantity = f"old mass after reverse-KL distillation to a mixture with {alpha:.0%} of it"
        label = Label("mixture", run=runs[-1].name, x=alpha)
        prediction = _near(runs[-1].name, label, "reverse-kl-target", quantity, value, 0.04)
        claims.append(Claim(prediction, (runs[-1].name,), settled(runs[-1].name, "old_mass")))
    return Chapter(tuple(claims), tuple(runs))


def sdft(scale: Scale, base: Policy) -> Chapter:
    """P6: anchored SDFT stops at ``s_b - h / (1 - a)``; without an anchor it goes on until the old mass is gone.

    h is a times what the demonstration is worth to the base, in log-odds of the right answer.
    """
    task = parse_rules(TASK)
    bare, told = _bare_and_told(base, task, PROBLEMS[scale])
    claims, runs = [], []
    for anchor in ANCHORS[scale]:
        learner = SDFT(teacher_share=anchor, ema_rate=0.1)
        name = f"sdft-{anchor:g}"
        runs.append(Planned(name, _config(scale, "sdft", 120, learner=learner)))
        # log-odds of success are those of the old behaviour with the sign changed
        value = float(expit(-sdft_fixed_point(-bare, anchor * (told - bare), anchor)).mean())
        quantity = f"new mass under SDFT with anchor {anchor:g}"
        label = Label("sdft", run=name, x=anchor)
        claims.append(Claim(_near(name, label, "sdft", quantity, value, 0.06), (name,), settled(name, "reward")))
    if runs:
        runs.append(Planned("sdft-free", _config(scale, "sdft", 120, learner=SDFT(ema_rate=0.1))))
        gone = Prediction(
            "sdft-free", Label("sdft", run="sdft-free"), "sdft-ultimate", "old mass under SDFT without an anchor",
            0.0, 0.0, 0.02, RESOLUTION,
        )  # fmt: skip
        claims.append(Claim(gone, ("sdft-free",), settled("sdft-free", "old_mass")))
    return Chapter(tuple(claims), tuple(runs))


def sdft_levels(scale: Scale, base: Policy) -> Chapter:
    """P6 with a level for a tilt: in the demonstration's context the averaged teacher stays at the base's log-odds.

    Found after the runs of `sdft`, and tested at anchors of its own.
    """
    if not LEVELS[scale]:
        return Chapter(())
    task = parse_rules(TASK)
    bare, told = _bare_and_told(base, task, PROBLEMS[scale])
    claims, runs = [], []
    for anchor in LEVELS[scale]:
        name = f"sdft-level-{anchor:g}"
        runs.append(Planned(name, _config(scale, "sdft", 120, learner=SDFT(teacher_share=anchor, ema_rate=0.1))))
        tilt = anchor * np.maximum(told - bare, 0.0)
        end, _ = sdft_response_bracket(-bare, tilt, anchor, 0.0, 0.0)
        quantity = f"new mass under SDFT with anchor {anchor:g}, a teacher that stays at its level"
        label = Label("sdft-level", run=name, x=anchor)
        prediction = _near(name, label, "sdft-response", quantity, float(expit(-end).mean()), 0.06)
        claims.append(Claim(prediction, (name,), settled(name, "reward")))
    return Chapter(tuple(claims), tuple(runs))


def sdft_rates(scale: Scale, base: Policy) -> Chapter:
    """P6 without an anchor: the old behaviour loses at most h at once and rho h a step, in log-odds.

    The demonstration is worth h to the base. However fast the student learns, with rho the EMA rate the old log-odds after n
    steps are at least ``s_b - h (1 + rho n)``. The old mass is compared as a logarithm, the bound being the lower end.
    In a mixture of two, what the new behaviour gains the old one loses; in a model h depends on whose log-odds it is read
    off. `RATES` reads it off the new behaviour's, `OWN_RATES` (later, at rates of its own) off those of the old one.
    """
    task = parse_rules(TASK)
    held_out = list(task.problems("test"))[: PROBLEMS[scale]]
    told = (rule_context(base, task),)
    answers = {"new": [task.answer(p) for p in held_out], "old": [task.old_answer(p) for p in held_out]}
    with torch.no_grad():
        bare_new, bare_old = (answer_logprobs(base, ("",), held_out, answers[k])[0] for k in ("new", "old"))
        told_new, told_old = (answer_logprobs(base, told, held_out, answers[k])[0] for k in ("new", "old"))
    worth = {"sdft-rate": _odds(told_new) - _odds(bare_new), "sdft-rate-own": _odds(bare_old) - _odds(told_old)}
    claims, runs = [], []
    for kind, rates, width in (("sdft-rate", RATES[scale], 4.0), ("sdft-rate-own", OWN_RATES[scale], 20.0)):
        for rate in rates:
            name = f"{kind}-{rate:g}"
            runs.append(Planned(name, _config(scale, "sdft", RATE_STEPS, learner=SDFT(ema_rate=rate))))
            left = _odds(bare_old) - np.maximum(worth[kind], 0.0) * (1.0 + rate * RATE_STEPS)
            bound = float(logsumexp(log_expit(left)) - np.log(len(left)))
            quantity = f"log old mass after {RATE_STEPS} steps of SDFT with EMA rate {rate:g}, no anchor, is at least"
            label = Label(kind, run=name, x=rate)
            prediction = Prediction(name, label, "sdft-retention-horizon", quantity, bound, bound, 0.0, width)
            claims.append(Claim(prediction, (name,), _log_old_mass(name)))
    return Chapter(tuple(claims), tuple(runs))


def _odds(logprobs: Array) -> Array:
    """Log-odds of probabilities given as logarithms, also of those that are 0 as numbers."""
    return np.asarray(logprobs - np.log(-np.expm1(np.minimum(logprobs, -1e-12))))


def _log_old_mass(name: str) -> Callable[[Records], list[float]]:
    def read(records: Records) -> list[float]:
        return [float(np.log(max(curve(rows, "old_mass")[1][-1], 1e-30))) for rows in records.rows(name)]

    return read


def discover(scale: Scale, base: Policy) -> Chapter:
    """P7: TTT-Discover under a leash limits itself: the new mass saturates in the reward gap."""
    x = _log_odds(measure_base(base, parse_rules(TASK), PROBLEMS[scale]).new)
    claims, runs = [], []
    for gap in GAPS[scale]:
        learner = TTTDiscover(problems=24, rollouts=GROUP, inverse_temperature=gap, leash_reward=LEASH)
        name = f"ttt-{gap:g}"
        runs.append(Planned(name, _config(scale, "ttt", 120, learner=learner)))
        values = {
            "": (f"groups of {GROUP}", entropic_group_optimum(x, gap, LEASH, GROUP)),
            "-exact": ("exact normaliser", -entropic_tilt_log_odds(-x, gap, LEASH)),
        }
        for tail, (rival, value) in values.items():
            quantity = f"new mass under TTT-Discover with reward gap {gap:g}, {rival}"
            label = Label(f"ttt{tail}", run=name, x=gap, law=rival)
            prediction = _near(name + tail, label, "ttt-discover", quantity, float(expit(value).mean()), 0.05)
            claims.append(Claim(prediction, (name,), settled(name, "reward")))
    return Chapter(tuple(claims), tuple(runs))


def _at_step(name: str, step: int) -> Callable[[Records], list[float]]:
    def read(records: Records) -> list[float]:
        found = []
        for rows in records.rows(name):
            steps, reward = curve(rows, "reward")
            found.append(float(reward[int(np.flatnonzero(steps == step)[0])]))
        return found

    return read


def oapl(scale: Scale, base: Policy) -> Chapter:
    """P8: the log-odds move by the same amount every refresh, without end; an anchored reference stops them."""
    if not REFRESHES[scale]:
        return Chapter(())
    start = _log_odds(measure_base(base, parse_rules(TASK), PROBLEMS[scale]).new)
    free = OAPL(problems=24, rollouts=GROUP, tau=TAU, period=PERIOD)
    runs = [
        Planned("oapl", _config(scale, "oapl", PERIOD * REFRESHES[scale], learner=free)),
        Planned(
            "oapl-anchored",
            _config(
                scale,
                "oapl",
                PERIOD * 6,
                learner=OAPL(problems=24, rollouts=GROUP, tau=TAU, period=PERIOD, lagged_share=0.5),
            ),
        ),
    ]
    claims, x = [], start
    for k in range(1, REFRESHES[scale] + 1):
        x = oapl_group_step(x, TAU, GROUP)
        rivals = {f"groups of {GROUP}": ("", x), "exact value": ("-exact", -oapl_log_odds(-start, 1.0, TAU, k))}
        for rival, (tail, value) in rivals.items():
            quantity = f"new mass under OAPL after {k} periods, {rival}"
            label = Label(f"oapl{tail}", run="oapl", x=k, law=rival)
            prediction = _near(f"oapl-{k}{tail}", label, "oapl", quantity, float(expit(value).mean()), 0.05)
            claims.append(Claim(prediction, ("oapl",), _at_step("oapl", PERIOD * k)))
    limit = float(expit(start + 1.0 / (TAU * 0.5)).mean())
    quantity = "new mass under OAPL with anchor 0.5"
    label = Label("oapl", run="oapl-anchored")
    anchored = _near("oapl-anchored", label, "oapl-anchored", quantity, limit, 0.08)
    claims.append(Claim(anchored, ("oapl-anchored",), settled("oapl-anchored", "reward")))
    return Chapter(tuple(claims), tuple(runs))
