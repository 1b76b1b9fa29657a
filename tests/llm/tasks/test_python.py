"""Tasks written in Python: what can be named, and what is said of what is no task."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.llm.tasks.parse import parse_task, problems_hash
from fstsim.llm.tasks.python import load_task, source_hash
from fstsim.llm.types import Answered, Task

MODULE = """
from dataclasses import dataclass
from fstsim.llm.types import Problem, Score

@dataclass(frozen=True)
class Echo:
    name: str = "echo"
    exact: bool = True
    letters: str = "ABCDEFGH"

    def problems(self, split):
        k = ("train", "validation", "test").index(split)
        return [Problem("echo", letter * (k + 1), "") for letter in self.letters]

    def answer(self, problem):
        return problem.text

    def score(self, problem, completion):
        return Score(float(completion == problem.text), "")

def made():
    return Echo("made")

def broken():
    raise KeyError("no such thing")

class Same(Echo):
    def problems(self, split):
        return [Problem("echo", "A", "")]

class Words(Echo):
    def problems(self, split):
        return ["A"]

class Bare(Echo):
    def score(self, problem, completion):
        return 1.0

class Failing(Echo):
    def score(self, problem, completion):
        raise ValueError

class Dumb(Echo):
    def answer(self, problem):
        return 1 / (len(problem.text) - 2)

class Numbers(Echo):
    def old_answer(self, problem):
        return 7

class Nameless(Echo):
    def __init__(self):
        pass

    @property
    def name(self):
        raise OSError("no name")

class Unsure(Echo):
    def __init__(self):
        pass

    exact = "yes"

task = Echo()
number = 3
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "inner.py").write_text(MODULE)
    (tmp_path / "raises.py").write_text("import json\n\njson.loads('{')\n")
    (tmp_path / "syntax.py").write_text("x = 1\ny = = 2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["mine.py:task", "mine.py:Echo", "mine.py:made", "pack.inner:task", "./mine.py:made"])
def test_an_object_a_class_or_a_function(name: str, place: Path) -> None:
    before, path = sorted(place.rglob("*")), list(sys.path)
    task = load_task(name)
    assert isinstance(task, Task)
    assert isinstance(task, Answered)
    assert task.name == ("made" if name.endswith("made") else "echo")
    assert (sorted(place.rglob("*")), sys.path) == (before, path), "no bytecode, and no trace of where we are"


def test_a_verifier_that_raises_is_still_a_task(place: Path) -> None:  # noqa: ARG001 -- where the module is
    assert load_task("mine.py:Failing").name == "echo"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py:task", "task module nowhere.py does not exist"),
        ("raises.py:task", "raises.py:3: Expecting property name"),
        ("raises.py:task", "task module raises.py raises JSONDecodeError at "),
        ("syntax.py:task", "syntax.py:2: invalid syntax"),
        ("mine.py:tusk", "mine.py has no object 'tusk'"),
        ("mine.py:broken", "mine.py:25: 'no such thing'"),
        ("mine.py:number", "task mine.py:number is not a Task: int lacks name, exact, problems, score"),
        ("mine.py:Problem", "task mine.py:Problem: TypeError"),
        ("mine.py:Same", "problem 'echo:A' is in two splits, train and validation"),
        ("mine.py:Words", "problems('train') holds str, not Problem alone"),
        ("mine.py:Bare", "score returns float, not Score"),
        ("mine.py:Dumb", "task mine.py:Dumb: answer of problem 'A' is float, not text"),
        ("mine.py:Numbers", "task mine.py:Numbers: old_answer of problem 'A' is int, not text"),
        ("mine.py:Nameless", "task mine.py:Nameless: name raises OSError at "),
        ("mine.py:Unsure", "task mine.py:Unsure: exact must be True or False, got 'yes'"),
        ("pack.nothing:task", "task module pack.nothing does not exist: there is no pack.nothing"),
        ("nothing.at.all:task", "task module nothing.at.all does not exist: there is no nothing"),
    ],
)
def test_mistakes(name: str, says: str, place: Path) -> None:  # noqa: ARG001 -- where the modules are
    with pytest.raises(InputError) as error:
        load_task(name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_answer_that_raises_is_named_with_its_problem(place: Path) -> None:
    text = (place / "mine.py").read_text().replace("1 / (len(problem.text) - 2)", "str(1 / (len(problem.text) - 2))")
    (place / "mine.py").write_text(text)
    with pytest.raises(
        InputError, match=r"mine.py:Dumb: answer of problem 'AA' raises ZeroDivisionError at .*mine.py:\d+"
    ):
        load_task("mine.py:Dumb")


def test_a_file_alone_lists_what_it_has(place: Path) -> None:
    with pytest.raises(
        InputError, match=r"names no object of the file: give one of mine\.py:Echo, mine\.py:made"
    ) as error:
        parse_task("mine.py")
    assert "mine.py:task" in str(error.value)
    assert "number" not in str(error.value)
    assert "Problem" not in str(error.value), "imported, not written there"
    (place / "nothing.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="it has none that is a task"):
        parse_task("nothing.py")


def test_a_changed_verifier_changes_the_hash(place: Path) -> None:
    before = problems_hash(load_task("mine.py:task"))
    assert problems_hash(load_task("mine.py:task")) == before
    text = (place / "mine.py").read_text()
    (place / "mine.py").write_text(text.replace("completion == problem.text", "completion.strip() == problem.text"))
    assert problems_hash(load_task("mine.py:task")) != before
    assert source_hash(parse_task("strings:reverse")) == ""
