r"""What is read off a policy on the way, prompt by prompt: success, old answers, old skills, KL to the base.

Arrays are over prompts. ``old``: log-probability of the old behaviour's answer to each held-out prompt of the task on which the
right answer is another one, without context; one array for each old skill: log-probability of the right answer in the skill's own context, as
`fstsim.llm.runs.skills` shows it. All are exact, by teacher forcing. Rewards are success probabilities where a task is
exact; else of one sample a problem. KL to the base is that of `fstsim.llm.runs.probes`, both directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.runs.behaviour import answer_logprobs, rewards, sample_once, sequence_kl
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.types import Answered, Demonstrated, Problem, Task, rule_words

Array = NDArray[np.float64]

OLD = "old answers"
"""Name of the old behaviour among the old skills."""


@dataclass(frozen=True)
class Reading:
    """One state of the weights: ``reward (n,)``, log-probabilities ``old`` by skill, ``skill_reward`` by skill, KL ``(n,)``.

    ``log_right (n,)`` is the log-probability of the right answers, nan where the task has none.
    """

    reward: Array
    log_right: Array
    old: Mapping[str, Array]
    skill_reward: Mapping[str, Array]
    kl_to_base: Array
    kl_from_base: Array

    @property
    def log_old_mass(self) -> float:
        """Log of the mean probability of the old answers that are not right, nats; nan where the task names none."""
        old = self.old.get(OLD, ())
        # answers below e^-745 have a log too
        return float(logsumexp(old) - np.log(len(old))) if len(old) else float("nan")

    @property
    def skills(self) -> float:
        """Mean reward over the old skills, nan without any."""
        return float(np.mean([v.mean() for v in self.skill_reward.values()])) if self.skill_reward else float("nan")


@dataclass(frozen=True)
class Asked:
    """An old skill as it is asked: ``problems`` in ``context``, and the ``answers`` that are to be kept."""

    name: str
    context: str
    problems: Sequence[Problem]
    answers: Sequence[str]


@dataclass
class Reader:
    """Reads policies: the held-out problems of ``task`` in ``context``, those of each of ``skills`` in its own."""

    base: Policy
    task: Task
    skills: Sequence[Task]
    config: TrainConfig
    context: tuple[str, ...] = ("",)
    _problems: list[Problem] = field(init=False, default_factory=list)
    _then: list[Rollouts] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._problems = self._some(self.task)

    def _some(self, task: Task) -> list[Problem]:
        return list(task.problems("test"))[: self.config.probe.problems]

    @property
    def differing(self) -> list[Problem]:
        """Held-out problems whose old answer is not the right one; all of them where the task has but one of both."""
        task = self.task
        if not (isinstance(task, Demonstrated) and isinstance(task, Answered)):
            return self._problems
        return [p for p in self._problems if task.old_answer(p) != task.answer(p)]

    def asked(self) -> list[Asked]:
        """What old skills are asked: the old behaviour first, where the task names it."""
        found = []
        if isinstance(self.task, Demonstrated) and self.differing:
            problems = self.differing
            found.append(Asked(OLD, "", problems, [self.task.old_answer(p) for p in problems]))
        for skill in self.skills:
            if isinstance(skill, Answered):
                problems = self._some(skill)
                context = rule_words(skill, self.base.template) or ""
                found.append(Asked(skill.name, context, problems, [skill.answer(p) for p in problems]))
        return found

    def log_old(self, policy: Policy) -> dict[str, Array]:
        """Log-probabilities of old answers, by skill; the old behaviour first, where the task names it."""
        return {a.name: answer_logprobs(policy, (a.context,), a.problems, a.answers)[0] for a in self.asked()}

    def log_right(self, policy: Policy) -> Array:
        """Log-probability of the right answer to each problem, in the first context."""
        if not isinstance(self.task, Answered):
            return np.full(len(self._problems), np.nan)
        answers = [self.task.answer(p) for p in self._problems]
        return answer_logprobs(policy, self.context[:1], self._problems, answers)[0]

    def read(self, policy: Policy) -> Reading:
        """All of it."""
        old, right = self.log_old(policy), self.log_right(policy)
        exact = self.task.exact and isinstance(self.task, Answered)
        reward = np.exp(right) if exact else self._rewards(policy, self.task, self.context[:1])
        by_skill = {
            skill.name: np.exp(old[skill.name])
            if skill.exact and skill.name in old
            else self._rewards(policy, skill, (rule_words(skill, policy.template) or "",))
            for skill in self.skills
        }
        now = sample_once(policy, ("",), self._problems, self.config.seed, self.config.probe.max_new_tokens)
        to_base = sequence_kl(policy, self.base, now)
        return Reading(reward, right, old, by_skill, to_base, sequence_kl(self.base, policy, self._base_wrote()))

    def base_logprobs(self, policy: Policy) -> Array:
        """Log-probabilities of what the base wrote on the held-out problems."""
        then = self._base_wrote()
        return policy.logprobs(then).sum(-1).detach().double().cpu().numpy()

    def _base_wrote(self) -> Rollouts:
        if not self._then:
            most = self.config.probe.max_new_tokens
            self._then.append(sample_once(self.base, ("",), self._problems, self.config.seed, most))
        return self._then[0]

    def _rewards(self, policy: Policy, task: Task, contexts: tuple[str, ...]) -> Array:
        seed, most = self.config.seed, self.config.probe.max_new_tokens
        return np.asarray(rewards(policy, task, self._some(task), contexts, seed, most), np.float64)
