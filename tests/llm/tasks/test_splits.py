"""Splits: by hash alone where there are enough problems, and never empty where there are few."""

from __future__ import annotations

import pytest

from fstsim.errors import InputError
from fstsim.llm.tasks.splits import LEAST, split_by_hash, split_of
from fstsim.llm.types import SPLITS, Problem


def problems(count: int) -> list[Problem]:
    return [Problem("jsonl", f"question {k}", "") for k in range(count)]


def test_many_problems_are_split_by_their_hashes() -> None:
    every = problems(400)
    found = split_by_hash(every, "all")
    assert {split: found[split] for split in SPLITS} == {s: [p for p in every if split_of(p) == s] for s in SPLITS}
    assert split_by_hash(every[::-1], "all")["test"] == found["test"][::-1], "the order of a file changes no split"


@pytest.mark.parametrize("count", range(LEAST, 40))
def test_no_split_of_few_problems_is_empty_and_all_are_disjoint(count: int) -> None:
    every = problems(count)
    found = split_by_hash(every, "few")
    assert sorted(p.text for split in SPLITS for p in found[split]) == sorted(p.text for p in every)
    assert len(found["train"]) >= 1
    assert len(found["validation"]) >= 1
    assert len(found["test"]) >= 2
    assert all(part == [p for p in every if p in part] for part in found.values()), "in the given order"


def test_too_few() -> None:
    with pytest.raises(InputError, match=r"few.jsonl has 3 problems, too few for three splits: give at least 4"):
        split_by_hash(problems(3), "few.jsonl")
