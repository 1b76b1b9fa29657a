"""Training away from the host, on a device that this machine does not have: where every tensor is, and what comes out.

No GPU is needed: `accelerator` pretends one, strictly. In a process of its own, since a device cannot be taken back.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch.utils import backend_registration

from fstsim.records import read_rows

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot register a device from Python",
)
METHODS = ("fst", "rl", "sft", "gepa", "distill", "sdft", "ttt", "oapl", "mixture")


def trained(method: str, out: Path, *layers: str) -> dict[str, Path]:
    """The runs of ``train_on_accelerator.py`` by name."""
    script = Path(__file__).parent / "train_on_accelerator.py"
    done = subprocess.run(
        [sys.executable, str(script), method, str(out), *layers],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path for path in out.iterdir()}


def assert_same(one: Path, other: Path, *names: str) -> None:
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def assert_close(row: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    # where no rollout earned anything the leash alone has a signal: two policies a step of 1e-6 apart, within rounding
    rounded = {"dead_share"} if wanted.get("train_reward") == 0.0 else set()
    for column, value in wanted.items():
        if column in rounded:
            continue
        found = row[column]
        exact = not isinstance(value, float)
        same = found == value if exact else math.isclose(found, value, rel_tol=1e-3, abs_tol=1e-4)
        assert same, f"{column} {where}: {found}, on the CPU {value}"


def check(runs: Mapping[str, Path]) -> None:
    """The same numbers as on the CPU, and the same bits after a stop."""
    assert {*runs} - {"shared"} == {"cpu", "static", "continued"}
    assert_same(runs["static"], runs["continued"], "metrics.jsonl", "model/model.safetensors")
    wanted = read_rows(runs["cpu"] / "metrics.jsonl")
    for name in {*runs} & {"static", "shared"}:
        rows = read_rows(runs[name] / "metrics.jsonl")
        assert [row.keys() for row in rows] == [row.keys() for row in wanted]
        for row, expected in zip(rows, wanted, strict=True):
            assert_close(row, expected, f"of step {row['step']}, {name}")


def test_fast_slow_training(tmp_path: Path) -> None:
    """Both channels: sampling, scoring, reflection, the optimizer, every probe, the checkpoint; with one layer of the base."""
    check(trained("fst", tmp_path, "1"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, tmp_path: Path) -> None:
    """Each with what it alone does: leashes, replay, teachers, lagged samplers, temperatures of groups."""
    runs = trained(method, tmp_path)
    assert "shared" in runs
    check(runs)


@pytest.mark.slow
def test_pretraining(tmp_path: Path) -> None:
    """The loss of both steps, since Muon turns no noise into steps; exams, and both optimizers over a stop."""
    runs = trained("pretrain", tmp_path)
    assert {*runs} == {"cpu", "static", "continued"}
    assert_same(runs["static"], runs["continued"], "model.safetensors")
    for row, wanted in zip(
        read_rows(runs["static"] / "metrics.jsonl"), read_rows(runs["cpu"] / "metrics.jsonl"), strict=True
    ):
        assert_close(row, {"loss": wanted["loss"], "step": wanted["step"]}, f"of step {wanted['step']}")
