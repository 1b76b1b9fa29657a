"""What a whole system does, exactly where one pass gives the exact value: answers, rewards, KL, and old skills with its state left on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fstsim.llm.policy.blocks import block_size
from fstsim.llm.policy.divergence import inside, token_entropy, token_kl
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, ended_logprobs
from fstsim.llm.pretraining.exam import world_items
from fstsim.llm.systems.system import Asked, Bare, Deployed
from fstsim.llm.types import Answered, Task

Array = np.ndarray


@torch.no_grad()
def answer_scores(system: Deployed, asked: Sequence[Asked], answers: Sequence[str]) -> tuple[Array, Array]:
    """Log-probability ``(N,)`` of writing each answer and ending, nats, exactly; and whether greedy decoding writes it."""
    policy = system.bare
    encoded = {answer: policy.encode_answer(answer) for answer in set(answers)}
    size = block_size(policy, max(map(len, encoded.values())))
    logps, greedy = [], []
    for first in range(0, len(asked), size):
        block = asked[first : first + size]
        wanted = [encoded[answer] for answer in answers[first : first + size]]
        shown = policy.forced([policy.encode(*pair) for pair in block], wanted)
        logits = system.logits(block, shown)
        logps.append(ended_logprobs(logits, shown, policy.end_tokens).double().cpu().numpy())
        greedy.append(((logits.argmax(-1) == shown.completions) | ~shown.mask).all(-1).cpu().numpy())
    return np.concatenate(logps), np.concatenate(greedy)


def system_rewards(
    system: Deployed, task: Task, asked: Sequence[Asked], seed: int, max_new_tokens: int
) -> tuple[Array, Array | None]:
    """Reward of each of ``asked``, and the log-probability of success where it is exact: else that of one sample, and None."""
    problems = [problem for _, problem in asked]
    if task.exact and isinstance(task, Answered):
        logps, _ = answer_scores(system, asked, [task.answer(p) for p in problems])
        return np.exp(logps), logps
    generator = torch.Generator(system.bare.device).manual_seed(seed)
    texts = system.bare.decode(system.sample(asked, generator, max_new_tokens=max_new_tokens))
    return np.array([task.score(p, t).reward for p, t in zip(problems, texts, strict=True)]), None


@torch.no_grad()
def deployed_kl(
    p: Deployed, q: Deployed, asked: tuple[Sequence[Asked], Sequence[Asked]], seed: int, max_new_tokens: int
) -> tuple[Array, Array]:
    """KL(p || q) of whole completions and the entropy of ``p``, nats a sequence, ``(P,)`` each: one completion of p a problem.

    The sum over its tokens of the exact KL between next-token distributions (Rao-Blackwellised). ``asked`` are what p and what
    q are asked: the same problems, in contexts that may differ.
    """
    size = block_size(p.bare, max_new_tokens)
    kl, entropy = [], []
    generator = torch.Generator(p.bare.device).manual_seed(seed)
    for first in range(0, len(asked[0]), size):
        of_p, of_q = (pairs[first : first + size] for pairs in asked)
        wrote: Rollouts = p.sample(of_p, generator, max_new_tokens=max_new_tokens)
        own = p.logits(of_p, wrote)
        kl.append(inside(token_kl(own, q.logits(of_q, wrote)), wrote.mask).sum(-1).double().cpu().numpy())
        entropy.append(inside(token_entropy(own), wrote.mask).sum(-1).double().cpu().numpy())
    return np.concatenate(kl), np.concatenate(entropy)


@dataclass(frozen=True)
class SystemExam:
    """The exam of the world's old skills, sat by a whole system: rules in words are asked with the state left on."""

    parts: Mapping[str, tuple[Sequence[Asked], Sequence[str]]]
    base: float

    @classmethod
    def of(cls, base: Policy, problems: int) -> SystemExam:
        """The parts with rules of `fstsim.llm.pretraining.exam.Exam`, and the mean accuracy of ``base`` in them."""
        parts: dict[str, tuple[Sequence[Asked], Sequence[str]]] = {}
        for name, items in world_items(base.tokenizer, base.sizes, problems):
            if name.startswith("accuracy"):
                parts[name] = [(words, problem) for words, problem, _ in items], [answer for *_, answer in items]
        fresh = cls(parts, 0.0)
        return cls(parts, fresh.accuracy(Bare(base)))

    def accuracy(self, system: Deployed) -> float:
        """Mean over the parts of the share of problems that greedy decoding solves."""
        return float(np.mean([answer_scores(system, *part)[1].mean() for part in self.parts.values()]))
