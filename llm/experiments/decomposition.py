"""What weights and context carry at the end of fast-slow training, each alone and both: measured after a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import Exam
from fstsim.llm.runs.behaviour import answer_logprobs, mean_se
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Answered
from fstsim.records import read_json, write_json


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
