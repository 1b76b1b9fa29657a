"""Sweeps: the vectorised rows against single simulations, the same table on every backend, and after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit

from fstsim import ForwardKL, GradientDescent, InputError, ReverseKL, TwoModeProblem, TwoModeState, simulate
from fstsim import sweep as sweep_module
from fstsim.cluster_worker import at_work
from fstsim.records import read_rows
from fstsim.sweep import CHUNK, SweepConfig, run_chunk, run_sweep

GRID: dict[str, Any] = {
    "separation": (1.5, 4.0),
    "beta0": (0.2, 0.7),
    "new_error": (-0.5, 0.8),
    "lr": (0.1, 0.3),
    "steps": 30,
}


@pytest.mark.parametrize("geometry", ["logit", "fisher"])
@pytest.mark.parametrize("objective", ["forward", "reverse"])
def test_rows_are_single_simulations(objective: str, geometry: str) -> None:
    config = SweepConfig(objective=objective, alpha=(0.3,), old_fraction=(0.1,), geometry=geometry, **GRID)  # type: ignore[arg-type]
    rows = run_chunk(config, 0)
    assert len(rows) == config.size == 16
    for row in rows[::5]:
        problem = TwoModeProblem.separated(row["separation"], row["alpha"])
        goal = ForwardKL(problem, row["old_fraction"]) if objective == "forward" else ReverseKL(problem)
        start = TwoModeState(logit(row["beta0"]), [0.0], [row["separation"] + row["new_error"]])
        run = simulate(problem, goal, start, GradientDescent(row["lr"], geometry=geometry), 30)  # type: ignore[arg-type]
        for name in ("reward", "old_mass", "old_region_mass", "drift", "kl_to_base", "kl_from_base", "entropy"):
            assert row[name] == pytest.approx(float(getattr(run, name)[-1]), rel=1e-9, abs=1e-13), name
        assert row["peak_drift"] == pytest.approx(float(run.drift.max()), rel=1e-9)


def test_seeds_differ_with_a_batch_and_average_to_the_exact_update() -> None:
    # one step: the mean over seeds is unbiased
    config = SweepConfig("reverse", (2.0,), (0.3,), (0.6,), (0.4,), steps=1, batch=8, seeds=2000)
    moved = np.array([logit(row["old_mass"]) for row in run_chunk(config, 0)])
    exact = logit(run_chunk(SweepConfig("reverse", (2.0,), (0.3,), (0.6,), (0.4,), steps=1), 0)[0]["old_mass"])
    error = moved.std(ddof=1) / np.sqrt(moved.size)
    assert error > 0.0
    assert abs(moved.mean() - exact) < 4.5 * error


def test_table_does_not_depend_on_jobs_or_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "CHUNK", 5)
    config = SweepConfig(**GRID, batch=4, seeds=2)
    seen: list[int] = []
    one = run_sweep(config, tmp_path / "one", "sequential", 1, progress=seen.append)
    assert sum(seen) == config.size == 32

    def stop(_: int) -> None:
        if list((tmp_path / "two" / "parts").glob("000002-*.jsonl")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, tmp_path / "two", "threading", 2, progress=stop)
    assert not (tmp_path / "two" / "table.jsonl").exists()
    two = run_sweep(config, tmp_path / "two", "threading", 2)
    assert one.read_bytes() == two.read_bytes()
    assert [row["index"] for row in read_rows(two)] == list(range(32))
    assert not (tmp_path / "two" / "parts").exists()
    # a finished sweep is not run again
    assert run_sweep(config, tmp_path / "two").stat().st_mtime_ns == two.stat().st_mtime_ns


def test_a_table_that_is_not_this_sweeps_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "CHUNK", 5)
    config = SweepConfig(**GRID, seeds=1)
    table = run_sweep(config, tmp_path / "one", "sequential", 1)
    good = table.read_text()
    lines = good.splitlines(keepends=True)
    for changed in ("".join(lines[:-1]), "".join(reversed(lines)), good.replace("0.", "1.", 1), "", "null\n"):
        table.write_text(changed)
        with pytest.raises(InputError, match=r"table\.jsonl is not what this sweep wrote"):
            run_sweep(config, tmp_path / "one", "sequential", 1)
    table.write_text(good)
    assert run_sweep(config, tmp_path / "one", "sequential", 1).read_text() == good
    (tmp_path / "one" / "table.sha256").unlink()
    with pytest.raises(InputError, match="is not what this sweep wrote"):
        run_sweep(config, tmp_path / "one", "sequential", 1)
    table.unlink()  # so it is made again
    assert run_sweep(config, tmp_path / "one", "sequential", 1).read_text() == good


def test_a_chunk_that_is_not_this_sweeps_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "CHUNK", 5)
    config, other = SweepConfig(**GRID, seeds=1), SweepConfig(**GRID, seeds=1, seed=5, batch=4)
    good = run_sweep(config, tmp_path / "whole", "sequential", 1).read_text()

    def stop(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    for name, each in (("mine", config), ("foreign", other)):
        with pytest.raises(KeyboardInterrupt):
            run_sweep(each, tmp_path / name, "sequential", 1, progress=stop)
    (foreign,) = (tmp_path / "foreign" / "parts").iterdir()
    (mine,) = (tmp_path / "mine" / "parts").iterdir()
    (tmp_path / "mine" / "parts" / foreign.name).write_bytes(foreign.read_bytes())
    mine.write_text(mine.read_text().replace("0.", "1.", 1))
    assert run_sweep(config, tmp_path / "mine", "sequential", 1).read_text() == good
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "config.json",
        "environment.json",
        "table.jsonl",
        "table.sha256",
    ]


def test_rows_of_another_chunk_and_folders_in_their_place_are_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part renamed to another number was taken for that chunk: rows twice, and others lost."""
    monkeypatch.setattr(sweep_module, "CHUNK", 3)
    config = SweepConfig(**GRID, seeds=1)
    good = run_sweep(config, tmp_path / "whole", "sequential", 1).read_text()

    def stop(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, tmp_path / "moved", "sequential", 1, progress=stop)
    (part,) = (tmp_path / "moved" / "parts").iterdir()
    part.rename(part.with_name(part.name.replace("000000", "000001")))
    (part.parent / "000000-folder.jsonl").mkdir()
    assert run_sweep(config, tmp_path / "moved", "sequential", 1).read_text() == good
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, tmp_path / "file", "sequential", 1, progress=stop)
    shutil.rmtree(tmp_path / "file" / "parts")
    (tmp_path / "file" / "parts").write_text("")
    with pytest.raises(InputError, match="is not a directory"):
        run_sweep(config, tmp_path / "file", "sequential", 1)


def test_killed_sweep_continues_to_the_same_table(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; import sys; from fstsim.sweep import SweepConfig, run_sweep\n"
        "config = SweepConfig(separation=tuple(1 + 0.001 * k for k in range(9000)), steps=40, batch=4)\n"
        "run_sweep(config, Path(sys.argv[1]), 'sequential', 1)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([sys.executable, "-c", script, str(killed)], env=environment)
    deadline = time.monotonic() + 60.0
    while not list(killed.glob("parts/*.jsonl")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for folder in (killed, whole):
        subprocess.run([sys.executable, "-c", script, str(folder)], check=True, env=environment)
    assert (killed / "table.jsonl").read_bytes() == (whole / "table.jsonl").read_bytes()


def test_dask_cluster_of_two_workers(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    config = SweepConfig(**GRID, seeds=3)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp", host="127.0.0.1"
    ) as cluster:
        table = run_sweep(config, tmp_path / "dask", "dask", 2, address=cluster.scheduler_address)
    plain = run_sweep(config, tmp_path / "plain", "sequential", 1)
    assert table.read_bytes() == plain.read_bytes()


@pytest.mark.slow
def test_a_killed_worker_is_named_and_its_chunk_computed_once_more(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    config = SweepConfig(separation=(2.0,), seeds=6 * CHUNK, batch=16, steps=60)
    said: list[str] = []
    killed: list[str] = []

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address

        def kill_once(_: int) -> None:
            with distributed.Client(address, set_as_default=False) as client:
                busy = [worker for worker, at_it in client.run(at_work).items() if at_it]
                if busy and not killed:
                    killed.append(busy[0])
                    os.kill(client.run(os.getpid, workers=busy[:1])[busy[0]], signal.SIGKILL)

        table = run_sweep(config, tmp_path / "dask", "dask", 2, address, kill_once, said.append)
    (line,) = said
    assert line.startswith(f"worker {killed[0]} died in chunk ")
    assert line.endswith("it goes on once more, on another worker")
    assert table.read_bytes() == run_sweep(config, tmp_path / "plain", "sequential").read_bytes()


def test_unreachable_scheduler_is_one_clear_line(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    with pytest.raises(InputError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_sweep(SweepConfig(**GRID), tmp_path / "out", "dask", 2, address="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()


def test_another_sweep_in_the_same_folder(tmp_path: Path) -> None:
    run_sweep(SweepConfig(**GRID), tmp_path, "sequential", 1)
    with pytest.raises(InputError, match="holds a sweep with seeds 1, not 2"):
        run_sweep(SweepConfig(**GRID, seeds=2), tmp_path, "sequential", 1)


def test_diverged_learners_are_marked_and_do_not_stop_the_others() -> None:
    rows = run_chunk(SweepConfig("reverse", (6.0,), new_error=(0.0, 30.0), lr=(0.1, 60.0), steps=40), 0)
    status = [row["status"] for row in rows]
    assert "diverged" in status
    assert "completed" in status
    assert all(np.isfinite(row["old_mass"]) for row in rows)
    assert json.loads(json.dumps(rows[0])) == rows[0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"separation": ()}, "separation is empty"),
        ({"separation": (0.0,)}, "separation must lie"),
        ({"separation": (float("nan"),)}, "separation must be a number, got nan"),
        ({"alpha": (1.0,)}, "alpha must lie strictly between 0 and 1"),
        ({"beta0": (0.0,)}, "beta0 must lie strictly between 0 and 1"),
        ({"old_fraction": (1.5,)}, "old_fraction must lie in"),
        ({"lr": (-1.0,)}, "lr must be positive"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"batch": 1}, "at least 2 for reverse"),
        ({"geometry": "round"}, "geometry must be one of"),
        ({"objective": "sideways"}, "objective must be one of"),
    ],
)
def test_bad_grids(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SweepConfig(**bad)


def test_bad_backend_and_jobs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="backend must be one of"):
        run_sweep(SweepConfig(**GRID), tmp_path / "x", "slurm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="jobs must not be 0"):
        run_sweep(SweepConfig(**GRID), tmp_path / "x", "sequential", 0)
    pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    with pytest.raises(InputError, match="needs --address"):
        run_sweep(SweepConfig(**GRID), tmp_path / "x", "dask", 2)
    assert not (tmp_path / "x").exists()


def test_repetitions_of_exact_gradients_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SweepConfig(**GRID, seeds=3)
    single = run_chunk(SweepConfig(**GRID), 0)
    advanced: list[int] = []
    gradient = sweep_module.reverse_kl_gradient
    monkeypatch.setattr(
        sweep_module, "reverse_kl_gradient", lambda s, *rest: (advanced.append(np.size(s)), gradient(s, *rest))[1]
    )
    rows = run_chunk(config, 0)
    assert set(advanced) == {len(single)}
    assert [row["seed"] for row in rows[:4]] == [0.0, 1.0, 2.0, 0.0]
    for k, row in enumerate(rows):
        same = single[k // 3]
        assert {n: v for n, v in row.items() if n not in ("index", "seed")} == {
            n: v for n, v in same.items() if n not in ("index", "seed")
        }
