r"""SDFT: the student without a demonstration learns from an averaged copy of itself that sees one (2601.19897; theory 8).

Every step samples completions of the student and moves its next-token distributions towards those of the teacher, whose
weights follow the student, \(\bar\theta \leftarrow \bar\theta + \rho(\theta - \bar\theta)\), and whose prompt also holds a demonstration. With an
anchor the teacher is \(\bar\pi^{a} \pi_0^{1-a}\), token by token: in log-odds of the old behaviour at a token that decides
between the two, \(\Psi = a\bar s + (1 - a)s_b - h\), where h is the tilt by the demonstration: a times that of the
averaged teacher when the anchor does not see the demonstration, the tilt itself when it does.

What a demonstration is was chosen by what the shipped base follows (right answers with it in context, test problems):
the written rules 0.999 strings:rotate, 0.998 digits:plus, 0.992 star_graph:cross; four worked examples, read by the base in
the form it was taught, 0.86, 0.998, 0.12. The right answer itself or bare examples before the problem do not condition
it (below 0.08): nothing of the kind was in its corpus, and they are not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.distill import learn_from_teacher
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.method_losses import Direction, anchored_logprobs, check_direction
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.weights import sample_problems
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, check_batch, check_sizes
from fstsim.llm.pretraining.corpus import EXAMPLES
from fstsim.llm.types import TO_STATE_A_RULE, Demonstrated, Population, Problem, Task, rule_words
from fstsim.settings import check_types

Demonstration = Literal["rule", "examples"]
_LONGEST_RULES = 4  # tokens that reading the examples may write


def rule_context(policy: Policy, task: Task) -> str:
    """The rule of ``task`` in words, as ``policy`` reads them. Raises InputError when there are none."""
    words = rule_words(task, policy.template)
    if words is None:
        raise InputError(
            f"{task.name} has no rule in words: method sdft cannot show it to the teacher; {TO_STATE_A_RULE}"
        )
    return words


def read_examples(policy: Policy, task: Demonstrated, count: int, rng: np.random.Generator) -> list[str]:
    """What ``policy`` makes of ``count`` times four worked examples: rules in words, the likeliest, ``count`` of them."""
    shown = []
    for _ in range(count):
        examples = sample_problems(task.problems("train"), EXAMPLES, rng)
        shown.append(" ; ".join(f"{task.old_answer(p)} > {task.answer(p)}" for p in examples) + " ?")
    read = policy.sample(
        [policy.encode_text(text) for text in shown],
        1,
        torch.Generator(policy.device),  # greedy: nothing is drawn
        max_new_tokens=_LONGEST_RULES,
        temperature=0.0,
    )
    return policy.decode(read)


@dataclass(frozen=True)
class SDFT(Learner):
    """Slow learner: self-distillation from a demonstration-conditioned average of the policy."""

    about: ClassVar[str] = "self-distillation from its own average that sees a demonstration"
    shadowed: ClassVar[bool] = True

    problems: int = 48
    """problems a step, one completion each"""
    demonstration: Demonstration = "rule"
    """what the teacher sees besides the student's prompt. rule: the task's rules in words; examples: the rules that the
    base reads off four worked examples, anew for each problem"""
    ema_rate: float = 0.01
    """rho, share of the way to the student that the teacher's weights go each step: 0 a frozen teacher, 1 the student"""
    teacher_share: float = 1.0
    """a, share of the averaged teacher in log space, 0 to 1; the rest is the base"""
    base_sees: Literal["nothing", "demonstration"] = "nothing"
    """whether the base, the rest of the teacher, sees the demonstration too"""
    direction: Direction = "reverse"
    """reverse: KL(student || teacher); forward: KL(teacher || student); both along the student's samples"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        check_types(self)
        check_sizes(self.problems, self.max_new_tokens)
        check_batch(self.problems)
        if self.demonstration not in get_args(Demonstration):
            raise InputError(f"demonstration must be rule or examples, got {self.demonstration!r}")
        if not 0.0 <= self.ema_rate <= 1.0:
            raise InputError(f"ema_rate must lie in [0, 1], got {self.ema_rate}")
        if not 0.0 <= self.teacher_share <= 1.0:
            raise InputError(f"teacher_share must lie in [0, 1], got {self.teacher_share}")
        if self.base_sees not in ("nothing", "demonstration"):
            raise InputError(f"base_sees must be nothing or demonstration, got {self.base_sees!r}")
        check_direction(self.direction)

    def follows(self, made: int) -> float:  # noqa: ARG002 -- the same after every step
        """The rate of the average."""
        return self.ema_rate

    def check(self, policy: Policy, context: str, task: Task) -> None:
        """InputError unless demonstrations of ``task`` can be shown to ``policy``, and fit."""
        shown = rule_context(policy, task)
        if unknown := policy.unknown(shown):
            raise InputError(f"the rule of {task.name} has words that the model does not know: {', '.join(unknown)}")
        if self.demonstration == "examples":
            if policy.template != "world":
                raise InputError(
                    "demonstration examples needs the base model, or one made by fstsim pretrain: no other was taught to read them"
                )
            if not isinstance(task, Demonstrated):
                raise InputError(
                    f"demonstration examples needs a task with answers and old answers; {task.name} lacks them"
                )
            read_examples(policy, task, 1, np.random.default_rng(0))
            shown = " ".join([policy.words[0]] * _LONGEST_RULES)
        prompt = policy.encode(_joined(context, shown), task.problems("test")[0])
        policy.sample([prompt], 1, torch.Generator(policy.device), max_new_tokens=self.max_new_tokens)

    def demonstrations(self, base: Policy, task: Demonstrated, count: int, rng: np.random.Generator) -> list[str]:
        """What the teacher is shown with each of ``count`` problems."""
        if self.demonstration == "rule":
            return [rule_context(base, task)] * count
        return read_examples(base, task, count, rng)

    def teacher_logprobs(
        self,
        weights: ShadowedWeights,
        rollouts: Rollouts,
        problems: Sequence[Problem],
        contexts: Sequence[str],
        demonstrations: Sequence[str],
    ) -> torch.Tensor:
        """Next-token log-probabilities ``(B, T, V)`` of the anchored teacher along ``rollouts``, one a problem."""
        teacher, base = weights.shadow, weights.base
        prompts = [teacher.encode(_joined(c, d), p) for c, d, p in zip(contexts, demonstrations, problems, strict=True)]
        shown = teacher.with_prompts(rollouts, prompts)
        taught = torch.log_softmax(teacher.logits(shown), -1)
        if self.teacher_share == 1.0:
            return taught
        fixed = base.logits(shown if self.base_sees == "demonstration" else rollouts)
        return anchored_logprobs(taught, fixed, self.teacher_share)

    def step(
        self, weights: ShadowedWeights, context: Population, task: Demonstrated, rng: np.random.Generator
    ) -> tuple[ShadowedWeights, StepInfo]:
        """Sample, compare, update in place; then the teacher follows."""

        def teacher(rollouts: Rollouts, problems: Sequence[Problem], contexts: Sequence[str]) -> torch.Tensor:
            shown = self.demonstrations(weights.base, task, len(problems), rng)
            return self.teacher_logprobs(weights, rollouts, problems, contexts, shown)

        info = learn_from_teacher(
            weights,
            context,
            task,
            rng,
            teacher,
            self,
        )
        weights.follow(self.ema_rate)
        return replace(weights, age=weights.age + 1), info


def _joined(context: str, demonstration: str) -> str:
    return f"{context} {demonstration}" if context else demonstration
