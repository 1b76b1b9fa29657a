"""One CISPO step of TRL's GRPOTrainer, of ours and of a naive loop, in turns in one process; prints and writes the ratio.

A step is everything between two updates: prompts are drawn and encoded, completions sampled, decoded and scored, the
loss run backward, the optimizer stepped. All three start from the same weights and do the same work in the same precision:
the same number of prompts and rollouts of the same task, the same cap, no leash, AdamW (fused on a GPU) with gradients
clipped at norm 1. TRL is given what makes it fast here: one micro-batch, no activation checkpointing, no logging. It takes
its own training loop; ours run in its callback after each of its steps, so that the noise of the machine hits all three
alike. The naive loop is our code without what it shares: a row a rollout, a growing cache, no graphs.

The ratio is of medians, with a bootstrap interval over turns. A record for the repository goes to paper/data/benchmarks:

    make bench-trl (CPU) and make bench-gpu write to out/
    python tests/benchmarks/trl_side_by_side.py --out paper/data/benchmarks/trl-cpu.json
    python tests/benchmarks/trl_side_by_side.py --device cuda --out paper/data/benchmarks/trl-cuda.json

Not run on a GPU yet: --device cuda and, there, --precision bfloat16.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.rules import RuleTask, parse_rules
from fstsim.llm.types import Population, Problem
from fstsim.records import environment, plain, write_json


@dataclass(frozen=True)
class Scenario:
    """A task and the contexts that a group's rollouts are shared out over."""

    task: str
    contexts: tuple[str, ...]
    says: str


SCENARIOS: Mapping[str, Scenario] = {
    "mixed": Scenario("strings:reverse", ("", "reverse"), "half of each group has the rule: every group has a signal"),
    "dead": Scenario("strings:reverse+next", ("",), "hardly any success: most groups have no signal"),
}
LEARNERS = ("TRL", "naive", "fstsim")


@dataclass(frozen=True)
class Config:
    """What is timed."""

    model: str = "base"
    """the shipped base model, or a folder"""
    device: str = "cpu"
    """cpu or cuda"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of activations, in all three; weights are float32"""
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    """mixed: every group has a signal; dead: most have none"""
    problems: int = 48
    """problems a step"""
    rollouts: int = 8
    """completions of a problem"""
    max_new_tokens: int = 8
    """longest completion"""
    ratio_cap: float = 5.0
    """cap of the importance ratio"""
    lr: float = 1e-6
    """learning rate of AdamW: small, so that the work stays the same from step to step"""
    steps: int = 30
    """timed steps of each learner"""
    warm_up: int = 3
    """steps before them that are not counted; on a GPU the second batch of a shape captures the graphs"""
    threads: int | None = None
    """threads of torch on a CPU; by default what torch chooses"""
    clock: Literal["wall", "cpu"] = "wall"
    """wall: time that passes; cpu: processor time of all threads, where other work shares the machine (then use --threads 1)"""
    seed: int = 0
    """seed of problems and completions"""
    out: Path = Path("out/trl_side_by_side.json")
    """where the times are written"""

    def __post_init__(self) -> None:
        unknown = [name for name in self.scenarios if name not in SCENARIOS]
        if unknown or not self.scenarios:
            raise InputError(f"scenarios must be among {', '.join(SCENARIOS)}; got {', '.join(unknown) or 'none'}")
        if self.steps < 2 or self.warm_up < 1:
            raise InputError(f"steps must be at least 2 and warm-up at least 1, got {self.steps} and {self.warm_up}")
        if self.clock == "cpu" and self.device != "cpu":
            raise InputError(f"clock cpu does not see what {self.device} does: use wall")
        if self.device != "cpu" and self.warm_up < 3:
            raise InputError(
                f"warm-up must be at least 3 on {self.device}, where graphs are captured; got {self.warm_up}"
            )
        for name in self.scenarios:
            contexts = len(SCENARIOS[name].contexts)
            if self.rollouts % contexts or self.rollouts // contexts < 2:
                raise InputError(f"rollouts must be at least 2 in each of {contexts} contexts, got {self.rollouts}")


def now(config: Config) -> float:
    """The clock, once the device has finished."""
    if config.device != "cpu":
        torch.cuda.synchronize()
    return time.process_time() if config.clock == "cpu" else time.perf_counter()


def ours(config: Config, policy: Policy, task: RuleTask, contexts: tuple[str, ...]) -> Callable[[], StepInfo]:
    """One step of our CISPO on a copy of ``policy``."""
    policy = dataclasses.replace(policy, model=copy.deepcopy(policy.model), bfloat16=config.precision == "bfloat16")
    fused = config.device != "cpu"  # what TRL's default is there
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=config.lr, weight_decay=0.0, fused=fused)
    weights = Weights(policy, policy, optimizer)
    learner = PolicyGradient(
        problems=config.problems,
        rollouts=config.rollouts,
        ratio_cap=config.ratio_cap,
        max_new_tokens=config.max_new_tokens,
    )
    population, rng = Population(contexts), np.random.default_rng(config.seed)
    return lambda: learner.step(weights, population, task, rng)[1]


def trl_trainer(
    config: Config,
    policy: Policy,
    task: RuleTask,
    contexts: tuple[str, ...],
    folder: str,
    rewards: list[float],
    after_step: Callable[[], None],
) -> Any:
    """A GRPOTrainer on a copy of ``policy``; ``rewards`` collects what it saw, ``after_step`` is called after each of its steps.

    One group of TRL is one prompt: with two contexts it has twice the groups, of half the rollouts.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    problems: dict[str, Problem] = {problem.text: problem for problem in task.problems("train")}
    rows = [{"prompt": f"{context} | {text} =", "problem": text} for text in problems for context in contexts]

    def reward(completions: list[str], problem: list[str], **_rest: Any) -> list[float]:
        found = [task.score(problems[p], text).reward for p, text in zip(problem, completions, strict=True)]
        rewards.extend(found)
        return found

    class Turn(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            after_step()

    trainer = GRPOTrainer(
        copy.deepcopy(policy.model),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=folder,
            use_cpu=config.device == "cpu",
            bf16=config.precision == "bfloat16",
            activation_checkpointing=False,
            max_steps=config.warm_up + config.steps,
            per_device_train_batch_size=config.problems * config.rollouts,
            gradient_accumulation_steps=1,
            num_generations=config.rollouts // len(contexts),
            max_completion_length=config.max_new_tokens,
            temperature=1.0,
            loss_type="cispo",
            epsilon_high=config.ratio_cap,
            beta=0.0,
            learning_rate=config.lr,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=config.seed,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=copy.deepcopy(policy.tokenizer),
        callbacks=[Turn()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def run(config: Config, name: str, policy: Policy) -> dict[str, Any]:
    """Times of all three in one scenario."""
    scenario = SCENARIOS[name]
    task = parse_rules(scenario.task)
    steps = {
        "fstsim": ours(config, policy, task, scenario.contexts),
        "naive": ours(config, dataclasses.replace(policy, share_prompts=False), task, scenario.contexts),
    }
    times: dict[str, list[float]] = {learner: [] for learner in LEARNERS}
    seen: list[StepInfo] = []
    rewards: list[float] = []
    bar = tqdm(total=config.warm_up + config.steps, desc=name, unit="turn")
    started = 0.0

    def turn() -> None:
        nonlocal started
        times["TRL"].append(now(config) - started)
        order = list(steps)[:: 1 if bar.n % 2 else -1]  # neither of ours is always the one right after TRL
        for learner in order:
            started = now(config)
            info = steps[learner]()
            times[learner].append(now(config) - started)
            if learner == "fstsim":
                seen.append(info)
        bar.set_postfix({learner: f"{1e3 * times[learner][-1]:.0f} ms" for learner in LEARNERS})
        bar.update()
        started = now(config)

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(config, policy, task, scenario.contexts, folder, rewards, turn)
        started = now(config)
        trainer.train()
    bar.close()
    return summary(config, scenario, times, seen, rewards)


def ratio_interval(slow: Sequence[float], fast: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Ratio of the medians of two times taken in the same turns, and its 95 % interval: turns are drawn again 2,000 times."""
    both = np.array([slow, fast])
    turns = np.random.default_rng(seed).integers(both.shape[1], size=(2000, both.shape[1]))
    medians = np.median(both[:, turns], axis=-1)
    low, high = np.quantile(medians[0] / medians[1], (0.025, 0.975)).tolist()
    middle = np.median(both, axis=-1)
    return low, float(middle[0] / middle[1]), high


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """25 %, 50 % and 75 %."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def summary(
    config: Config,
    scenario: Scenario,
    times: Mapping[str, Sequence[float]],
    seen: Sequence[StepInfo],
    rewards: Sequence[float],
) -> dict[str, Any]:
    """The record of one scenario, warm-up left out.

    Tokens a second are written ones of our own completions, TRL's are of the same distribution.
    """
    kept = {learner: list(values[config.warm_up :]) for learner, values in times.items()}
    batch = config.problems * config.rollouts
    told = [info.metrics for info in seen[config.warm_up :]]
    length = float(np.mean([row["length"] for row in told]))
    learners = {}
    for learner, values in kept.items():
        low, middle, high = quartiles(values)
        learners[learner] = {
            "seconds": values,
            "median": middle,
            "quartiles": [low, high],
            "rollouts_per_second": batch / middle,
            "tokens_per_second": batch * length / middle,
            "times_faster_than_trl": ratio_interval(kept["TRL"], values),
        }
    return {
        "task": scenario.task,
        "contexts": list(scenario.contexts),
        "learners": learners,
        "reward": float(np.mean([row["train_reward"] for row in told])),
        "reward_trl": float(np.mean(rewards[config.warm_up * batch :])),
        "dead_share": float(np.mean([row["dead_share"] for row in told])),
        "length": length,
    }


def table_of(config: Config, results: Mapping[str, Mapping[str, Any]], where: str) -> Table:
    """One row a learner and scenario."""
    table = Table(title=f"One CISPO step, {config.problems} problems x {config.rollouts} rollouts, {where}")
    for heading in ("scenario", "learner", "median", "quartiles", "tokens/s", "faster than TRL", "95 % interval"):
        table.add_column(heading, justify="left" if heading in ("scenario", "learner") else "right")
    for name, found in results.items():
        for learner, row in found["learners"].items():
            low, high = row["quartiles"]
            worst, middle, best = row["times_faster_than_trl"]
            table.add_row(
                f"{name}: dead {found['dead_share']:.0%}" if learner == "TRL" else "",
                learner,
                f"{1e3 * row['median']:.0f} ms",
                f"{1e3 * low:.0f} to {1e3 * high:.0f}",
                f"{row['tokens_per_second']:,.0f}",
                f"{middle:.2f}",
                f"{worst:.2f} to {best:.2f}",
            )
        table.add_section()
    return table


def main(config: Config) -> None:
    """Time, print, write."""
    import trl

    warnings.filterwarnings("ignore", category=FutureWarning)  # TRL's use of names that transformers gives up
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    policy = Policy.load(config.model, config.device)
    if config.device != "cpu" and not policy.static:
        raise InputError(f"{config.model} cannot be sampled in fixed shapes on {config.device}: nothing to compare")
    if policy.template != "world":
        raise InputError(f"{config.model} does not have the world's tokenizer: TRL would be shown other prompts")
    results = {name: run(config, name, policy) for name in config.scenarios}
    made = environment(config.seed, config.device)
    made["versions"]["trl"] = trl.__version__
    made["threads"] = torch.get_num_threads()
    if config.device != "cpu":
        made["accelerator"] = torch.cuda.get_device_name()
    parameters = sum(p.numel() for p in policy.model.parameters())
    write_json(
        config.out,
        plain(
            {
                "config": {**dataclasses.asdict(config), "out": str(config.out)},
                "environment": made,
                "parameters": parameters,
                "scenarios": results,
            }
        ),
    )
    where = made.get("accelerator") or f"{made['threads']} threads" + ", processor time" * (config.clock == "cpu")
    console = Console()
    console.print(table_of(config, results, f"{parameters:,} parameters, {where}"))
    for name, found in results.items():
        console.print(
            f"{name}: {SCENARIOS[name].says}; mean reward {found['reward']:.3f}, TRL's {found['reward_trl']:.3f}; "
            f"{found['length']:.1f} tokens a completion"
        )
    console.print(f"written to {config.out}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
