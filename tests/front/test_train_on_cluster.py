"""`fstsim train --backend dask` from end to end: stopped by Ctrl-C, continued, and equal to what one process trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from fstsim.__main__ import main
from fstsim.llm.pretraining.tokenizer import build_tokenizer

distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
FLAGS = "--task strings:rotate --preset smoke --steps 30 --seeds 2 --problems 2 --rollouts 4 --probe-relearn 0 --probe-problems 4"


@pytest.mark.slow
def test_stopped_continued_and_equal(
    make_model: Callable[..., PreTrainedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(num_hidden_layers=1, max_position_embeddings=80, initializer_range=0.05).save_pretrained("tiny")
    build_tokenizer().save_pretrained("tiny")
    flags = ["train", "--model", "tiny", *FLAGS.split()]  # a relative name: workers work where the command was started
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        there = [*flags, "--backend", "dask", "--address", cluster.scheduler_address, "--out", "there"]
        process = subprocess.Popen([sys.executable, "-m", "fstsim", *there], stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 240.0
        while not Path("there/seed-0/metrics.jsonl").exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert process.returncode == 130, said
        assert said.splitlines()[-1].startswith(
            "fstsim: stopped; everything up to the last checkpoint is kept, continue"
        )
        assert "Traceback" not in said
        assert not Path("there/picture.png").exists()
        assert main(there) == 0  # at once: the workers have left the directories
    assert main([*flags, "--out", "here"]) == 0
    assert "reward" in capsys.readouterr().out
    for seed in range(2):
        for name in ("config.json", "metrics.jsonl", "model/model.safetensors"):
            ours, theirs = (Path(place, f"seed-{seed}", name).read_bytes() for place in ("there", "here"))
            assert ours == theirs, name
    assert os.path.samefile(Path.cwd(), tmp_path)
