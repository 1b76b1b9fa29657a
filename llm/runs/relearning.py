"""How many supervised steps a next task takes from given weights: what plasticity is measured by."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Demonstrated, Population


def relearn_steps(
    policy: Policy,
    task: Demonstrated,
    *,
    level: float = 0.5,
    most: int = 60,
    lr: float = 1e-3,
    batch: int = 32,
    held_out: int = 32,
) -> int:
    """Supervised steps until the right answer of the next task has probability ``level`` on ``held_out`` problems without context.

    The probe trains a copy with a fresh AdamW; ``most + 1`` stands for "not within ``most`` steps". Its random numbers are always the
    same, and so is what it finds: the same weights, as all seeds have at the start of a run, are measured once in a process.
    """
    asked = (level, most, lr, batch, held_out)
    known = (_digest(policy, task), *asked)
    if known not in _relearned:
        _relearned[known] = _relearn_steps(policy, task, *asked)
    return _relearned[known]


_relearned: dict[tuple[Any, ...], int] = {}


def _digest(policy: Policy, task: Demonstrated) -> str:
    """SHA-256 of what `relearn_steps` depends on: the weights and the shape of the model, its tokens, the task's problems and answers."""
    found = hashlib.sha256()
    model = policy.model
    about = (
        model.config.to_json_string(),
        policy.template,
        policy.end_tokens,
        str(policy.device),
        torch.get_num_threads(),
    )
    for said in (about, sorted(policy.tokenizer.get_vocab().items()), task.name):
        found.update(repr(said).encode())
    found.update(_of_rules(task) if isinstance(task, RuleTask) else _of_problems(task))
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _of_problems(task: Demonstrated) -> bytes:
    """SHA-256 of the problems and answers of a task."""
    found = hashlib.sha256()
    for split in ("train", "test"):
        for problem in task.problems(split):
            found.update(repr((problem, task.answer(problem))).encode())
    return found.digest()


@functools.cache
def _of_rules(task: RuleTask) -> bytes:
    """The same of rules, once in a process: their problems follow from their name."""
    return _of_problems(task)


def _relearn_steps(
    policy: Policy, task: Demonstrated, level: float, most: int, lr: float, batch: int, held_out: int
) -> int:
    import copy

    from fstsim.llm.learners.sft import SupervisedFineTuning
    from fstsim.llm.learners.weights import Weights

    learner = Policy.of(copy.deepcopy(policy.model).requires_grad_(True), policy.tokenizer)
    weights = Weights(learner, policy, torch.optim.AdamW(learner.model.parameters(), lr=lr, weight_decay=0.0))
    problems = list(task.problems("test"))[:held_out]
    answers = [task.answer(p) for p in problems]
    rng = np.random.default_rng(0)
    for step in range(most + 1):
        if np.exp(answer_logprobs(learner, ("",), problems, answers)).mean() >= level:
            return step
        if step < most:
            SupervisedFineTuning(batch).step(weights, Population(), task, rng)
    return most + 1
