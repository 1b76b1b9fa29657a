"""The base's own answers as the old behaviour: made once, kept in the run, refused where they do not fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.old_answers import FILE, WithOldAnswers, known, with_old_answers
from fstsim.llm.runs.probes import Probe, ProbeConfig
from fstsim.llm.tasks.jsonl import JsonlTask, read_jsonl
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Demonstrated, Population

MakePolicy = Callable[..., Policy]


@pytest.fixture
def policy(make_policy: MakePolicy) -> Policy:
    return replace(make_policy(max_position_embeddings=120), template="plain")


def own(path: Path, letters: str = "ABCDEFGH", **more: str) -> JsonlTask:
    lines = [
        {"prompt": f"{a} {b}", "answer": a, "split": ("train", "validation", "test")[k % 3], **more}
        for k, (a, b) in enumerate((a, b) for a in letters for b in letters)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_jsonl(str(path))


def test_old_answers_are_greedy_completions_made_once(policy: Policy, tmp_path: Path) -> None:
    task = own(tmp_path / "own.jsonl")
    (wrapped,) = with_old_answers([task], policy)
    assert isinstance(wrapped, Demonstrated)
    (filled,) = known([wrapped], policy, tmp_path, 6, shown=True)
    assert isinstance(filled, WithOldAnswers)
    assert filled.rule_words("plain") == task.rule_words("plain")
    asked = [*list(task.problems("test"))[:6], *task.problems("train")]
    assert set(filled.old) == {p.uid for p in asked}
    for problem in asked[:4]:  # against a plain loop without cache
        tokens = policy.encode("", problem)
        start = len(tokens)
        for _ in range(64):
            with torch.no_grad():
                tokens.append(int(policy.model(torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] in policy.end_tokens:
                break
        text = policy.tokenizer.decode(tokens[start:], skip_special_tokens=True).strip()
        assert filled.old_answer(problem) == text

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("they are read, not made")

    other = replace(policy)
    object.__setattr__(other, "sample", nothing)
    (again,) = known(with_old_answers([task], policy), other, tmp_path, 6, shown=True)
    assert again.old == filled.old  # type: ignore[attr-defined]


def test_the_probe_measures_their_mass(policy: Policy, tmp_path: Path) -> None:
    (task,) = known(with_old_answers([own(tmp_path / "own.jsonl")], policy), policy, tmp_path, 4, shown=True)
    base = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    row = Probe(replace(base, template="plain"), task, ProbeConfig(problems=4)).measure(policy, Population())
    problems = list(task.problems("test"))[:4]
    answers = [task.old_answer(p) for p in problems]  # type: ignore[attr-defined]
    assert row["old_mass"] == pytest.approx(np.exp(answer_logprobs(policy, ("",), problems, answers)).mean())


def test_tasks_that_say_what_is_old_stay_as_they_are(policy: Policy, tmp_path: Path) -> None:
    tasks = [parse_rules("strings:reverse"), own(tmp_path / "a.jsonl", old_answer="B")]
    assert with_old_answers(tasks, policy) == tasks
    assert known(tasks, policy, tmp_path, 4, shown=False) == tasks
    assert not (tmp_path / FILE).exists()
    without = own(tmp_path / "b.jsonl")
    assert with_old_answers([without], replace(policy, template="world")) == [without]


def test_a_task_without_an_end_has_no_old_behaviour(policy: Policy, tmp_path: Path) -> None:
    task = own(tmp_path / "own.jsonl")
    endless = replace(policy, end_tokens=())
    assert known(with_old_answers([task], endless), endless, tmp_path / "a", 4, shown=False) == [task]
    (shown,) = known(with_old_answers([task], endless), endless, tmp_path / "b", 4, shown=True)
    assert isinstance(shown, WithOldAnswers)


def test_a_file_that_does_not_fit_is_refused(policy: Policy, tmp_path: Path) -> None:
    task = own(tmp_path / "own.jsonl")

    def again(t: JsonlTask, problems: int = 4) -> None:
        known(with_old_answers([t], policy), policy, tmp_path, problems, shown=False)

    again(task)
    before = (tmp_path / FILE).read_text()
    with pytest.raises(InputError, match="lacks the old answer of problem"):
        again(task, 9)
    changed = own(tmp_path / "own.jsonl", "ABCDEFG")
    with pytest.raises(InputError, match=r"is of other problems of .*own\.jsonl: choose another --out"):
        again(changed)
    held = json.loads(before)
    name, answers = next(iter(held["old_answers"].items()))
    held["old_answers"][name] = dict.fromkeys(answers, "mine")
    for text in (json.dumps(held), "[]", "{}"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(InputError, match="was changed or is something else"):
            again(task)
        assert (tmp_path / FILE).read_text() == text
