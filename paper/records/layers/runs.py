"""The recorded restorings of layers: which runs, and what is kept of them (``python -m fstsim.paper.records.layers.runs``).

SFT and RL on three tasks of the shipped model, and SFT on one of the pretrained one, three seeds each; every layer, block and
stack of layers restored alone, in the pretrained model layers only (`fstsim.llm.measure.restore`). ``paper/data/layers/SET.json`` keeps the rows of every seed. The run
directories stay where they were made: a stopped recording goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fstsim.front.command import Directory
from fstsim.front.console import Progress, show
from fstsim.front.entry import run_module
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.measure.restore import GROUPS, Group
from fstsim.llm.measure.restored_runs import restore_runs, total_parts
from fstsim.llm.runs.config import PRESETS, TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.paper import DATA, checkout
from fstsim.paper.claims.layers import read_restored
from fstsim.paper.records.layers.overview import PICTURE, save_layers_overview
from fstsim.records import environment, plain, read_json, write_json

SEEDS = (0, 1, 2)
OLD: Mapping[str, tuple[str, ...]] = {
    "strings:sort": ("digits:plus", "star_graph:cross"),
    "strings:rotate": ("digits:plus", "star_graph:cross"),
    "digits:plus": ("strings:rotate", "star_graph:cross"),
}
"""Tasks that are trained, and the old skills beside each: of the other families."""
NEAR: Mapping[str, tuple[str, ...]] = {
    "strings:sort": ("strings:rotate", "strings:reverse"),
    "strings:rotate": ("strings:sort", "strings:reverse"),
    "digits:plus": ("digits:negate", "digits:shift"),
}
"""Old skills of the same family: SFT on sorting and RL on everything lose less than .02 on those of other families."""
PRETRAINED = ("language:plural:bare", ("language:capitals", "language:opposites"))
"""What the pretrained model is taught, which it never writes, and its old skills of the same format."""


def _world(method: str, task: str, old: Mapping[str, tuple[str, ...]] = OLD) -> TrainConfig:
    """A run of preset smoke at a learning rate that loses old skills, measured at its end alone."""
    preset = PRESETS["smoke"]
    probe = replace(preset.probe, every=preset.steps, early=preset.steps + 1, exam=8, relearn=0)
    learner = (PolicyGradient if method == "rl" else SupervisedFineTuning)(problems=preset.problems)
    return TrainConfig(method, (task,), old[task], steps=preset.steps, lr=3e-4, learner=learner, probe=probe)


def _pretrained() -> TrainConfig:
    task, old = PRETRAINED
    probe = ProbeConfig(every=12, problems=8, early=13, max_new_tokens=16)
    learner = SupervisedFineTuning(problems=12)
    return TrainConfig("sft", (task,), old, model="smollm2", steps=12, lr=1e-5, learner=learner, probe=probe)


SETS: Mapping[str, TrainConfig] = {
    **{
        f"{method}-{task.replace(':', '-')}": _world(method, task)
        for method in ("sft", "rl")
        for task in OLD
        if (method, task) != ("rl", "strings:sort")  # fresh RL finds it in some seeds only
    },
    "sft-strings-sort-near": _world("sft", "strings:sort", NEAR),
    "rl-strings-rotate-near": _world("rl", "strings:rotate", NEAR),
    "rl-digits-plus-near": _world("rl", "digits:plus", NEAR),
    "smollm2-sft-plural-bare": _pretrained(),
}


PARTS: Mapping[str, tuple[Group, ...]] = {"smollm2-sft-plural-bare": ("layer",)}
"""What is put back where not everything is: 30 layers have 152 parts, hours of measurements for what no claim asks."""


@dataclass(frozen=True)
class Config:
    """Train and restore the recorded sets, or go on with them, and write paper/data/layers."""

    out: Directory = Path("out/layers")
    """where run directories and measurements are"""
    only: tuple[str, ...] = tuple(SETS)
    """sets that are made; the picture is drawn of all that are recorded"""


def record(config: Config) -> int:
    """Do it, and write every set that is finished."""
    for name in config.only:
        runs = config.out / name / "runs"
        _train(name, runs)
        groups = PARTS.get(name, GROUPS)
        progress = Progress(f"{name}, layers", total_parts([runs], groups=groups), "measurements")
        found = restore_runs([runs], config.out / name / "restored", progress.at, groups=groups)
        progress.close()
        made = read_json(runs / "seed-0" / "environment.json")
        kept = {"config": asdict(SETS[name]), "environment": {"trained": made, "restored": environment()}, **found}
        write_json(DATA / "layers" / f"{name}.json", plain(kept))
    show(f"{save_layers_overview(read_restored(DATA), checkout() / 'paper/images' / PICTURE)}")
    return 0


def _train(name: str, runs: Path) -> None:
    """All seeds, as far as they are not trained yet."""
    train = SETS[name]
    progress = Progress(name, len(SEEDS) * train.steps, "steps")
    for k, seed in enumerate(SEEDS):
        before = k * train.steps
        run_training(
            replace(train, seed=seed),
            runs / f"seed-{seed}",
            lambda step, what, before=before: progress.at(before + step, what),  # type: ignore[misc]
        )
    progress.close()


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.layers.runs", Config, record))
