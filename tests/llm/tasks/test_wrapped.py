"""Wrapped tasks are what they wrap, through any number of wrappers."""

from __future__ import annotations

from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.tasks.wrapped import Wrapped, bare
from fstsim.llm.types import Answered, Followed


def test_everything_is_that_of_the_task() -> None:
    task = parse_task("strings:rotate")
    assert isinstance(task, Answered)
    assert isinstance(task, Followed)
    outer = Wrapped(guarded(task, VerifierErrors()))
    problem = outer.problems("test")[0]
    assert (outer.name, outer.exact) == (task.name, task.exact)
    assert outer.problems("train") == task.problems("train")
    assert outer.score(problem, task.answer(problem)).reward == 1.0
    assert outer.rule_words("world") == "rotate"
    assert bare(outer) is task
    other = parse_task("digits:plus")
    followed = outer.next_task([outer, guarded(other, VerifierErrors())], "world")
    assert followed is not None
    assert followed == task.next_task([task, other], "world")
