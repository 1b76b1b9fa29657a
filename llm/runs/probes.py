r"""Probes: the columns of a run for a language model, on fixed problems, exact wherever one pass gives the exact value.

- Success on an exact-match task is the probability of the right answer under teacher forcing: no sampling noise. For models
  outside of the shipped world it is that of one tokenisation of the answer (`Policy.encode_answer`): a lower bound of success.
- KL(now || base) and KL(base || now), nats a sequence: sequences are sampled from the first argument, and at each of their
  tokens the KL of the next-token distributions is taken with the full vocabulary (Rao-Blackwellised): by the chain rule
  its sum has the sequences' KL as expectation. Standard errors are over sequences. The same context on both sides.
- K2 = KL(policy in its contexts || base in none), both directions, is how far behaviour is from the base; ``kl_excess`` is
  what it has beyond the least that the success on each problem needs (statement deployed-kl-floor), where success is exact.
- The old behaviour's mass is the probability of its answer, exactly, where the task says what it is. Old skills are what
  was passed as ``skills`` (`fstsim.llm.runs.skills`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.measure.layers import weight_distances
from fstsim.llm.policy.blocks import block_size
from fstsim.llm.policy.divergence import inside
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.types import Answered, Demonstrated, Population, Problem, Skills, Task
from fstsim.settings import check_types
from fstsim.theory.deployed import deployed_kl_floor

_KEPT = 1 << 23  # most logits that a probe keeps of what the base wrote: 32 MB


@dataclass(frozen=True)
class ProbeConfig:
    """How much is measured, and when."""

    every: int = 40
    """slow steps between measurements; below it powers of ``early``, and the last step, are measured too"""
    problems: int = 64
    """held-out problems for reward, old mass and KL"""
    exam: int = 16
    """problems in each part of the exam of old skills"""
    max_new_tokens: int = 8
    """longest completion"""
    early: int = 2
    """2: steps 1, 2, 4, ...; 4: steps 1, 4, 16, ..."""
    relearn: int | None = None
    """most supervised steps in which a copy relearns another task, at both ends of a run; 0: not measured; None: 60 for
    models of the laboratory's world, not measured for others"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.early < 2:
            raise InputError(f"probe early must be at least 2, got {self.early}")
        if min(self.every, self.problems, self.exam, self.max_new_tokens) < 1:
            raise InputError("every, problems, exam and max_new_tokens of the probe must be at least 1")
        if self.relearn is not None and self.relearn < 0:
            raise InputError(f"probe relearn must be at least 0, got {self.relearn}")
        if self.problems < 2:
            raise InputError(f"probe problems must be at least 2 (for a standard error), got {self.problems}")

    def due(self, step: int) -> bool:
        """Whether ``step`` of a task is measured: the beginning is resolved in powers."""
        power = 1
        while power < min(step, self.every):
            power *= self.early
        return step % self.every == 0 or (step < self.every and power == step)


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
    return _in_blocks(policy, prompts, encoded).reshape(len(contexts), len(problems))


def _in_blocks(policy: Policy, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> np.ndarray:
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


@dataclass
class Probe:
    """Measures a policy against the ``base`` on the test problems of a task; what never changes is computed once."""

    base: Policy
    task: Task
    config: ProbeConfig
    seed: int = 0
    skills: Sequence[Skills] = ()
    _problems: list[Problem] = field(init=False, default_factory=list)
    _base_written: dict[tuple[str, ...], Written] = field(init=False, default_factory=dict)
    _base_logps: np.ndarray | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._problems = list(self.task.problems("test"))[: self.config.problems]

    @property
    def problems(self) -> Sequence[Problem]:
        """The held-out problems."""
        return self._problems

    def _sampled(self, policy: Policy, contexts: tuple[str, ...]) -> Rollouts:
        return sample_once(policy, contexts, self._problems, self.seed, self.config.max_new_tokens)

    def _base_wrote(self, contexts: tuple[str, ...]) -> Written:
        if contexts not in self._base_written:
            self._base_written[contexts] = Written.by(self.base, self._sampled(self.base, contexts))
        return self._base_written[contexts]

    def _right(self, policy: Policy, contexts: tuple[str, ...]) -> np.ndarray | None:
        """Log-probabilities of the right answers, ``(contexts, problems)``; None where they are not what success is."""
        if not (self.task.exact and isinstance(self.task, Answered)):
            return None
        return answer_logprobs(policy, contexts, self._problems, [self.task.answer(p) for p in self._problems])

    def _prompts(self, policy: Policy, contexts: tuple[str, ...]) -> list[list[int]]:
        return policy.encode_all([(contexts[i % len(contexts)], p) for i, p in enumerate(self._problems)])

    @torch.no_grad()
    def measure(self, policy: Policy, population: Population) -> dict[str, Any]:
        """One row of measurements; columns as in the module's docstring, ``*_se`` their standard errors."""
        training = policy.model.training
        policy.model.eval()
        row: dict[str, Any] = {}
        contexts = population.prompts
        right = self._right(policy, contexts[:1])  # in the best context of the last round
        row |= self.reward(policy, contexts[:1]) if right is None else _mean_reward(np.exp(right).mean(0), "")
        if len(contexts) > 1:
            row |= self.reward(policy, contexts, "_all_contexts")
        if contexts != ("",):
            row |= self.reward(policy, ("",), "_no_context")
        self._drift(policy, row)
        if policy.model is not self.base.model:  # frozen weights, or those of an adapter beside them
            row["weight_distance"] = weight_distances(policy.model, self.base.model)["all"]
        kls = self._distances(policy, ("",), row, "_no_context" if contexts != ("",) else "")
        if contexts != ("",):
            kls = self._distances(policy, contexts, row, "")
        self._behaviour(policy, contexts, kls, right if len(contexts) == 1 else None, row)
        policy.model.train(training)
        return row

    @torch.no_grad()
    def reward(self, policy: Policy, contexts: tuple[str, ...], tail: str = "") -> dict[str, float]:
        """Mean reward over the contexts on held-out problems: exactly for exact-match tasks, else of one sample a problem."""
        most = self.config.max_new_tokens
        return _mean_reward(rewards(policy, self.task, self._problems, contexts, self.seed, most), tail)

    def _drift(self, policy: Policy, row: dict[str, Any]) -> None:
        """Mass of the old behaviour on ambiguous prompts (no context), and the old skills with their own context."""
        if isinstance(self.task, Demonstrated):
            answers = [self.task.old_answer(p) for p in self._problems]
            mass = np.exp(answer_logprobs(policy, ("",), self._problems, answers))[0]
            row["old_mass"], row["old_mass_se"] = mean_se(mass)
        for skills in self.skills:
            row |= skills.measure(policy)

    def _distances(
        self, policy: Policy, contexts: tuple[str, ...], row: dict[str, Any], tail: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """KL with these contexts on both sides, into ``row``; returned: KL(policy in them || base in none), both directions."""
        told = contexts != ("",)
        now = self._sampled(policy, contexts)
        length = now.mask.sum(-1).double().cpu().numpy()
        others = [(self.base, now)]
        if told:
            others.append((self.base, self.base.with_prompts(now, self._prompts(self.base, ("",)))))
        kls, entropy = sequence_kls(policy, now, others)
        to_base, to_bare = kls[0], kls[-1]
        then = self._base_wrote(contexts)
        from_base = from_bare = then.kl(self.base, policy)
        if told:
            bare = self._base_wrote(("",))
            seen = policy.with_prompts(bare.rollouts, self._prompts(policy, contexts))
            (from_bare,), _ = sequence_kls(self.base, bare.rollouts, [(policy, seen)], bare.distributions)
        row[f"kl_to_base{tail}"], row[f"kl_to_base{tail}_se"] = mean_se(to_base)
        row[f"kl_from_base{tail}"], row[f"kl_from_base{tail}_se"] = mean_se(from_base)
        row[f"kl_to_base{tail}_token"] = float(to_base.sum() / length.sum())
        row[f"kl_from_base{tail}_token"] = float(from_base.sum() / float(then.rollouts.mask.sum()))
        row[f"entropy{tail}"], row[f"entropy{tail}_se"] = mean_se(entropy)
        return to_bare, from_bare

    def _behaviour(
        self,
        policy: Policy,
        contexts: tuple[str, ...],
        kls: tuple[np.ndarray, np.ndarray],
        right: np.ndarray | None,
        row: dict[str, Any],
    ) -> None:
        """How far the policy in its contexts is from the base in none, and what of that its success does not need.

        ``right`` is what `_right` says where there is one context.
        """
        row |= behaviour(*kls)
        task = self.task
        if not (task.exact and isinstance(task, Answered)):
            return
        answers = policy.encode_answers([task.answer(p) for p in self._problems])
        if self._base_logps is None:
            self._base_logps = _in_blocks(self.base, self._prompts(self.base, ("",)), answers)
        logps = _in_blocks(policy, self._prompts(policy, contexts), answers) if right is None else right[0]
        row |= excess(kls[0], logps, self._base_logps)


def _mean_reward(values: np.ndarray, tail: str) -> dict[str, float]:
    mean, error = mean_se(values)
    return {f"reward{tail}": mean, f"reward{tail}_se": error}


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
    for split in ("train", "test"):
        for problem in task.problems(split):
            found.update(repr((problem, task.answer(problem))).encode())
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


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
