"""Faithfulness of one model, or of what a training made of its base: a directory that holds what was measured.

A value of every score for every problem is kept by the hash of the weights (``cache/``), so that what is measured in a
directory is not measured again; ``faithful.json`` has the scores, the gates and the paired changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.llm.measure.faithful.chain_tests import items_of, own_chains, run_tests
from fstsim.llm.measure.faithful.notation import notation_of
from fstsim.llm.measure.faithful.scores import (
    CURVES,
    NO_SHORTCUT,
    OF_CHAINS,
    OWN,
    change,
    columns,
    curves,
    exam_noise,
    no_forgetting,
    not_measurable,
    summary,
)
from fstsim.llm.measure.faithful.writer import PolicyWriter
from fstsim.llm.measure.layers import weights_hash
from fstsim.llm.measure.loading import is_adapter, load_base, load_checkpoint
from fstsim.llm.measure.restored_runs import runs_in
from fstsim.llm.policy.loading import find_model
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import ExamSkills
from fstsim.llm.runs.behaviour import mean_se, sample_once, sequence_kl
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.tasks.scratch import ChainMass, ScratchTask, chain_log_mass
from fstsim.places import published
from fstsim.reading import check_object, understood
from fstsim.records import check_directory, claimed_directory, environment, plain, read_json, write_json
from fstsim.settings import check_types

Array = NDArray[np.float64]
Notes = Callable[[int, str], None]
KIND = "measurement of faithfulness"
_EXAM = 64  # problems in each part of the exam of old skills
_WORDS = 24  # tokens that a line may have, in other vocabularies than the world's


@dataclass(frozen=True)
class FaithfulConfig:
    """What is measured: ``target`` a model, or a run directory (of one seed or of all) whose trained models are."""

    target: str
    base: str = ""
    """what ``target`` is compared with; of a run it is the model that it started from; none: nothing is compared"""
    tasks: tuple[str, ...] = ("scratch:strings:any3", "scratch:strings:any4")
    """scratch tasks"""
    problems: int = 64
    """test problems of each"""
    device: str = "cpu"
    """torch device"""

    def __post_init__(self) -> None:
        check_types(self)

    def scratch_tasks(self) -> list[ScratchTask]:
        """The tasks; InputError if one is not a scratch task."""
        if self.problems < 2:
            raise InputError(f"problems must be at least 2, got {self.problems}")
        if not self.tasks:
            raise InputError("there is nothing to test: give at least one --task")
        found = [parse_task(name) for name in self.tasks]
        for task in found:
            if not isinstance(task, ScratchTask) or isinstance(task, ChainMass):
                raise InputError(
                    f"{task.name} has no chains to test: give scratch tasks, such as scratch:strings:any3 or scratch:digits:plus+flip+sums"
                )
        return [task for task in found if isinstance(task, ScratchTask)]


@dataclass(frozen=True)
class Compared:
    """Models that are measured: ``base`` and where it is, and what came of it by name; nothing where a model stands alone."""

    base: str
    after: tuple[tuple[str, str], ...]


def models_of(config: FaithfulConfig) -> Compared:
    """Which models ``config`` means. InputError for a run that is not finished, or runs of two trainings."""
    target = Path(config.target)
    runs = [run for run in runs_in([target]) if (run / "config.json").is_file()] if target.is_dir() else []
    trained = [run for run in runs if _is_run(run)]
    if not trained:
        return Compared(config.base, (("model", config.target),)) if config.base else Compared(config.target, ())
    bases = set()
    for run in trained:
        with understood(run / "config.json"):
            held = TrainConfig.from_dict(read_json(run / "config.json"))
        if held.learner is not None and held.learner.deploys:
            raise InputError(
                f"{run} is a run of method {held.method}, whose weights are its base's: nothing is to be compared"
            )
        if not (run / "model").is_dir():
            raise InputError(f"{run} holds no trained model: it is not finished, or was made with --no-model")
        bases.add(held.model)
    if len(bases) > 1:
        raise InputError(f"{target} holds runs of several models ({', '.join(sorted(bases))}): call it once for each")
    return Compared(config.base or bases.pop(), tuple((run.name, str(run / "model")) for run in trained))


def _is_run(run: Path) -> bool:
    held = read_json(run / "config.json")
    return isinstance(held, dict) and "method" in held and "tasks" in held


def with_hard(tasks: Sequence[ScratchTask]) -> list[ScratchTask]:
    """``tasks``, and for each family without one of 4 rules or more, one: what the lift of chains is measured with."""
    found = list(tasks)
    for family in dict.fromkeys((task.family, task.size) for task in tasks):
        if not any((task.family, task.size) == family and task.depth >= NO_SHORTCUT for task in found):
            found.append(ScratchTask(family[0], (), NO_SHORTCUT, size=family[1]))
    return found


def measurements(config: FaithfulConfig) -> int:
    """How often `run_faithful` calls ``progress``."""
    return (1 + len(models_of(config).after)) * len(with_hard(config.scratch_tasks()))


def run_faithful(config: FaithfulConfig, out: Path, progress: Notes | None = None) -> dict[str, Any]:
    """Measure in directory ``out``, or read what it holds; returns what is in ``faithful.json``.

    Raises InputError before anything is written if a model, a task or the directory is wrong.
    """
    tasks, compared = with_hard(config.scratch_tasks()), models_of(config)
    # one line for a name that is none, and folders from here on
    after = tuple((name, where if is_adapter(where) else str(find_model(where))) for name, where in compared.after)
    base = load_base(str(find_model(compared.base)), config.device)
    compared = Compared(compared.base, after)
    _check_words(base, tasks, compared.base)
    hashes = {"base": weights_hash(base.model)}
    for name, where in compared.after:
        hashes[name] = weights_hash(load_checkpoint(where, base).model)
    record = {
        **asdict(config),
        "base": published(config.base),
        "target": published(config.target),  # which models they are, the hashes say
        "models_sha256": hashes,
    }
    check_directory(out, record, KIND)
    with claimed_directory(out, record, environment(None, config.device), KIND):
        return _measure(config, out, (base, compared), tasks, hashes, progress)


def _check_words(base: Policy, tasks: Sequence[ScratchTask], name: str) -> None:
    for task in tasks:
        items_of(task, 2)
        words = [*FAMILIES[task.family].symbols, *FAMILIES[task.family].rules]
        if strange := [word for word in words if base.unknown(word)]:
            raise InputError(f"{name} does not know {strange[0]!r} of {task.name}: choose another --task")


def _measure(
    config: FaithfulConfig,
    out: Path,
    began: tuple[Policy, Compared],
    tasks: Sequence[ScratchTask],
    hashes: Mapping[str, str],
    progress: Notes | None,
) -> dict[str, Any]:
    (base, compared), done = began, 0
    held: dict[str, dict[str, dict[str, Any]]] = {}
    moved: list[dict[str, Any]] = []
    for name, where in (("base", ""), *compared.after):
        policy = base if name == "base" else load_checkpoint(where, base)
        held[name] = {}
        for task in tasks:
            held[name][task.name] = _cached(out, hashes[name], policy, task, config.problems)
            done += 1
            if progress is not None:
                progress(done, f"{name} on {task.name}")
        if name != "base":
            moved.append({"name": name, **_moved(out, (hashes["base"], hashes[name]), base, policy, tasks[0])})
    result: dict[str, Any] = {
        "target": published(config.target),
        "base": published(compared.base),
        "models": list(held),
        "moved": moved,
        "tasks": [],
    }
    for task in tasks:
        hard = next(t for t in tasks if (t.family, t.size) == (task.family, task.size) and t.depth >= NO_SHORTCUT)
        rows = []
        for name in held:
            own, other = (_columns(held[name][t.name]) for t in (task, hard))
            reason = not_measurable(own, other)
            rows.append(
                {
                    "name": name,
                    "not_measurable": reason,
                    "scores": summary(own),
                    "curves": held[name][task.name]["curves"],
                }
            )
        result["tasks"].append(
            {
                "task": task.name,
                "rules": task.depth,
                "steps": task.steps,
                "models": rows,
                "asked": task.name in config.tasks,
            }
        )
        if compared.after:
            before, *after = (_columns(held[name][task.name]) for name in held)
            reasons = [row["not_measurable"] and f"{row['name']}: {row['not_measurable']}" for row in rows]
            reasons += [each["unmoved"] and f"{each['name']}: {each['unmoved']}" for each in moved]
            result["tasks"][-1]["change"] = change(before, after)
            result["tasks"][-1]["change_not_measurable"] = next((reason for reason in reasons if reason), None)
    result = plain(result)
    write_json(out / "faithful.json", result)
    return result


def _columns(row: Mapping[str, Any]) -> dict[str, Array]:
    return {
        name: np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        for name, values in row["columns"].items()
    }


def _cached(out: Path, digest: str, policy: Policy, task: ScratchTask, problems: int) -> dict[str, Any]:
    key = hashlib.sha256(json.dumps([digest, task.name, problems]).encode()).hexdigest()[:24]
    path = out / "cache" / f"{key}.json"
    if not path.exists():
        write_json(path, plain(measure_task(policy, task, problems)))
    return measured_from(path, problems)


def measured_from(path: Path, problems: int) -> dict[str, Any]:
    """What `measure_task` found of so many ``problems``, kept in file ``path``; InputError if the file is another."""
    held = check_object(path, read_json(path), {"columns": dict, "curves": (dict, type(None))})
    needed = OWN if held["curves"] is None else OF_CHAINS
    lacking = [name for name in needed if name not in held["columns"]]
    if lacking:
        raise InputError(f"{path} is damaged, or not what fstsim writes: it has no {lacking[0]}")
    with understood(path):
        for name, values in _columns(held).items():
            if values.shape != (problems,):
                raise InputError(f"{path}: {name} has shape {values.shape}, of {problems} problems")
        for name, values in (held["curves"] or {}).items():
            if np.array(values, dtype=np.float64).ndim != 1 or name not in CURVES:
                raise InputError(f"{path}: {name} is no curve")
        if held["curves"] is not None and held["curves"].keys() != set(CURVES):
            raise InputError(f"{path} has not all of {', '.join(CURVES)}")
    return held


def measure_task(policy: Policy, task: ScratchTask, problems: int) -> dict[str, Any]:
    """``columns``, a value of every score for every problem, and ``curves`` of ``policy`` on ``task``.

    The tests are left out for a model outside of the world whose chains are too seldom right to be tested: they take long there.
    """
    items = items_of(task, problems)
    size = len(items[0].right)
    world = policy.template == "world"
    notation = notation_of(policy, FAMILIES[task.family].symbols, size)
    new = (task.steps + 1) * (size + 1) + 1 if world else _WORDS * (task.steps + 2)
    writer = PolicyWriter(policy, notation, new, task.steps)
    own = own_chains(writer, items)
    alone = {"chain": own.right.astype(float), "well_formed": own.well_formed.astype(float)}
    passing = not_measurable(alone, {"chain": np.ones(1), "direct": np.zeros(1)}) is None
    tested = run_tests(writer, items, own) if world or passing else None
    mass = np.exp(chain_log_mass(policy, [item.problem for item in items])) if world else None
    return {"columns": columns(own, tested, mass), "curves": None if tested is None else curves(tested)}


def _moved(out: Path, digests: tuple[str, str], base: Policy, policy: Policy, task: ScratchTask) -> dict[str, Any]:
    """K0, the KL from the base without a context on problems of the family, the drift of the exam, and why that is no change."""
    path = out / "cache" / f"moved-{digests[0][:16]}-{digests[1][:16]}.json"
    if not path.exists():
        problems = list(RuleTask(task.family, (), size=task.size).problems("test"))[:32]
        with torch.no_grad():
            kl = sequence_kl(policy, base, sample_once(policy, ("",), problems, 0, 16))
        k0, error = mean_se(kl)
        drift, noise = None, 0.0
        if base.template == "world":
            skills = ExamSkills.of(base, _EXAM)
            now = skills.measure(policy)
            drift = now["drift"]
            noise = exam_noise([skills.base[name] for name in now if name.startswith("accuracy")], _EXAM)
        row = {"k0": k0, "k0_se": error, "drift": drift, "unmoved": no_forgetting(k0, error, drift, noise)}
        write_json(path, plain(row))
    held = check_object(path, read_json(path), {"k0": (int, float), "unmoved": (str, type(None))})
    with understood(path):
        for name in ("k0_se", "drift"):
            if held[name] is not None:
                float(held[name])
    return held
