"""A library of skills beside a frozen model: of what is asked, the skill whose behaviour is nearest answers (2305.16291).

What is asked is known by examples: of each family the task that was met last, with four problems and their right answers.
``interpreter`` runs the skill's program in the world, a point mass on its output; ``model`` puts the program into the
context, so that the model executes it, with its errors. Where no task of a family is solved the bare model answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.systems.contexts import Mixed, joined, mixture_logits, sample_mixture
from fstsim.llm.systems.embedding import model_mark
from fstsim.llm.systems.library import Library, Program, Skill, behaviour, run_program
from fstsim.llm.systems.plans import Pair
from fstsim.llm.systems.system import Asked, Deployed, sample_stepwise
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import LARGEST, RuleTask, parse_start
from fstsim.llm.types import Answered, Problem, Task
from fstsim.settings import check_types

Execute = Literal["interpreter", "model"]
_MOST_ATTEMPTS = 10**9
_CHECKED = 16
"""Skills of which retrieval is measured, evenly over the library."""


@dataclass(frozen=True)
class Goal:
    """The task of a family that was met last: its name, four examples, and whether it is held to be solved."""

    task: str
    examples: tuple[Pair, ...]
    solved: bool

    def __post_init__(self) -> None:
        check_types(self)


@dataclass
class Skills(Deployed):
    """The frozen ``policy`` with its library; changed in place by `fstsim.llm.learners.skills.SkillLibrary`.

    ``goals`` by family; ``counts`` are attempts and successes by task, for the curriculum.
    """

    policy: Policy
    execute: Execute = "interpreter"
    library: Library = field(default_factory=Library)
    goals: dict[str, Goal] = field(default_factory=dict)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    _mark: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._mark = model_mark(self.policy)

    @property
    def bare(self) -> Policy:
        """The policy without its library."""
        return self.policy

    def program(self, family: str) -> Program | None:
        """The program that answers problems of ``family``: that of the nearest skill; None where its task is not solved."""
        goal = self.goals.get(family)
        if goal is None or not goal.solved:
            return None
        near = self.library.near(self.policy, family, goal.examples, 1)
        return near[0][0].program if near else None

    def _programs(self, asked: Sequence[Asked]) -> list[Program | None]:
        of = {family: self.program(family) for family in {problem.family for _, problem in asked}}
        return [of[problem.family] for _, problem in asked]

    def _mixed(self, asked: Sequence[Asked]) -> Mixed:
        programs = self._programs(asked)
        told = [joined(self.policy, c, " ".join(p or ())) for (c, _), p in zip(asked, programs, strict=True)]
        return Mixed([[context] for context in told], [[1.0]] * len(told))

    def logits(self, asked: Sequence[Asked], rollouts: Rollouts) -> torch.Tensor:
        """The model's in the context of the program; or those of a point mass, -inf but for the token of the output."""
        if self.execute == "model":
            return mixture_logits(self.policy, asked, self._mixed(asked), rollouts)
        bare = Mixed([[context] for context, _ in asked], [[1.0]] * len(asked))
        logits = mixture_logits(self.policy, asked, bare, rollouts)
        length, end = logits.shape[1], self.policy.end_token
        for b, ((context, problem), program) in enumerate(zip(asked, self._programs(asked), strict=True)):
            if program is not None:
                output = self.policy.encode_answer(_output(context, problem, program))
                tokens = [*output, *[end] * length][:length]
                logits[b] = -torch.inf
                logits[b, torch.arange(length), tokens] = 0.0
        return logits

    def sample(
        self, asked: Sequence[Asked], generator: torch.Generator, *, max_new_tokens: int, temperature: float = 1.0
    ) -> Rollouts:
        """As the model samples in the context; of the interpreter token by token."""
        if self.execute == "model" and temperature == 1.0:
            return sample_mixture(self.policy, asked, self._mixed(asked), generator, max_new_tokens)
        return sample_stepwise(self, asked, generator, max_new_tokens, temperature)

    def measured(self, task: Task, asked: Sequence[Asked]) -> Mapping[str, float]:
        """The library, retrieval from it, and the reward of each kind of execution: their gap is the model's error in executing."""
        skills = self.library.skills
        row: dict[str, float] = {"skills": len(skills)}
        if skills:
            row["skills_false"] = float(np.mean([not skill.right for skill in skills]))
            row["skills_depth"] = max(len(skill.program) for skill in skills)
            row["skills_found"] = self._found()
        if task.exact and isinstance(task, Answered):
            programs, answers = self._programs(asked), [task.answer(p) for _, p in asked]
            told = [joined(self.policy, c, " ".join(p or ())) for (c, _), p in zip(asked, programs, strict=True)]
            model = np.array(
                [
                    np.exp(answer_logprobs(self.policy, (context,), [problem], [answer])).item()
                    for context, (_, problem), answer in zip(told, asked, answers, strict=True)
                ]
            )
            run = [
                m if program is None else float(_output(c, p, program) == answer)
                for m, (c, p), program, answer in zip(model, asked, programs, answers, strict=True)
            ]
            row |= {"reward_by_model": float(model.mean()), "reward_by_interpreter": float(np.mean(run))}
        return row

    def _found(self) -> float:
        """Share of stored skills that fresh examples of their own behaviour, of the test split, retrieve first."""
        every = self.library.skills
        step = max(1, len(every) // _CHECKED)
        found = []
        for k, skill in enumerate(every[::step]):
            problems = RuleTask(skill.family, ()).problems("test")
            starts = ["".join(parse_start(problems[(4 * k + i) % len(problems)])) for i in range(4)]
            pairs = [(start, run_program(skill.family, skill.program, start)) for start in starts]
            (first, _), *_ = self.library.near(self.policy, skill.family, pairs, 1)
            found.append(behaviour(first.family, first.program) == behaviour(skill.family, skill.program))
        return float(np.mean(found))

    def notes(self) -> Mapping[str, Any]:
        """Skills, goals and counts, and of which model they are."""
        return {
            "model": self._mark,
            "skills": [[s.family, list(s.program), s.learned_on, s.right] for s in self.library.skills],
            "goals": {f: [g.task, [list(pair) for pair in g.examples], g.solved] for f, g in self.goals.items()},
            "counts": {name: list(pair) for name, pair in self.counts.items()},
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:  # noqa: ARG002 -- it has none
        """Take a library. Raises ValueError if it is of another model, or of a world with other rules."""
        if notes["model"] != self._mark:
            raise ValueError("it was written with another model")
        skills = [Skill(*skill) for skill in notes["skills"]]
        goals = {family: Goal(*goal) for family, goal in notes["goals"].items()}
        for family, goal in goals.items():
            _check_examples(family, goal.examples)
        counts = {name: (tried, solved) for name, (tried, solved) in notes["counts"].items()}
        for name, pair in counts.items():
            if not all(type(n) is int for n in pair) or not 0 <= pair[1] <= pair[0] <= _MOST_ATTEMPTS:
                raise ValueError(f"attempts and successes at {name[:40]!r} are no numbers that fit together")
        self.library, self.goals, self.counts = Library(skills), goals, counts


def _check_examples(family: str, examples: Sequence[Pair]) -> None:
    """ValueError unless start lists and answers are of the family's symbols."""
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family[:20]!r}")
    symbols = set(FAMILIES[family].symbols)
    if strange := {c for pair in examples for text in pair for c in text} - symbols:
        raise ValueError(f"an example of {family} has {min(strange)!r}, which is no symbol of it")
    if any(not 2 <= len(start) <= LARGEST[family] for start, _ in examples):
        raise ValueError(f"an example of {family} has a start list that no problem has")


def _output(context: str, problem: Problem, program: Program) -> str:
    """What the interpreter writes: the rules of the context, as far as they are words of the family, then the program."""
    family = FAMILIES[problem.family]
    words = [word for word in context.split() if word in family.rules]
    return "".join(family.apply([*words, *program], parse_start(problem)))
