"""The state of a trained system as a file of its run directory, and the system from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.checkpoint import read_checkpoint, write_checkpoint
from fstsim.llm.systems.system import STATE, Deployed
from fstsim.llm.systems.weights import packed, restore_system
from fstsim.reading import is_there, understood
from fstsim.records import read_json

if TYPE_CHECKING:
    from fstsim.llm.runs.config import TrainConfig


def save_system(config: TrainConfig, system: Deployed, run: Path) -> None:
    """Write the state of ``system`` into the run directory, whole or not at all."""
    tensors, notes = packed(system)
    write_checkpoint(run / STATE, tensors, {"method": config.method, "model": config.model, **notes})


def load_system(run: Path, device: str = "cpu") -> Deployed:
    """The system that the run in directory ``run`` has trained, on its own base model.

    Raises InputError if there is none, its file is damaged, or its model is another one by now.
    """
    from fstsim.llm.runs.config import TrainConfig

    path = run / "config.json"
    with understood(path):
        config = TrainConfig.from_dict(read_json(path))
    if config.learner is None or not config.learner.deploys:
        raise InputError(f"{run} is a run of method {config.method}, which trains no system beside its model")
    path = run / STATE
    if not is_there(path):
        raise InputError(f"{run} has no {STATE}: the run has not ended; the same command continues it")
    tensors, meta = read_checkpoint(path)
    base = Policy.load(config.model, device)
    base.model.requires_grad_(False)
    system = config.learner.deploy(base, config.seed)
    restore_system(system, tensors, meta, path)
    return system
