"""One training run on TRL's engine: the configuration, directory, columns and resume of `fstsim.llm.runs.run`.

`RunTrainer` samples, updates and spreads over processes; the main process measures and writes (`Scribe`). While a run is
under way, the folder ``trl/`` in its directory holds the trainer's last checkpoint.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fstsim.fast_slow import FastSlowState
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.weights import Diverged, Weights
from fstsim.llm.policy.adapters import check_adapter, own_weights, with_adapter
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.clock import DISK, Clock
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.memory import check_memory
from fstsim.llm.runs.old_answers import known, with_old_answers
from fstsim.llm.runs.probes import Probe
from fstsim.llm.runs.run import checkpoint_bytes, relearning
from fstsim.llm.runs.run_checkpoint import RunRecord, State, load_run
from fstsim.llm.runs.run_input import check_problems, check_tasks, with_tasks
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.trl.arguments import learner_of, rows_of_a_pass, timeout_of, trainer_arguments
from fstsim.llm.trl.callback import on_main
from fstsim.llm.trl.fast_slow import check_padding
from fstsim.llm.trl.processes import begin_processes
from fstsim.llm.trl.run_trainer import RunTrainer, TaskSequence
from fstsim.llm.trl.scribe import Scribe, close_run, last_checkpoint, read_record
from fstsim.llm.trl.undisturbed import undisturbed
from fstsim.llm.types import Population, Task
from fstsim.reading import is_there
from fstsim.records import claimed_directory, environment

_LOOKED_AT = 256  # problems whose prompts say how long prompts are
"""How many problems of each task are encoded before the first pass is planned."""
Notes = Callable[[int, str], None]
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class _Wishes:
    progress: Notes | None
    measured: Tell | None
    write_model: bool


def run_training_on_trl(
    config: TrainConfig,
    out: Path,
    progress: Notes | None = None,
    *,
    tasks: Sequence[Task] | None = None,
    old: Sequence[Task] | None = None,
    write_model: bool = True,
    measured: Tell | None = None,
) -> list[dict[str, Any]]:
    """`fstsim.llm.runs.run.run_training` of a configuration whose engine is trl; every process of a training calls it.

    The main process alone writes, and calls ``progress`` and ``measured``; all get the rows. Raises as `run_training` does, and
    InputError if the rollouts of a step cannot be shared equally by the processes.
    """
    config, tasks, old = with_tasks(config, tasks, old)
    if config.adapter:
        check_adapter(config.adapter)
    check_memory(config)
    if config.reflector is not None:
        config.reflector.check_model()
    processes = begin_processes(config.device, timeout_of(config))
    policy = Policy.load(config.model, config.device)
    check_padding(policy)
    check_tasks(config, policy, tasks, old)
    _, start = config.begin()
    fast, _ = config.evolution()
    tasks = with_old_answers(tasks, policy)
    for task in tasks:
        learner_of(config).check(policy, config.context, task)
    problems = [problem for task in tasks for problem in list(task.problems("train"))[:_LOOKED_AT]]
    width = max(map(len, policy.encode_all([(start, problem) for problem in problems])))
    rows = rows_of_a_pass(config, processes.num_processes, width)

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of TRL and its libraries, about their own experiments
        args = trainer_arguments(config, out, processes.num_processes, rows)

        def claim() -> None:
            check_problems(out, config)
            environs = environment(config.seed, config.device)
            environs["versions"] |= {name: metadata.version(name) for name in ("accelerate", "trl")}
            environs["processes"] = processes.num_processes
            defaults = asdict(TrainConfig(method=config.method))
            stack.enter_context(claimed_directory(out, asdict(config), environs, "training run", defaults))

        on_main(processes, claim)
        run = _Run(config, out, _Wishes(progress, measured, write_model), processes)
        return run.made(
            policy, tasks, old, Population((start,)), fast if isinstance(fast, PromptEvolution) else None, args
        )


class _Rows(TrainerCallback):
    """A row after every slow step; the main process says when a checkpoint is due."""

    def __init__(self, run: _Run, trainer: RunTrainer, errors: VerifierErrors, scribe: Scribe | None) -> None:
        self._run, self._trainer, self._errors, self._scribe = run, trainer, errors, scribe

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 -- as the trainer calls it
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Write it, and ask for a checkpoint where it is worth its time. Raises Diverged if a number is not finite."""
        step, left = divmod(state.global_step, learner_of(self._run.config).updates)
        if left:
            return
        trainer, scribe = self._trainer, self._scribe
        metrics = trainer.step_metrics()
        for name in ("loss", "grad_norm"):
            if not math.isfinite(metrics[name]):
                raise Diverged(f"{name} is {metrics[name]} at step {step}")
        told = trainer.gathered((self._errors.take().get("verifier_errors", 0), self._errors.first))

        def write() -> bool:
            assert scribe is not None
            scribe.record.errors[:] = next(
                (first for first in (scribe.record.errors, *map(itemgetter(1), told)) if first), []
            )
            now = scribe.state(step, trainer.population, trainer.rounds)
            return scribe.step(now, metrics, trainer.rounds, sum(count for count, _ in told))

        control.should_save = on_main(self._run.processes, write)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """The trainer's checkpoint is there on all processes' part: the main one makes it whole."""
        scribe = self._scribe

        def write() -> None:
            assert scribe is not None
            scribe.kept(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

        on_main(self._run.processes, write)


@dataclass(frozen=True)
class _Run:
    config: TrainConfig
    out: Path
    wishes: _Wishes
    processes: Any

    def made(
        self,
        policy: Policy,
        tasks: Sequence[Task],
        old: Sequence[Task],
        start: Population,
        fast: PromptEvolution | None,
        args: Any,
    ) -> list[dict[str, Any]]:
        """Train, go on, or only load; the rows."""
        config, out, processes = self.config, self.out, self.processes
        base = policy
        if config.adapter:
            policy, base = with_adapter(policy, config.adapter, config.seed)
        elif processes.is_main_process:  # the others measure nothing
            base = Policy.of(copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer)
        optimizer = config.optimizer.build(own_weights(policy).values(), config.lr, config.seed)
        # no graphs of a GPU's memory are kept beside the trainer's own work
        weights = Weights(replace(policy, static=False), replace(base, static=False), optimizer, config.clip)
        rows = on_main(processes, lambda: self._loaded(weights, start))
        if rows is not None:
            return list(rows)
        before = on_main(processes, lambda: last_checkpoint(out))
        record = RunRecord() if before is None else on_main(processes, lambda: read_record(before))
        errors = VerifierErrors(first=record.errors)
        trainer = self._trainer(weights, [guarded(task, errors) for task in tasks], start, fast, args)
        scribe = None
        if processes.is_main_process:
            scribe = self._scribe(weights, (tasks, old), trainer, record, errors)
        trainer.add_callback(_Rows(self, trainer, errors, scribe))

        def begin() -> None:
            assert scribe is not None
            scribe.begin(scribe.state(0, start, ()))

        on_main(processes, begin)
        trainer.train(resume_from_checkpoint=None if before is None else str(before))

        def finish() -> list[dict[str, Any]]:
            assert scribe is not None
            state = scribe.state(config.steps * len(tasks), trainer.population, trainer.rounds)
            if trainer.is_deepspeed_enabled:  # its moments are in parts on all processes, and a finished run needs none
                fresh = config.optimizer.build(own_weights(policy).values(), config.lr, config.seed)
                state = replace(state, weights=replace(weights, optimizer=fresh))
            with undisturbed(scribe.model):
                scribe.finish(state, self.wishes.write_model)
            return scribe.record.rows

        rows = on_main(processes, finish)
        trainer.accelerator.free_memory()
        return list(rows)

    def _loaded(self, weights: Weights, start: Population) -> list[dict[str, Any]] | None:
        """The rows of a run that is finished, but for what comes after its last checkpoint."""
        path = self.out / "checkpoint.safetensors"
        if not is_there(path):
            return None
        fresh: State = FastSlowState(weights, start)
        state, record = load_run(path, fresh, np.random.default_rng(0))
        close_run(self.config, state, record, self.out, self.wishes.write_model)
        return record.rows

    def _trainer(
        self, weights: Weights, tasks: Sequence[Task], start: Population, fast: PromptEvolution | None, args: Any
    ) -> RunTrainer:
        config, learner, policy = self.config, learner_of(self.config), weights.policy
        total = config.steps * len(tasks)

        def factor(done: int) -> float:
            return config.optimizer.rate(config.lr, done // learner.updates, total) / config.lr

        return RunTrainer(
            policy.model if policy.adapter is None else policy.adapter.peft_model,
            TaskSequence(tasks, config.steps, config.slow_steps_per_round),
            args,
            learner=learner,
            processing_class=copy.deepcopy(policy.tokenizer),
            fast=fast,
            population=start,
            optimizers=(weights.optimizer, torch.optim.lr_scheduler.LambdaLR(weights.optimizer, factor)),
        )

    def _scribe(
        self,
        weights: Weights,
        measured_on: tuple[Sequence[Task], Sequence[Task]],
        trainer: RunTrainer,
        record: RunRecord,
        errors: VerifierErrors,
    ) -> Scribe:
        """Of the main process: what it measures with, and what was recorded before."""
        config, base, (tasks, old) = self.config, weights.base, measured_on
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        clock = Clock(record.spent, checkpoint_bytes(weights) / DISK)
        with clock.on("probe_seconds"), undisturbed(model):
            seen = [guarded(task, errors) for task in known(tasks, base, self.out, config.probe.problems, shown=False)]
            skills = old_skills(base, [guarded(task, errors) for task in old], config.probe, config.seed)
            probes = [Probe(base, task, config.probe, config.seed, skills) for task in seen]
        relearn = relearning(config, weights.policy, weights, tasks)
        tell = self.wishes.measured or (lambda _: None)
        return Scribe(
            config, self.out, weights, model, probes, record, errors, clock, relearn, self.wishes.progress, tell
        )
