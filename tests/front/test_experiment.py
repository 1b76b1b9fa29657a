"""`fstsim experiment` from end to end in this process: the real runs, two steps long, and tables of records with known numbers."""

from __future__ import annotations

import functools
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table
from scipy.stats import t as student

import fstsim.llm.runs.run as train_run
from fstsim.__main__ import main
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.experiments import CONTINUAL, CORE, EXPERIMENTS, REUSE, ZERO, calibrate, plan
from fstsim.llm.experiments import run as lab
from fstsim.llm.experiments.calibrate import best_settings
from fstsim.llm.experiments.continual import SEQUENCE
from fstsim.llm.experiments.plan import EASY, LEARNING_RATES, TASKS, Planned, Size
from fstsim.llm.experiments.plasticity import SECOND
from fstsim.llm.experiments.reuse import REUSE as REUSED
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.paper.experiments import figures, tables
from fstsim.paper.experiments.numbers import own_context, read_curves, totals
from fstsim.records import read_json, read_rows, write_json, write_rows

PNG = b"\x89PNG\r\n\x1a\n"
COLUMNS = ("reward", "kl_to_base", "kl_to_base_no_context", "drift", "old_mass")

needs_base = pytest.mark.skipif(not list(shipped_path().glob("*.safetensors")), reason="no base model is shipped yet")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke scale with two slow steps of two problems and small probes; fast rounds as they are, to find a context to distill."""
    monkeypatch.setitem(plan.SIZES, "smoke", Size(2, 2, ProbeConfig(every=2, problems=4, exam=1)))
    monkeypatch.setattr(lab, "decompose", functools.partial(lab.decompose, problems=4))
    monkeypatch.setattr(train_run, "relearn_steps", functools.partial(relearn_steps, most=1, batch=2))


# --- records with known numbers --------------------------------------------------------------------------------------


def record(out: Path, planned: Planned, seeds: int, rng: np.random.Generator, **more: Any) -> None:
    """Run directories of ``planned`` as a run leaves them, with numbers drawn here; ``more[column](step, task)`` adds columns."""
    config = planned.config
    for seed in range(seeds):
        place, rows = out / "runs" / planned.name / f"seed-{seed}", []
        place.mkdir(parents=True)
        for step in range(config.steps * len(config.tasks) + 1):
            task = max(0, step - 1) // config.steps
            row: dict[str, Any] = {"step": step, "samples": 100 * step + 7 * seed, "task": task}
            if step and config.fast is not None and config.fast.reuse:
                row |= {"reused": 16.0} if step % 2 else {}
            if step % 2 == 0 or step % config.steps == 0:
                row |= {name: float(rng.uniform(0.0, 0.02)) for name in COLUMNS}
                row["reward"] += 0.9 * min(1.0, step / config.steps)
                row |= {name: value for name, at in more.items() if (value := at(step, task)) is not None}
                row |= {f"reward_task{k}": 0.1 for k in range(len(config.tasks)) if k != task}
            rows.append(row)
        write_rows(place / "metrics.jsonl", rows)
        write_json(place / "summary.json", {"last": rows[-1], "prompts": [""]})
        if config.method == "fst":
            cells = ("base_empty", "trained_empty", "base_evolved", "trained_evolved")
            write_json(
                place / "decomposition.json",
                {"context": "", **{f"{name}{error}": float(rng.uniform()) for name in cells for error in ("", "_se")}},
            )


@pytest.fixture(scope="module", params=[1, pytest.param(3, marks=pytest.mark.slow), 5])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Every run of every experiment, at the scale of small but four steps long, with one, three or five seeds."""
    out, rng = tmp_path_factory.mktemp("recorded"), np.random.default_rng(0)
    kept = {f"reward_task{k}_own_context": lambda _, task, k=k: 0.8 if task > k else None for k in range(3)}
    for planned in {p.name: p for experiment in EXPERIMENTS for p in experiment.runs("small")}.values():
        more = kept if planned.name == "continual-fst" else {}
        record(out, replace(planned, config=replace(planned.config, steps=4)), request.param, rng, **more)
    return out, request.param


def cells(table: Table) -> dict[str, list[str]]:
    """Rows of a table by their first cells (the first two where the first is not enough)."""
    columns = [list(column.cells) for column in table.columns]
    rows = list(zip(*columns, strict=True))
    firsts = [row[0] for row in rows]
    return {row[0] if firsts.count(row[0]) == 1 else f"{row[0]}, {row[1]}": list(row[1:]) for row in rows}


def interval(values: np.ndarray) -> str:
    """Mean and Student half width as the tables write them; the mean alone of one seed."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if np.ptp(values) else 0.0
    return f"{values.mean():.3g} ± {half:.2g}"


def last(out: Path, name: str, column: str, seeds: int) -> np.ndarray:
    return np.array([read_rows(out / "runs" / name / f"seed-{k}" / "metrics.jsonl")[-1][column] for k in range(seeds)])


@pytest.mark.parametrize("recorded", [5], indirect=True)
def test_every_experiment_is_shown(recorded: tuple[Path, int], capfd: pytest.CaptureFixture[str]) -> None:
    """`fstsim experiment all --show`: exit code 0, every table, pictures that are pictures, and no run is touched."""
    out, _ = recorded
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")}
    assert main(["experiment", "all", "--show", "--out", str(out)]) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    for title in (
        "samples of both channels",
        "declared sweep",
        "continual",
        "from zero",
        "plasticity",
        "FST-distill",
        "reuse of the fast",
    ):
        assert title in said
    for picture in ("core", "decomposition", "continual", "zero", "plasticity", "reuse"):
        assert (out / f"{picture}.png").read_bytes().startswith(PNG)
    assert {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")} == before


def test_tables_show_students_intervals(recorded: tuple[Path, int]) -> None:
    """Recomputed from the rows with scipy; one seed has no interval."""
    out, seeds = recorded
    speed, end, kl, both, running = map(cells, tables.core_tables(out))
    for kind, tasks in (("hard", TASKS), ("easy", EASY)):
        for family, task in tasks.items():
            for column, method in ((2, "rl"), (3, "fst")):
                assert end[task][column] == interval(last(out, f"{family}-{kind}-{method}", "reward", seeds))
                assert kl[task][column - 1] == interval(last(out, f"{family}-{kind}-{method}", "kl_to_base", seeds))
            assert len(speed[task]) == 4
            assert len(both[task]) == 4
            assert len(running[task]) == 6
    fresh = cells(tables.plasticity_table(out))
    for mark, task in SECOND.items():
        assert fresh[f"{task}, base"][0] == interval(last(out, f"plasticity-{mark}from-base", "reward", seeds))
    zero = cells(tables.zero_table(out))
    for lr in LEARNING_RATES:
        assert zero[f"RL, {lr:g}"][1] == interval(last(out, f"zero-rl-lr{lr:g}", "reward", seeds))
        assert zero[f"FST, {lr:g}"][4] == interval(last(out, f"zero-fst-lr{lr:g}", "kl_to_base", seeds))
    kept = cells(tables.distill_table(out))
    assert kept["reward without context"][1] == interval(last(out, "distill", "reward", seeds))


def test_the_table_of_reuse(recorded: tuple[Path, int]) -> None:
    """Samples, reused rollouts of all steps (measured or not), reward and distance, with and without."""
    out, seeds = recorded
    found = cells(tables.reuse_table(out))
    assert len(found) == 2 * len(REUSED)
    for name, task in REUSED.items():
        for method, tail, reused in (("FST", "", 0.0), ("FST, reuse", "-reuse", 32.0)):
            row = found[f"{task}, {method}"]
            assert row[3] == interval(last(out, f"{name}-fst{tail}", "samples", seeds))
            assert row[5] == interval(np.full(seeds, reused))
            assert row[6] == interval(last(out, f"{name}-fst{tail}", "reward", seeds))
            assert totals(out, f"{name}-fst{tail}", "reused").tolist() == [reused] * seeds


def test_the_table_of_a_sequence_has_the_contexts_kept(recorded: tuple[Path, int]) -> None:
    """In the last task's contexts and in its own; RL has one context for all tasks."""
    out, seeds = recorded
    found = cells(tables.continual_table(out))
    own, plain = (interval(np.full(seeds, x)) for x in (0.8, 0.1))
    assert found["FST"][3:7] == [plain, own, plain, own]
    assert found["RL"][3:7] == [plain, plain, plain, plain]


def test_records_from_before_contexts_were_kept(tmp_path: Path) -> None:
    """Their evolved contexts are gone: nothing is made up for them."""
    rng = np.random.default_rng(1)
    for planned in CONTINUAL.runs("small"):
        more = {"reward_no_context": lambda *_: 0.2} if planned.name.endswith("fst") else {}
        record(tmp_path, replace(planned, config=replace(planned.config, steps=2)), 2, rng, **more)
    found = cells(tables.continual_table(tmp_path))
    assert found["FST"][4] == "-"
    assert found["RL"][4] == found["RL"][3] == interval(np.full(2, 0.1))
    curves = read_curves(tmp_path, "continual-fst")
    assert curves is not None
    assert own_context(curves, 0) is None
    assert figures.draw_continual(tmp_path, tmp_path / "picture.png") == tmp_path / "picture.png"


def test_of_all_experiments_those_are_shown_that_have_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Runs of one: its picture, empty tables of the others; where one is asked for that has none, that is said."""
    rng = np.random.default_rng(2)
    for planned in ZERO.runs("small"):
        record(tmp_path, replace(planned, config=replace(planned.config, steps=2)), 1, rng)
    assert main(["experiment", "all", "--show", "--out", "."]) == 0, capfd.readouterr().err
    assert capfd.readouterr().out.count("picture") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "zero.png"}
    for name in {experiment.name for experiment in EXPERIMENTS} - {"zero"}:
        assert main(["experiment", name, "--show", "--out", "."]) == 2
        assert f"holds no finished run of experiment {name}" in capfd.readouterr().err


def test_reuse_is_compared_with_runs_of_core() -> None:
    """At the scale of small nothing is run twice: FST without reuse is core's, up to its tasks and settings."""
    core = {p.name: p.config for p in CORE.runs("small")}
    for planned in REUSE.runs("small"):
        if not planned.config.fast.reuse:
            assert planned.config == core[planned.name]
        else:
            assert replace(planned.config, fast=replace(planned.config.fast, reuse=False)) in core.values()


# --- mistakes --------------------------------------------------------------------------------------------------------

# command line -> what its one line must say
MISTAKES = {
    "experiment": "experiment",
    "experiment chess": "continual",
    "experiment core --preset tiny": "smoke",
    "experiment core --seeds 0": "seeds must be at least 1",
    "experiment core --seeds many": "--seeds",
    "experiment core --out file": "file is not a directory",
    "experiment core --out /proc/here": "cannot write in /proc/here",
    "experiment core --jobs 0 --out empty": "jobs must not be 0",
    "experiment core --jobs 0 --out new": "jobs must not be 0",
    "experiment core --jobs 1 --device abacus --out new": "device 'abacus' cannot be used here",
    "experiment plasticity --jobs 1 --out new": "starts from strings-easy-rl, which is not finished in new/runs",
    "experiment core --jobs 1 --out papers": "papers is not empty and holds no training runs",
    "experiment core --show --out new": "no directory at new",
    "experiment core --show --out file": "no directory at file",
    "experiment core --show --out empty": "empty holds no finished run of experiment core",
    "experiment core --show --out papers": "papers holds no finished run of experiment core",
    "experiment all --show --out empty": "empty holds no finished run of experiment core or",
    "experiment plasticity --jobs 1 --out empty": "starts from strings-easy-rl, which is not finished in empty/runs: run what",
    "experiment distill --jobs 1 --out empty": "starts from strings-hard-fst, which is not finished in empty/runs: run what",
    "experiment core --jobs 1 --out other": "holds a training run with lr 0.5",
    "experiment continual --jobs 1 --out full": "continual-rl/seed-1 is not empty and holds no training run",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_code_2_nothing_written(mistake: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Found before the first run starts, whichever of the runs it is about."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("mine as well")
    (tmp_path / "full" / "runs" / "continual-rl" / "seed-1").mkdir(parents=True)
    (tmp_path / "full" / "runs" / "continual-rl" / "seed-1" / "thesis.tex").write_text("mine too")
    (config,) = [p.config for p in CORE.runs("smoke") if p.name == "strings-hard-gepa"]
    place = tmp_path / "other" / "runs" / "strings-hard-gepa" / "seed-2"
    place.mkdir(parents=True)
    held = json.loads(json.dumps(train_run.dataclasses.asdict(replace(config, seed=2, lr=0.5))))
    write_json(place / "config.json", held)
    before = {str(p): p.read_bytes() if p.is_file() else None for p in sorted(tmp_path.rglob("*"))}
    code = main(shlex.split(mistake))
    said, err = capfd.readouterr()
    assert code == 2, err
    assert said == ""
    # a bar may have been drawn before: the message is the last line
    line = err.rstrip("\n").splitlines()[-1]
    assert "error: " in line
    assert MISTAKES[mistake] in line
    assert "Traceback" not in err
    assert {str(p): p.read_bytes() if p.is_file() else None for p in sorted(tmp_path.rglob("*"))} == before


# --- the real path ---------------------------------------------------------------------------------------------------


def command(name: str, out: str, *flags: str) -> int:
    return main(["experiment", name, "--preset", "smoke", "--seeds", "1", "--jobs", "1", "--out", out, *flags])


def runs(out: Path) -> dict[str, bytes]:
    """Rows and prompts of every run."""
    return {
        str(p.relative_to(out)): p.read_bytes()
        for name in ("metrics.jsonl", "prompts.jsonl")
        for p in sorted(out.rglob(name))
    }


def planned_names(*names: str) -> set[str]:
    return {p.name for experiment in EXPERIMENTS if experiment.name in names for p in experiment.runs("smoke")}


@needs_base
@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_core_and_what_starts_from_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Core, then plasticity and distill from its weights: run directories, tables, pictures; again: only loaded."""
    out = tmp_path / "out"
    for name in ("core", "plasticity", "distill"):
        assert command(name, "out") == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert {p.name for p in (out / "runs").iterdir()} == planned_names("core", "plasticity", "distill")
    for name in planned_names("core", "plasticity", "distill"):
        place = out / "runs" / name / "seed-0"
        held = {p.name for p in place.iterdir()}
        assert {"config.json", "environment.json", "metrics.jsonl", "summary.json", "model"} <= held
        rows = read_rows(place / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(len(rows)))
        assert ("prompts.jsonl" in held) == (name.endswith(("fst", "gepa")) and not name.startswith("plasticity"))
        assert ("decomposition.json" in held) == (name in ("strings-hard-fst", "strings-easy-fst"))
    both = read_json(out / "runs" / "strings-hard-fst" / "seed-0" / "decomposition.json")
    assert all(0.0 <= both[f"{w}_{c}"] <= 1.0 for w in ("base", "trained") for c in ("empty", "evolved"))
    model = read_json(out / "runs" / "plasticity-from-fst" / "seed-0" / "config.json")["model"]
    assert Path(model) == Path("out") / "runs" / "strings-easy-fst" / "seed-0" / "model"
    for what in ("strings:reverse+next", "strings:rotate", "2 x 2", "plasticity: fresh RL", "FST-distill"):
        assert what in said
    for picture in ("core", "decomposition", "plasticity"):
        assert (out / f"{picture}.png").read_bytes().startswith(PNG)
    before = runs(out)
    assert command("core", "out") == 0
    assert runs(out) == before


@needs_base
@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_an_interrupted_experiment_continues_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C within a fast round, exit code 130 and the command to continue; then the same rows as without it."""
    assert command("continual", "whole") == 0
    real, calls = PromptEvolution.step, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(PromptEvolution, "step", interrupted)
        assert command("continual", "stopped") == 130
    assert "continue with: fstsim experiment continual" in capfd.readouterr().err
    assert not (tmp_path / "stopped" / "runs" / "continual-fst" / "seed-0" / "summary.json").exists()
    assert command("continual", "stopped") == 0
    assert runs(tmp_path / "stopped") == runs(tmp_path / "whole")
    rounds = read_rows(tmp_path / "whole" / "runs" / "continual-fst" / "seed-0" / "prompts.jsonl")
    assert [task for task, _ in rounds[-1]["archive"]] == list(SEQUENCE)
    last_of_first = [entry for entry in rounds if entry["task"] == 0][-1]
    assert dict(rounds[-1]["archive"])[SEQUENCE[0]] == last_of_first["prompts"][0]


@needs_base
@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_the_sweep_is_run_and_the_best_of_it_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate, "LEARNING_RATES", (1e-4, 1e-3))
    monkeypatch.setattr(calibrate, "LEASHES", (0.02,))
    assert best_settings(tmp_path / "out") == {}
    assert command("calibrate", "out") == 0, capfd.readouterr().err
    assert "declared sweep" in capfd.readouterr().out
    best = best_settings(tmp_path / "out")
    for method in ("rl", "fst"):
        means = {}
        for lr in (1e-4, 1e-3):
            rows = read_rows(
                tmp_path / "out" / "runs" / f"calibrate-{method}-lr{lr:g}-leash0.02" / "seed-0" / "metrics.jsonl"
            )
            means[lr] = np.mean([row["reward"] for row in rows if "reward" in row])
        assert best[method] == (max(means, key=lambda lr: means[lr]), 0.02)
    (config,) = [p.config for p in REUSE.runs("smoke", best) if p.name == "strings-easy-fst-reuse"]
    assert (config.lr, config.learner.leash_reward) == best["fst"]


@needs_base
@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_the_experiment_on_reuse(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("reuse", "out") == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert "reuse of the fast rounds" in said
    assert (tmp_path / "out" / "reuse.png").read_bytes().startswith(PNG)
    assert {p.name for p in (tmp_path / "out" / "runs").iterdir()} == planned_names("reuse")
    for name in REUSED:
        assert totals(tmp_path / "out", f"{name}-fst-reuse", "reused").min() > 0
        assert totals(tmp_path / "out", f"{name}-fst", "reused").max() == 0
