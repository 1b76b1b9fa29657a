"""Runs on tasks of one's own, end to end with the shipped model; and what is said, in one line, when something does not fit."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import fstsim.llm.runs.run as module
from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import PRESETS, TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.parse import problems_hash
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Problem, Score, Split
from fstsim.records import read_json, read_rows

QUICK = "train --preset smoke --steps 2 --seeds 1 --problems 4 --out run"

MODULE = """
from fstsim.llm.types import Problem, Score

class Letters:
    name, exact = "letters", False

    def problems(self, split):
        first = {"train": "A", "validation": "B", "test": "C"}[split]
        return [Problem("letters", first + letter, "") for letter in "ABCDEFGH"]

    def score(self, problem, completion):
        if completion.startswith("B"):
            raise ValueError("no B, please")
        return Score(float(completion.startswith("A")), "")
"""


def lines(count: int = 6, **more: Any) -> list[dict[str, Any]]:
    words = ["ABCDE", "BACDE", "CABDE", "DABCE", "EABCD", "FABCD", "GABCD", "HABCD"][:count]
    return [{"prompt": word, "answer": " ".join(word[1:] + word[0]), **more} for word in words]


def write(path: Path, held: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in held))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "own.jsonl", lines(old_answer="A B C D E", context="rotate"))
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    probe = ProbeConfig(every=10, problems=6, exam=1)
    monkeypatch.setattr(module, "relearn_steps", functools.partial(relearn_steps, most=3, batch=4))
    monkeypatch.setitem(PRESETS, "smoke", replace(PRESETS["smoke"], probe=probe))
    return tmp_path


def contents(place: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else None for p in sorted(place.rglob("*"))}


# --- end to end ------------------------------------------------------------------------------------------------------


def test_a_file_is_trained_on_and_kept_as_an_old_skill(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*shlex.split(QUICK), "--task", "own.jsonl", "--old", "own.jsonl", "strings:reverse"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "old_skills" in shown.out
    assert "verifier" not in shown.err
    rows = read_rows(place / "run" / "seed-0" / "metrics.jsonl")
    for row in (rows[0], rows[-1]):
        assert {
            "old_skill_own_jsonl",
            "old_skill_strings_reverse",
            "old_skills_drift",
            "drift",
            "old_mass",
        } <= row.keys()
        assert "verifier_errors" not in row
    assert rows[0]["old_skill_own_jsonl"] > 0.9, "its context is the word that the model knows for this rule"
    assert rows[0]["old_skills_drift"] == 0.0
    config = read_json(place / "run" / "seed-0" / "config.json")
    assert (config["tasks"], config["old"]) == (["own.jsonl"], ["own.jsonl", "strings:reverse"])
    ((name, value),) = config["problems_sha256"]
    assert (name, len(value)) == ("own.jsonl", 64)
    assert Policy.load("run/seed-0/model").template == "world"

    before = contents(place)
    assert main(command) == 0, "a finished run is loaded"
    assert {k: v for k, v in contents(place).items() if not k.endswith(".png")} == {
        k: v for k, v in before.items() if not k.endswith(".png")
    }
    write(place / "own.jsonl", lines(5, old_answer="A B C D E", context="rotate"))
    before = contents(place)
    capsys.readouterr()
    assert main(command) == 2
    said = "fstsim: error: the problems or the verifier of own.jsonl have changed since the run in run/seed-0 began: choose another --out\n"
    assert capsys.readouterr().err == said
    assert contents(place) == before


def test_a_python_task_whose_verifier_fails_now_and_then(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*shlex.split(QUICK), "--task", "mine.py:Letters"]) == 0
    err = capsys.readouterr().err
    assert err.count("the verifier failed") == 1
    rows = read_rows(place / "run" / "seed-0" / "metrics.jsonl")
    failed = sum(row.get("verifier_errors", 0) for row in rows)
    summary = read_json(place / "run" / "seed-0" / "summary.json")["verifier_errors"]
    assert summary["count"] == failed > 0
    assert summary["first"].startswith("letters, problem '")
    assert summary["first"].endswith("ValueError: no B, please")
    assert f"fstsim: seed 0: the verifier failed {failed} times, each scored 0; first: {summary['first']}\n" in err
    assert not {"old_mass", "relearn"} & rows[-1].keys(), "it has no answers, and no rule of the world"


@pytest.mark.parametrize(
    "flags",
    [
        "--method gepa",
        "--method mixture",
        "--method sdft --demonstration examples",
        *(
            pytest.param(flags, marks=pytest.mark.slow)
            for flags in (
                "--method sft --replay-share 0.5",
                "--method sdft",
                "--method ttt --max-new-tokens 7",
                "--method oapl",
            )
        ),
    ],
)
def test_every_method_takes_a_file(flags: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = shlex.split(f"{QUICK} --task own.jsonl {flags}")
    if "gepa" in flags:
        del command[command.index("--problems") : command.index("--problems") + 2]
    assert main(command) == 0
    assert read_rows(place / "run" / "seed-0" / "metrics.jsonl")[-1]["step"] == 2
    silent = "seed 0: 2 of 2 fast rounds had no usable proposal"  # six lines have one to validate on
    assert (silent in capsys.readouterr().err) == ("gepa" in flags)


def test_feedback_that_a_model_of_the_world_cannot_read_is_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = ("train", "train", "validation", "validation", "validation", "validation", "test", "test")
    write(place / "own.jsonl", [{**line, "split": split} for line, split in zip(lines(8), splits, strict=True)])
    command = shlex.split(f"{QUICK} --task own.jsonl --method gepa")
    del command[command.index("--problems") : command.index("--problems") + 2]
    assert main(command) == 0
    err = capsys.readouterr().err
    assert "seed 0: 2 of 2 fast rounds had no usable proposal" in err
    assert "first: a model of the world reads feedback of the form start: LIST wrote: LIST right: LIST alone" in err


def test_the_table_of_tasks_takes_them_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--task", "own.jsonl", "mine.py:Letters", "--problems", "2"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("own", "letters"))] == [
        "own.jsonl",
        "letters",
    ]
    assert "fstsim: the verifier failed " in err
    assert (
        "no rule in words: letters; a file says it with the key context in its lines, a Python task with"
        in " ".join(out.split())
    )
    write(place / "own.jsonl", lines(split="train"))
    assert main(["tasks", "--task", "own.jsonl"]) == 2
    assert capsys.readouterr().err == ("fstsim: error: own.jsonl has 0 problems in split test, but needs at least 2\n")


@dataclass(frozen=True)
class Ends:
    """The first letter again; ``name`` as it likes."""

    name: str = "ends"
    exact: bool = True

    def problems(self, split: Split) -> list[Problem]:
        first = {"train": "A", "validation": "B", "test": "C"}[split]
        return [Problem("ends", f"{first}{letter}", "") for letter in "ABCDEFGH"]

    def answer(self, problem: Problem) -> str:
        return problem.text[0]

    def score(self, problem: Problem, completion: str) -> Score:
        return Score(float(completion == problem.text[0]), "")


def test_run_training_takes_objects(place: Path) -> None:
    config = replace(PRESETS["smoke"].config("sft"), steps=1)
    task, old = Ends(), parse_rules("strings:next")
    rows = run_training(config, place / "run", tasks=[task, parse_rules("strings:reverse")], old=[old])
    assert [row["task"] for row in rows] == [0, 0, 1]
    recorded = read_json(place / "run" / "config.json")
    assert (recorded["tasks"], recorded["old"]) == (["ends", "strings:reverse"], ["strings:next"])
    assert recorded["problems_sha256"] == [["ends", problems_hash(task)]]
    assert "old_skill_strings_next" in rows[-1]
    assert rows[-1]["relearn"] >= 0, "the last task is of the world"


def test_runs_on_families_have_no_hash(place: Path) -> None:
    run_training(replace(PRESETS["smoke"].config("gepa"), steps=1), place / "run")
    assert read_json(place / "run" / "config.json")["problems_sha256"] == []


def test_a_run_recorded_before_there_were_old_skills_goes_on(place: Path) -> None:
    config = replace(PRESETS["smoke"].config("gepa"), steps=1)
    rows = run_training(config, place / "run")
    held = read_json(place / "run" / "config.json")
    (place / "run" / "config.json").write_text(
        json.dumps({k: v for k, v in held.items() if k not in ("old", "problems_sha256")})
    )
    assert run_training(config, place / "run") == rows


@pytest.mark.parametrize("old", [pytest.param((), marks=pytest.mark.slow), ("mine.py:Letters",)])
def test_errors_are_counted_once_whatever_interrupts(old: tuple[str, ...], place: Path) -> None:
    """The base is measured anew when a run goes on: what its verifiers fail on then is in the first row already."""
    config = replace(PRESETS["smoke"].config("rl"), steps=3, tasks=("mine.py:Letters",), old=old)

    def stop(step: int, note: str) -> None:  # noqa: ARG001 -- what progress is called with
        if step == 2:
            raise KeyboardInterrupt

    run_training(config, place / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_training(config, place / "run", stop)
    run_training(config, place / "run")
    assert read_rows(place / "run" / "metrics.jsonl") == read_rows(place / "whole" / "metrics.jsonl")
    summaries = [read_json(place / name / "summary.json")["verifier_errors"] for name in ("run", "whole")]
    assert summaries[0] == summaries[1]


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "flags", "says"),
    [
        (
            lines(),
            "--max-new-tokens 5",
            "own.jsonl:1: the answer has 6 tokens, the end token included: --max-new-tokens must be",
        ),
        ([*lines(), {"prompt": "A", "answer": "A B C D E F G H A"}], "", "own.jsonl:7: the answer has 10 tokens"),
        (
            [*lines(), {"prompt": "say hello", "answer": "A"}],
            "",
            "own.jsonl:7: the prompt has words that base does not know: 'say'",
        ),
        (
            [*lines(), {"prompt": "A", "answer": "hello"}],
            "",
            "own.jsonl:7: the answer has words that base does not know: 'hello'",
        ),
        (
            [{**line, "answer": line["answer"].replace(" ", "")} for line in lines()],
            "",
            "has reward 0, not 1, as base writes it: '",
        ),
        (
            lines(context="backwards"),
            "--old own.jsonl",
            "the context of own.jsonl has words that base does not know: 'backwards'",
        ),
        (lines(), "--method mixture", "method mixture needs a task with answers and old answers; own.jsonl lacks them"),
        (
            lines(),
            "--method sft --replay-share 0.5",
            "replay_share above 0 needs a task with answers and old answers; own.jsonl lacks them",
        ),
        (lines(), "--method sdft", "own.jsonl has no rule in words"),
        (
            lines(context="rotate"),
            "--method sdft --demonstration examples",
            "demonstration examples needs a task with answers and old answers; own.jsonl lacks them",
        ),
        (lines(split="train"), "", "own.jsonl has 0 problems in split test, but needs at least 2"),
        (lines(split="test"), "", "own.jsonl has 0 problems in split train, but needs at least 1"),
        (
            [*lines(3, split="test"), *lines(4, split="train")[3:]],
            "--method fst",
            "own.jsonl has 0 problems in split validation",
        ),
        (lines(1, split="train"), "--old own.jsonl --task digits", "own.jsonl has 0 problems in split test"),
        ([*lines(), lines()[0]], "", "own.jsonl:7: the same prompt as own.jsonl:1"),
        ([{"prompt": "A"}], "", "own.jsonl:1: has neither answer nor answers"),
        ([], "", "own.jsonl is empty"),
        (lines(), "--task nowhere.jsonl", "task nowhere.jsonl cannot be read"),
        (lines(), "--task mine.py:Words", "mine.py has no object 'Words'"),
        (lines(), "--task mine.py:Problem", "task mine.py:Problem: TypeError"),
        (lines(), "--task mine.py:Score", "task mine.py:Score: TypeError"),
        (lines(), "--task mine.py:Letters --method sft", "method sft shows right answers, but letters has none"),
        (lines(), "--task broken.py:task", "task module broken.py raises ZeroDivisionError at "),
        (lines(), "--old chess", "task 'chess' is unknown"),
    ],
)
def test_mistakes_are_one_line_code_2_and_nothing_is_written(
    held: list[dict[str, Any]], flags: str, says: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(place / "own.jsonl", held)
    (place / "broken.py").write_text("task = 1 / 0\n")
    before = contents(place)
    words = [*shlex.split(QUICK), *shlex.split(flags)]
    code = main(words if "--task" in words else [*words, "--task", "own.jsonl"])
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1
    assert err.startswith("fstsim: error: ")
    assert says in err
    assert contents(place) == before


def test_a_verifier_that_refuses_its_own_answer_is_found(place: Path) -> None:
    class Wrong(Ends):
        def score(self, problem: Problem, completion: str) -> Score:  # noqa: ARG002 -- a protocol
            return Score(0.0, "")

    with pytest.raises(
        InputError, match="ends, problem 'CA': the answer 'C' has reward 0, not 1, as base writes it: 'C'"
    ):
        run_training(TrainConfig(), place / "run", tasks=[Wrong()])
    assert not (place / "run").exists()


def test_answers_of_every_split_of_a_file_are_looked_at(place: Path, make_policy: Callable[..., Policy]) -> None:
    """Not those of the test split alone."""
    policy = make_policy(max_position_embeddings=80)
    policy.model.save_pretrained(place / "model")
    policy.tokenizer.save_pretrained(place / "model")
    held = [*lines(3, split="test"), {"prompt": "A", "answer": "A B C D E F G H", "split": "train"}]
    write(place / "own.jsonl", held)
    with pytest.raises(InputError, match=r"own.jsonl:4: the answer has 9 tokens"):
        run_training(TrainConfig(tasks=("own.jsonl",), model="model"), place / "run")
