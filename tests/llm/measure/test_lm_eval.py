"""Two outputs of lm-eval: pairs by document, flips by hand, and one line for what is no output of lm-eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.llm.measure.lm_eval import compare_lm_eval, read_samples, sample_files

Rows = list[dict[str, Any]]


def write(folder: Path, task: str, rows: Rows, date: str = "2026-11-26T10-00-00.123456") -> Path:
    path = folder / "owner__model" / f"samples_{task}_{date}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def samples(values: list[float], first: int = 0, **more: Any) -> Rows:
    """Lines as lm-eval writes them (what is not read is left out)."""
    return [
        {
            "doc_id": first + k,
            "doc": {"question": f"q{k}\u2028"},
            "target": "x",
            "filter": "none",
            "metrics": ["acc", "bits"],
            "doc_hash": f"hash{k}",
            "prompt_hash": f"prompt{k}",
            "acc": value,
            "bits": 0.5 * value + 1.0,
            **more,
        }
        for k, value in enumerate(values)
    ]


def test_flips_are_paired_by_document(tmp_path: Path) -> None:
    """Whatever the order of lines and the numbering of documents."""
    before, after = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    write(tmp_path / "base", "arc_easy", samples(before))
    write(tmp_path / "end", "arc_easy", samples(after, first=100)[::-1])
    compared = compare_lm_eval(str(tmp_path / "base"), str(tmp_path / "end"))
    acc, bits = compared["rows"]
    assert (acc["task"], acc["filter"], acc["metric"], acc["documents"], acc["unpaired"]) == (
        *("arc_easy", "none", "acc"),
        *(7, 0),
    )
    assert (acc["lost"], acc["gained"]) == (4, 1)
    assert acc["flip_p"] == pytest.approx(2 * (1 + 5) / 2**5)
    assert (acc["base"], acc["now"]) == (pytest.approx(5 / 7), pytest.approx(2 / 7))
    assert acc["change"] == pytest.approx(-3 / 7)
    assert (bits["change"], "lost" in bits) == (pytest.approx(-1.5 / 7), False)


def test_equal_documents_filters_and_other_prompts(tmp_path: Path) -> None:
    same = [{**row, "doc_hash": "twice"} for row in samples([1.0, 0.0])]
    strict = [{**row, "filter": "strict-match"} for row in samples([0.0, 0.0])]
    write(tmp_path / "a", "gsm8k", [*same, *strict, *samples([1.0], first=9, doc_hash="only here")])
    write(tmp_path / "b", "gsm8k", [{**row, "prompt_hash": "another"} for row in [*same, *strict]])
    rows = compare_lm_eval(str(tmp_path / "a"), str(tmp_path / "b"))["rows"]
    none, strictly = (
        next(r for r in rows if r["filter"] == f and r["metric"] == "acc") for f in ("none", "strict-match")
    )
    assert (none["documents"], none["unpaired"], none["lost"], none["gained"]) == (2, 1, 0, 0)
    assert (none["other_prompts"], strictly["documents"]) == (2, 2)


def test_the_last_date_and_shared_tasks_count(tmp_path: Path) -> None:
    write(tmp_path / "a", "arc", samples([0.0, 0.0]), "2026-11-25T10-00-00.1")
    last = write(tmp_path / "a", "arc", samples([1.0, 1.0]))
    write(tmp_path / "a", "other_task", samples([1.0, 1.0]))
    write(tmp_path / "b", "arc", samples([1.0, 0.0]))
    assert sample_files(tmp_path / "a")["arc"] == last
    compared = compare_lm_eval(str(tmp_path / "a"), str(tmp_path / "b"))
    assert compared["rows"][0]["lost"] == 1
    assert compared["tasks_of_one_only"] == ["other_task"]


def test_older_samples_without_hashes_and_lists(tmp_path: Path) -> None:
    keys = ("doc_hash", "prompt_hash", "metrics", "filter")
    old = [{k: v for k, v in row.items() if k not in keys} for row in samples([1.0, 0.0])]
    path = write(tmp_path / "a", "arc", old)
    assert list(read_samples(path)) == ["none"]
    assert [row["metric"] for row in compare_lm_eval(str(tmp_path / "a"), str(tmp_path / "a"))["rows"]] == [
        "acc",
        "bits",
    ]


MISTAKES = {
    "": "is empty",
    "{": r":1: not JSON",
    "[1]": r":1: not a sample of lm-eval: doc_id is missing",
    '{"doc_id": "1"}': r"doc_id is missing",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_said_in_one_line(text: str, tmp_path: Path) -> None:
    write(tmp_path / "a", "arc", samples([1.0, 0.0]))
    write(tmp_path / "b", "arc", []).write_text(text)
    with pytest.raises(InputError, match=MISTAKES[text]):
        compare_lm_eval(str(tmp_path / "a"), str(tmp_path / "b"))


def test_folders_without_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        sample_files(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no samples_TASK_DATE"):
        sample_files(tmp_path)
    write(tmp_path / "a", "arc", samples([1.0]))
    write(tmp_path / "b", "boolq", samples([1.0]))
    with pytest.raises(InputError, match="no document of a task in common"):
        compare_lm_eval(str(tmp_path / "a"), str(tmp_path / "b"))
