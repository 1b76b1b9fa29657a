"""What a training run writes for people and tables, whatever its engine: rows, the note of its progress, its summary, its model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fstsim.llm.policy.adapters import save_policy
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import Probe
from fstsim.llm.runs.run_checkpoint import RunRecord, State
from fstsim.llm.systems.state import save_system
from fstsim.llm.systems.weights import SystemWeights
from fstsim.llm.types import UNUSABLE
from fstsim.records import keep_text, row_line, write_folder


def write_result(config: TrainConfig, policy: Policy, state: State, out: Path) -> None:
    """The trained model, or the state of the system that was trained beside it, where it is not there yet."""
    if isinstance(state.weights, SystemWeights):
        save_system(config, state.weights.system, out)
    elif not (out / "model").exists():
        write_folder(out / "model", lambda place: save_policy(policy, place))


def write_record(out: Path, record: RunRecord) -> None:
    """``metrics.jsonl`` and ``prompts.jsonl``, whole or not at all."""
    for name, lines in (("metrics.jsonl", record.rows), ("prompts.jsonl", record.rounds)):
        text = "".join(map(row_line, lines))
        if lines:
            keep_text(out / name, text)


def measure_row(probes: Sequence[Any], policy: Policy, state: State) -> dict[str, Any]:
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


def progress_note(rows: list[dict[str, Any]], rate: float) -> str:
    """What the progress bar says beside the step: the last rewards, KL, unusable proposals, rollouts a second."""
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


def summary_of(config: TrainConfig, record: RunRecord, state: State) -> dict[str, Any]:
    """``summary.json``: first and last row, contexts, and what the run cost."""
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
