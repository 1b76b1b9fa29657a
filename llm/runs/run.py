"""One training run as a run directory: it can be killed at any moment and continued to the same metrics.

A directory holds ``config.json``, ``environment.json``, ``old_answers.json`` (where the base's own answers are the old behaviour), ``metrics.jsonl`` (a row a slow step; probe columns where they
were measured), ``prompts.jsonl`` (the population after each fast round), ``checkpoint.safetensors``
(weights, optimizer, shadow weights where a method has them, population, counters and generator in one file) and, at the
end, ``model/`` (the trained model) and ``summary.json``. Times are in the summary only, so that the metrics of a
continued run equal those of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.fast_slow import FastLearner, FastSlowState, Schedule, SlowLearner, fast_slow
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import check_adapter, own_weights, save_policy, with_adapter, with_checkpointing
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.memory import check_memory
from fstsim.llm.runs.old_answers import known, with_old_answers
from fstsim.llm.runs.optimizer import set_rate
from fstsim.llm.runs.probes import Probe, relearn_steps
from fstsim.llm.runs.run_checkpoint import RunRecord, State, load_run, save_run
from fstsim.llm.runs.run_input import check_problems, check_tasks, with_tasks
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.systems.probe import SystemProbe
from fstsim.llm.systems.relearning import relearn_state
from fstsim.llm.systems.state import save_system
from fstsim.llm.systems.weights import SystemWeights, trainable
from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.types import UNUSABLE, Followed, Population, Task
from fstsim.reading import is_there
from fstsim.records import (
    check_contents,
    check_directory,
    claimed_directory,
    environment,
    keep_text,
    plain,
    row_line,
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
_UNSAVED_SECONDS = 30.0  # between measurements too, a run that is killed loses no more than that
_SAVING = 10.0  # at most one part in so many of a run's time goes into checkpoints
_QUICK_SECONDS = 0.5  # unless a checkpoint takes no more than that: then every measurement has one
_DISK = 5e8  # bytes a second: what the first checkpoint is expected to take


class _Clock:
    """Seconds of a run by what they were ``spent`` on, on top of those before an interruption."""

    def __init__(self, spent: dict[str, float], saving: float) -> None:
        self.spent, self.before = spent, spent["seconds"]
        self.start = self.saved = time.perf_counter()
        self.saving = saving
        """seconds that a checkpoint takes, as far as is known"""

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        """What is done here counts as ``what`` too."""
        started = time.perf_counter()
        yield
        self.spent[what] += time.perf_counter() - started

    def elapsed(self) -> float:
        """Since the run was started or continued."""
        return time.perf_counter() - self.start

    def stop(self) -> None:
        """Bring ``seconds`` up to date, for a checkpoint that is written now."""
        self.spent["seconds"] = self.before + self.elapsed()

    def due(self, measured: bool) -> bool:
        """Whether a checkpoint is worth its time now: at measurements, and where much is unsaved, but for its share of the run."""
        unsaved = time.perf_counter() - self.saved
        wanted = measured or unsaved > _UNSAVED_SECONDS
        return wanted and (self.saving <= _QUICK_SECONDS or unsaved >= (_SAVING - 1.0) * self.saving)

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        """A checkpoint is written here: how long that takes says when the next one is due."""
        started = time.perf_counter()
        yield
        self.saved = time.perf_counter()
        self.saving = self.saved - started


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
    are those that ``config`` names. ``progress(step, note)`` is called after every slow step, ``measured(row)`` with every row that has
    measurements, also with those of before an interruption. Without ``write_model`` the
    trained model stays in the checkpoint alone. Raises InputError before any
    work if ``out`` holds another run, and `weights.Diverged` when a loss is not finite: the last checkpoint, if there is one,
    stays.
    """
    config, tasks, old = with_tasks(config, tasks, old)
    check_problems(out, config)
    if config.adapter:
        check_adapter(config.adapter)
    check_memory(config)
    if config.learner is not None:
        config.learner.check_models(config.model)
    policy = Policy.load(config.model, config.device)
    check_tasks(config, policy, tasks, old)
    slow, start = config.begin()
    fast, every = config.evolution()  # a reflector that is not there is found here
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
    checkpoint = out / "checkpoint.safetensors"
    if is_there(checkpoint):
        state, record = load_run(checkpoint, state, rng)
        _write_record(out, record)  # killed between the checkpoint and its rows
        if (out / "summary.json").exists():
            if write_model:
                _write_result(config, policy, state, out)
            return record.rows
    rows, rounds = record.rows, record.rounds
    clock = _Clock(record.spent, _checkpoint_bytes(weights) / _DISK)
    relearn = _relearning(config, policy, weights, tasks)
    errors = VerifierErrors(first=record.errors)
    shown = config.learner is not None and config.learner.shows_old
    tasks = known(tasks, base, out, config.probe.problems, shown=shown)
    tasks = [guarded(task, errors) for task in tasks]
    with clock.on("probe_seconds"):
        skills = old_skills(base, [guarded(task, errors) for task in old], config.probe, config.seed)
        own = [Probe(base, task, config.probe, config.seed, skills) for task in tasks]
        probes: Sequence[Any] = [SystemProbe.of(probe) for probe in own] if isinstance(weights, SystemWeights) else own
        if not rows:
            rows.append(plain({"step": 0, "samples": 0, "task": 0, **_measure(probes, policy, state), **errors.take()}))
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
                    row |= _measure(probes, policy, state)
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
                _write_record(out, record)
            if progress is not None:
                progress(state.step, _note(rows, (state.samples - drawn) / clock.elapsed()))
            set_rate(weights.optimizer, config.optimizer.rate(config.lr, state.step, total))  # of the next step
    if write_model:
        _write_result(config, policy, state, out)
    write_json(out / "summary.json", _summary(config, record, state))
    return rows


def _write_result(config: TrainConfig, policy: Policy, state: State, out: Path) -> None:
    """The trained model, or the state of the system that was trained beside it, where it is not there yet."""
    if isinstance(state.weights, SystemWeights):
        save_system(config, state.weights.system, out)
    elif not (out / "model").exists():
        save_policy(policy, out / "model")


def _checkpoint_bytes(weights: Weights) -> float:
    """About how large a checkpoint is: every weight that is in it, and the optimizer's moments."""
    held = [*weights.kept().values(), *weights.extras()[0].values()]
    count = sum(p.numel() for p in held)
    return 4.0 * count + 8.0 * sum(p.numel() for group in weights.optimizer.param_groups for p in group["params"])


def _relearning(
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


def _write_record(out: Path, record: RunRecord) -> None:
    for name, lines in (("metrics.jsonl", record.rows), ("prompts.jsonl", record.rounds)):
        text = "".join(map(row_line, lines))
        if lines:
            keep_text(out / name, text)


def _measure(probes: Sequence[Any], policy: Policy, state: State) -> dict[str, Any]:
    """The probe of the present task on ``policy``, or on the system that is trained, and the reward on every other task.

    ``_task{k}`` in the contexts in use, ``_task{k}_own_context`` in the context kept from that task, where there is one.
    """
    measured = state.weights.system if isinstance(state.weights, SystemWeights) else policy
    task = state.task % len(probes)  # of a learner's own plan: see `Learner.plan`
    row: dict[str, Any] = probes[task].measure(measured, state.context)
    archive = dict(state.context.archive)
    for k, probe in enumerate(probes):
        if k != task:
            row |= probe.reward(measured, state.context.prompts, f"_task{k}")
            if isinstance(probe, Probe) and probe.task.name in archive:
                row |= probe.reward(policy, (archive[probe.task.name],), f"_task{k}_own_context")
    return row


def _note(rows: list[dict[str, Any]], rate: float) -> str:
    last = next(row for row in reversed(rows) if "reward" in row)
    trained = rows[-1].get("train_reward")
    parts = [] if trained is None else [f"train reward {trained:.2f}"]
    parts += [f"test reward {last['reward']:.2f}", f"KL to base {last['kl_to_base']:.2f} nats"]
    if rows[-1].get("fast_unusable"):
        parts.append(f"{rows[-1]['fast_unusable']} of {rows[-1]['fast_reflections']} proposals unusable")
    if rate > 0.0:
        parts.append(f"{rate:.0f} rollouts/s")
    return ", ".join(parts)


_TOO_FEW = "a round needs at least 2 problems of split validation (of split train with --reuse), and no task has them"


def _reflections(config: TrainConfig, record: RunRecord) -> dict[str, Any]:
    """How often a reflector wrote no context, where it did; and rounds in which nothing was written that could be used."""
    failed = [row for row in record.rows if row.get("fast_unusable")]
    if config.fast is not None and not config.fast.dead_only and not record.rounds:
        every = 1 if config.learner is None else config.slow_steps_per_round
        rounds = math.ceil(config.steps / every) * len(config.tasks)
        return {
            "reflections": {
                "written": 0,
                "unusable": 0,
                "rounds": rounds,
                "rounds_without": rounds,
                "first": _TOO_FEW,
            }
        }
    if not failed:
        return {}
    first = next(entry[UNUSABLE][0] for entry in record.rounds if entry.get(UNUSABLE))
    return {
        "reflections": {
            "written": sum(row.get("fast_reflections", 0) for row in record.rows),
            "unusable": sum(row["fast_unusable"] for row in failed),
            "rounds": len(record.rounds),
            "rounds_without": sum(row["fast_unusable"] == row["fast_reflections"] for row in failed),
            "first": first,
        }
    }


def _summary(config: TrainConfig, record: RunRecord, state: State) -> dict[str, Any]:
    seconds = record.spent["seconds"]
    failed = sum(row.get("verifier_errors", 0) for row in record.rows)
    return {
        "first": record.rows[0],
        "last": record.rows[-1],
        "prompts": list(state.context.prompts),
        "seconds": seconds,
        "probe_share": record.spent["probe_seconds"] / seconds if seconds else None,
        "relearn_share": record.spent["relearn_seconds"] / seconds if seconds else None,
        "rollouts_per_second": state.samples / seconds if seconds and state.samples else None,
        "tasks": list(config.tasks),
        **_reflections(config, record),
        **({"verifier_errors": {"count": failed, "first": record.errors[0]}} if failed else {}),
    }
