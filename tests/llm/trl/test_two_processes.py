"""`DriftCallback` in a training of two processes: one measures and writes, both log the same, and both stop at a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_trainers import STEPS
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.records import read_json

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("base", ["", "nowhere"])
def test_two_processes(
    base: str, tmp_path: Path, make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    make_model(attention_dropout=0.1).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(HERE / "two_processes.py"), str(tmp_path / "start"), str(tmp_path), base],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [read_json(tmp_path / f"seen-{rank}.json") for rank in (0, 1)]
    drift = [[row for row in held["log"] if "drift/weights" in row] for held in seen]
    if base:
        assert seen[0]["said"].startswith("there is no model at 'nowhere'")
        assert seen[1]["said"].startswith("the main process has failed: InputError: there is no model at 'nowhere'")
        assert not (tmp_path / "run/drift").exists()
    else:
        assert [row["step"] for row in drift[0]] == [0, 2, STEPS]
        assert drift[0] == drift[1]
        assert seen[0]["weights"] == seen[1]["weights"]
        held = read_json(tmp_path / "run/drift/measure.json")["checkpoints"][-1]["sets"]["new"]["kl_to_base"]
        assert held == drift[0][-1]["drift/new/kl_to_base"] > 0.0
