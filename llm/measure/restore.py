"""Which layers hold what a training changed: the base's weights are put back part by part, and everything is measured again.

Parts are blocks (attention, feed-forward) of a layer, whole layers, the embeddings and the output side. Each is restored
alone; and layers are restored from the bottom up and from the top down, with what lies beyond them. If forgetting sat in the
low layers, restoring those alone would bring the old skills back and leave the new task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from fstsim.errors import InputError
from fstsim.llm.measure.layers import layer_of
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.old_prompts import OldPrompts
from fstsim.llm.runs.probes import Probe
from fstsim.llm.runs.run_input import check_problems, check_tasks, with_tasks
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.types import Population
from fstsim.records import plain, read_json

Notes = Callable[[int, str], None]
_ATTENTION = re.compile(r"\.(?:self_|linear_)?(?:attn|attention)\.")
_LAYER_NUMBER = re.compile(r"layer (\d+)$")
COLUMNS = ("reward", "old_mass", "kl_to_base", "old_skills_drift", "drift")
"""Columns of a run that are kept of every measurement, where its probes have them."""


Group = Literal["layer", "ends", "block", "stack"]
GROUPS: tuple[Group, ...] = get_args(Group)
_KINDS: dict[Group, tuple[str, ...]] = {
    "layer": ("layer",),
    "ends": ("ends",),
    "block": ("attention", "feed-forward"),
    "stack": ("from below", "from above"),
}
"""Kinds of parts in a group: a model of many layers has hundreds of parts, and layers alone may be what is wanted."""


@dataclass(frozen=True)
class Part:
    """Parameters that are restored together: ``kind`` is layer, attention, feed-forward, ends, from below or from above.

    ``depth`` counts layers from the bottom, 0 the first; of "from below" and "from above" it is how many are restored.
    """

    name: str
    kind: str
    depth: int
    parameters: tuple[str, ...]


def parts_of(model: nn.Module) -> list[Part]:
    """All parts of ``model``, each parameter in exactly one layer or one of the ends. InputError if it has no layers."""
    names = [name for name, _ in model.named_parameters()]
    layers: dict[int, list[str]] = {}
    before: list[str] = []
    after: list[str] = []
    for name in names:
        if found := _LAYER_NUMBER.fullmatch(layer_of(name)):
            layers.setdefault(int(found[1]), []).append(name)
        else:
            (after if layers else before).append(name)
    if not layers:
        raise InputError(f"the layers of {type(model).__name__} are not told by the names of its weights")
    count = len(layers)
    ends = [("embeddings", -1, before), ("output", count, after)]
    parts = [Part(name, "ends", depth, tuple(held)) for name, depth, held in ends if held]
    for k in sorted(layers):
        attention = [name for name in layers[k] if _ATTENTION.search(name)]
        rest = [name for name in layers[k] if name not in set(attention)]
        parts.append(Part(f"layer {k}", "layer", k, tuple(layers[k])))
        parts += [
            Part(f"layer {k} {kind}", kind, k, tuple(held))
            for kind, held in (("attention", attention), ("feed-forward", rest))
            if held
        ]
    for k in range(1, count):
        low = [name for j in range(k) for name in layers[j]]
        high = [name for j in range(count - k, count) for name in layers[j]]
        parts.append(Part(f"lowest {k}", "from below", k, (*before, *low)))
        parts.append(Part(f"highest {k}", "from above", k, (*high, *after)))
    return parts


@contextmanager
def restored(model: nn.Module, base: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """``model`` with the weights ``names`` of ``base``; its own come back to the bit."""
    mine, theirs = dict(model.named_parameters()), dict(base.named_parameters())
    kept = {name: mine[name].detach().clone() for name in names}
    with torch.no_grad():
        for name in names:
            mine[name].copy_(theirs[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                mine[name].copy_(value)


def _chosen(model: nn.Module, groups: Sequence[Group]) -> list[Part]:
    kinds = {kind for group in groups for kind in _KINDS[group]}
    return [part for part in parts_of(model) if part.kind in kinds]


def run_restore(
    run: Path, progress: Notes | None = None, *, model: str | None = None, groups: Sequence[Group] = GROUPS
) -> list[dict[str, Any]]:
    """Measure the trained model of run directory ``run`` as it is, the base, and the model with each part restored.

    Rows have ``part``, ``kind``, ``depth``, ``parameters`` (how many numbers) and `COLUMNS`, measured by the probes of the
    run on its last task, for the parts of ``groups``. ``model`` stands for the base of the run's configuration. Raises InputError if the run is not finished,
    has no weights, or its base or problems are others now.
    """
    config, trained, base, probe, context = _load(run, model)
    parts = _chosen(trained.model, groups)
    rows = []
    sizes = {name: weight.numel() for name, weight in trained.model.named_parameters()}
    everything = Part("everything", "all", 0, tuple(sizes))
    for k, part in enumerate((Part("nothing", "none", 0, ()), everything, *parts)):
        with restored(trained.model, base.model, part.parameters):
            measured = probe.measure(trained, context)
        row = {"part": part.name, "kind": part.kind, "depth": part.depth}
        row["parameters"] = sum(sizes[name] for name in part.parameters)
        rows.append(plain({**row, **{name: measured[name] for name in COLUMNS if name in measured}}))
        if progress is not None:
            progress(k + 1, f"seed {config.seed}, {part.name}")
    return rows


def count_parts(run: Path, model: str | None = None, groups: Sequence[Group] = GROUPS) -> int:
    """How many measurements `run_restore` makes of ``run``. Raises InputError as it does."""
    return 2 + len(_chosen(_load(run, model)[1].model, groups))


def _load(run: Path, model: str | None) -> tuple[TrainConfig, Policy, Policy, Probe, Population]:
    if not (run / "config.json").exists():
        raise InputError(
            f"{run} is no run directory of a training: give the directory of one seed, such as out/train/seed-0"
        )
    try:
        config = TrainConfig.from_dict(read_json(run / "config.json"))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{run / 'config.json'} is not the configuration of a training run") from error
    if not (run / "summary.json").exists():
        raise InputError(f"{run} is not finished: the same train command continues it")
    if config.learner is not None and config.learner.deploys:
        raise InputError(
            f"{run} is a run of method {config.method}, whose weights are its base's: there is nothing to restore"
        )
    if not (run / "model").is_dir():
        raise InputError(
            f"{run} holds no model/: it was trained without, the same train command without --no-model adds it"
        )
    config, tasks, old = with_tasks(config)
    check_problems(run, config)
    base = Policy.load(model or config.model, config.device)
    trained = Policy.load(str(run / "model"), config.device)
    mine, theirs = (dict(p.model.named_parameters()) for p in (trained, base))
    if {n: w.shape for n, w in mine.items()} != {n: w.shape for n, w in theirs.items()}:
        raise InputError(f"the model of {run} is of another architecture than its base {model or config.model}")
    check_tasks(config, base, tasks, old)
    errors = VerifierErrors()
    skills = old_skills(base, [guarded(task, errors) for task in old], config.probe, config.seed)
    # KL on old prompts, half of the work in a large model, is no column that is kept
    skills = [each for each in skills if not isinstance(each, OldPrompts)]
    probe = Probe(base, guarded(tasks[-1], errors), config.probe, config.seed, skills)
    return config, trained, base, probe, Population((_context(run, config),))


def _context(run: Path, config: TrainConfig) -> str:
    """The context that the run ended in: the first of its last population, or that of its configuration."""
    from fstsim.records import read_rows

    rounds = read_rows(run / "prompts.jsonl") if (run / "prompts.jsonl").exists() else []
    return str(rounds[-1]["prompts"][0]) if rounds else config.begin()[1]
