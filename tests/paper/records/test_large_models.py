"""The page about large models shows what was recorded."""

from __future__ import annotations

from pathlib import Path

from fstsim.paper import DATA
from fstsim.paper.records.large_models import with_table
from fstsim.records import read_json

PAGE = Path(__file__).resolve().parents[3] / "paper/docs/large-models.md"


def test_the_page_is_what_the_record_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    records = (read_json(DATA / "benchmarks" / f"{name}.json") for name in ("large-models", "pretrained-step"))
    assert with_table(text, *records) == text
