"""Tasks that say they are exact: those that are pass, and each kind of verifier that takes other texts is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.exactness import check_exact
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Problem, Score, Split


@dataclass(frozen=True)
class Rewarded:
    """A user's task: write the word again, with a space after each letter; ``reward(wrote, right)`` is the verifier."""

    reward: Callable[[str, str], float]
    exact: bool = True
    name: str = "again"

    def problems(self, split: Split) -> list[Problem]:
        words = {"train": ("ABCD", "BCDA", "CDAB"), "validation": ("DABC",), "test": ("DCBA", "CBAD")}[split]
        return [Problem("again", word, word) for word in words]

    def answer(self, problem: Problem) -> str:
        return " ".join(problem.text)

    def score(self, problem: Problem, completion: str) -> Score:
        return Score(self.reward(completion, self.answer(problem)), "")


def fails(wrote: str, right: str) -> float:
    if wrote != right:
        raise ValueError(wrote)
    return 1.0


EXACT: dict[str, Callable[[str, str], float]] = {
    "the same text": lambda wrote, right: float(wrote == right),
    "white space at both ends": lambda wrote, right: float(wrote.strip() == right),
    "white space anywhere": lambda wrote, right: float("".join(wrote.split()) == "".join(right.split())),
    "raises on all others": fails,
}
LOOSE: dict[str, tuple[Callable[[str, str], float], str]] = {
    "either case": (lambda wrote, right: float(wrote.casefold() == right.casefold()), "'d c b a' has reward 1"),
    "contains it": (lambda wrote, right: float(right in wrote), "'D C B A.' has reward 1"),
    "begins like it": (lambda wrote, right: float(wrote[:1] == right[:1]), "has reward 1"),
    "in any order": (lambda wrote, right: float(sorted(wrote) == sorted(right)), "'A B C D' has reward 1"),
    "a share": (lambda wrote, right: sum(a == b for a, b in zip(wrote, right, strict=False)) / 7, "has reward 0."),
    "everything": (lambda wrote, right: 1.0, "'' has reward 1"),  # noqa: ARG005
    "any of the words": (lambda wrote, right: float(wrote in ("C B A D", right)), "'C B A D' has reward 1"),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_exact_passes(name: str) -> None:
    check_exact(Rewarded(EXACT[name]))


@pytest.mark.parametrize("name", LOOSE)
def test_what_is_not_is_refused(name: str) -> None:
    reward, said = LOOSE[name]
    with pytest.raises(InputError, match="task again says that it is exact, but on problem 'DCBA'") as error:
        check_exact(Rewarded(reward))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    check_exact(Rewarded(reward, exact=False))


@pytest.mark.parametrize(
    "name",
    [
        "strings:reverse", "digits:plus+flip", "star_graph:cross", "strings:rotate~sort", "stream:strings:rotate,digits:plus",
        "scratch:strings:any3", "language:plural:bare", "language:capitals:quoted", "language:sums",
    ],
)  # fmt: skip
def test_our_own_tasks_pass(name: str) -> None:
    check_exact(parse_task(name))


def test_a_run_refuses_before_anything_is_written(tmp_path: Path) -> None:
    reward, _ = LOOSE["contains it"]
    with pytest.raises(InputError, match="says that it is exact"):
        run_training(TrainConfig(steps=1), tmp_path / "run", tasks=[Rewarded(reward)])
    assert not (tmp_path / "run").exists()


def test_a_module_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from fstsim.llm.types import Problem, Score\n"
        "class Near:\n"
        "    name, exact = 'near', True\n"
        "    def problems(self, split): return [Problem('near', f'{split} {k}', 'q') for k in range(3)]\n"
        "    def answer(self, problem): return problem.text\n"
        "    def score(self, problem, completion): return Score(float(problem.text.startswith(completion)), '')\n"
    )
    with pytest.raises(InputError, match="task near says that it is exact, but on problem 'test 0' '' has reward 1"):
        parse_task("mine.py:Near")
