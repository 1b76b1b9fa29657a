"""What passes between tasks, policies and learners: problems, scores, rollouts. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Split = Literal["train", "validation", "test"]

UNUSABLE = "unusable"
"""Key, in what a fast round says of itself, of why proposals could not be used: text, kept beside the contexts and not in a row."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Problem:
    """One problem: ``text`` in the world's short notation, ``question`` the same in English, for models that read it.

    A problem of another task has its prompt as both. ``messages``, pairs (role, content) of which the last is a user's,
    are what a chat model is shown in place of the question. ``where`` is the file and line that it was read from. ``rules`` are
    words of the world that the problem itself states; ``question`` says them too.
    """

    family: str
    text: str
    question: str
    messages: tuple[tuple[str, str], ...] = ()
    where: str = field(default="", compare=False)
    rules: tuple[str, ...] = ()

    @property
    def stated(self) -> str:
        """All that it states in the world's notation: the text, or ``rules | text`` where it has rules of its own."""
        return f"{' '.join(self.rules)} | {self.text}" if self.rules else self.text

    @property
    def uid(self) -> str:
        """Identity of the problem: what splits are made by."""
        return f"{self.family}:{self.stated}"


@dataclass(frozen=True)
class Score:
    """``reward`` in [0, 1], and ``feedback``: what was wrong and what was right, in words; all that a fast channel may see."""

    reward: float
    feedback: str


@runtime_checkable
class Task(Protocol):
    """Problems in three disjoint splits, and a verifier.

    ``problems`` returns the same sequence at every call. What more a task can do it says by the protocols below. A
    verifier that raises scores 0 in a run (`fstsim.llm.tasks.guarded`).
    """

    @property
    def name(self) -> str:
        """Name of the task, unique in a run."""
        ...

    @property
    def exact(self) -> bool:
        """Whether one completion of each problem, its ``answer``, has reward 1 and all others 0: rewards are then probabilities."""
        ...

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of one split."""
        ...

    def score(self, problem: Problem, completion: str) -> Score:
        """Reward and feedback of one completion."""
        ...


@runtime_checkable
class Answered(Task, Protocol):
    """A task that can show a right answer: what supervised fine-tuning and exact success need."""

    def answer(self, problem: Problem) -> str:
        """A completion with reward 1."""
        ...


@runtime_checkable
class Demonstrated(Answered, Protocol):
    """A task that can show both behaviours: what replay, the mixture teacher and the old behaviour's mass need.

    ``old_answer`` is what the base model's main behaviour without context writes on the same problem: the behaviour
    whose mass may be forgotten.
    """

    def old_answer(self, problem: Problem) -> str:
        """The old behaviour's completion."""
        ...


@runtime_checkable
class Described(Task, Protocol):
    """A task whose rule can be put in words: what a context may say, and a teacher may be shown."""

    def rule_words(self, template: str) -> str | None:
        """The rule in words for a policy of ``template`` (`Policy.template`), None if no words say it."""
        ...


@runtime_checkable
class Followed(Task, Protocol):
    """A task that knows another one of its kind: what the relearning probe learns."""

    def next_task(self, met: Sequence[Task], template: str) -> Demonstrated | None:
        """A task unlike all ``met``, for a policy of ``template``, None if there is none."""
        ...


@runtime_checkable
class Measured(Task, Protocol):
    """A task that says itself how it is measured as an old skill: text that is read as it stands, for example."""

    def measure(self, policy: Any, problems: int) -> tuple[Literal["probability", "nll"], np.ndarray]:
        """A value of each of the first ``problems`` test problems, and what it is: a probability, or nats a token."""
        ...


TO_STATE_A_RULE = "a file says it with the key context in its lines, a Python task with a method rule_words"
"""What to do about a task that has no rule in words, for messages."""


def rule_words(task: Task, template: str) -> str | None:
    """The rule of ``task`` in words for a policy of ``template``, None if the task has none."""
    return task.rule_words(template) if isinstance(task, Described) else None


class Skills(Protocol):
    """Old skills: what is measured of a policy beside the tasks that it is trained on."""

    def measure(self, policy: Any) -> dict[str, float]:
        """Columns of a row. ``policy`` is a `fstsim.llm.policy.policy.Policy`; it is not changed."""
        ...


@dataclass(frozen=True)
class Population:
    """The fast weights: contexts written in words, and their validation scores when last measured."""

    prompts: tuple[str, ...] = ("",)
    scores: tuple[float, ...] = ()
    lineage: tuple[tuple[str, str], ...] = ()
    """``(context, the one it was written from)``"""
    archive: tuple[tuple[str, str], ...] = ()
    """``(task, best context of the last round on it)``, in the order in which tasks were met: what a run keeps of tasks it left"""

    rejected: tuple[tuple[str, str], ...] = ()
    """``(task, document that was scored on it and not taken)``: what bounded edits do not score again"""
    rounds: int = 0
    """rounds of bounded edits"""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; what only bounded edits use is left out where it is empty."""
        held = asdict(self)
        return {key: value for key, value in held.items() if value or key not in ("rejected", "rounds")}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Population:
        """From what JSON made of `to_dict`; records from before there was an archive have none."""
        lineage, archive, rejected = (
            tuple((a, b) for a, b in held.get(name, ())) for name in ("lineage", "archive", "rejected")
        )
        return cls(tuple(held["prompts"]), tuple(held["scores"]), lineage, archive, rejected, held.get("rounds", 0))
