"""``python train_on_accelerator.py METHOD OUT [LAYERS]``: two steps with a method on the CPU and on the accelerator of `accelerator`.

OUT/cpu; on the accelerator OUT/static, sampling in fixed shapes as on CUDA; OUT/continued, the same stopped after its first
step and continued; OUT/shared, with the cache of a group's prompt repeated, for models that do not take fixed shapes.
The method ``pretrain`` trains a base model (no OUT/shared). LAYERS keeps the first layers of the shipped
model only, and leaves OUT/shared out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerator import NAME, Held, accelerator

import fstsim.llm.runs.run as module
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.ttt import TTTDiscover
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.config import PRESETS
from fstsim.llm.pretraining.pretrain import pretrain
from fstsim.llm.runs.config import METHODS, TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.run import run_training

LEARNER: dict[str, Any] = {
    "rl": PolicyGradient(problems=6, rollouts=4, advantage="centred", updates=2, leash_reward=0.01, leash_loss=0.01),
    "sft": SupervisedFineTuning(problems=6, replay_share=0.25),
    "sdft": SDFT(problems=4, demonstration="examples", ema_rate=0.3, teacher_share=0.7),
    "ttt": TTTDiscover(problems=4, rollouts=4, leash_reward=0.01),
    "oapl": OAPL(problems=4, rollouts=4, period=1, lagged_share=0.9),
    "mixture": MixtureDistillation(problems=4),
}
LEARNER["fst"] = LEARNER["rl"]


def settings(method: str, **changes: Any) -> TrainConfig:
    """A run of two steps of ``method``."""
    if method in LEARNER:
        changes = {"learner": LEARNER[method], **changes}
    if METHODS[method].evolves:
        changes = {"fast": PromptEvolution(contexts=2, rollout_budget=24, validation=4, shown=4), **changes}
    return TrainConfig(
        method=method,
        tasks=("digits:plus",),
        steps=2,
        lr=1e-6,  # AdamW makes of a gradient that is nearly nothing a step of either sign: with larger ones noise would grow
        slow_steps_per_round=1,
        probe=ProbeConfig(every=1, problems=4, exam=1),
        seed=1,
        **changes,
    )


def check_that_it_is_one() -> None:
    """What a GPU does it does, and what a GPU refuses it refuses."""
    here, there, drawn = torch.ones(3, device=NAME), torch.ones(3), torch.Generator(NAME).manual_seed(0)
    assert here.device.type == (here + 1.0).device.type == torch.tensor([1.0], device=NAME).device.type == NAME
    assert (here + here).tolist() == [2.0, 2.0, 2.0]
    assert (here * torch.tensor(2.0)).sum().item() == 6.0
    assert here.cpu().device.type == "cpu"
    layer = torch.nn.Linear(3, 2).to(NAME)
    layer(here).sum().backward()
    assert isinstance(layer.weight.grad, Held)
    assert layer.weight.grad.tolist() == [[1.0] * 3] * 2
    tied = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    assert tied.to(NAME)[1].weight is tied[0].weight
    wrong: list[Any] = [
        lambda: here + there,
        lambda: torch.cat((here, there)),
        lambda: torch.where(here > 0.0, here, there),
        lambda: torch.rand(2, device=NAME, generator=torch.Generator()),
        lambda: torch.rand(2, generator=drawn),
        lambda: np.asarray(here),
        lambda: torch.nn.Linear(3, 2)(here),
    ]
    for k, attempt in enumerate(wrong):
        try:
            attempt()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError(f"attempt {k} went through, which a GPU refuses")


def stop_after_one(step: int, _note: str) -> None:
    """Ctrl-C."""
    if step == 1:
        raise KeyboardInterrupt


def shortened(layers: int, place: str) -> str:
    """The shipped model without its last layers, saved at ``place``."""
    policy = Policy.load("base")
    del policy.model.model.layers[layers:]
    policy.model.config.num_hidden_layers = layers
    policy.model.config.layer_types = policy.model.config.layer_types[:layers]
    policy.model.save_pretrained(place)
    policy.tokenizer.save_pretrained(place)
    return place


def train(method: str, out: Path, model: str) -> None:
    """All four runs of a method; three of a shortened model."""
    module.relearn_steps = functools.partial(relearn_steps, most=3, batch=4)  # type: ignore[attr-defined]
    plain = Policy.of.__func__  # type: ignore[attr-defined]
    static = True

    def of(cls: Any, model: Any, tokenizer: Any) -> Policy:
        policy = plain(cls, model, tokenizer)
        return dataclasses.replace(policy, static=static and model.device.type == NAME)

    Policy.of = classmethod(of)  # type: ignore[assignment,method-assign]
    config = settings(method, model=model, context="plus" if method == "distill" else "")
    with accelerator() as device:
        there = dataclasses.replace(config, device=device)
        run_training(there, out / "static")
        with contextlib.suppress(KeyboardInterrupt):
            run_training(there, out / "continued", stop_after_one)
        run_training(there, out / "continued")
        if model == "base":
            static = False
            run_training(there, out / "shared")
    # last: autograd counts the devices when it first runs, and finds no new one after that
    run_training(config, out / "cpu")


def train_base(out: Path) -> None:
    """The base model from random weights, its exams and its checkpoint."""
    config = dataclasses.replace(PRESETS["smoke"], steps=2, precision="float32")
    with accelerator() as device:
        pretrain(config, out / "static", device=device, every=1)
        with contextlib.suppress(KeyboardInterrupt):
            pretrain(config, out / "continued", device=device, every=1, progress=stop_after_one)
        pretrain(config, out / "continued", device=device, every=1)
    pretrain(config, out / "cpu", every=1)


def main() -> None:
    """Train what the command line says."""
    with accelerator():
        check_that_it_is_one()
    method, out = sys.argv[1], Path(sys.argv[2])
    if method == "pretrain":
        train_base(out)
        return
    with tempfile.TemporaryDirectory() as place:
        train(method, out, shortened(int(sys.argv[3]), place) if len(sys.argv) > 3 else "base")


if __name__ == "__main__":
    main()
