"""What `test_fast_slow` starts in one and in two processes; writes weights and population as this process has them."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.policy.loading import load_model
from fstsim.llm.types import Population
from fstsim.records import plain, write_json

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
    # the round before step 0 is left out: greedy completions differ by context, and those of the start have a signal
    trainer.rounds.append({"step": 0})
    start = {key: value.detach().clone() for key, value in model.named_parameters()}
    trainer.train()
    if rank == "0":
        save_file(start, out / "start.safetensors")
    held = trainer.accelerator.unwrap_model(trainer.model)
    save_file({key: value.detach().clone() for key, value in held.named_parameters()}, out / f"end-{rank}.safetensors")
    write_json(out / f"population-{rank}.json", plain(asdict(trainer.population)))
