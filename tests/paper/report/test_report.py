"""report.html is one file: nothing is loaded from elsewhere, and nothing in it can break out of the text."""

from __future__ import annotations

import base64
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
from rich.table import Table

from fstsim import InputError
from fstsim.number_text import html_number
from fstsim.paper.figures.figure import Figure
from fstsim.paper.report.models import model_section, verdict_rows
from fstsim.paper.report.page import table_of
from fstsim.paper.report.report import write_report
from fstsim.paper.report.runs import runs_section, sources
from fstsim.records import environment, write_json
from fstsim.theory import ALL_STATEMENTS, check_statement

HOSTILE = "<script>alert('1')</script> & \"quoted\" δ < 3"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def unused() -> matplotlib.figure.Figure:
    raise AssertionError("the report reads the PNG, it draws nothing")


def check(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "slug": "a-statement",
        "title": "A title",
        "status": "T",
        "kind": "bound",
        "examples": 100000,
        "skipped": 0,
        "violations": 0,
        "seconds": 1.5,
        "upper": (1.0, 1.25, 251000.0),
        "lower": None,
        "worst": {"delta": 1.5},
    }
    return row | changes


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    drawing = matplotlib.figure.Figure(figsize=(2.0, 1.0))
    for name in ("one", "two"):
        drawing.savefig(tmp_path / "figures" / f"{name}.png", dpi=50)
    return tmp_path


FIGURES = [
    Figure("one", "First", HOSTILE, ("a-statement",), unused),
    Figure("two", HOSTILE, "Second caption.", ("a-statement", "another"), unused),
]


def report(out: Path, checks: list[dict[str, Any]]) -> str:
    path = write_report(out, FIGURES, checks, environment(seed=7) | {"note": HOSTILE})
    assert path == out / "report.html"
    return path.read_text(encoding="utf-8")


def test_self_contained_and_escaped(out: Path) -> None:
    html = report(out, [check(), check(title=HOSTILE, worst={HOSTILE: 1}, violations=1)])
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "<script" not in html
    assert page.text.count(HOSTILE) >= 4  # caption, title, statement, environment: all as text


def test_it_links_to_the_documentation_where_that_is_built(out: Path) -> None:
    assert "Documentation: make docs" in Page(report(out, [check()])).text
    (out / "docs").mkdir()
    (out / "docs" / "index.html").write_text("<title>docs</title>")
    links = [attributes["href"] for tag, attributes in Page(report(out, [check()])).tags if tag == "a"]
    assert "docs/index.html" in links


def test_every_figure_is_embedded_and_described(out: Path) -> None:
    html = report(out, [check()])
    page = Page(html)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(FIGURES)
    for figure, image in zip(FIGURES, images, strict=True):
        png = (out / "figures" / f"{figure.name}.png").read_bytes()
        assert image["src"] == "data:image/png;base64," + base64.b64encode(png).decode()
        assert (image["width"], image["height"]) == ("100", "50")
        assert image["alt"]
        assert f"fstsim figures {figure.name}" in page.text
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == {f"#{i}" for i in ids}
    assert any(attributes.get("name") == "viewport" for _, attributes in page.tags)


def test_the_table_reads_as_words_and_shows_violations(out: Path) -> None:
    rows = [
        check(),
        check(slug="bad", violations=3, worst={"delta": 0.125}),
        check(slug="law", status="A", kind="approximation", upper=(0.9, 1.0, 1.1)),
        check(slug="seen", status="N", skipped=12, upper=None, lower=(1.0, math.inf, math.nan)),
    ]
    html = report(out, rows)
    page = Page(html)
    for words in ("proved", "asymptotic", "numeric only", "12 skipped", "100,000", "1 · 1.25 · 2.51×10", "1 · ∞ · –"):
        assert words in page.text
    bad = [attributes for tag, attributes in page.tags if tag == "tr" and attributes.get("class") == "bad"]
    assert len(bad) == 1
    assert 'worst instance: {"delta": 0.125}' in page.text
    assert page.text.count("worst instance") == 1


def test_real_checks_fit(out: Path) -> None:
    results = [check_statement(s, 20).to_dict() for s in ALL_STATEMENTS if s.slug in {"misassignment", "weight-noise"}]
    page = Page(report(out, results))
    assert all(result["title"] in page.text for result in results)
    assert "python" in page.text


def test_a_missing_figure_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no figure at .*one\.png.*fstsim figures one"):
        write_report(tmp_path, FIGURES, [check()], {})
    assert not (tmp_path / "report.html").exists()


# --- language models -----------------------------------------------------------------------------------------------------


def judged(**changes: Any) -> dict[str, Any]:
    row = {
        "name": "replay-0.1",
        "statement": "replay-forward",
        "quantity": "old mass",
        "value": 0.1,
        "low": 0.06,
        "high": 0.14,
    }
    row |= {
        "measured": 0.11,
        "measured_low": 0.1,
        "measured_high": 0.12,
        "seeds": 3,
        "verdict": "confirmed",
        "calibration": "",
    }
    return row | changes


def test_verdicts_read_as_words_and_missing_numbers_as_dashes() -> None:
    missing = {"value": None, "low": None, "high": None, "measured": None, "measured_low": None, "measured_high": None}
    rows = [
        judged(),
        judged(verdict="falsified", calibration=HOSTILE),
        judged(verdict="undecided", quantity=HOSTILE, seeds=HOSTILE, **missing),
    ]
    page = Page(verdict_rows(rows))
    for words in (
        "0.1 [0.06, 0.14]",
        "✓ confirmed",
        "✗ falsified",
        "? undecided",
        f"one number from the runs: {HOSTILE}",
        "– –",
    ):
        assert words in page.text
    assert [a.get("class") for tag, a in page.tags if tag == "tr"].count("bad") == 1
    assert not [tag for tag, _ in page.tags if tag == "script"]
    labels = [a["data-label"] for tag, a in page.tags if tag == "td"]
    assert labels == ["predicted", "measured, 95 %", "seeds", "verdict"] * 3  # what a row says as a card on a phone


def test_terminal_tables_become_html() -> None:
    drawn = Table(title="a < b", caption="after")
    for column in ("task", "RL"):
        drawn.add_column(column)
    assert table_of(drawn) == ""  # no rows: nothing to show
    drawn.add_row("x & y", "0.1 ± 0.2")
    page = Page(table_of(drawn))
    for words in ("a < b", "x & y", "0.1 ± 0.2", "after"):
        assert words in page.text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-2.0, "−2"), (1234.5, "1,234"), (3e-7, "3.00×10<sup>−7</sup>"), (None, "–"), (math.inf, "∞")],
)
def test_numbers_are_for_people(value: float | None, text: str) -> None:
    assert html_number(value) == text


def make_run(folder: Path, seeds: int = 2) -> None:
    for seed in range(seeds):
        place = folder / "runs" / "replay-0.1" / f"seed-{seed}"
        write_json(
            place / "config.json", {"method": "sft", "tasks": [HOSTILE], "steps": 7, "seed": seed, "model": "base"}
        )
        write_json(
            place / "environment.json",
            {"commit": "0123456789abcdef+dirty", "device": "cuda", "versions": {"torch": "2"}},
        )
        write_json(place / "summary.json", {"seconds": 2.5, "prompts": [""]})


def test_recorded_and_fresh_runs_are_listed_once_with_their_configurations(tmp_path: Path) -> None:
    recorded, fresh = tmp_path / "data", tmp_path / "out"
    assert sources(fresh / "experiments", fresh / "validation", recorded) == []
    make_run(recorded / "validation")
    make_run(fresh / "validation", seeds=1)
    found = sources(fresh / "experiments", fresh / "validation", recorded)
    assert [source.title for source in found] == ["Recorded runs", "Runs made with this report"]
    assert len(sources(recorded / "experiments", recorded / "validation", recorded)) == 1
    page = Page(runs_section(found))
    assert [tag for tag, _ in page.tags].count("details") == 2
    assert page.text.count("0123456789ab+dirty") == 2  # an environment is named once a source
    for words in ("Seeds 0, 1; environment 1; 5 s", "device cuda", "torch 2", '"steps": 7', HOSTILE):
        assert words in page.text
    assert "<script>" not in runs_section(found)


def test_validations_of_other_models_beside_the_first_are_shown_with_it(tmp_path: Path) -> None:
    """As `fstsim reproduce` leaves them: validation/ and validation-smollm2/; one without verdicts is not there yet."""
    make_run(tmp_path / "validation")
    for name in ("smollm2", "unjudged"):
        make_run(tmp_path / f"validation-{name}", seeds=1)
    about = {"model": "smollm2", "scale": "smoke", "adapter": "lora:r=8<script>", "predictions": []}
    write_json(tmp_path / "validation-smollm2" / "predictions.json", about)
    row = {"name": "a", "quantity": HOSTILE, "statement": "replay-forward", "value": 1.0, "low": 0.5, "high": 1.5}
    row |= {"measured": 1.0, "measured_low": 0.9, "measured_high": 1.1, "seeds": 3, "verdict": "confirmed"}
    write_json(tmp_path / "validation-smollm2" / "validation.json", [row])
    (source,) = sources(tmp_path / "experiments", tmp_path / "validation", tmp_path / "none")
    assert [path.name for path in source.folders] == ["validation", "validation-smollm2"]
    html = model_section(tmp_path / "experiments", tmp_path / "validation", tmp_path / "none")
    page = Page(html)
    assert "Runs made with this report (preset smoke, model smollm2, adapter lora:r=8<script>)" in page.text
    assert HOSTILE in page.text
    assert "<script>" not in html
