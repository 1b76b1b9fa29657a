"""No record and no report says where on a machine something lay."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fstsim.paper import DATA
from fstsim.places import published, short_names


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("/home/ada/out/runs/drift-4/seed-0/model", "runs/drift-4/seed-0/model"),
        ("/runs/old/runs/new/seed-1/model", "runs/new/seed-1/model"),
        ("/home/ada/tasks.jsonl", "tasks.jsonl"),
        ("~/models/own", "own"),
        ("C:\\Users\\ada\\model", "model"),
        ("/home/ada/rules.py:task", "rules.py:task"),
        ("base", "base"),
        ("out/base", "out/base"),
        ("owner/name", "owner/name"),
        ("/", "/"),
        ("", ""),
        ({"model": "/a/b", "tasks": ["/c/d.jsonl", "strings"], "lr": 0.1}, {"model": "b", "tasks": ["d.jsonl", "strings"], "lr": 0.1}),
        (None, None),
    ],
)  # fmt: skip
def test_what_is_published_of_a_path(value: Any, said: Any) -> None:
    assert published(value) == said
    assert published(published(value)) == said


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (["/a/x/seed-0/model", "/a/x/seed-1/model", "base"], ["seed-0/model", "seed-1/model", "base"]),
        (["/a/x/seed-0/model", "/a/y/seed-0/model", "/b/other"], ["x/seed-0/model", "y/seed-0/model", "other"]),
        (["/h/runs/one/model", "/h/runs/two/model"], ["runs/one/model", "runs/two/model"]),
        (["/a/model", "/a/model"], ["model", "model"]),
        (["/a/model", "model"], ["a/model", "model"]),
        ([], []),
    ],
)
def test_models_that_are_measured_together_keep_names_apart(places: list[str], said: list[str]) -> None:
    assert short_names(places) == said


def test_what_is_recorded_names_no_folder_of_a_machine() -> None:
    found = [path for path in DATA.rglob("*.json*") if re.search(r'"/(?:tmp|home|root|Users|work)/', path.read_text())]
    assert found == []
