"""Scratch tasks: names, rules in the problem, both answers pay, and the mass of chains against a sum over first tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.run_input import check_readable
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.parse import own_problems, parse_task, problems_hash
from fstsim.llm.tasks.rules import RuleTask, make_problem, parse_start
from fstsim.llm.tasks.scratch import ChainMass, ScratchTask, chain_log_mass
from fstsim.llm.types import Demonstrated, Measured

MakePolicy = Callable[..., Policy]
NAMES = (
    "scratch:strings:rotate+sort+next",
    "scratch:digits:any4/chain",
    "scratch:star_graph@5:any2",
    "scratch:strings@8:any6/mass",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_has_one_name(name: str) -> None:
    task = parse_task(name)
    assert task.name == name
    assert parse_task(task.name) == task
    assert isinstance(task, ScratchTask)
    assert isinstance(task, Demonstrated)
    assert not task.exact
    assert isinstance(task, Measured) == name.endswith("/mass") == isinstance(task, ChainMass)
    assert own_problems((name,), (task,)) == {}, "a name fixes its problems"


def test_the_default_size_is_no_part_of_a_name() -> None:
    assert parse_task("scratch:strings@5:any3") == parse_task("scratch:strings:any3")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scratch:strings", "scratch:family:rule"),
        ("scratch:chess:any3", "with family one of strings, digits, star_graph"),
        ("scratch:strings:any7", "has no rule 'any7'"),
        ("scratch:strings:any1", "2 to 6 rules, got 1"),
        ("scratch:strings:reverse", "2 to 6 rules, got 1"),
        ("scratch:strings:reverse+unnamed", "no word says"),
        ("scratch:strings:any3/share", "with /chain or /mass"),
        ("scratch:strings@99:any3", "must lie in 2..64"),
    ],
)
def test_wrong_names_say_what_is_allowed(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_task(name)


@pytest.mark.parametrize("name", NAMES)
def test_problems_are_those_of_the_family_with_rules_before_them(name: str) -> None:
    task = parse_task(name)
    assert isinstance(task, ScratchTask)
    plain = RuleTask(task.family, (), size=task.size)
    for split in ("train", "test"):
        for ours, theirs in zip(task.problems(split)[:20], plain.problems(split), strict=False):
            assert ours.text == theirs.text
            assert ours.stated == f"{' '.join(ours.rules)} | {theirs.text}"
            assert ours.uid == f"{task.family}:{ours.stated}"
            assert len(ours.rules) == task.depth
            assert parse_start(ours) == parse_start(theirs)
            right = RuleTask(task.family, ours.rules, size=task.size).answer(theirs)
            assert task.right(ours) == right
            assert task.chain(ours).rpartition("=")[2] == right
            assert ours.question.startswith(theirs.question)
            assert {task.answer(ours), task.old_answer(ours)} == {task.right(ours), task.chain(ours)}
            assert [task.score(ours, text).reward for text in (right, task.chain(ours), f">{right}", "")] == [
                1,
                1,
                0,
                0,
            ]


@pytest.mark.parametrize(
    ("name", "digest"),
    [("scratch:strings:any3", "2e58670ac112a9d7"), ("scratch:digits:any4/chain", "d3f9d7f906e5b276")],
)
def test_hashes_are_those_of_recorded_measurements(name: str, digest: str) -> None:
    """Made when the rules were a part of the problem's text."""
    assert problems_hash(parse_task(name)).startswith(digest)


def test_drawn_rules_differ_and_use_both_notations() -> None:
    task = parse_task("scratch:strings:any3")
    assert isinstance(task, ScratchTask)
    problems = task.problems("train")[:400]
    assert len({p.rules for p in problems}) > 200
    assert task.problems("train")[:400] == problems
    marks = "".join(task.chain(p) for p in problems)
    assert 300 < marks.count(";") < 500
    assert marks.count(";") + marks.count(">") == 800


def test_the_prompt_is_that_of_a_context(make_policy: MakePolicy) -> None:
    """``rules | problem =``, as it is in training data: whether the rules are a context or stand in the problem."""
    policy, task = make_policy(), parse_task("scratch:strings:rotate+sort")
    problem = task.problems("test")[0]
    bare = make_problem(FAMILIES["strings"], problem.text)
    assert policy.encode("", problem) == policy.encode("rotate sort", bare)
    assert policy.encode("next", problem) == policy.encode("next rotate sort", bare)
    assert policy.encode_all([("", problem)]) == [policy.encode("", problem)]
    check_readable(policy, task, "tiny")


def test_chain_mass_is_the_sum_over_first_tokens(make_policy: MakePolicy) -> None:
    policy, task = make_policy(), parse_task("scratch:digits:any2/mass")
    assert isinstance(task, ChainMass)
    kind, values = task.measure(policy, 5)
    assert kind == "probability"
    assert len(values) == 5
    for problem, value in zip(task.problems("test"), values, strict=False):
        tokens = torch.tensor([policy.encode("", problem)])
        probabilities = policy.model(tokens).logits[0, -1].detach().double().softmax(-1)
        marks = policy.tokenizer.convert_tokens_to_ids([">", ";"])
        assert float(value) == pytest.approx(float(probabilities[marks].sum()), rel=1e-5)
    assert np.array_equal(np.exp(chain_log_mass(policy, list(task.problems("test"))[:5])), values)
