"""Switches: the branch that a problem shows, against the rules themselves; names there and back; bad names in one line."""

from __future__ import annotations

import pytest

from fstsim.errors import InputError
from fstsim.llm.tasks.parse import own_problems, parse_task
from fstsim.llm.tasks.switch import SwitchTask
from fstsim.llm.types import Demonstrated, Problem


def test_each_branch_has_its_own_rule() -> None:
    task = parse_task("strings:rotate~sort")
    assert isinstance(task, SwitchTask)
    assert isinstance(task, Demonstrated)
    for text, right in (("DCABE", "CABED"), ("EDCBA", "ABCDE"), ("AHHHB", "HHHBA"), ("HABHA", "AABHH")):
        problem = Problem("strings", text, "")
        assert task.answer(problem) == right
        assert task.score(problem, right).reward == 1.0
        assert task.old_answer(problem) == text
    assert task.score(Problem("strings", "DCABE", ""), "ABCDE").reward == 0.0


def test_half_of_the_problems_are_of_each_branch() -> None:
    task = parse_task("digits:negate~plus")
    assert isinstance(task, SwitchTask)
    lower = [task.branch(p) == task.lower for p in task.problems("train")]
    assert 0.47 < sum(lower) / len(lower) < 0.53


@pytest.mark.parametrize("name", ["strings:rotate~sort", "digits@7:negate+plus~flip/share", "star_graph:cross~roll"])
def test_names_there_and_back(name: str) -> None:
    task = parse_task(name)
    assert task.name == name
    assert task == parse_task(name)
    assert own_problems([name], [task]) == {}  # its name fixes its problems


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("strings:rotate~", "is no switch"),
        ("strings~sort", "is no switch"),
        ("strings:rotate~sort~next", "is no switch"),
        ("strings:rotate~rotate", "are the same"),
        ("strings:rotate~wrong", "has no rule 'wrong'"),
    ],
)
def test_what_is_no_switch(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_task(name)


def test_only_english_has_words_for_a_choice() -> None:
    task = parse_task("strings:rotate~sort")
    assert isinstance(task, SwitchTask)
    assert task.rule_words("world") is None
    assert "A to D: move the first letter" in str(task.rule_words("chat"))
    following = task.next_task([], "world")
    assert following is not None
    assert following.rules == ("reverse",)
