"""Claims about where training ends: dead groups, replay, RL with a leash (predictions P2, P5 and the tilt)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population, Task
from fstsim.llm.validation.claim import Chapter, Claim, Records, settled
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import (
    Prediction,
    measure_base,
    predict_dead_groups,
    predict_replay,
    predict_tilt,
)
from fstsim.theory import starvation_probability

TASK = "digits:plus"
SHARES = {"smoke": (0.1, 0.3), "small": (0.02, 0.05, 0.1, 0.2, 0.5), "paper": (0.02, 0.05, 0.1, 0.2, 0.5)}
LEASHES = {"smoke": (0.5,), "small": (1.0, 0.7, 0.5, 0.35, 0.25), "paper": (1.0, 0.7, 0.5, 0.35, 0.25)}
GROUPS = (2, 8, 32)
PROBLEMS = {"smoke": 64, "small": 128, "paper": 256}
"""Test problems on which the base and the runs are measured."""


def dead_groups(scale: Scale, base: Policy) -> Chapter:
    """Share of groups without signal before training, for three sizes of group; no run is needed."""
    task = parse_rules(TASK)
    masses = measure_base(base, task, PROBLEMS[scale])

    def measured(group: int) -> Callable[[Records], list[float]]:
        return lambda records: measure_dead_groups(records.base, task, PROBLEMS[scale], records.seeds, group)

    return Chapter(tuple(Claim(predict_dead_groups(masses, group), (), measured(group)) for group in GROUPS))


def measure_dead_groups(
    policy: Policy, task: Task, problems: int, seeds: int, group: int, least: int = 1536
) -> list[float]:
    """Share of groups without signal among real rollouts of the base, a number a seed.

    At ``least`` so many rollouts a seed: small groups are drawn several times, or their share would be the noisier one.
    """
    gradient = PolicyGradient(rollouts=group)
    held_out = list(task.problems("test"))[:problems]
    times = max(1, -(-least // (group * problems)))
    shares = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        dead = []
        for _ in range(times):
            rollouts, groups = gradient.roll_out(policy, Population(), held_out, rng)
            texts = policy.decode(rollouts)
            rewards = np.array(
                [task.score(held_out[g], t).reward for g, t in zip(groups.tolist(), texts, strict=True)]
            ).reshape(problems, group)
            dead.append(float((rewards == rewards[:, :1]).all(axis=1).mean()))
        shares.append(float(np.mean(dead)))
    return shares


def _sft(scale: Scale, steps: dict[str, int], **settings: Any) -> TrainConfig:
    return TrainConfig(
        method="sft",
        tasks=(TASK,),
        steps=steps[scale],
        learner=SupervisedFineTuning(**settings),
        probe=ProbeConfig(every=10, problems=PROBLEMS[scale], exam=16),
    )


def replay(scale: Scale, base: Policy) -> Chapter:
    """P2: old mass after supervised fine-tuning with replay, for several shares; and in batches of four.

    Four demonstrations hold no old one in four batches of ten: the share is then right on average only, and the learning
    rate is lowered so that many batches are averaged over. A gradient clipped by its norm has another mean: the batches
    that surprise most count least (`replay-clipped`), so that the run is also made without clipping.
    """
    masses = measure_base(base, parse_rules(TASK), PROBLEMS[scale])
    claims, runs = [], []
    for share in SHARES[scale]:
        config = _sft(scale, {"smoke": 80, "small": 240, "paper": 400}, problems=64, replay_share=share)
        runs.append(Planned(f"replay-{share:g}", config))
        claims.append(Claim(predict_replay(masses, share), (runs[-1].name,), settled(runs[-1].name, "old_mass")))
    if scale != "smoke":
        config = _sft(scale, {"small": 600, "paper": 2000}, problems=4, replay_share=0.2)
        for name, clip in (("replay-starved", 1.0), ("replay-unclipped", 1e9)):
            planned = Planned(name, replace(config, lr=1e-4, clip=clip))
            tail = "" if clip == 1.0 else ", gradient not clipped"
            quantity = f"old mass after SFT with 20% old demonstrations, batches of 4{tail}"
            label = Label("replay-batches", run=name, x=0.2)
            starved = replace(predict_replay(masses, 0.2), name=name, label=label, quantity=quantity, resolution=0.2)
            runs.append(planned)
            claims.append(Claim(starved, (name,), settled(name, "old_mass")))
        empty = float(starvation_probability(0.2, 4))
        quantity = "share of batches of 4 without an old demonstration, replay of 20%"
        label = Label("without-signal", run="replay-starved", x=0.2)
        empties = Prediction("starvation", label, "replay-reverse-starvation", quantity, empty, empty, empty, 0.1)
        claims.append(Claim(empties, ("replay-starved",), _empty_batches("replay-starved")))
    return Chapter(tuple(claims), tuple(runs))


def _empty_batches(name: str) -> Callable[[Records], list[float]]:
    def read(records: Records) -> list[float]:
        shares = [[row["old_share"] for row in rows if "old_share" in row] for rows in records.rows(name)]
        return [float(np.mean(np.array(s) == 0.0)) for s in shares]

    return read


def tilts(scale: Scale, base: Policy) -> Chapter:
    """Where RL with a KL leash in the reward settles: the exponential tilt of the base, per prompt."""
    steps = {"smoke": 80, "small": 160, "paper": 600}[scale]
    masses = measure_base(base, parse_rules(TASK), PROBLEMS[scale])
    claims, runs = [], []
    for leash in LEASHES[scale]:
        learner = PolicyGradient(
            loss="reinforce", problems=32 if scale == "smoke" else 48, advantage="centred", leash_reward=leash
        )
        probe = ProbeConfig(every=10, problems=PROBLEMS[scale], exam=16)
        name = f"tilt-{leash:g}"
        runs.append(Planned(name, TrainConfig(tasks=(TASK,), steps=steps, learner=learner, probe=probe)))
        for predicted, column in zip(predict_tilt(masses, leash), ("reward", "old_mass"), strict=True):
            claims.append(Claim(predicted, (name,), settled(name, column)))
    return Chapter(tuple(claims), tuple(runs))
