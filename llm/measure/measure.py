"""Checkpoints against their base, as a directory: what is measured in it is not measured again.

A directory holds ``config.json``, ``environment.json``, ``cache/`` (what the base wrote, and the rows of each checkpoint and
set, named by the hashes of models, problems and settings) and ``measure.json`` with the checkpoints of the last call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.measure.cache import cache_key, read_measured, write_measured
from fstsim.llm.measure.config import RELEARN_LEVEL, RELEARN_MOST, MeasureConfig, MeasureSettings
from fstsim.llm.measure.layers import weight_distances, weights_hash
from fstsim.llm.measure.loading import load_base, load_checkpoint
from fstsim.llm.measure.memory import check_memory
from fstsim.llm.measure.quantities import Measured, ProblemSet, measure_against, measure_alone, measure_base
from fstsim.llm.measure.relearn import Relearning, relearning
from fstsim.llm.policy.loading import find_model
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.run_input import check_splits
from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.tasks.parse import parse_task, problems_hash
from fstsim.llm.types import Task, rule_words
from fstsim.places import published, short_names
from fstsim.reading import check_object, understood
from fstsim.records import check_directory, claimed_directory, environment, plain, read_json, write_json

Notes = Callable[[int, str], None]
KIND = "measurement"
_NUMBER = (int, float, type(None))
_ROW: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kl_to_base", "kl_to_base_se", "kl_from_base", "kl_from_base_se", "reward", "reward_se"), _NUMBER),
    **dict.fromkeys(("reward_change", "reward_change_se", "entropy", "entropy_se", "flip_p"), _NUMBER),
    "pass_at": dict,
    "lost": int,
    "gained": int,
}
"""What a row of the cache must have for table, picture and card."""


def problem_sets(
    tasks: Mapping[str, Task], base: Policy, settings: MeasureSettings, errors: VerifierErrors
) -> list[ProblemSet]:
    """The test problems of each task: ``new`` without context, ``old`` in its own. InputError if they do not fit ``base``."""
    found = []
    for name, task in tasks.items():
        check_splits(task, ("test",))
        context = (rule_words(task, base.template) or "") if name == "old" else ""
        held = ProblemSet(name, guarded(task, errors), tuple(task.problems("test"))[: settings.problems], context)
        held.check_fit(base, settings.max_new_tokens)
        found.append(held)
    return found


def run_measure(
    config: MeasureConfig, checkpoints: Sequence[str], out: Path, progress: Notes | None = None
) -> dict[str, Any]:
    """Measure ``checkpoints`` in directory ``out``, or read what it holds; returns what is in ``measure.json``.

    ``progress(done, note)`` is called after each model and set, base first. Raises InputError before anything is written
    if a model, a task or the directory is wrong.
    """
    if not checkpoints:
        raise InputError("there is nothing to measure: give at least one --checkpoint")
    tasks = {name: parse_task(task) for name, task in config.sets.items()}
    for name in (config.base, *checkpoints):
        find_model(name)  # says which of them is not there before any is loaded
    check_memory(config.base, config.device, config.settings, bool(config.relearn))
    base = load_base(config.base, config.device)
    errors = VerifierErrors()
    sets = problem_sets(tasks, base, config.settings, errors)
    again = relearning(config.relearn, config.relearn_lr, base, config.settings) if config.relearn else None
    start = weights_hash(base.model)
    # relearning is kept by its own key: it may be asked for later
    asked = {name: value for name, value in asdict(config).items() if not name.startswith("relearn")}
    record = {
        **asked,
        "base": published(config.base),  # which model it is, the hash says
        "base_sha256": start,
        "problems_sha256": {given.name: given.digest for given in sets},
    }
    check_directory(out, record, KIND)
    # all are loaded once before anything is written, so that the last one's mistake is said first
    hashes = [weights_hash(load_checkpoint(name, base).model) for name in checkpoints]
    with claimed_directory(out, record, environment(config.settings.seed, config.device), KIND):
        return _measure(
            config, out, (base, start), list(zip(checkpoints, hashes, strict=True)), sets, (errors, again), progress
        )


def _measure(
    config: MeasureConfig,
    out: Path,
    began: tuple[Policy, str],
    checkpoints: Sequence[tuple[str, str]],
    sets: Sequence[ProblemSet],
    more: tuple[VerifierErrors, Relearning | None],
    progress: Notes | None,
) -> dict[str, Any]:
    """The measurements in a directory that is theirs; ``began`` and ``checkpoints`` with the hashes of their weights,
    ``more`` where failing verifiers are counted and what is relearned."""
    (base, start), (errors, again) = began, more
    done, total = 0, measurements(config, len(checkpoints))

    def note(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, what)

    then: dict[str, Measured] = {}
    result: dict[str, Any] = {"base": published(config.base), "base_sha256": start, "sets": {}, "checkpoints": []}
    for given in sets:
        then[given.name] = _base_measured(out, base, start, given, config.settings)
        row = measure_base(base, given, then[given.name])
        result["sets"][given.name] = {
            "task": given.task.name,
            "context": given.context,
            "problems": len(given.problems),
            "base": row,
        }
        note(f"base on {given.name}")
    if again is not None:
        result["relearn"] = {
            "task": again.task.name,
            "lr": again.lr,
            "level": RELEARN_LEVEL,
            "most": RELEARN_MOST,
            "base": _relearned(out, start, base, again),
        }
        note(f"base on {again.task.name}")
    shown = dict(zip((name for name, _ in checkpoints), short_names([name for name, _ in checkpoints]), strict=True))
    for name, digest in checkpoints:
        row = _checkpoint(out, name, (start, digest), base, sets, then, config.settings, note)
        if again is not None:
            policy = None if _relearn_file(out, digest, again).exists() else load_checkpoint(name, base)
            row["relearn_steps"] = _relearned(out, digest, policy, again)
            note(f"{name} on {again.task.name}")
        result["checkpoints"].append(row | {"checkpoint": shown[name]})
    assert done == total
    if errors.count:
        result["verifier_errors"] = {"count": errors.count, "first": errors.first[0]}
    result = plain(result)
    write_json(out / "measure.json", result)
    return result


def measurements(config: MeasureConfig, checkpoints: int) -> int:
    """How often `run_measure` calls ``progress``."""
    return (1 + checkpoints) * (len(config.sets) + bool(config.relearn))


def _relearn_file(out: Path, digest: str, again: Relearning) -> Path:
    key = json.dumps([digest, problems_hash(again.task), again.lr, RELEARN_LEVEL, RELEARN_MOST])
    return out / "cache" / f"relearn-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _relearned(out: Path, digest: str, policy: Policy | None, again: Relearning) -> int:
    """Steps of the model with hash ``digest``, from the cache; ``policy`` is needed where they are not there."""
    file = _relearn_file(out, digest, again)
    if not file.exists():
        assert policy is not None
        write_json(file, {"steps": again.steps(policy)})
    return int(read_json(file)["steps"])


def _base_measured(out: Path, base: Policy, digest: str, given: ProblemSet, settings: MeasureSettings) -> Measured:
    path = out / "cache" / f"base-{cache_key((digest,), given, settings)}.safetensors"
    if not path.exists():
        write_measured(path, measure_alone(base, given, settings))
    return read_measured(path, base.device)


def _checkpoint(
    out: Path,
    name: str,
    digests: tuple[str, str],
    base: Policy,
    sets: Sequence[ProblemSet],
    then: Mapping[str, Measured],
    settings: MeasureSettings,
    note: Callable[[str], None],
) -> dict[str, Any]:
    files = {given.name: out / "cache" / f"{cache_key(digests, given, settings)}.json" for given in sets}
    moved = out / "cache" / f"weights-{digests[0][:24]}-{digests[1][:24]}.json"
    if any(not path.exists() for path in (*files.values(), moved)):
        policy = load_checkpoint(name, base)
        if not moved.exists():
            weights = weight_distances(policy.model, base.model)
            write_json(moved, plain({"weights": weights, "weights_order": list(weights)}))  # files sort their keys
        for given in sets:
            if not files[given.name].exists():
                row = measure_against(policy, base, given, then[given.name], settings)
                write_json(files[given.name], plain(row))
            note(f"{name} on {given.name}")
    else:
        for given in sets:
            note(f"{name} on {given.name}")
    rows = {given.name: check_object(files[given.name], read_json(files[given.name]), _ROW) for given in sets}
    held = check_object(moved, read_json(moved), {"weights": dict, "weights_order": list})
    with understood(moved):
        held["weights"] = {layer: float(held["weights"][layer]) for layer in ("all", *held["weights_order"])}
    return {"checkpoint": name, "sha256": digests[1], "sets": rows, **held}
