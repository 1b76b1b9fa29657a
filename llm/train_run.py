"""One training run as a run directory: it can be killed at any moment and continued to the same metrics.

A directory holds ``config.json``, ``environment.json``, ``metrics.jsonl`` (a row a slow step; probe columns where they
were measured), ``prompts.jsonl`` (the population after each fast round), ``checkpoint.safetensors``
(weights, optimizer, shadow weights where a method has them, population, counters and generator in one file) and, at the
end, ``model/`` (the trained model) and ``summary.json``. Times are in the summary only, so that the metrics of a
continued run equal those of an uninterrupted one.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import FastLearner, FastSlowState, FrozenFast, FrozenSlow, SlowLearner, fast_slow
from fstsim.llm.checkpoint import (
    pack_optimizer,
    put_weights,
    read_checkpoint,
    unpack_optimizer,
    weights_of,
    write_checkpoint,
)
from fstsim.llm.discover import TTTDiscover
from fstsim.llm.distill import Distillation
from fstsim.llm.families import FAMILIES
from fstsim.llm.fast import PromptEvolution
from fstsim.llm.mixture import MixtureDistillation
from fstsim.llm.oapl import OAPL
from fstsim.llm.policy import SHIPPED, Policy
from fstsim.llm.probes import Probe, ProbeConfig, relearn_steps
from fstsim.llm.reflection import ReflectorConfig
from fstsim.llm.sdft import SDFT
from fstsim.llm.shadow import ShadowedWeights
from fstsim.llm.slow import PolicyGradient, SupervisedFineTuning, Weights
from fstsim.llm.types import Population
from fstsim.llm.world import RuleTask, parse_task
from fstsim.records import check_directory, claim_directory, environment, plain, row_line, write_json, write_text

Method = Literal["rl", "sft", "fst", "gepa", "distill", "sdft", "ttt", "oapl", "mixture"]
Preset = Literal["smoke", "small", "paper"]


@dataclass(frozen=True)
class TrainConfig:
    """What is trained on what, and what is measured."""

    method: Method = "rl"
    """rl: policy gradient on verified rewards; sft: forward KL on demonstrations; gepa: evolved contexts alone; fst: both;
    distill: the policy without context learns from its start in ``context``; sdft: from its own average with a demonstration;
    ttt: entropic policy gradient; oapl: regression on a lagged policy's rollouts; mixture: distillation to a given mixture of
    old and new behaviour"""
    tasks: tuple[str, ...] = ("strings:reverse",)
    """tasks, one after the other in one uninterrupted run"""
    model: str = SHIPPED
    """the shipped base model, or any causal LM by path or hub name"""
    context: str = ""
    """context at the start: the seed of the population with fst and gepa, the teacher's with distill, frozen with all others"""
    steps: int = 200
    """slow steps on each task"""
    lr: float = 3e-4
    """learning rate of AdamW"""
    clip: float = 1.0
    """largest norm of a gradient that AdamW sees; longer ones are cut to it"""
    device: str = "cpu"
    """torch device"""
    seed: int = 0
    """the one seed of the run"""
    slow: PolicyGradient = field(default_factory=PolicyGradient)
    """settings of rl"""
    demonstrations: SupervisedFineTuning = field(default_factory=SupervisedFineTuning)
    """settings of sft"""
    fast: PromptEvolution = field(default_factory=PromptEvolution)
    """settings of the fast channel (fst, gepa)"""
    reflector: ReflectorConfig = field(default_factory=ReflectorConfig)
    """who writes new contexts (fst, gepa)"""
    slow_steps_per_round: int = 6
    """slow steps between fast rounds (fst); gepa has a round a step"""
    distillation: Distillation = field(default_factory=Distillation)
    """settings of distill"""
    sdft: SDFT = field(default_factory=SDFT)
    """settings of sdft"""
    ttt: TTTDiscover = field(default_factory=TTTDiscover)
    """settings of ttt"""
    oapl: OAPL = field(default_factory=OAPL)
    """settings of oapl"""
    mixture: MixtureDistillation = field(default_factory=MixtureDistillation)
    """settings of mixture"""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """what is measured, and when"""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(f"method {self.method!r} is unknown; allowed: {', '.join(get_args(Method))}")
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        if not 0.0 < self.lr < 10.0:
            raise InputError(f"lr must be positive and below 10, got {self.lr}")
        if not self.clip > 0.0:
            raise InputError(f"clip must be positive, got {self.clip}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")
        if self.slow_steps_per_round < 1:
            raise InputError(f"slow_steps_per_round must be at least 1, got {self.slow_steps_per_round}")
        if not self.tasks:
            raise InputError("tasks must not be empty")
        if self.fast.reuse and (self.fast.max_new_tokens, 1.0) != (self.slow.max_new_tokens, self.slow.temperature):
            raise InputError("reuse needs slow temperature 1, and the same max_new_tokens in both channels")
        for name in self.tasks:
            parse_task(name)

    def learners(self) -> tuple[SlowLearner[Any, Population, Any], FastLearner[Any, Population, Any], int]:
        """Slow channel, fast channel, slow steps a round: the methods differ in these settings alone."""
        evolution: FastLearner[Any, Population, Any] = FrozenFast()
        if self.method in ("fst", "gepa"):
            evolution = replace(self.fast, reflector=self.reflector.build())
        slow: dict[Method, SlowLearner[Any, Population, Any]] = {
            "rl": self.slow,
            "fst": self.slow,
            "gepa": FrozenSlow(),
            "sft": self.demonstrations,
            "distill": replace(self.distillation, teacher_context=self.context),
            "sdft": self.sdft,
            "ttt": self.ttt,
            "oapl": self.oapl,
            "mixture": self.mixture,
        }
        return slow[self.method], evolution, 1 if self.method == "gepa" else self.slow_steps_per_round


PRESETS: dict[str, TrainConfig] = {
    "smoke": TrainConfig(
        steps=40,
        slow=PolicyGradient(problems=24),
        demonstrations=SupervisedFineTuning(problems=24),
        sdft=SDFT(problems=24),
        ttt=TTTDiscover(problems=24),
        oapl=OAPL(problems=24),
        mixture=MixtureDistillation(problems=24),
        probe=ProbeConfig(every=10, problems=32, exam=16),
    ),
    # so that on 2 cores the probes take less than a tenth of a run whose groups stay alive
    "small": TrainConfig(probe=ProbeConfig(every=100, problems=40, exam=12, early=4)),
    "paper": TrainConfig(
        steps=400,
        slow=PolicyGradient(problems=64),
        demonstrations=SupervisedFineTuning(problems=64),
        sdft=SDFT(problems=64),
        ttt=TTTDiscover(problems=64),
        oapl=OAPL(problems=64),
        mixture=MixtureDistillation(problems=64),
        probe=ProbeConfig(every=20, problems=256, exam=128),
    ),
}


def relearn_task(tasks: tuple[str, ...]) -> RuleTask | None:
    """The task of the relearning probe: the first single rule of the last task's family that no task uses, if there is one."""
    last = parse_task(tasks[-1])
    used = {word for name in tasks for word in parse_task(name).rules}
    free = [word for word in FAMILIES[last.family].rules if word not in used]
    return RuleTask(last.family, (free[0],), size=last.size) if free else None


def check_runs(config: TrainConfig, out: Path, seeds: int) -> None:
    """InputError unless every ``out/seed-k`` is free, or holds the run of ``config`` with that seed."""
    if out.is_dir():
        strange = [
            p
            for p in out.iterdir()
            if not (p.name.startswith("seed-") or p.name == "picture.png" or p.suffix == ".tmp")
        ]
        if strange:
            raise InputError(f"{out} is not empty and holds no run: choose a new or an empty --out")
    for seed in range(seeds):
        wanted = dataclasses.asdict(replace(config, seed=seed))
        check_directory(out / f"seed-{seed}", wanted, "training run", dataclasses.asdict(TrainConfig()))


Notes = Callable[[int, str], None]


def run_training(config: TrainConfig, out: Path, progress: Notes | None = None) -> list[dict[str, Any]]:
    """Run, continue or only load the run in directory ``out``; returns its rows.

    ``progress(step, note)`` is called after every slow step. Raises InputError before any work if ``out`` holds another
    run, and `slow.Diverged` when a loss is not finite: the last checkpoint stays.
    """
    tasks = [parse_task(name) for name in config.tasks]
    policy = Policy.load(config.model, config.device)
    for task in tasks:  # a context that does not fit is found before anything is written
        problem = task.problems("test")[0]
        longest = len(policy.encode_answer(task.answer(problem)))
        if policy.template == "world" and longest > config.slow.max_new_tokens:
            raise InputError(
                f"answers of {task.name} have {longest} tokens, the end token included: --max-new-tokens must be at least "
                f"{longest}, got {config.slow.max_new_tokens}"
            )
        policy.sample(
            [policy.encode(config.context, problem)],
            1,
            torch.Generator(policy.device),
            max_new_tokens=config.slow.max_new_tokens,
        )
    slow, fast, every = config.learners()  # a reflector that is not there is found here
    if isinstance(slow, SDFT):
        for task in tasks:
            slow.check(policy, config.context, task)
    record = environment(config.seed, config.device)
    claim_directory(out, dataclasses.asdict(config), record, "training run", dataclasses.asdict(TrainConfig()))
    base = Policy.of(copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=config.lr, weight_decay=0.0)
    rng = np.random.default_rng(config.seed)
    weights = Weights(policy, base, optimizer, config.clip)
    if isinstance(slow, SDFT | OAPL):
        weights = ShadowedWeights.start(weights)
    state: FastSlowState[Weights, Population] = FastSlowState(
        weights, Population(("" if config.method == "distill" else config.context,))
    )
    rows: list[dict[str, Any]] = []
    rounds: list[dict[str, Any]] = []
    spent = {"seconds": 0.0, "probe_seconds": 0.0}
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        state, rows, rounds, spent = _load(checkpoint, state, rng)
        _write_rows(out, rows, rounds)  # killed between the checkpoint and its rows
        if (out / "summary.json").exists():
            return rows
    probes = [Probe(base, task, config.probe, config.seed) for task in tasks]
    relearn = relearn_task(config.tasks) if policy.template == "world" else None
    started = time.perf_counter()
    if not rows:
        rows.append(plain({"step": 0, "samples": 0, "task": 0, **_measure(probes, state)}))
        if relearn is not None:
            rows[0]["relearn"] = relearn_steps(policy, relearn)
    total = config.steps * len(tasks)
    before = dict(spent)
    if state.step < total:
        run = fast_slow(tasks, slow, fast, state, steps_per_task=config.steps, slow_steps_per_round=every, rng=rng)
        for state in run:
            last = state.step == total
            measured = config.probe.due(state.step_in_task) or state.step_in_task == config.steps
            row = {"step": state.step, "samples": state.samples, "task": state.task, **state.slow.metrics}
            if (state.step_in_task - 1) % every == 0 and state.fast.metrics:
                row |= state.fast.metrics
                rounds.append({"step": state.step - 1, "task": state.task, **dataclasses.asdict(state.context)})
            if measured:
                row |= _measure(probes, state)
            if last and relearn is not None:
                row["relearn"] = relearn_steps(policy, relearn)
            rows.append(plain(row))
            if measured or last:
                spent["seconds"] = before["seconds"] + time.perf_counter() - started
                spent["probe_seconds"] = before["probe_seconds"] + sum(probe.seconds for probe in probes)
                _save(checkpoint, state, rows, rounds, spent, rng)
                _write_rows(out, rows, rounds)
            if progress is not None:
                progress(state.step, _note(rows))
    policy.model.save_pretrained(out / "model")
    policy.tokenizer.save_pretrained(out / "model")
    write_json(out / "summary.json", _summary(config, rows, spent, state))
    return rows


def _write_rows(out: Path, rows: list[dict[str, Any]], rounds: list[dict[str, Any]]) -> None:
    for name, lines in (("metrics.jsonl", rows), ("prompts.jsonl", rounds)):
        text = "".join(map(row_line, lines))
        path = out / name
        if lines and not (path.exists() and path.read_text(encoding="utf-8") == text):
            write_text(path, text)


def _measure(probes: list[Probe], state: FastSlowState[Weights, Population]) -> dict[str, Any]:
    """The probe of the present task, and the reward on every other task of the sequence.

    ``_task{k}`` in the contexts in use, ``_task{k}_own_context`` in the context kept from that task, where there is one.
    """
    row = probes[state.task].measure(state.weights.policy, state.context)
    archive = dict(state.context.archive)
    for k, probe in enumerate(probes):
        if k != state.task:
            row |= probe.reward(state.weights.policy, state.context.prompts, f"_task{k}")
            if probe.task.name in archive:
                row |= probe.reward(state.weights.policy, (archive[probe.task.name],), f"_task{k}_own_context")
    return row


def _note(rows: list[dict[str, Any]]) -> str:
    last = next(row for row in reversed(rows) if "reward" in row)
    trained = rows[-1].get("train_reward")
    parts = [] if trained is None else [f"train reward {trained:.2f}"]
    parts += [f"test reward {last['reward']:.2f}", f"KL to base {last['kl_to_base']:.2f} nats"]
    return ", ".join(parts)


def _summary(
    config: TrainConfig, rows: list[dict[str, Any]], spent: dict[str, float], state: FastSlowState[Weights, Population]
) -> dict[str, Any]:
    seconds = spent["seconds"]
    return {
        "first": rows[0],
        "last": rows[-1],
        "prompts": list(state.context.prompts),
        "seconds": seconds,
        "probe_share": spent["probe_seconds"] / seconds if seconds else None,
        "rollouts_per_second": state.samples / seconds if seconds else None,
        "tasks": list(config.tasks),
    }


def _save(
    path: Path,
    state: FastSlowState[Weights, Population],
    rows: list[dict[str, Any]],
    rounds: list[dict[str, Any]],
    spent: dict[str, float],
    rng: np.random.Generator,
) -> None:
    tensors, rest = pack_optimizer(state.weights.optimizer, "optimizer")
    meta: dict[str, Any] = {
        "counters": {name: getattr(state, name) for name in _COUNTERS},
        "generator": rng.bit_generator.state,
        "optimizer": rest,
        "population": dataclasses.asdict(state.context),
        "rounds": rounds,
        "rows": rows,
        "spent": spent,
    }
    tensors |= weights_of(state.weights.policy.model)
    if isinstance(state.weights, ShadowedWeights):
        tensors |= {_shadow(name): tensor for name, tensor in weights_of(state.weights.shadow.model).items()}
        meta["age"] = state.weights.age
    write_checkpoint(path, tensors, meta)


def _shadow(name: str) -> str:
    """Name in a checkpoint of the shadow's copy of a weight."""
    return f"shadow.{name}"


_COUNTERS = ("step", "task", "step_in_task", "slow_samples", "fast_samples")


def _load(
    path: Path, fresh: FastSlowState[Weights, Population], rng: np.random.Generator
) -> tuple[FastSlowState[Weights, Population], list[dict[str, Any]], list[dict[str, Any]], dict[str, float]]:
    tensors, meta = read_checkpoint(path)
    weights = fresh.weights
    put_weights(weights.policy.model, tensors, path)
    if isinstance(weights, ShadowedWeights):
        own = {name: tensors[_shadow(name)] for name in weights_of(weights.shadow.model) if _shadow(name) in tensors}
        put_weights(weights.shadow.model, own, path)
        weights = replace(weights, age=meta["age"])
    try:
        unpack_optimizer(weights.optimizer, "optimizer", tensors, meta["optimizer"])
    except ValueError as error:
        raise InputError(f"{path} has an optimizer of another model: {error}") from error
    rng.bit_generator.state = meta["generator"]
    state = replace(fresh, weights=weights, context=Population.from_dict(meta["population"]), **meta["counters"])
    return state, meta["rows"], meta["rounds"], meta["spent"]
