"""A task whose verifier may fail: a completion that it raises on scores 0, is counted, and the first message is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from fstsim.llm.tasks.wrapped import Wrapped
from fstsim.llm.types import Answered, Demonstrated, Measured, Problem, Score, Task


@dataclass
class VerifierErrors:
    """What verifiers raised: how often since the last `take`, and the ``first`` message of all."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """One more."""
        self.count += 1
        if not self.first:
            self.first.append(" ".join(message.split()))

    def take(self) -> dict[str, int]:
        """The column ``verifier_errors`` of a row, where there were any since the last row."""
        count, self.count = self.count, 0
        return {"verifier_errors": count} if count else {}


@dataclass(frozen=True)
class Guarded(Wrapped):
    """``task`` with a verifier that never raises."""

    errors: VerifierErrors

    def score(self, problem: Problem, completion: str) -> Score:
        """The task's score; 0 if it raises or gives no reward in [0, 1]."""
        try:
            score = self.task.score(problem, completion)
            reward = float(score.reward)  # a test that gives True, or a numpy number
            if 0.0 <= reward <= 1.0:
                return Score(reward, str(score.feedback))
            said = f"the reward {score.reward} does not lie in [0, 1]"
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
        self.errors.add(f"{self.name}, problem {problem.where or problem.stated[:60]!r}: {said}")
        return Score(0.0, "the verifier failed on this answer")


@dataclass(frozen=True)
class GuardedAnswered(Guarded):
    """One that has answers."""

    task: Answered

    def answer(self, problem: Problem) -> str:
        """That of the task."""
        return self.task.answer(problem)


@dataclass(frozen=True)
class GuardedDemonstrated(GuardedAnswered):
    """One that has old answers too."""

    task: Demonstrated

    def old_answer(self, problem: Problem) -> str:
        """That of the task."""
        return self.task.old_answer(problem)


def guarded(task: Task, errors: VerifierErrors) -> Task:
    """``task`` with a verifier that never raises: what fails is counted in ``errors``. It can do what ``task`` can."""
    if isinstance(task, Measured):  # by passes of the model: its verifier is not asked
        return task
    if isinstance(task, Demonstrated):
        return GuardedDemonstrated(task, errors)
    if isinstance(task, Answered):
        return GuardedAnswered(task, errors)
    return Guarded(task, errors)
