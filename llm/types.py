"""What passes between tasks, policies and learners: problems, scores, rollouts. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Problem:
    """One problem: ``text`` in the world's short notation, ``question`` the same in English, for models that read it."""

    family: str
    text: str
    question: str

    @property
    def uid(self) -> str:
        """Identity of the problem: what splits are made by."""
        return f"{self.family}:{self.text}"


@dataclass(frozen=True)
class Score:
    """``reward`` in [0, 1], and ``feedback``: what was wrong and what was right, in words; all that a fast channel may see."""

    reward: float
    feedback: str


class Task(Protocol):
    """Problems in three disjoint splits, and a verifier.

    ``score`` never raises on a completion, whatever a model wrote: nonsense scores 0. ``problems`` returns the same
    sequence at every call. ``name`` is what ``--task`` accepts.
    """

    @property
    def name(self) -> str:
        """Name of the task, unique in a run."""
        ...

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of one split."""
        ...

    def score(self, problem: Problem, completion: str) -> Score:
        """Reward and feedback of one completion."""
        ...


@runtime_checkable
class Demonstrated(Task, Protocol):
    """A task that can show answers: what supervised fine-tuning and exact probes need.

    ``answer`` is the one completion with reward 1; ``old_answer`` what the base model's main behaviour without context
    writes on the same problem: the behaviour whose mass may be forgotten.
    """

    def answer(self, problem: Problem) -> str:
        """The right completion."""
        ...

    def old_answer(self, problem: Problem) -> str:
        """The old behaviour's completion."""
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

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Population:
        """From what JSON made of `dataclasses.asdict`; records from before there was an archive have none."""
        lineage, archive = (tuple((a, b) for a, b in held.get(name, ())) for name in ("lineage", "archive"))
        return cls(tuple(held["prompts"]), tuple(held["scores"]), lineage, archive)
