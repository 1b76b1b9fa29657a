"""The command line from end to end, in this process and with small numbers."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import fstsim.front.simulate
import fstsim.paper.figures.catalogue
import fstsim.theory.statements
from fstsim import Trajectory, __version__
from fstsim.__main__ import COMMANDS, main
from fstsim.records import read_json, read_rows
from fstsim.theory import Statement, find_statements
from fstsim.trajectory import COLUMNS

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_fits(text: str, lines: int = 40) -> None:
    """``text`` fits on a screen of 100 columns."""
    assert 0 < text.count("\n") <= lines
    assert max(map(len, text.splitlines())) <= 100


def wrong(statement: Statement) -> Statement:
    """``statement`` with an upper bound that is too low by half."""

    def bound(**instances: Any) -> Any:
        lower, upper = statement.bound(**instances)
        return lower, None if upper is None else 0.5 * upper

    return dataclasses.replace(statement, bound=bound)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fstsim {__version__}\n"


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ([], COMMANDS),
        (["reproduce"], ["--out", "--examples", "--seed"]),
        (["figures"], ["NAME", "--out"]),
        (["check"], ["--examples", "--statement SLUG", "--json", "--seed"]),
        (["simulate"], ["--out", "--objective", "--geometry", "--replicates", "Mahalanobis distance"]),
    ],
)
def test_help(command: list[str], flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    said = capsys.readouterr()
    assert all(flag in said.out for flag in flags)
    assert said.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_holds_without_a_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And not that it is None, nothing, or two things."""
    assert main([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: None)" not in said
    assert "(default: )" not in said
    assert not re.search(r"\(default: [^()]*\) \(default:", said)


def test_check_json_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--statement", "misassignment", "--examples", "50", "--seed", "3", "--json"]) == 0
    (check,) = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (check["slug"], check["status"], check["examples"], check["violations"]) == ("misassignment", "T", 50, 0)
    low, median, high = check["upper"]
    assert 1.0 - 1e-10 <= low <= median <= high  # the tolerance of the statement


def test_check_prints_one_row_for_every_statement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--examples", "1"]) == 0
    out = capsys.readouterr().out
    assert_fits(out, lines=len(fstsim.theory.ALL_STATEMENTS) + 5)
    rows = [line.split()[0] for line in out.splitlines()[2:]]
    assert rows[: len(fstsim.theory.ALL_STATEMENTS)] == [statement.slug for statement in fstsim.theory.ALL_STATEMENTS]
    assert "0 violations" in out


def test_the_same_seed_gives_the_same_check(capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for seed in ("1", "1", "2"):
        main(["check", "--statement", "old-mean-force", "--examples", "20", "--json", "--seed", seed])
        (check,) = json.loads(capsys.readouterr().out)
        answers.append((check["upper"], check["worst"]))
    assert answers[0] == answers[1] != answers[2]


def test_a_violation_is_shown_and_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (statement,) = find_statements("misassignment")
    monkeypatch.setattr(fstsim.theory.statements, "ALL_STATEMENTS", (wrong(statement),))
    assert main(["check", "--examples", "50"]) == 1
    out = capsys.readouterr().out
    assert "50 violations" in out
    instance = next(line for line in out.splitlines() if line.startswith("violated: misassignment at "))
    assert all(f"{name} = " in instance for name in statement.sample(np.random.default_rng(0), 1))


@pytest.mark.parametrize(
    "flags",
    [
        ["--replicates", "3", "--steps", "20"],
        ["--optimizer", "flow", "--growth", "1.3", "--steps", "20"],
        ["--optimizer", "descent", "--train", "weight", "--steps", "20"],
        ["--objective", "reverse", "--beta0", "0.1", "--new-error", "1", "--dimension", "2", "--steps", "20"],
    ],
)
def test_simulate_end_to_end(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "run"
    assert main(["simulate", *flags, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert_fits(said)
    assert all(f"\n{name} " in said for name in COLUMNS)
    assert {path.name for path in out.iterdir()} == {
        "checkpoint.npz", "config.json", "environment.json", "metrics.jsonl", "picture.png",
    }  # fmt: skip
    assert (out / "picture.png").read_bytes().startswith(PNG)
    trajectory, rows = Trajectory.load(out / "checkpoint.npz"), read_rows(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(21))
    replicated = "--replicates" in flags
    names = {*COLUMNS, *(f"{name}_se" for name in COLUMNS[3:])} if replicated else {*COLUMNS}
    for name, values in trajectory.columns().items():
        mean = values.mean(axis=1) if values.ndim > 1 else values
        np.testing.assert_allclose([row[name] for row in rows], mean, rtol=1e-12, atol=1e-15)
        assert {*rows[-1]} == names
    if replicated:
        expected = trajectory.old_mass[-1].std(ddof=1) / np.sqrt(3.0)
        assert rows[-1]["old_mass_se"] == pytest.approx(expected, rel=1e-12)
    assert {"versions", "seed", "commit", "device"} <= read_json(out / "environment.json").keys()


def test_simulate_that_diverges_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--optimizer", "descent", "--lr", "30"]) == 1
    said = capsys.readouterr()
    assert "diverged" in said.out
    assert said.err.splitlines()[-1] == "fstsim: error: a learner left the domain of the simulator: lower --lr"


def test_figures_draws_what_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", "misassignment-bounds", "--out", "drawn"]) == 0
    names = {"misassignment-bounds.png", "misassignment-bounds.pdf"}
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == names
    out = capsys.readouterr().out
    assert_fits(out)
    assert all(name in out for name in names)


def test_sweep_and_explore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--separation", "2", "4", "--beta0", "0.2", "0.5", "0.7", "--seeds", "9", "--batch", "4", "--steps", "3"]
    assert main(["sweep", *grid, "--backend", "sequential", "--out", "grid"]) == 0
    out = capsys.readouterr().out
    assert_fits(out)
    assert "54 trajectories, 0 diverged" in out
    assert len(read_rows(tmp_path / "grid" / "table.jsonl")) == 54
    assert (tmp_path / "grid" / "picture.png").read_bytes().startswith(PNG)
    assert main(["explore", "--out", "deep/page.html"]) == 0
    assert "<html" in (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("violated", [False, True])
def test_reproduce(violated: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    statements = (*find_statements("misassignment"), *find_statements("logistic-normal"))
    figures = {"misassignment-bounds": fstsim.paper.figures.catalogue.FIGURES["misassignment-bounds"]}
    monkeypatch.setattr(
        fstsim.theory.statements, "ALL_STATEMENTS", tuple(map(wrong, statements)) if violated else statements
    )
    monkeypatch.setattr(fstsim.paper.figures.catalogue, "FIGURES", figures)
    with joblib.parallel_config(backend="threading"):  # where the statements replaced above are seen
        assert main(["reproduce", "--out", "all", "--examples", "20", "--skip-models"]) == int(violated)
    out = Path("all")
    assert {path.name for path in out.iterdir()} == {"report.html", "checks.json", "environment.json", "figures"}
    checks = read_json(out / "checks.json")
    assert [check["slug"] for check in checks] == [statement.slug for statement in statements]
    assert all((check["violations"] > 0) == violated for check in checks)
    assert "misassignment" in (out / "report.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert_fits(said)
    assert str(out / "report.html") in said


@pytest.mark.parametrize(
    ("command", "says"), [("simulate", "continue with: fstsim simulate --out 'my run'"), ("check", "start again with")]
)
def test_ctrl_c_is_one_line(
    command: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fstsim.front.simulate, "run_simulation", interrupted)
    monkeypatch.setattr(fstsim.theory, "check_statement", interrupted)
    assert main([command, "--out", "my run"] if command == "simulate" else [command]) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert says in last


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m fstsim check --statement misassignment --examples 5 | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
