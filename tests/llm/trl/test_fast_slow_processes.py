"""`FastSlowGRPOTrainer` in two processes over gloo: one process computes the same.

Completions are greedy, so that every training has the same; each context of a group writes its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fstsim.records import read_json

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "fast_slow_process.py"
Held = list[dict[str, Any]]


def ended(count: int, out: Path) -> Held:
    """What each process of a training has in the end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    out.mkdir()
    done = subprocess.run(
        [*command, str(SCRIPT), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"},
        cwd=out,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [
        {
            "weights": load_file(out / f"weights-{rank}.safetensors"),
            "gradients": load_file(out / f"gradients-{rank}.safetensors"),
            "population": read_json(out / f"population-{rank}.json"),
        }
        for rank in range(count)
    ]


def test_two_processes_are_one(tmp_path: Path) -> None:
    (one,), two = ended(1, tmp_path / "one"), ended(2, tmp_path / "two")
    assert one["population"]["prompts"] != ["", "reverse", "next"]
    assert {name.split()[0] for name in one["gradients"]} == {"0", "1", "2"}
    for step in ("0", "1"):
        assert max(float(g.abs().max()) for name, g in one["gradients"].items() if name.startswith(step)) > 1e-3
    for held in two:
        assert held["population"] == one["population"]
        assert held["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            torch.testing.assert_close(held["gradients"][name], gradient, atol=1e-6, rtol=1e-5)
    for name, weight in two[0]["weights"].items():
        assert torch.equal(weight, two[1]["weights"][name])
