"""Several tasks at once: problems of all of them, in turn, each with its own verifier: ``stream:strings:rotate,digits:plus``.

A model sees which task a problem is of by the problem alone. Two tasks that share problems would contradict each other, so a
stream has none: tasks of one family on the same problems are a switch (`fstsim.llm.tasks.switch`), or two streams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fstsim.errors import InputError
from fstsim.llm.types import SPLITS, Demonstrated, Followed, Problem, Score, Split, Task

PREFIX = "stream:"


@dataclass(frozen=True)
class StreamTask:
    """``parts`` in turn: problem i of a split is one of part i modulo their number.

    Raises InputError unless there are two parts or more, all with answers and old answers, and no two share a problem.
    """

    parts: tuple[Demonstrated, ...]
    _owner: dict[str, Demonstrated] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise InputError(f"a stream has at least two tasks, got {len(self.parts)}: give {PREFIX}TASK,TASK")
        for part in self.parts:
            if not isinstance(part, Demonstrated):
                raise InputError(f"a stream is of tasks with answers and old answers; {part.name} lacks them")
            for split in SPLITS:
                for problem in part.problems(split):
                    other = self._owner.setdefault(problem.uid, part)
                    if other is not part:
                        raise InputError(
                            f"{other.name} and {part.name} both have the problem {problem.stated[:40]!r}: "
                            "tasks of a stream must have different problems"
                        )

    @property
    def name(self) -> str:
        """``stream:`` and the names of the parts with commas."""
        return PREFIX + ",".join(part.name for part in self.parts)

    @property
    def exact(self) -> bool:
        """Whether every part is exact."""
        return all(part.exact for part in self.parts)

    def problems(self, split: Split) -> Sequence[Problem]:
        """Problems of the parts in turn, as many of each as the part with the fewest has."""
        each = [part.problems(split) for part in self.parts]
        return [problem for together in zip(*each, strict=False) for problem in together]

    def part(self, problem: Problem) -> Demonstrated:
        """The task that ``problem`` is of. Raises KeyError for one of none."""
        return self._owner[problem.uid]

    def answer(self, problem: Problem) -> str:
        """Its own task's."""
        return self.part(problem).answer(problem)

    def old_answer(self, problem: Problem) -> str:
        """Its own task's."""
        return self.part(problem).old_answer(problem)

    def next_task(self, met: Sequence[Task], template: str) -> Demonstrated | None:
        """What follows the first part that knows a task unlike all ``met`` and all parts."""
        seen = [*met, *self.parts]
        found = (part.next_task(seen, template) for part in self.parts if isinstance(part, Followed))
        return next((task for task in found if task is not None), None)

    def score(self, problem: Problem, completion: str) -> Score:
        """By its own task."""
        return self.part(problem).score(problem, completion)


def parse_stream(name: str, parse: Callable[[str], Task]) -> StreamTask:
    """The stream of the tasks that ``name`` lists after ``stream:``, each read by ``parse``; InputError says what is allowed."""
    names = [part.strip() for part in name.removeprefix(PREFIX).split(",")]
    if any(not part or part.startswith(PREFIX) for part in names):
        raise InputError(f"task {name!r}: give {PREFIX}TASK,TASK with two tasks or more, none of them a stream")
    return StreamTask(tuple(parse(part) for part in names))  # type: ignore[misc]  # checked there
