r"""How the old behaviour responds to a step of Adam, measured on the base alone: the curve that no clock contains.

Statement `adam-clock` gives the *distance* that Adam goes: the learning rate a step while the (clipped) gradient lasts.
It takes the log-odds to be linear in that distance. In a network they are not: their sensitivity grows on the way. What
the base can tell is the response along a straight line: from the weights ``theta_0`` in Adam's own direction ``u = mhat
/ (sqrt(vhat) + eps)``, whose moments see ``batches`` batches of demonstrations at ``theta_0``, masses of the old
answers at ``theta_0 - distance u``. Simplification: the direction is frozen; a run turns while it goes, so that the
line is a prediction for its first part.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fstsim.errors import InputError
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.types import Demonstrated, Population

Array = NDArray[np.float64]


def adam_direction(
    policy: Policy, task: Demonstrated, demonstrations: SupervisedFineTuning, *, batches: int = 10, seed: int = 0
) -> list[torch.Tensor]:
    """``mhat / (sqrt(vhat) + eps)`` of each parameter after ``batches`` batches of ``demonstrations`` at fixed weights.

    Loss, clipping and moments are those of a run with torch's AdamW, its learning rate set to 0; ten batches are what
    ``beta1 = 0.9`` remembers. Parameters without gradient get 0. Raises InputError unless ``batches >= 1``.
    """
    if batches < 1:
        raise InputError(f"batches must be at least 1, got {batches}")
    still = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    optimizer = torch.optim.AdamW(still.model.parameters(), lr=0.0, weight_decay=0.0)
    weights, rng = Weights(still, policy, optimizer), np.random.default_rng(seed)
    for _ in range(batches):
        demonstrations.step(weights, Population(), task, rng)
    direction = []
    group = optimizer.param_groups[0]
    beta1, beta2 = group["betas"]
    for parameter in still.model.parameters():
        memory = optimizer.state.get(parameter)
        if not memory:
            direction.append(torch.zeros_like(parameter))
            continue
        steps = float(memory["step"])
        size = (memory["exp_avg_sq"] / (1.0 - beta2**steps)).sqrt() + group["eps"]
        direction.append(memory["exp_avg"] / (1.0 - beta1**steps) / size)
    return direction


@torch.no_grad()
def old_mass_response(
    policy: Policy, task: Demonstrated, problems: int, direction: Sequence[torch.Tensor], distances: ArrayLike
) -> Array:
    """Masses of the old answers on test problems, without context, at ``theta_0 - distance direction``: ``(distances, problems)``.

    Distances are in units of the learning rate's (1e-4 is one step at learning rate 1e-4). Problems whose old and new
    answers agree are left out.
    """
    held_out = [p for p in list(task.problems("test"))[:problems] if task.answer(p) != task.old_answer(p)]
    answers = [task.old_answer(p) for p in held_out]
    moved = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    moved.model.eval()
    rows = []
    for distance in np.asarray(distances, dtype=np.float64).tolist():
        for parameter, start, along in zip(moved.model.parameters(), policy.model.parameters(), direction, strict=True):
            parameter.copy_(start - distance * along)
        rows.append(np.exp(answer_logprobs(moved, ("",), held_out, answers))[0])
    return np.stack(rows)


def response_forgetting(distances: ArrayLike, masses: ArrayLike, step: float, after: float, t: ArrayLike) -> Array:
    """Mean old mass at steps ``t``, the distance going evenly and calibrated on one number: the mean mass ``after`` at ``step``.

    ``distances (K,)`` ascend from 0, ``masses (K, n)`` as `old_mass_response` gives them; between distances the log of
    the mean is linear. nan beyond the last distance. Raises InputError unless the curve falls through ``after``.
    """
    d, curve = np.asarray(distances, dtype=np.float64), np.log(np.asarray(masses, dtype=np.float64).mean(axis=1))
    if d.shape != curve.shape or d.size < 2 or d[0] != 0.0 or not (np.diff(d) > 0.0).all():
        raise InputError("distances must ascend from 0, one for each row of masses")
    if not (np.isfinite(step) and step > 0.0):
        raise InputError(f"step must be positive, got {step!r}")
    target = float(np.log(after)) if after > 0.0 else -np.inf
    below = np.flatnonzero(curve <= target)
    if not (target < curve[0] and below.size):
        raise InputError(
            f"the response goes from mass {np.exp(curve[0]):.3g} to {np.exp(curve.min()):.3g}: not through {after!r}"
        )
    k = int(below[0])  # the first crossing
    there = d[k - 1] + (d[k] - d[k - 1]) * (curve[k - 1] - target) / (curve[k - 1] - curve[k])
    return np.exp(np.interp(np.asarray(t, dtype=np.float64) / step * there, d, curve, right=np.nan))
