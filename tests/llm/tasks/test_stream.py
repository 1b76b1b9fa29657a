"""Streams: every problem with the answer, score and splits of its own task, the tasks in turn."""

from __future__ import annotations

import pytest

from fstsim.errors import InputError
from fstsim.llm.tasks.parse import own_problems, parse_task
from fstsim.llm.tasks.stream import StreamTask
from fstsim.llm.types import SPLITS, Demonstrated

NAME = "stream:strings:rotate,digits:plus,star_graph:cross"


def test_problems_are_those_of_the_parts_in_turn() -> None:
    task = parse_task(NAME)
    assert isinstance(task, StreamTask)
    assert isinstance(task, Demonstrated)
    assert task.name == NAME
    assert task.exact
    for split in SPLITS:
        problems = task.problems(split)
        assert [p.family for p in problems[:6]] == ["strings", "digits", "star_graph"] * 2
        assert len(set(problems)) == len(problems)
        for k, part in enumerate(task.parts):
            own = set(part.problems(split))
            assert set(problems[k::3]) <= own
    for problem in task.problems("test")[:30]:
        part = next(p for p in task.parts if p.name.startswith(problem.family))
        assert task.answer(problem) == part.answer(problem)
        assert task.old_answer(problem) == part.old_answer(problem)
        assert task.score(problem, part.answer(problem)).reward == 1.0
        assert task.score(problem, "X").reward == 0.0


def test_what_follows_is_new_to_all_parts() -> None:
    task = parse_task(NAME)
    assert isinstance(task, StreamTask)
    following = task.next_task([task], "world")
    assert following is not None
    assert following.name == "strings:reverse"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stream:strings:rotate", "at least two tasks"),
        ("stream:strings:rotate,strings:sort", "both have the problem"),
        ("stream:strings:rotate,", "with two tasks or more"),
        ("stream:strings:rotate,nowhere", "task 'nowhere' is unknown"),
        ("stream:stream:strings:rotate,digits:plus,star_graph:cross", "none of them a stream"),
    ],
)
def test_what_is_no_stream(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_task(name)


def test_the_hash_of_a_stream_is_that_of_its_problems() -> None:
    one, other = (parse_task(name) for name in (NAME, NAME.replace("plus", "negate")))
    hashes = own_problems(["a", "b"], [one, other])
    assert len(set(hashes.values())) == 2
