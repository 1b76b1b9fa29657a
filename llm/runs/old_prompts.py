r"""KL on *old* prompts: how far a policy is from its base where old skills are asked for, in both directions.

Old skills are asked with their rule in words. As on new prompts (`fstsim.llm.runs.probes`) sequences are sampled from the
first argument, and at each of their tokens the KL of the next-token distributions is taken with the full vocabulary.
2607.04364 claims that it is this KL, not the one on new prompts, that forgetting follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.pretraining.exam import world_items
from fstsim.llm.runs.behaviour import Written, mean_se, sample_once, sequence_kl
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.types import Measured, Problem, Task, rule_words

Asked = tuple[str, Problem]
"""A context and a problem."""
_OF_A_PART = 8  # problems of each part of the exam; a KL needs fewer than an accuracy


@dataclass
class OldPrompts:
    """Measures KL(now || base) and KL(base || now) on ``asked``, nats a sequence; what the base writes is sampled once."""

    base: Policy
    asked: Sequence[Asked]
    config: ProbeConfig
    seed: int = 0
    _base_written: Written | None = field(init=False, default=None)

    def measure(self, policy: Policy) -> dict[str, float]:
        """The columns ``old_kl_to_base`` and ``old_kl_from_base`` with their standard errors over prompts."""
        if self._base_written is None:
            self._base_written = Written.by(self.base, self._sampled(self.base))
        row = {}
        to_base = sequence_kl(policy, self.base, self._sampled(policy))
        row["old_kl_to_base"], row["old_kl_to_base_se"] = mean_se(to_base)
        from_base = self._base_written.kl(self.base, policy)
        row["old_kl_from_base"], row["old_kl_from_base_se"] = mean_se(from_base)
        return row

    def _sampled(self, policy: Policy) -> Rollouts:
        contexts, problems = zip(*self.asked, strict=True)
        return sample_once(policy, contexts, problems, self.seed, self.config.max_new_tokens)


def world_prompts(base: Policy, problems: int) -> list[Asked]:
    """Problems of each part of the exam that names rules, at most eight of a part: rules in words, and a problem."""
    parts = world_items(base.tokenizer, base.sizes, min(problems, _OF_A_PART))
    return [(words, problem) for name, items in parts if name.startswith("accuracy") for words, problem, _ in items]


def task_prompts(policy: Policy, tasks: Sequence[Task], problems: int) -> list[Asked]:
    """Held-out problems of each task in its own context, at most eight of a task; none of texts that are read, not asked."""
    return [
        (rule_words(task, policy.template) or "", problem)
        for task in tasks
        if not isinstance(task, Measured)
        for problem in list(task.problems("test"))[: min(problems, _OF_A_PART)]
    ]
