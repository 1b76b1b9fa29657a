"""Tasks from files: what a line says is what the task shows, and each mistake is one line that names file and line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.llm.tasks.jsonl import read_jsonl
from fstsim.llm.types import SPLITS, Answered, Demonstrated, Described, Task

GOOD = [{"prompt": f"plural of {word}", "answer": f" {word}s\n"} for word in ("cat", "dog", "hen", "cow", "pig")]


def write(path: Path, lines: list[Any]) -> str:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_problems_answers_and_rewards(tmp_path: Path) -> None:
    task = read_jsonl(write(tmp_path / "a.jsonl", [*GOOD, "\n"]))
    every = [p for split in SPLITS for p in task.problems(split)]
    assert sorted(p.text for p in every) == sorted(line["prompt"] for line in GOOD)
    assert (task.name, task.exact) == (str(tmp_path / "a.jsonl"), True)
    assert isinstance(task, Answered)
    assert isinstance(task, Described)
    assert not isinstance(task, Demonstrated), "no line has an old answer"
    assert task.rule_words("chat") is None
    for line, problem in zip(GOOD, sorted(every, key=lambda p: p.where), strict=True):
        assert problem.question == problem.text == line["prompt"]
        assert task.answer(problem) == line["answer"].strip()
        rewards = [
            task.score(problem, text).reward for text in (line["answer"], line["answer"].strip(), "", "x", "CATS")
        ]
        assert rewards == [1.0, 1.0, 0.0, 0.0, 0.0]
        assert task.answer(problem) in task.score(problem, "x").feedback
    assert [p.where for p in sorted(every, key=lambda p: p.where)] == [f"{tmp_path}/a.jsonl:{k}" for k in range(1, 6)]


def test_any_of_several_answers_earns_1_and_rewards_are_no_probabilities_then(tmp_path: Path) -> None:
    task = read_jsonl(write(tmp_path / "a.jsonl", [*GOOD, {"prompt": "a colour", "answers": ["red", "blue"]}]))
    (problem,) = [p for split in SPLITS for p in task.problems(split) if p.text == "a colour"]
    assert [task.score(problem, text).reward for text in ("red", " blue ", "green")] == [1.0, 1.0, 0.0]
    assert task.answer(problem) == "red"
    assert not task.exact


def test_old_answers_context_splits_and_messages(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    lines: list[Any] = [
        {"messages": chat, "answer": "4", "old_answer": "five", "split": "train", "context": "add"},
        {"messages": chat[1:], "answer": "4", "old_answer": "six", "split": "test"},
    ]
    task = read_jsonl(write(tmp_path / "a.jsonl", lines))
    assert isinstance(task, Demonstrated)
    (first,), (second,) = task.problems("train"), task.problems("test")
    assert not task.problems("validation")
    assert first.messages == (("system", "Be brief."), ("user", "2 + 2?"))
    assert (first.question, second.question) == ("System: Be brief.\nUser: 2 + 2?", "2 + 2?")
    assert [task.old_answer(p) for p in (first, second)] == ["five", "six"]
    assert task.rule_words("world") == "add"


def test_a_string_may_hold_any_line_separator_of_unicode(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a\u2028b", "answer": "c", "split": "test"}\n', encoding="utf-8")
    assert read_jsonl(str(tmp_path / "a.jsonl")).problems("test")[0].text == "a\u2028b"


MISTAKES: list[tuple[list[Any], str]] = [
    ([*GOOD, "{'prompt': 1}\n"], ":6: not JSON ("),
    ([*GOOD, "[" * 100_000], ":6: not JSON"),
    ([*GOOD, ["a"]], ":6: not a JSON object"),
    ([*GOOD, {"answer": "a"}], ":6: has neither prompt nor messages: give one of them"),
    ([*GOOD, {"prompt": "a", "messages": [], "answer": "a"}], ":6: has both prompt and messages"),
    ([*GOOD, {"prompt": "a"}], ":6: has neither answer nor answers"),
    ([*GOOD, {"prompt": "a", "answer": "a", "answers": ["a"]}], ":6: has both answer and answers"),
    ([*GOOD, {"prompt": 3, "answer": "a"}], ":6: prompt must be text, got int"),
    ([*GOOD, {"prompt": " ", "answer": "a"}], ":6: the prompt is empty"),
    ([*GOOD, {"prompt": "a", "answer": None}], ":6: answer must be text, got NoneType"),
    ([*GOOD, {"prompt": "a", "answer": ""}], ":6: an answer is empty"),
    ([*GOOD, {"prompt": "a", "answers": []}], ":6: answers must be a list of texts, at least one"),
    ([*GOOD, {"prompt": "a", "answers": "b"}], ":6: answers must be a list"),
    ([*GOOD, {"prompt": "a", "answer": "b", "anser": "c"}], ":6: key 'anser' is unknown; allowed: prompt, messages"),
    ([*GOOD, {"messages": [{"role": "user"}], "answer": "b"}], ":6: messages must be a list of objects"),
    ([*GOOD, {"messages": [{"role": "assistant", "content": "x"}], "answer": "b"}], ":6: messages must be"),
    ([*GOOD, {"messages": [], "answer": "b"}], ":6: messages must be"),
    ([{**GOOD[0], "split": "tests"}], ":1: split must be one of train, validation, test; got 'tests'"),
    ([{**GOOD[0], "split": None}], ":1: split must be one of"),
    ([GOOD[0], {**GOOD[1], "split": "test"}], ":1: has no split, other lines have: give it in all lines or in none"),
    ([GOOD[0], {**GOOD[1], "old_answer": "a"}], ":1: has no old_answer, other lines have"),
    ([{**GOOD[0], "context": "a"}, {**GOOD[1], "context": "b"}], ":2: the context differs from that of earlier lines"),
    ([*GOOD, GOOD[1]], "a.jsonl:6: the same prompt as "),
    (
        [{**GOOD[0], "split": "test"}, {**GOOD[0], "split": "train"}],
        "a.jsonl:1 (test and train): give each prompt once, with all its answers",
    ),
    (GOOD[:3], "a.jsonl has 3 problems, too few for three splits: give at least 4, or a split in each line"),
    ([], "a.jsonl is empty"),
    (["\n"], "a.jsonl is empty"),
]


@pytest.mark.parametrize("mistake", range(len(MISTAKES)))
def test_mistakes(mistake: int, tmp_path: Path) -> None:
    lines, says = MISTAKES[mistake]
    path = write(tmp_path / "a.jsonl", lines)
    with pytest.raises(InputError) as error:
        read_jsonl(path)
    assert says in str(error.value)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.jsonl cannot be read: No such file"):
        read_jsonl(str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe4"}')
    with pytest.raises(InputError, match="cannot be read: it is not UTF-8 text"):
        read_jsonl(str(tmp_path / "latin.jsonl"))


def test_it_is_a_task(tmp_path: Path) -> None:
    assert isinstance(read_jsonl(write(tmp_path / "a.jsonl", GOOD)), Task)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "a", "answer": ' + "9" * 5000 + "}", "a number too long"),
        ('{"prompt": "a \\ud800", "answer": "b"}', "half of a surrogate pair"),
        ('{"prompt": "a", "answer": "\\ud800"}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
    ids=["digits", "prompt", "answer", "deep"],
)
def test_what_json_allows_and_text_does_not(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(InputError, match=rf"t\.jsonl:1: .*({says})") as caught:
        read_jsonl(str(tmp_path / "t.jsonl"))
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for_and_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        read_jsonl(str(tmp_path / "pipe.jsonl"))
    lines = "".join(json.dumps({"prompt": f"p{k}", "answer": "a"}) + "\n" for k in range(60))
    (tmp_path / "bom.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    assert sum(len(read_jsonl(str(tmp_path / "bom.jsonl")).problems(split)) for split in SPLITS) == 60
