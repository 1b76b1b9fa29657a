"""A skill library: a frozen model writes programs, the world runs them, and what is verified is kept and built upon (2305.16291)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.learner import Learner
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.corpus import EXAMPLES
from fstsim.llm.systems.curriculum import Curriculum, next_practice
from fstsim.llm.systems.library import LONGEST_PROGRAM, Program, Skill, matched, run_program
from fstsim.llm.systems.plans import Pair, write_plans
from fstsim.llm.systems.skills import Execute, Goal, Skills
from fstsim.llm.systems.start import started
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import parse_start
from fstsim.llm.types import Answered, Population, Problem, Split, Task
from fstsim.settings import check_types

if TYPE_CHECKING:
    from fstsim.llm.systems.weights import SystemWeights


@dataclass(frozen=True)
class SkillLibrary(Learner):
    """A step is one attempt at one task: at most ``rounds`` times the model writes what is missing, until a program is verified.

    In a round the ``retrieved`` nearest skills, and always the empty one, are run on four examples; from (what it made > what is
    right) the model writes the rules that remain. The program, skill and rules, enters the library if it is right on ``verified``
    fresh validation problems. With a ``curriculum`` every second step, and every step after the task is solved, is
    practice.
    """

    about: ClassVar[str] = "skill library: weights frozen, programs that are verified are stored, found and composed"
    deploys: ClassVar[bool] = True

    rounds: int = 4
    """rounds of an attempt"""
    retrieved: int = 5
    """skills that are tried as beginnings in a round"""
    verified: int = 16
    """fresh validation problems on which a program must be right"""
    execute: Execute = "interpreter"
    """who runs programs when the system answers: the world's interpreter, or the model with the program in its context"""
    curriculum: Curriculum = "none"
    """what is practised beside the task: novelty, the unsolved task farthest from the library; random; depth, the fewest rules
    first; none"""
    no_gate: bool = False
    """store the first program of an attempt unverified, and hold the task to be solved"""
    no_library: bool = False
    """begin every attempt from nothing: stored skills are no beginnings"""
    library: str = ""
    """run directory of method skills in whose library this run begins"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.execute not in get_args(Execute):
            raise InputError(f"execute must be one of {', '.join(get_args(Execute))}, got {self.execute!r}")
        if self.curriculum not in get_args(Curriculum):
            raise InputError(f"curriculum must be one of {', '.join(get_args(Curriculum))}, got {self.curriculum!r}")
        if min(self.rounds, self.retrieved, self.verified) < 1:
            raise InputError("rounds, retrieved and verified must be at least 1")

    def check(self, policy: Policy, context: str, task: Task) -> None:
        """InputError unless ``policy`` is of the world, and ``task`` of exact answers to its problems, and the library is of this model."""
        if policy.template != "world":
            raise InputError(
                "method skills writes programs of the world's rules, which this model has no words for; give --model base, or --method cases"
            )
        if context:
            raise InputError("--context is not used by method skills: its programs are what the model is told")
        if not (isinstance(task, Answered) and task.exact):
            raise InputError(
                f"method skills verifies answers, but {task.name} rewards others than the right one too; remove /share"
            )
        if strange := {p.family for p in task.problems("train")} - set(FAMILIES):
            raise InputError(
                f"method skills runs programs on problems of {', '.join(FAMILIES)}; {task.name} has some of {', '.join(sorted(strange))[:60]}"
            )
        self.deploy(policy, 0)

    def deploy(self, base: Policy, seed: int) -> Skills:  # noqa: ARG002 -- nothing in it is random
        """An empty library, or that of the run ``library``."""
        return started(self.library, "--library", Skills(base, self.execute))

    def step(
        self,
        weights: SystemWeights,
        context: Population,  # noqa: ARG002 -- no context
        task: Answered,
        rng: np.random.Generator,
    ) -> tuple[SystemWeights, StepInfo]:
        """One attempt, in place."""
        system = weights.system
        assert isinstance(system, Skills)
        families = sorted({p.family for p in task.problems("train")})
        for family in families:
            if family not in system.goals or system.goals[family].task != task.name:
                system.goals[family] = Goal(task.name, (), solved=False)
        todo = [family for family in families if not system.goals[family].solved]
        attempts = sum(tried for tried, _ in system.counts.values())
        metrics: dict[str, Any] = {"reflections": 0}
        if not todo or (self.curriculum != "none" and attempts % 2 == 1):
            family = families[int(rng.integers(len(families)))]
            practice = next_practice(self.curriculum, system.policy, system.library, system.counts, family, rng)
            if practice is not None:
                solved, _, written = self._attempt(system, practice, family, practice.name, rng)
                metrics = {"practice_reward": float(solved), "reflections": written}
        else:
            family = todo[int(rng.integers(len(todo)))]
            solved, shown, written = self._attempt(system, task, family, f"{task.name}#{family}", rng)
            system.goals[family] = Goal(task.name, tuple(shown), solved)
            metrics = {"reflections": written}
        metrics["train_reward"] = float(np.mean([system.goals[family].solved for family in families]))
        return weights, StepInfo(metrics["reflections"], metrics)

    def _attempt(
        self, system: Skills, task: Answered, family: str, name: str, rng: np.random.Generator
    ) -> tuple[bool, list[Pair], int]:
        """Whether the task is held to be solved, the examples shown last, and how many programs were written."""
        written, solved, shown = 0, False, []
        for _ in range(self.rounds):
            shown = _pairs(task, family, "train", EXAMPLES, rng)
            begun = self._candidates(system, family, shown)
            whole = [program for program in begun if matched(family, program, shown) == 1.0]
            if whole:  # stored already, or nothing to be done
                programs = whole
            else:
                rest = [[(run_program(family, p, start), right) for start, right in shown] for p in begun]
                own = set(FAMILIES[family].rules)
                asked = rest[:1] if self.no_gate else rest
                plans = write_plans(system.policy, asked, rng)
                written += len(asked)
                programs = [
                    (*program, *[word for word in plan.split() if word in own])[:LONGEST_PROGRAM]
                    for program, plan in zip(begun, plans, strict=False)
                ]
            fresh = [] if self.no_gate else _pairs(task, family, "validation", self.verified, rng)
            passed = [p for p in programs if matched(family, p, fresh) == 1.0] if fresh else programs[:1]
            if passed:
                best = min(passed, key=len)
                system.library.store(Skill(family, best, name, _right(task, family, best)))
                solved = True
                break
        tried, won = system.counts.get(name, (0, 0))
        system.counts[name] = (tried + 1, won + int(solved))
        return solved, shown, written

    def _candidates(self, system: Skills, family: str, shown: Sequence[Pair]) -> list[Program]:
        """Beginnings of a program: the nearest skills and the empty one, those that have most symbols right first, of equals the shorter."""
        near = [] if self.no_library else system.library.near(system.policy, family, shown, self.retrieved)
        programs: list[Program] = list(dict.fromkeys([(), *[skill.program for skill, _ in near]]))
        return sorted(programs, key=lambda p: (-matched(family, p, shown), len(p)))


def _of_family(task: Answered, family: str, split: Split) -> list[Problem]:
    return [p for p in task.problems(split) if p.family == family]


def _pairs(task: Answered, family: str, split: Split, count: int, rng: np.random.Generator) -> list[Pair]:
    """``count`` problems of one family with their right answers, without repetition where there are enough."""
    problems = _of_family(task, family, split)
    chosen = rng.choice(len(problems), size=min(count, len(problems)), replace=False)
    return [("".join(parse_start(problems[i])), task.answer(problems[i])) for i in chosen]


def _right(task: Answered, family: str, program: Program) -> bool:
    """Whether the program does the task on all validation problems: for the record, not for the learner."""
    return all(
        run_program(family, program, "".join(parse_start(p))) == task.answer(p)
        for p in _of_family(task, family, "validation")
    )
