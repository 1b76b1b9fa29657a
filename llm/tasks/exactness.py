"""Whether a task is exact where it says so: tried on one of its problems, with completions that are near the answer.

Success of an exact task is the probability of its one answer (`fstsim.llm.runs.probes`). Where a verifier takes other texts too, or
pays in part, that number would be wrong without a sign of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from fstsim.errors import InputError
from fstsim.llm.types import SPLITS, Answered, Demonstrated, Problem, Task

_EACH = 4  # places of the answer at which a symbol is left out, or another
_OTHERS = 12  # problems whose answers are tried: a verifier may take long


def check_exact(task: Task) -> None:
    """InputError if ``task`` says that it is exact and is not on a problem of its own: another text than the answer has a reward.

    White space at both ends is left out of it: verifiers may take it off. A verifier that raises scores 0.
    """
    problems = [problem for split in reversed(SPLITS) for problem in task.problems(split)[: _OTHERS + 1]]
    if not (task.exact and isinstance(task, Answered) and problems):
        return
    problem, answer = problems[0], task.answer(problems[0])
    for text in _near(task, problem, problems[1:]):
        reward = _reward(task, problem, text)
        if reward != 0.0:
            raise InputError(
                f"task {task.name} says that it is exact, but on problem {problem.stated[:60]!r} {text[:60]!r} has reward {reward:g} "
                f"as well as its answer {answer[:60]!r}: exact must be False unless one completion alone earns anything"
            )


def _near(task: Answered, problem: Problem, others: list[Problem]) -> list[str]:
    """Texts that are not the answer: parts of it and around it, one symbol of it changed, and what is right elsewhere."""
    answer = task.answer(problem).strip()

    def texts() -> Iterator[str]:
        yield from ("", answer.swapcase(), f"{answer}.", f"{answer} {answer}", answer[::-1])
        if isinstance(task, Demonstrated):
            yield task.old_answer(problem)
        right = [task.answer(other) for other in others[:_OTHERS]]
        symbol = min({*"".join(right)} - {*answer}, default="?")
        for k in range(min(len(answer), _EACH)):
            yield from (answer[:k] + answer[k + 1 :], answer[:k] + symbol + answer[k + 1 :])
        yield from right

    return [text for text in dict.fromkeys(texts()) if "".join(text.split()) != "".join(answer.split())]


def _reward(task: Task, problem: Problem, text: str) -> float:
    try:
        return float(task.score(problem, text).reward)
    except (Exception, SystemExit):
        return 0.0
