"""Chains as text: what is written is read back, both notations say the same, and a right chain is the rules one by one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstsim.llm.tasks.chains import MARKS, Step, final_answer, read, right_steps, steps_of, write
from fstsim.llm.tasks.families import FAMILIES

LISTS = st.text("ABCDEFGH", min_size=1, max_size=6)
STEPS = st.lists(st.builds(Step, st.sampled_from(MARKS), LISTS), min_size=1, max_size=5)


@given(steps=STEPS, answer=LISTS)
def test_what_is_written_is_read_back(steps: list[Step], answer: str) -> None:
    text = write(steps, answer)
    assert read(" ".join(text)) == (tuple(steps), answer)
    assert final_answer(text) == answer
    assert read(write(steps)) == (tuple(steps), None)
    assert final_answer(write(steps)) is None


@given(content=LISTS, mark=st.sampled_from(MARKS))
def test_both_notations_say_the_same(content: str, mark: str) -> None:
    step = Step.of(content, mark)
    other = step.other_notation()
    assert step.content == other.content == content
    assert other.mark != mark
    assert other.written == step.written[::-1]
    assert other.other_notation() == step


@pytest.mark.parametrize(
    ("text", "steps", "answer", "final"),
    [
        ("A B C", 0, "ABC", "ABC"),
        ("", 0, "", ""),
        ("A B > C", 0, None, None),  # text before the first mark
        ("> A B = C = D", 0, None, "D"),  # the last mark decides for a verifier, but this is no chain
        ("; A B =", 1, "", ""),
    ],
)
def test_what_is_no_plain_chain(text: str, steps: int, answer: str | None, final: str | None) -> None:
    found = read(text)
    assert (len(found[0]), found[1]) == (steps, answer)
    assert final_answer(text) == final


@pytest.mark.parametrize("name", FAMILIES)
def test_a_right_chain_is_the_rules_one_by_one(name: str) -> None:
    family = FAMILIES[name]
    rules, start = list(family.rules)[:4], tuple(family.symbols[:4])
    lists = right_steps(family, rules, start)
    walk = name == "star_graph"
    assert len(lists) == steps_of(family, 4) == 3 + walk
    for k, each in enumerate(lists):
        assert each == family.apply(rules[: k + 1 - walk], start)
    assert family.apply(rules[-1:], lists[-1]) == family.apply(rules, start)
    assert re.fullmatch(r"(>\w+)+=\w+", write([Step.of(x) for x in lists], "".join(family.apply(rules, start))))
