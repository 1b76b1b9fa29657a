"""What a policy does, in numbers: probabilities of answers, KL of sequences and rewards, exact wherever one pass gives the exact value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fstsim.llm.policy.blocks import block_size
from fstsim.llm.policy.divergence import inside
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.types import Answered, Problem, Task
from fstsim.theory.deployed import deployed_kl_floor

_KEPT = 1 << 23  # most logits that a probe keeps of what the base wrote: 32 MB


def mean_se(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error over independent problems; nan for the error where a value is infinite."""
    with np.errstate(invalid="ignore"):
        return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


@torch.no_grad()
def answer_logprobs(
    policy: Policy, contexts: Sequence[str], problems: Sequence[Problem], answers: Sequence[str]
) -> np.ndarray:
    """Log-probability of given answers and an end, any that sampling stops at, exactly, nats: ``(contexts, problems)``."""
    prompts = policy.encode_all([(c, p) for c in contexts for p in problems])
    encoded = policy.encode_answers(answers) * len(contexts)
    return logprobs_in_blocks(policy, prompts, encoded).reshape(len(contexts), len(problems))


def logprobs_in_blocks(policy: Policy, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> np.ndarray:
    """`Policy.answer_logprobs` of as many prompts and answers at a time as fit in memory."""
    size = block_size(policy, max(map(len, answers)))
    parts = [
        policy.answer_logprobs(prompts[first : first + size], answers[first : first + size])
        for first in range(0, len(prompts), size)
    ]
    return torch.cat(parts).double().cpu().numpy()


def sequence_kl(p: Policy, q: Policy, rollouts: Rollouts) -> np.ndarray:
    """Exact KL(p || q) summed over the tokens of each sequence in ``rollouts``, which ``p`` sampled; nats, ``(B,)``."""
    return sequence_kl_and_entropy(p, q, rollouts)[0]


def sequence_kl_and_entropy(p: Policy, q: Policy, rollouts: Rollouts) -> tuple[np.ndarray, np.ndarray]:
    """`sequence_kl`, and the entropy of ``p`` summed over the same tokens, from one pass of ``p``; nats, ``(B,)`` each."""
    (kl,), entropy = sequence_kls(p, rollouts, [(q, rollouts)])
    return kl, entropy


@dataclass(frozen=True)
class Written:
    """What a model wrote, and its next-token distributions of it, block by block, where they are few enough to be kept: the base's never change."""

    rollouts: Rollouts
    distributions: tuple[NextTokens, ...] | None

    @classmethod
    @torch.no_grad()
    def by(cls, p: Policy, rollouts: Rollouts) -> Written:
        """What ``p`` wrote."""
        if rollouts.completions.numel() * p.vocabulary > _KEPT:
            return cls(rollouts, None)
        return cls(rollouts, tuple(p.next_tokens(rollouts.take(rows)) for rows in _blocks(p, rollouts)))

    def kl(self, p: Policy, q: Policy) -> np.ndarray:
        """KL(p || q) of ``p``, which wrote it; nats, ``(B,)``."""
        (kl,), _ = sequence_kls(p, self.rollouts, [(q, self.rollouts)], self.distributions)
        return kl


def _blocks(p: Policy, rollouts: Rollouts) -> Sequence[torch.Tensor]:
    return torch.arange(len(rollouts), device=p.device).split(block_size(p, rollouts.completions.shape[1]))


@torch.no_grad()
def sequence_kls(
    p: Policy,
    rollouts: Rollouts,
    others: Sequence[tuple[Policy, Rollouts]],
    kept: Sequence[NextTokens] | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """KL(p || q) of each q in ``others`` and the entropy of ``p``, nats, ``(B,)`` each, from one pass of ``p``.

    ``rollouts`` were sampled by ``p``; beside each q stand the same completions after the prompts that q sees. ``kept`` are the
    distributions of ``p``, where they are known (`Written`).
    """
    kls: list[list[np.ndarray]] = [[] for _ in others]
    entropy = []
    for k, rows in enumerate(_blocks(p, rollouts)):
        part = rollouts.take(rows)
        own = p.next_tokens(part) if kept is None else kept[k]
        for found, (q, shown) in zip(kls, others, strict=True):
            given = own.kl(q.next_tokens(part if shown is rollouts else shown.take(rows)), part.mask)
            found.append(given.sum(-1).double().cpu().numpy())
        entropy.append(inside(own.entropy(), part.mask).sum(-1).double().cpu().numpy())
    return [np.concatenate(found) for found in kls], np.concatenate(entropy)


def behaviour(to_bare: np.ndarray, from_bare: np.ndarray) -> dict[str, float]:
    """Columns of K2, how far a deployed system is from the base alone, in both directions."""
    row = {}
    row["kl_deployed"], row["kl_deployed_se"] = mean_se(to_bare)
    row["kl_deployed_from"], row["kl_deployed_from_se"] = mean_se(from_bare)
    return row


def excess(to_bare: np.ndarray, logps: np.ndarray, base_logps: np.ndarray) -> dict[str, float]:
    """The column of what a system's KL has beyond its floor, problem by problem (statement deployed-kl-floor)."""
    beyond = to_bare - deployed_kl_floor(log_odds(logps), log_odds(base_logps))
    value, error = mean_se(beyond)
    return {"kl_excess": value, "kl_excess_se": error}


def log_odds(logps: np.ndarray) -> np.ndarray:
    """Log-odds from log-probabilities, nats; certainty, rounded or not, counts as 1e-12 short of it, what cannot be as e^-700."""
    short = np.clip(logps, -700.0, -1e-12)
    return short - np.log(-np.expm1(short))


def sample_once(
    policy: Policy, contexts: Sequence[str], problems: Sequence[Problem], seed: int, max_new_tokens: int
) -> Rollouts:
    """One completion of each problem, the contexts in turn; always the same random numbers."""
    prompts = policy.encode_all([(contexts[i % len(contexts)], p) for i, p in enumerate(problems)])
    generator = torch.Generator(policy.device).manual_seed(seed)
    return policy.sample(prompts, 1, generator, max_new_tokens=max_new_tokens)


@torch.no_grad()
def rewards(
    policy: Policy, task: Task, problems: Sequence[Problem], contexts: Sequence[str], seed: int, max_new_tokens: int
) -> np.ndarray:
    """Reward of each problem: the success probability, mean over contexts, of an exact task; else that of one sample."""
    if task.exact and isinstance(task, Answered):
        answers = [task.answer(p) for p in problems]
        return np.exp(answer_logprobs(policy, contexts, problems, answers)).mean(0)
    texts = policy.decode(sample_once(policy, contexts, problems, seed, max_new_tokens))
    return np.array([task.score(p, t).reward for p, t in zip(problems, texts, strict=True)])
