"""One training run as a run directory: it can be killed at any moment and continued to the same metrics.

A directory holds ``config.json``, ``environment.json``, ``old_answers.json`` (where the base's own answers are the old behaviour), ``metrics.jsonl`` (a row a slow step; probe columns where they
were measured), ``prompts.jsonl`` (the population after each fast round), ``checkpoint.safetensors``
(weights, optimizer, shadow weights where a method has them, population, counters and generator in one file) and, at the
end, ``model/`` (the trained model) and ``summary.json``. Times are in the summary only, so that the metrics of a
continued run equal those of an uninterrupted one.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import FastLearner, FastSlowState, Schedule, SlowLearner, fast_slow
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import check_adapter, own_weights, with_adapter, with_checkpointing
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.clock import DISK, Clock
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.memory import check_memory
from fstsim.llm.runs.old_answers import known, with_old_answers
from fstsim.llm.runs.optimizer import set_rate
from fstsim.llm.runs.probes import Probe
from fstsim.llm.runs.recorded import read_metrics
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.rows import measure_row, progress_note, summary_of, write_record, write_result
from fstsim.llm.runs.run_checkpoint import RunRecord, State, load_run, save_run
from fstsim.llm.runs.run_input import check_problems, check_tasks, with_tasks
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.systems.probe import SystemProbe
from fstsim.llm.systems.relearning import relearn_state
from fstsim.llm.systems.weights import SystemWeights, trainable
from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.types import UNUSABLE, Followed, Population, Task
from fstsim.reading import is_there
from fstsim.records import (
    check_contents,
    check_directory,
    claimed_directory,
    environment,
    plain,
    write_json,
)


def check_runs(config: TrainConfig, out: Path, seeds: int) -> None:
    """InputError unless there are such tasks, and every ``out/seed-k`` is free or holds the run of ``config`` with that seed."""
    config, _, _ = with_tasks(config)
    check_contents(out, "training run", lambda p: p.name.startswith("seed-") or p.name == "picture.png")
    for seed in range(seeds):
        wanted = dataclasses.asdict(replace(config, seed=seed))
        check_problems(out / f"seed-{seed}", config)
        check_directory(
            out / f"seed-{seed}", wanted, "training run", dataclasses.asdict(TrainConfig(method=config.method))
        )


Notes = Callable[[int, str], None]


def run_training(
    config: TrainConfig,
    out: Path,
    progress: Notes | None = None,
    *,
    tasks: Sequence[Task] | None = None,
    old: Sequence[Task] | None = None,
    write_model: bool = True,
    measured: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Run, continue or only load the run in directory ``out``; returns its rows.

    ``tasks`` are trained one after the other, ``old`` are skills that every probe measures; where they are not given, they
    are those that ``config`` names. A finished run whose checkpoint was taken away is loaded, not made again.
    ``progress(step, note)`` is called after every slow step, ``measured(row)`` with every row that has
    measurements, also with those of before an interruption. Without ``write_model`` the
    trained model stays in the checkpoint alone. Raises InputError before any
    work if ``out`` holds another run, and `weights.Diverged` when a loss is not finite: the last checkpoint, if there is one,
    stays. A run of TRL's engine is made by `fstsim.llm.trl.run.run_training_on_trl`.
    """
    if config.engine != "own":
        raise InputError(f"engine {config.engine} is that of fstsim.llm.trl.run.run_training_on_trl: call it instead")
    config, tasks, old = with_tasks(config, tasks, old)
    check_problems(out, config)
    if config.adapter:
        check_adapter(config.adapter)
    check_memory(config)
    if config.learner is not None:
        config.learner.check_models(config.model)
    if config.reflector is not None:
        config.reflector.check_model()
    policy = Policy.load(config.model, config.device)
    check_tasks(config, policy, tasks, old)
    slow, start = config.begin()
    fast, every = config.evolution()
    tasks = with_old_answers(tasks, policy)
    if config.learner is not None:
        for task in tasks:
            config.learner.check(policy, config.context, task)
        config.learner.plan(tasks, config.steps)  # says what is wrong with the steps before any work
    environs = environment(config.seed, config.device)
    defaults = dataclasses.asdict(TrainConfig(method=config.method))
    with claimed_directory(out, dataclasses.asdict(config), environs, "training run", defaults):
        return _train(config, out, policy, (tasks, old), (slow, fast, every, start), (progress, measured, write_model))


def _train(
    config: TrainConfig,
    out: Path,
    policy: Policy,
    measured_on: tuple[Sequence[Task], Sequence[Task]],
    channels: tuple[SlowLearner[Any, Population, Any], FastLearner[Any, Population, Any], int, str],
    wishes: tuple[Notes | None, Callable[[dict[str, Any]], None] | None, bool],
) -> list[dict[str, Any]]:
    """The run itself, in a directory that is its own: slow and fast channel, slow steps a round, context at the start."""
    (tasks, old), (slow, fast, every, start), (progress, measured, write_model) = measured_on, channels, wishes
    checkpoint = out / "checkpoint.safetensors"
    whole = (out / "summary.json").exists() and (not write_model or (out / "model").exists())
    if whole and not is_there(checkpoint):  # taken away after the end, to save the room: nothing is left to do
        return read_metrics(out)
    rng = np.random.default_rng(config.seed)
    # policy and base measure, in float32; the weights hold the same models as the learners run them
    if config.learner is not None and config.learner.deploys:
        base = policy  # frozen: one model is both, and the system stands beside it
        policy.model.requires_grad_(False)
    elif config.adapter:
        policy, base = with_adapter(policy, config.adapter, config.seed)
    else:
        base = Policy.of(copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer)
    weights = _weights(config, policy, base)
    state: State = FastSlowState(weights, Population((start,)))
    record = RunRecord()
    if is_there(checkpoint):
        state, record = load_run(checkpoint, state, rng)
        write_record(out, record)  # killed between the checkpoint and its rows
        if (out / "summary.json").exists():
            if write_model:
                write_result(config, policy, state, out)
            return record.rows
    rows, rounds = record.rows, record.rounds
    clock = Clock(record.spent, checkpoint_bytes(weights) / DISK)
    relearn = relearning(config, policy, weights, tasks)
    errors = VerifierErrors(first=record.errors)
    shown = config.learner is not None and config.learner.shows_old
    tasks = known(tasks, base, out, config.probe.problems, shown=shown)
    tasks = [guarded(task, errors) for task in tasks]
    with clock.on("probe_seconds"):
        skills = old_skills(base, [guarded(task, errors) for task in old], config.probe, config.seed)
        own = [Probe(base, task, config.probe, config.seed, skills) for task in tasks]
        probes: Sequence[Any] = [SystemProbe.of(probe) for probe in own] if isinstance(weights, SystemWeights) else own
        if not rows:
            rows.append(
                plain({"step": 0, "samples": 0, "task": 0, **measure_row(probes, policy, state), **errors.take()})
            )
        else:
            errors.take()  # of measuring the base anew: the row of step 0 has them
    if relearn is not None and len(rows) == 1:
        with clock.on("relearn_seconds"):
            rows[0] |= relearn()
    tell = measured or (lambda _: None)
    for row in rows:
        if "reward" in row:
            tell(row)
    total, drawn = config.steps * len(tasks), state.samples
    set_rate(weights.optimizer, config.optimizer.rate(config.lr, state.step, total))
    plan, steps = (
        (tasks, [config.steps] * len(tasks)) if config.learner is None else config.learner.plan(tasks, config.steps)
    )
    if state.step < total:
        run = fast_slow(plan, slow, fast, state, Schedule(steps, every), rng)
        for state in run:
            last, task = state.step == total, state.task % len(tasks)
            probed = config.probe.due(state.step_in_task) or state.step_in_task == steps[state.task]
            row = {"step": state.step, "samples": state.samples, "task": task, **state.slow.metrics}
            if (state.step_in_task - 1) % every == 0 and state.fast.metrics:
                unusable = {key: value for key, value in state.fast.metrics.items() if key == UNUSABLE}
                row |= {key: value for key, value in state.fast.metrics.items() if key != UNUSABLE}
                rounds.append({"step": state.step - 1, "task": task, **state.context.to_dict(), **unusable})
            if probed:
                with clock.on("probe_seconds"):
                    row |= measure_row(probes, policy, state)
            if last and relearn is not None:
                with clock.on("relearn_seconds"):
                    row |= relearn()
            rows.append(plain(row | errors.take()))
            if probed:
                tell(rows[-1])
            if last or clock.due(probed):
                clock.stop()
                with clock.checkpoint():
                    save_run(checkpoint, state, record, rng)
                write_record(out, record)
            if progress is not None:
                progress(state.step, progress_note(rows, (state.samples - drawn) / clock.elapsed()))
            set_rate(weights.optimizer, config.optimizer.rate(config.lr, state.step, total))  # of the next step
    if write_model:
        write_result(config, policy, state, out)
    write_json(out / "summary.json", summary_of(config, record, state))
    return rows


def checkpoint_bytes(weights: Weights) -> float:
    """About how large a checkpoint is: every weight that is in it, and the optimizer's moments."""
    held = [*weights.kept().values(), *weights.extras()[0].values()]
    count = sum(p.numel() for p in held)
    return 4.0 * count + 8.0 * sum(p.numel() for group in weights.optimizer.param_groups for p in group["params"])


def relearning(
    config: TrainConfig, policy: Policy, weights: Weights, tasks: Sequence[Task]
) -> Callable[[], dict[str, int]] | None:
    """What measures relearning, if it is to be measured and there is a task after the last one.

    It trains a copy and costs as much as all other probes together: models of the laboratory's world, which are small,
    have it by default, others where it is asked for.
    """
    most = config.probe.relearn
    wanted = policy.template == "world" if most is None else most > 0
    if not (wanted and isinstance(tasks[-1], Followed)):
        return None
    following = tasks[-1].next_task(tasks, policy.template)
    if following is None:
        return None
    size = _relearn(policy) | ({} if most is None else {"most": most})
    again = functools.partial(relearn_steps, policy, following, **size)
    if not isinstance(weights, SystemWeights):
        return lambda: {"relearn": again()}
    bare = functools.cache(again)  # its weights stay
    own = {name: size[name] for name in ("most", "held_out") if name in size}
    return lambda: {
        "relearn": bare(),
        "relearn_state": relearn_state(config, policy, weights.system, following, **own),
    }


def _weights(config: TrainConfig, policy: Policy, base: Policy) -> Weights:
    """What the learners change: the models of ``policy`` and ``base`` themselves, run in the precision of ``config``."""
    if config.learner is not None and config.learner.deploys:
        system = config.learner.deploy(base, config.seed)
        optimizer = config.optimizer.build(trainable(system), config.lr, config.seed)
        return SystemWeights(policy, base, optimizer, config.clip, system=system)
    optimizer = config.optimizer.build(own_weights(policy).values(), config.lr, config.seed)
    if config.gradient_checkpointing:
        policy = with_checkpointing(policy)
    weights = Weights(policy, base, optimizer, config.clip)
    if config.learner is not None:
        weights = config.learner.hold(weights)
    if config.precision == "float32":
        return weights
    halves: dict[str, Any] = {
        entry.name: replace(held, bfloat16=True)
        for entry in dataclasses.fields(weights)  # policy, base and, where there is one, shadow
        if isinstance(held := getattr(weights, entry.name), Policy)
    }
    return replace(weights, **halves)


def _relearn(policy: Policy) -> dict[str, Any]:
    """Size of the relearning probe: of models outside of the world, which are larger and know what they need, a small one."""
    return {} if policy.template == "world" else {"most": 20, "lr": 1e-4, "batch": 6, "held_out": 8}
