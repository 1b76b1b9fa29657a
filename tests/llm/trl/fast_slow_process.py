"""What `test_fast_slow_processes` starts in one and in two processes; writes gradients, weights and population as this one has them."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.policy.loading import load_model
from fstsim.llm.types import Population
from fstsim.records import plain, write_json


class Gradients(TrainerCallback):
    """Keeps the gradient of every step."""

    def __init__(self) -> None:
        self.seen: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,  # noqa: ARG002 -- as the trainer calls it
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        model: Any = None,
        **_: Any,
    ) -> None:
        """Gradients as the optimizer gets them."""
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                self.seen[f"{state.global_step} {name.removeprefix('module.')}"] = weight.grad.clone()


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))  # after fstsim, which has a folder of that name among the tests
    from tiny_trainers import fast_slow

    out, rank, count = Path(sys.argv[1]), os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, tokenizer = load_model("base", "cpu", "float32")
    trainer = fast_slow(
        model,
        tokenizer,
        out / "run",
        Population(("", "reverse", "next")),
        PromptEvolution(contexts=3, rollout_budget=48, validation=4, shown=3),
        ddp_backend="gloo",
        per_device_train_batch_size=8 // count,
        generation_kwargs={"do_sample": False},
        optim="sgd",
        learning_rate=1e-2,
        max_grad_norm=0.0,
        max_steps=3,
    )
    gradients = Gradients()
    trainer.add_callback(gradients)
    # the round before step 0 is left out: greedy completions differ by context, and those of the start have a signal
    trainer.rounds.append({"step": 0})
    trainer.train()
    held = trainer.accelerator.unwrap_model(trainer.model)
    weights = {key: value.detach().clone() for key, value in held.named_parameters()}
    save_file(weights, out / f"weights-{rank}.safetensors")
    save_file(gradients.seen, out / f"gradients-{rank}.safetensors")
    write_json(out / f"population-{rank}.json", plain(asdict(trainer.population)))
