"""CPU seconds of one RL step of a pretrained model, part by part: ``python -m fstsim.paper.records.pretrained_step`` measures them.

A step of CISPO on 4 problems of the language suite with 6 rollouts each, on one thread: what sampling costs, the passes of
scoring, forward and backward, and clipping with AdamW. Every group is given one right answer, so that none is left out:
a step of a real run, whose groups without signal cost no pass, is never dearer. The ways to train take turns, and the
median of the turns counts, since other work on a machine slows down whoever is at work then. ``make readme`` puts the record on the page.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fstsim.front.console import Progress, show
from fstsim.front.entry import run_module
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.weights import Weights, sample_problems
from fstsim.llm.policy.adapters import own_weights, with_adapter
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population
from fstsim.paper import DATA
from fstsim.records import environment, plain, write_json

TASK = "language:plural:form"
LEARNER = PolicyGradient(problems=4, rollouts=6, max_new_tokens=16)
WAYS = {"float32": ("", False), "bfloat16": ("", True), "lora:r=16": ("lora:r=16", False)}
"""Name of each way to train: its adapter, and whether activations are in bfloat16."""
RECORD = DATA / "benchmarks" / "pretrained-step.json"


@dataclass(frozen=True)
class Config:
    """Measure the step of a pretrained model, and write the record."""

    model: str = "smollm2"
    """a chat model that knows the language suite"""
    turns: int = 5
    """steps of every way that are timed, after one that is not"""
    out: Path = RECORD
    """the record"""


@contextmanager
def counted(spent: dict[str, float], name: str) -> Iterator[None]:
    """Adds the CPU seconds of what is done within it to ``spent[name]``."""
    before = time.process_time()
    try:
        yield
    finally:
        spent[name] = spent.get(name, 0.0) + time.process_time() - before


@dataclass(frozen=True)
class TimedWeights(Weights):
    """Weights whose updates are counted."""

    spent: dict[str, float] | None = None

    def apply(self, what: str) -> float:
        assert self.spent is not None
        with counted(self.spent, "update"):
            return super().apply(what)


def weights_of(policy: Policy, way: str, spent: dict[str, float]) -> TimedWeights:
    """A copy of ``policy`` with its optimizer, trained in the way called ``way``."""
    adapter, half = WAYS[way]
    own = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    trained, base = with_adapter(own, adapter, 0) if adapter else (own, policy)
    optimizer = OptimizerConfig().build(own_weights(trained).values(), 1e-6, 0)
    return TimedWeights(replace(trained, bfloat16=half), base, optimizer, spent=spent)


def step_seconds(weights: TimedWeights, seed: int) -> dict[str, float]:
    """CPU seconds of one step: ``sampling``, ``passes`` and ``update``."""
    assert weights.spent is not None
    weights.spent.clear()
    rng = np.random.default_rng(seed)
    problems = sample_problems(parse_task(TASK).problems("train"), LEARNER.problems, rng)
    with counted(weights.spent, "sampling"):
        rollouts, groups = LEARNER.roll_out(weights.policy, Population(("",)), problems, rng)
    rewards = torch.zeros(len(rollouts))
    rewards[:: LEARNER.rollouts] = 1.0  # the first of each group
    with counted(weights.spent, "learning"):
        LEARNER.learn(weights, rollouts, rewards, groups, TASK)
    found = dict(weights.spent)
    found["passes"] = found.pop("learning") - found["update"]
    return found


def measure(config: Config) -> int:
    """Do it; InputError for a model that is not there."""
    torch.set_num_threads(1)
    policy = Policy.load(config.model)
    learners = {way: weights_of(policy, way, {}) for way in WAYS}
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    progress = Progress("one step", (config.turns + 1) * len(WAYS), "steps")
    for done, (turn, way) in enumerate(itertools.product(range(config.turns + 1), WAYS)):
        progress.at(done, way)
        found = step_seconds(learners[way], turn)
        if turn:
            seconds[way].append(found)
    progress.close()
    rows = {
        way: {part: statistics.median(each[part] for each in found) for part in ("sampling", "passes", "update")}
        for way, found in seconds.items()
    }
    record = {
        "model": config.model,
        "threads": 1,
        "turns": config.turns,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "environment": environment(0, "cpu"),
        "seconds": rows,
    }
    write_json(config.out, plain(record))
    for way, row in rows.items():
        show(f"{way}: {sum(row.values()):.2f} CPU s a step ({', '.join(f'{p} {s:.2f}' for p, s in row.items())})")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.pretrained_step", Config, measure))
