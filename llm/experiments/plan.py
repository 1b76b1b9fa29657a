"""The experiments on fast-slow training: which runs each needs, and the measurements that are taken after them.

Runs are shared between experiments: a run has a name, a configuration and seeds, and lives in ``runs/NAME/seed-k``; what
is finished is only loaded. Tasks and settings are declared here, before any run; nothing is chosen afterwards.
Source: 2605.12484 (figures 1-7 there), with the numbers of the paper in `PAPER`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from joblib import Parallel, delayed
from transformers.utils import logging

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.weights import Diverged
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import Exam
from fstsim.llm.runs.config import METHODS, TrainConfig
from fstsim.llm.runs.probes import ProbeConfig, answer_logprobs, mean_se
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Answered
from fstsim.records import check_contents, check_directory, prepare_directory, read_json, read_rows, write_json

Scale = Literal["smoke", "small", "paper"]

# Near zero without context (see `fstsim tasks`). With the rules in context the base solves the first two: context can carry
# nearly everything. On the third (find the way from the centre) it solves 15 % even then: weights have to carry most.
TASKS: Mapping[str, str] = {
    "strings": "strings:reverse+next",
    "digits": "digits:negate+shift",
    "star_graph": "star_graph:forward",
}
# Single rules that the base follows now and then without being told: RL alone learns them.
EASY: Mapping[str, str] = {"strings": "strings:rotate", "digits": "digits:plus", "star_graph": "star_graph:cross"}
REUSE: Mapping[str, str] = {
    "strings-easy": EASY["strings"],
    "digits-easy": EASY["digits"],
    "star_graph-hard": TASKS["star_graph"],
}
"""Two tasks that contexts solve alone, and the one on which weights carry most."""
SEQUENCE = ("strings:rotate", "digits:plus", "star_graph:cross")
SECOND: Mapping[str, str] = {"": EASY["digits"], "conflict-": "strings:sort"}
"""What is learned after `EASY` of strings: a task of another family, and one of the same prompts with other answers."""
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
LEASHES = (0.0, 0.02)


@dataclass(frozen=True)
class Planned:
    """A run: its name and its configuration; ``after`` names the run whose final weights it starts from."""

    name: str
    config: TrainConfig
    after: str | None = None


@dataclass(frozen=True)
class Size:
    """How large the runs of a scale are: slow steps on each task, problems a step, what is measured."""

    steps: int
    problems: int
    probe: ProbeConfig


SIZES: dict[str, Size] = {
    "smoke": Size(60, 24, ProbeConfig(10, 32, 16)),
    "small": Size(120, 48, ProbeConfig(10, 64, 32)),
    "paper": Size(300, 64, ProbeConfig(10, 256, 64)),
}


def _config(scale: Scale, method: str, tasks: tuple[str, ...], lr: float = 3e-4, leash: float = 0.0) -> TrainConfig:
    size = SIZES[scale]
    own = (
        {}
        if METHODS[method].learner is not PolicyGradient
        else {"learner": PolicyGradient(problems=size.problems, leash_reward=leash)}
    )
    return TrainConfig(
        method=method,
        tasks=tasks,
        steps=-(-size.steps // 6) if method == "gepa" else size.steps,
        lr=lr,
        probe=replace(size.probe, every=1) if method == "gepa" else size.probe,
        **own,
    )


def families(scale: Scale) -> tuple[str, ...]:
    """Families of an experiment."""
    return ("strings",) if scale == "smoke" else tuple(TASKS)


def core_runs(scale: Scale, chosen: Mapping[str, tuple[float, float]] | None = None) -> list[Planned]:
    """RL, FST and GEPA on a hard and an easy task of each family; ``chosen[method]`` is (learning rate, leash)."""
    chosen = chosen or {}
    runs = []
    for kind, tasks in (("hard", TASKS), ("easy", EASY)):
        for family in families(scale):
            for method in ("rl", "fst", "gepa"):
                if method == "gepa" and kind == "easy":
                    continue
                lr, leash = chosen.get(method, (3e-4, 0.0))
                runs.append(Planned(f"{family}-{kind}-{method}", _config(scale, method, (tasks[family],), lr, leash)))
    return runs


def calibration_runs(scale: Scale, chosen: Mapping[str, tuple[float, float]] | None = None) -> list[Planned]:  # noqa: ARG001
    """The declared sweep: every learning rate with every leash, for RL and for FST, on the easy task of the first family."""
    return [
        Planned(f"calibrate-{method}-lr{lr:g}-leash{leash:g}", _config(scale, method, (EASY["strings"],), lr, leash))
        for method in ("rl", "fst")
        for lr in LEARNING_RATES
        for leash in LEASHES
    ]


def continual_runs(scale: Scale, chosen: Mapping[str, tuple[float, float]] | None = None) -> list[Planned]:  # noqa: ARG001
    """Three families one after the other in one uninterrupted run, at every declared learning rate.

    What is best on one task need not be on a sequence, so that nothing is taken over from the sweep on the first.
    """
    return [
        Planned(continual_name(m, lr), _config(scale, m, SEQUENCE, lr)) for m in ("rl", "fst") for lr in LEARNING_RATES
    ]


def continual_name(method: str, lr: float) -> str:
    """Name of a run of `continual_runs`: the default learning rate has no mark."""
    return f"continual-{method}" + ("" if lr == 3e-4 else f"-lr{lr:g}")


def zero_runs(scale: Scale, chosen: Mapping[str, tuple[float, float]] | None = None) -> list[Planned]:  # noqa: ARG001
    """From next to no reward, where words do not solve the task: RL and FST at every declared learning rate, no leash.

    The declared sweep is on an easy task; what is best there need not be where the weights have to carry most.
    """
    return [
        Planned(f"zero-{m}-lr{lr:g}", _config(scale, m, (TASKS["star_graph"],), lr))
        for m in ("rl", "fst")
        for lr in LEARNING_RATES
    ]


def plasticity_runs(scale: Scale, chosen: Mapping[str, tuple[float, float]] | None = None) -> list[Planned]:
    """Fresh RL on a second task, conflicting or not, from the base, and from the ends of RL and of FST on a first one."""
    runs = []
    for mark, task in SECOND.items():
        config = _config(scale, "rl", (task,), *(chosen or {}).get("rl", (3e-4, 0.0)))
        runs.append(Planned(f"plasticity-{mark}from-base", config))
        runs += [Planned(f"plasticity-{mark}from-{m}", config, after=f"strings-easy-{m}") for m in ("rl", "fst")]
    return runs


def distill_runs(scale: Scale, chosen: Mapping[str, tuple[float, float]] | None = None) -> list[Planned]:  # noqa: ARG001
    """The context-free policy towards its context-conditioned self, from the end of FST."""
    config = _config(scale, "distill", (TASKS["strings"],))
    return [Planned("distill", config, after="strings-hard-fst")]


def reuse_runs(scale: Scale, chosen: Mapping[str, tuple[float, float]] | None = None) -> list[Planned]:
    """FST whose slow steps reuse the rollouts of the fast rounds before them, beside FST as it is (runs of core)."""
    runs = []
    for name, task in REUSE.items():
        config = _config(scale, "fst", (task,), *(chosen or {}).get("fst", (3e-4, 0.0)))
        reusing = replace(config, fast=PromptEvolution(reuse=True))
        runs += [Planned(f"{name}-fst", config), Planned(f"{name}-fst-reuse", reusing)]
    return runs


EXPERIMENTS: Mapping[str, Callable[..., list[Planned]]] = {
    "core": core_runs,
    "calibrate": calibration_runs,
    "continual": continual_runs,
    "zero": zero_runs,
    "plasticity": plasticity_runs,
    "distill": distill_runs,
    "reuse": reuse_runs,
}

PAPER: Mapping[str, Any] = {
    "speed": {"CodeIO": 3.0, "Math": 1.4, "HoVer-hard": 3.0},
    "asymptote": {"CodeIO": (47.4, 43.0), "Math": (49.2, 46.4), "HoVer-hard": (25.0, 17.3)},
    "kl_reduction": 0.70,
    "plasticity": {"HoVer-hard after Math": (20.2, 0.0, 16.7), "HoVer-hard after Physics": (18.3, 19.9, 24.2)},
    "decomposition": {"HoVer-hard": (2.0, 11.6, 10.6, 21.2)},
}
"""Numbers of 2605.12484: FST over RL; (FST, RL) asymptotes; largest reduction of KL at matched reward; reward after fresh RL
from (base, RL, FST); pass@1 of (base, slow only, fast only, both)."""


def best_settings(out: Path) -> dict[str, tuple[float, float]]:
    """``{method: (learning rate, leash)}`` of the declared sweep with the highest reward averaged over its whole course.

    Over the seeds that every run of the sweep has finished, whatever the number of seeds asked for now: more seeds of an
    experiment must not change its settings. Empty where the sweep has not been run to its end: then the defaults hold.
    """
    best: dict[str, tuple[float, float, float]] = {}
    sweep = calibration_runs("small")
    seeds = min(len(list((out / "runs" / p.name).glob("seed-*/summary.json"))) for p in sweep)
    if not seeds:
        return {}
    for planned in sweep:
        rewards = []
        for seed in range(seeds):
            rows = read_rows(out / "runs" / planned.name / f"seed-{seed}" / "metrics.jsonl")
            rewards += [row["reward"] for row in rows if row.get("reward") is not None]
        method, mean = planned.config.method, float(np.mean(rewards))
        if method not in best or mean > best[method][0]:
            leash = asdict(planned.config)["learner"]["leash_reward"]
            best[method] = (mean, planned.config.lr, leash)
    return {method: (lr, leash) for method, (_, lr, leash) in best.items()}


def seed_config(planned: Planned, seed: int, out: Path) -> TrainConfig:
    """Configuration of one seed of a planned run; InputError if the run that it starts from is not finished."""
    config = replace(planned.config, seed=seed)
    if planned.after is None:
        return config
    before = out / "runs" / planned.after / f"seed-{seed}"
    if not (before / "summary.json").exists():
        raise InputError(
            f"{planned.name} starts from {planned.after}, which is not finished in {out / 'runs'}: "
            "run what makes it first (experiment core for plasticity and distill)"
        )
    config = replace(config, model=str(before / "model"))
    if config.method == "distill":  # the teacher's context is the one that evolved
        config = replace(config, context=read_json(before / "summary.json")["prompts"][0])
    return config


def run_planned(
    planned: Planned, seed: int, out: Path, progress: Callable[[int, str], None] | None = None
) -> list[dict[str, Any]]:
    """Run, continue or load one planned run with one seed; returns its rows."""
    return run_training(seed_config(planned, seed, out), out / "runs" / planned.name / f"seed-{seed}", progress)


def on_device(planned: Sequence[Planned], device: str) -> list[Planned]:
    """The same runs on another torch device."""
    return [replace(p, config=replace(p.config, device=device)) for p in planned]


def check_shown(names: Sequence[str], out: Path) -> None:
    """InputError unless ``out`` holds a finished run of one of the experiments ``names``."""
    if not out.is_dir():
        raise InputError(f"no directory at {out}")
    runs = {planned.name for name in names for planned in EXPERIMENTS[name]("small")}  # has the runs of every scale
    if not any(path.parent.parent.name in runs for path in out.glob("runs/*/seed-*/summary.json")):
        raise InputError(f"{out} holds no finished run of experiment {' or '.join(names)}")


def run_all(planned: Sequence[Planned], seeds: int, out: Path, jobs: int = -1) -> Iterator[tuple[str, str]]:
    """All runs, several at a time and one thread each; yields ``(what, failure)`` as they end, failure empty when done.

    On two cores two runs side by side take half the time of one run on both: the models are small. Raises InputError, before
    anything is written, if a directory holds something else or a run that one of these starts from is not finished.
    """
    check_runs(planned, seeds, out, jobs)
    prepare_directory(out)
    work = Parallel(n_jobs=jobs, backend="loky", return_as="generator_unordered")
    yield from work(delayed(_run_one)(p, seed, out) for p in planned for seed in range(seeds))


def check_runs(planned: Sequence[Planned], seeds: int, out: Path, jobs: int) -> None:
    """InputError unless `run_all` can begin; ``out`` may hold runs, predictions and pictures, and nothing else."""
    if jobs == 0:
        raise InputError("jobs must be at least 1, or -1 for every core; got 0")
    ours = ("runs", "predictions.json", "validation.json", "base_masses.json")
    check_contents(out, "training runs", lambda p: p.name in ours or p.suffix == ".png")
    for p in planned:
        for seed in range(seeds):
            place = out / "runs" / p.name / f"seed-{seed}"
            check_directory(
                place, asdict(seed_config(p, seed, out)), "training run", asdict(TrainConfig(method=p.config.method))
            )


def _run_one(planned: Planned, seed: int, out: Path) -> tuple[str, str]:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    what = f"{planned.name} seed {seed}"
    try:
        rows = run_planned(planned, seed, out)
    except Diverged as error:
        return what, str(error)
    if planned.config.method == "fst" and len(planned.config.tasks) == 1:
        decompose(out / "runs" / planned.name / f"seed-{seed}")
    return f"{what}: reward {rows[-1]['reward']:.2f}", ""


@torch.no_grad()
def decompose(run: Path, problems: int = 256) -> dict[str, Any]:
    """The 2 x 2 of a finished FST run: {base, trained weights} x {empty, evolved context}, and old skills without context.

    Success probabilities on test problems, exact for exact-match tasks, with standard errors; recorded beside the run.
    """
    place = run / "decomposition.json"
    if place.exists():
        return dict(read_json(place))
    config, summary = read_json(run / "config.json"), read_json(run / "summary.json")
    task = parse_task(config["tasks"][-1])
    if not isinstance(task, Answered):
        raise InputError(f"{task.name} has no answers: success without sampling needs them")
    held_out = list(task.problems("test"))[:problems]
    answers = [task.answer(p) for p in held_out]
    best = summary["prompts"][0]
    result: dict[str, Any] = {"context": best}
    for name, policy in (("base", Policy.load(config["model"])), ("trained", Policy.load(str(run / "model")))):
        for shown, context in (("empty", ""), ("evolved", best)):
            success = np.exp(answer_logprobs(policy, (context,), held_out, answers))[0]
            result[f"{name}_{shown}"], result[f"{name}_{shown}_se"] = mean_se(success)
        skills = Exam.of_world(policy.tokenizer, policy.sizes).sit(policy.model)
        result |= {f"{name}_{key}": value for key, value in skills.items() if key.startswith("accuracy")}
    write_json(place, result)
    return result
