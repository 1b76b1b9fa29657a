"""Names of tasks: each kind goes to its reader, and only what a name does not fix has a hash."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.llm.tasks import rules
from fstsim.llm.tasks.jsonl import read_jsonl
from fstsim.llm.tasks.parse import own_problems, parse_task, problems_hash
from fstsim.llm.tasks.rules import RuleTask

LINES = [{"prompt": f"question {k}", "answer": f"answer {k}"} for k in range(5)]


def write(path: Path, lines: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_families_are_families_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("strings", "digits:plus+flip/share", "strings@12:reverse", "star_graph:unnamed"):
        assert parse_task(name) == rules.parse_rules(name)
    write(tmp_path / "strings.jsonl", LINES)
    assert parse_task("./strings.jsonl").name == "./strings.jsonl"
    assert parse_task("strings.jsonl") == read_jsonl("strings.jsonl")


@pytest.mark.parametrize(
    "name", ["chess", "chess:opening", "a.json", "", ":", "mine.py", "mine.py:", "reasoning-gym:x"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InputError, match=r"is unknown; a task is family:rule\+rule, .*, file.jsonl, module.py:object"):
        parse_task(name)


def test_only_problems_that_a_name_does_not_fix_are_hashed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINES)
    tasks = [parse_task("strings:reverse"), parse_task(path)]
    assert own_problems(("strings:reverse", path), tasks) == {path: problems_hash(tasks[1])}

    @dataclass(frozen=True)
    class Impostor(RuleTask):
        """Another task of the same name."""

    assert own_problems(("strings:reverse",), [Impostor("strings", ("reverse",))]).keys() == {"strings:reverse"}


def test_the_hash_is_of_what_is_shown(tmp_path: Path) -> None:
    first = problems_hash(read_jsonl(write(tmp_path / "a.jsonl", LINES)))
    assert first == problems_hash(read_jsonl(write(tmp_path / "b.jsonl", LINES))), "wherever the file lies"
    changed = [{**LINES[0], "answer": "another"}, *LINES[1:]]
    assert first != problems_hash(read_jsonl(write(tmp_path / "c.jsonl", changed)))
    with_old = [{**line, "old_answer": "x"} for line in LINES]
    assert first != problems_hash(read_jsonl(write(tmp_path / "d.jsonl", with_old)))
    task = read_jsonl(write(tmp_path / "e.jsonl", LINES))
    moved = {**task.by_split, "train": task.by_split["test"], "test": task.by_split["train"]}
    assert first != problems_hash(replace(task, by_split=moved)), "in which split"
