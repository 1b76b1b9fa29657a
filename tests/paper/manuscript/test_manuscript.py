"""The manuscript: no number in it is typed, every number comes from a record, and the PDF is whole."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import statistics
import sys
from collections import Counter
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from scipy.stats import t as student

from fstsim import InputError
from fstsim.paper.experiments import asymptotes
from fstsim.paper.manuscript import __main__ as command
from fstsim.paper.manuscript import build as manuscript
from fstsim.paper.manuscript.maths import typst_maths, typst_parts
from fstsim.paper.manuscript.numbers import all_numbers
from fstsim.paper.manuscript.prose import prose, readable
from fstsim.paper.manuscript.tables import experiment_cells
from fstsim.paper.records.verdict_summary import pretrained_folders
from fstsim.records import plain, read_json, read_rows
from fstsim.theory import ALL_STATEMENTS, check_statement

pytest.importorskip("typst")
pypdf = pytest.importorskip("pypdf")

ROOT = Path(__file__).parents[3]
DATA = ROOT / "paper" / "data"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in sorted(manuscript.SOURCES.glob("*.typ"))}
TEXTS = {name: text for name, text in SOURCES.items() if name != "template.typ"}

# What may hold digits: comments, names of records, layout, and formulas that are more than a number.
_LAYOUT = re.compile(r"width: \d+%|counter\(heading\)\.update\(0\)|\.len\(\) (>|==) 0|v\(0\.5em\)")
_NAMES = re.compile(r'#?\b(n|see|refer|statement|recorded|measured|simulated)\("[^"]*"')
_FORMULA = re.compile(r"(?<!\\)\$([^$]*)\$")


def _is_a_formula(body: str) -> bool:
    """Whether digits in ``body`` are part of an equation: it has a letter, no decimals, no integer above 16, and no right side that is only a number but 0 or 1."""
    numbers = re.findall(r"\d+(?:\.\d+)?", body)
    return (
        re.search(r"[A-Za-z]", body) is not None
        and all("." not in x and int(x) <= 16 for x in numbers)
        and re.search(r"(=|approx|tilde)\s*([2-9]|\d\d+)\s*$", body) is None
    )


def typed_numbers(text: str) -> list[str]:
    """Lines of a Typst text with a numeral that a person typed: what is left when layout, names and formulas are taken away."""
    text = re.sub(r"(?m)(?<!:)//.*$", "", text)
    text = _FORMULA.sub(lambda m: "" if _is_a_formula(m[1]) else m[0], text)
    text = _LAYOUT.sub("", _NAMES.sub("", text))
    return [line.strip() for line in text.splitlines() if re.search(r"\d", line)]


@pytest.mark.parametrize("name", TEXTS)
def test_no_number_is_typed(name: str) -> None:
    assert typed_numbers(TEXTS[name]) == []


def test_the_template_holds_lengths_and_places_only() -> None:
    text = re.sub(r"(?m)^//.*$|\"https?:[^\"]*\"", "", SOURCES["template.typ"])
    text = re.sub(r"\d+(\.\d+)?(pt|em|cm|fr|%)", "", text)
    text = re.sub(r"luma\([^)]*\)|rgb\([^)]*\)|\.at\(\d\)|numbering: \"[1.]+\"|level: \d|colspan: \d", "", text)
    text = re.sub(r"[xyk] (==|>|in) \(?[\d, ]+\)?|\(0,\)|place \+ 1|indent: 0|paper: \"a4\"", "", text)
    assert [line for line in text.splitlines() if re.search(r"\d", line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "RL needs 1470 samples.",
        "a factor of 2.97",
        "the loss is $0.35$",
        "in $129$ statements",
        "with $N = 48$",
        "beta ends at $beta = 0.4$",
        "at 95 % level",
        '#n("checks.instances") and 3 seeds',
    ],
)
def test_a_typed_number_is_found(line: str) -> None:
    assert typed_numbers(line) != []


@pytest.mark.parametrize(
    "line", ['#n("speed/strings:rotate/RL")', "// 12 of 14", "$e^(-delta^2\\/8)$", '#see("adam-clock")']
)
def test_names_and_equations_may_hold_digits(line: str) -> None:
    assert typed_numbers(line) == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded runs. Statements newer than the record are checked here on a few instances: the record's age is not what is tested."""
    place = tmp_path_factory.mktemp("data")
    record = read_json(DATA / "checks.json")
    known = {check["slug"] for check in record["checks"]}
    for s in ALL_STATEMENTS:
        if s.slug not in known:
            record["checks"].append(plain(check_statement(s, 5, 0).to_dict()))
    (place / "checks.json").write_text(json.dumps(record))
    for name in ("experiments", "validation", *(folder.name for folder in pretrained_folders())):
        (place / name).symlink_to(DATA / name)
    return place


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that Typst reads, with an empty frame for each figure."""
    place = tmp_path_factory.mktemp("manuscript")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asymptotes, "_RESAMPLES", 2)  # bootstrap intervals are not what is tested
        manuscript.write_records(place, data)
    (place / "figures").mkdir()
    for name in (*manuscript.simulated(), *manuscript.measured()):
        for extension in ("pdf", "png"):
            matplotlib.figure.Figure(figsize=(6.0, 2.0)).savefig(place / "figures" / f"{name}.{extension}")
    return place


@pytest.fixture(scope="module")
def pdf(folder: Path) -> bytes:
    return manuscript.compile_pdf(folder)


@pytest.fixture(scope="module")
def pages(pdf: bytes, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("pdf") / "fstsim.pdf"
    path.write_bytes(pdf)
    return [re.sub(r"\s+", " ", page.extract_text()) for page in pypdf.PdfReader(path).pages]


def test_every_number_used_is_recorded_and_names_its_record(folder: Path) -> None:
    numbers = read_json(folder / "numbers.json")
    used = {key for text in TEXTS.values() for key in re.findall(r'\bn\("([^"]*)"\)', text)}
    assert len(used) > 50
    assert used <= numbers.keys()
    for key in used:
        text, source = numbers[key]["text"], numbers[key]["source"].split(" ")[0]
        assert text not in ("", "nan", "None")
        if "/" in source:
            assert (ROOT / source).exists(), key
        else:
            module, _, name = source.rpartition(".")
            assert hasattr(importlib.import_module(module), name), key


def test_counts_are_those_of_the_records(folder: Path, data: Path) -> None:
    numbers = {key: entry["text"] for key, entry in read_json(folder / "numbers.json").items()}
    checks = json.loads((data / "checks.json").read_text())["checks"]
    assert numbers["statements.count"] == str(len(ALL_STATEMENTS))
    assert numbers["checks.instances"] == f"{sum(c['examples'] for c in checks if c['kind'] != 'approximation'):,}"
    assert sum(int(numbers[f"statements.{k}"]) for k in ("proved", "asymptotic", "numeric")) == len(ALL_STATEMENTS)
    verdicts = Counter(row["verdict"] for row in json.loads((DATA / "validation" / "validation.json").read_text()))
    for verdict in ("confirmed", "falsified", "undecided"):
        assert numbers[f"verdicts.{verdict}"] == str(verdicts[verdict])
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(ROOT / "llm" / "base" / "model.safetensors", "np") as model:
        weights = sum(int(np.prod(model.get_slice(name).get_shape())) for name in model.offset_keys())
    assert numbers["base.parameters"] == f"{weights:,}"


def _by_hand(values: list[float]) -> str:
    """Mean and Student half-width over seeds, by the textbook."""
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.3g} ± {half:.2g}"


def test_measured_numbers_are_recomputed_from_the_rows(folder: Path) -> None:
    numbers = read_json(folder / "numbers.json")
    runs = DATA / "experiments" / "runs"
    reach, ends = [], []
    for seed in sorted((runs / "strings-easy-rl").glob("seed-*")):
        rows = [row for row in read_rows(seed / "metrics.jsonl") if row.get("reward") is not None]
        level = 0.95 * max(row["reward"] for row in rows)
        after = next(k for k, row in enumerate(rows) if row["reward"] >= level)
        a, b = rows[after - 1], rows[after]
        share = (level - a["reward"]) / (b["reward"] - a["reward"])
        reach.append(a["samples"] + share * (b["samples"] - a["samples"]))
        ends.append(rows[-1]["kl_to_base"])
    assert numbers["speed/strings:rotate/RL"]["text"] == readable(_by_hand(reach))
    assert numbers["kl/strings:rotate/RL end"]["text"] == readable(_by_hand(ends))
    cells = [
        json.loads(p.read_text())["trained_evolved"] for p in runs.glob("star_graph-hard-fst/seed-*/decomposition.json")
    ]
    assert numbers["cells/star_graph:forward/both"]["text"] == readable(_by_hand(cells))


@pytest.mark.parametrize(
    ("latex", "typst"),
    [
        (r"\tfrac12 x^2", "inline(frac(1, 2)) x^(2)"),
        (r"\frac{a_{k+1}}b", "frac(a_(k + 1), b)"),
        (r"\sqrt3\,D", "sqrt(3) thin D"),
        (r"e^{-a^2/2d^2}", r"e^(- a^(2) \/ 2 d^(2))"),
        (r"0.8955\,x", "0.8955 thin x"),
        (r"(\sigma'_{\min})^2", r"\( σ'_(min) \)^(2)"),
        (r"|e|^2", 'class("opening", |) e class("closing", |)^(2)'),
        (r"\Big|\int_a^s\xi\Big|", "lr(| ∫_(a)^(s) ξ |)"),
        (r"\mathbb E\Big[x\Big|s\Big]", r"bb(E) lr(\[ x mid(|) s \])"),
        (r"\mathrm{KL}(p\Vert q)", r'"KL"\( p class("normal", ‖) q \)'),
        (r"T_{RL}", 'T_("RL")'),
        (r"\lambda_{\rm eff}", 'λ_("eff")'),
    ],
)
def test_latex_to_typst(latex: str, typst: str) -> None:
    assert typst_maths(latex) == typst


def test_a_formula_is_cut_where_a_line_may_end() -> None:
    assert typst_parts(r"a=b,\qquad c=d\quadx=\frac{1\quad2}3") == [r"a = b \,", "c = d", "x = frac(1 quad 2, 3)"]


@pytest.mark.parametrize(
    "latex", [r"\foo x", r"\frac{a}", "a_{b", "a}", r"\Big(a", r"\begin{cases}", "a & b", "ä", r"\mathrm{$a$}"]
)
def test_what_is_not_understood_stops_the_build(latex: str) -> None:
    with pytest.raises(InputError, match="LaTeX that the manuscript understands"):
        typst_maths(latex)


@pytest.mark.parametrize("statement", ALL_STATEMENTS, ids=lambda s: s.slug)
def test_formulas_of_all_statements_are_translated(statement: object) -> None:
    parts = typst_parts(statement.latex)  # type: ignore[attr-defined]
    assert parts
    assert not any(re.search(r"\\[A-Za-z]", part) for part in parts)


def test_numbers_and_prose_for_print() -> None:
    assert readable("1.96e+04 ± 1.7e+04") == "19,600 ± 17,000"
    assert readable("1e-16 ± 3.2e-16") == "10⁻¹⁶ ± 3.2 × 10⁻¹⁶"
    assert readable("3.57 ± 0.0008 [-2, 5.03e+06]") == "3.57 ± 0.0008 [−2, 5,030,000]"
    assert readable("2026-11-22") == "2026-11-22"
    assert readable("-") == "–"
    assert prose("beta_0 -> 0, t^(-1/2)") == [
        ("maths", "β_(0)"), ("text", " → 0, t"), ("super", "−1/2"),
    ]  # fmt: skip
    assert prose("leave-one-out, s_alpha <= m_old") == [
        ("text", "leave-one-out, "), ("maths", "s_(α)"), ("text", " ≤ "), ("maths", 'm_("old")'),
    ]  # fmt: skip


def test_the_pdf_is_whole(pages: list[str], pdf: bytes, folder: Path) -> None:
    text = " ".join(pages)
    assert 12 <= len(pages) <= 36
    assert pdf == manuscript.compile_pdf(folder)  # the same records, the same bytes
    assert "??" not in text
    for section in (
        "Abstract",
        "Introduction",
        "Predictions and verdicts",
        "Limitations",
        "Reproducibility",
        "References",
    ):
        assert section in text
    for row in read_json(folder / "numbers.json").values():
        assert row["text"] is not None
    for count in ("confirmed", "falsified", "undecided"):
        number = read_json(folder / "numbers.json")[f"verdicts.{count}"]["text"]
        assert re.search(rf"{number} are {count}", text)


def test_the_pdf_shows_every_verdict_and_every_statement(pages: list[str], folder: Path) -> None:
    tight = re.sub(r"[\s\u00ad-]", "", " ".join(pages))  # words are broken at line ends
    for row in read_json(folder / "verdicts.json"):
        cells = row["predicted"] + row["measured"] + row["seeds"] + row["verdict"]
        assert re.sub(r"[\s-]", "", cells) in tight
    for s in ALL_STATEMENTS:
        assert s.slug.replace("-", "") in tight


def test_references_are_cited_and_cited_ones_exist() -> None:
    listed = re.findall(
        r'^(\S+):\n  title: .+\n  arxiv: "\d{4}\.\d{4,5}"$',
        (manuscript.SOURCES / "references.yml").read_text(),
        re.MULTILINE,
    )
    cited = {key for text in TEXTS.values() for key in re.findall(r'#refer\("([^"]+)"\)', text)}
    assert set(listed) == cited
    assert len(listed) == len(set(listed))


def test_every_figure_of_the_text_is_made() -> None:
    shown = {name for text in TEXTS.values() for name in re.findall(r'#(?:simulated|measured)\("([^"]+)"', text)}
    assert shown == {*manuscript.simulated(), *manuscript.measured()}


def test_the_readme_maps_every_figure() -> None:
    readme = (ROOT / "paper" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| \d+ `([^`]+)` \| `([^`]+)` \|", readme)
    assert [name for name, _ in rows] == [*manuscript.simulated(), *manuscript.measured()]
    assert all((ROOT / "paper" / script).exists() for _, script in rows)


@pytest.mark.parametrize(
    "broken", ['#n("no.such.number")', '#see("no-such-statement")', '#refer("nobody")', "@fig-missing"]
)
def test_a_missing_record_stops_the_build(broken: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    main = copy / "closing.typ"
    main.write_text(main.read_text() + f"\n{broken}\n")
    with pytest.raises(InputError, match="Typst does not accept the manuscript"):
        manuscript.compile_pdf(copy)


def test_without_typst(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(InputError, match=r"pip install 'fstsim\[paper\]'"):
        manuscript.compile_pdf(tmp_path)


def test_missing_records_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["manuscript", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "none"), "--jobs", "1"]
    )
    assert command.main() == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out" / "fstsim.pdf").exists()


def test_an_experiment_without_runs_is_named(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "checks.json", tmp_path)
    (tmp_path / "experiments" / "runs").mkdir(parents=True)
    with pytest.raises(InputError, match="no runs for the table of speed"):
        all_numbers(tmp_path, experiment_cells(tmp_path))


@pytest.mark.slow
def test_the_command_makes_the_manuscript(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["manuscript", "--out", str(tmp_path), "--data", str(data)])
    assert command.main() == 0
    assert "fstsim.pdf" in capsys.readouterr().out
    assert len(pypdf.PdfReader(tmp_path / "fstsim.pdf").pages) <= 30
    assert read_json(tmp_path / "numbers.json")["verdicts.count"]["source"] == "paper/data/validation/validation.json"
