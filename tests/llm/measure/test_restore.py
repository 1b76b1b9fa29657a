"""Restoring parts of a trained model: every weight is in one layer or end, nothing stays changed, the ends are trained and base."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.measure.faithful.run import FaithfulConfig, models_of
from fstsim.llm.measure.restore import COLUMNS, parts_of, restored
from fstsim.llm.measure.restored_runs import forgotten_column, means, restore_runs, total_parts
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.paper.records.layers.picture import save_layers_picture
from fstsim.records import read_rows

MakeModel = Callable[..., PreTrainedModel]


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=3, n_head=2))


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2"])
def test_every_weight_is_in_one_layer_or_end(kind: str, make_model: MakeModel) -> None:
    model = gpt2() if kind == "gpt2" else make_model(kind, num_hidden_layers=3)
    names = sorted(name for name, _ in model.named_parameters())
    parts = parts_of(model)

    def held(*kinds: str) -> list[str]:
        return sorted(name for part in parts if part.kind in kinds for name in part.parameters)

    assert held("layer", "ends") == names
    assert held("attention", "feed-forward", "ends") == names
    below, above = ([p for p in parts if p.kind == f"from {where}"] for where in ("below", "above"))
    for low, high in zip(below, reversed(above), strict=True):
        assert sorted((*low.parameters, *high.parameters)) == names  # k from below and the rest from above
    attention = next(p for p in parts if p.name == "layer 1 attention")
    assert attention.parameters
    assert all("attn" in name for name in attention.parameters)


def test_restored_weights_are_the_bases_and_come_back(make_model: MakeModel) -> None:
    base, trained = make_model(seed=0), make_model(seed=1)
    before = copy.deepcopy(trained.state_dict())
    part = next(p for p in parts_of(trained) if p.name == "layer 1 feed-forward")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        first = trained(ids).logits
        with restored(trained, base, part.parameters):
            for name, weight in trained.named_parameters():
                wanted = dict(base.named_parameters())[name] if name in part.parameters else before[name]
                assert torch.equal(weight, wanted)
            assert not torch.equal(trained(ids).logits, first)
        assert torch.equal(trained(ids).logits, first)
        everything = [name for name, _ in trained.named_parameters()]
        with restored(trained, base, everything):
            assert torch.equal(trained(ids).logits, base(ids).logits)


@pytest.fixture(scope="module")
def runs(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a short training with an old skill."""
    place = tmp_path_factory.mktemp("restore")
    Policy.of(make_model(), tokenizer)
    make_model().save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    for seed in range(2):
        config = TrainConfig(
            method="sft",
            tasks=("strings:reverse",),
            old=("digits:negate",),
            model=str(place / "base"),
            steps=2,
            lr=3e-3,
            seed=seed,
            learner=SupervisedFineTuning(problems=4),
            probe=ProbeConfig(every=2, problems=4, exam=1, relearn=0),
        )
        run_training(config, place / "sft" / f"seed-{seed}")
    return place


@pytest.fixture(scope="module")
def found(runs: Path) -> dict[str, Any]:
    """Both runs with each part restored in turn."""
    return restore_runs([runs / "sft"], runs / "whole")


def test_nothing_restored_is_the_run_and_everything_is_its_start(
    runs: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    for seed, run in enumerate(found["runs"]):
        recorded = read_rows(runs / "sft" / f"seed-{seed}" / "metrics.jsonl")
        rows = {row["part"]: row for row in run["rows"]}
        for name in COLUMNS:
            assert rows["nothing"][name] == pytest.approx(recorded[-1][name], rel=1e-4, abs=1e-6), name
            assert rows["everything"][name] == pytest.approx(recorded[0][name], rel=1e-4, abs=1e-6), name
        sizes = [rows[name]["parameters"] for name in ("embeddings", "layer 0", "layer 1", "output")]
        assert sum(sizes) == rows["everything"]["parameters"]
    table = means(found)
    assert forgotten_column(table) == "old_skills_drift"
    first = [run["rows"][2]["kl_to_base"] for run in found["runs"]]
    assert table[2]["kl_to_base"][0] == pytest.approx(np.mean(first))
    assert save_layers_picture(found, tmp_path / "picture.png").stat().st_size > 10_000


def test_what_is_measured_is_kept(runs: Path, found: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(_: int, note: str) -> None:
        if note.startswith("seed 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_runs([runs / "sft"], out, stop)
    kept = (out / "rows-0.json").stat().st_mtime_ns
    assert restore_runs([runs / "sft"], out) == found
    assert (out / "rows-0.json").stat().st_mtime_ns == kept


def test_some_parts_alone_have_the_same_rows(runs: Path, found: dict[str, Any], tmp_path: Path) -> None:
    one = restore_runs([runs / "sft" / "seed-1"], tmp_path / "layers", groups=("layer",))
    assert [row["part"] for row in one["runs"][0]["rows"]] == ["nothing", "everything", "layer 0", "layer 1"]
    whole = {row["part"]: row for row in found["runs"][1]["rows"]}
    assert all(row == whole[row["part"]] for row in one["runs"][0]["rows"])
    assert save_layers_picture(one, tmp_path / "picture.png").stat().st_size > 5_000
    assert total_parts([runs / "sft"], groups=("layer",)) == 8
    with pytest.raises(InputError, match="parts"):  # of what is measured there
        restore_runs([runs / "sft" / "seed-1"], tmp_path / "layers", groups=("layer", "stack"))


def test_the_command_restores_the_parts_that_are_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["layers", str(runs / "sft" / "seed-0"), "--out", str(tmp_path / "out"), "--parts"]
    assert main([*words, "heads"]) == 2
    assert "heads" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "layer"]) == 0
    said = capsys.readouterr().out
    assert "layer 1" in said
    assert "embeddings" not in said


def test_a_run_that_trains_no_weights_is_refused(tmp_path: Path) -> None:
    config = TrainConfig("cases", ("strings:reverse",), steps=1)
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="method cases, whose weights are its base's"):
        restore_runs([tmp_path], tmp_path / "out")
    with pytest.raises(InputError, match="method cases, whose weights are its base's"):
        models_of(FaithfulConfig(str(tmp_path)))


def test_refuses(runs: Path, tmp_path: Path, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no run directory"):
        restore_runs([runs], out)
    with pytest.raises(InputError, match="nothing to restore"):
        restore_runs([], out)
    wide = tmp_path / "wide"
    make_model(hidden_size=64).save_pretrained(wide)
    tokenizer.save_pretrained(wide)
    with pytest.raises(InputError, match="of another architecture"):
        restore_runs([runs / "sft" / "seed-0"], out, model=str(wide))
    other = tmp_path / "seed-0"
    (other / "model").mkdir(parents=True)
    for name in ("config.json", "summary.json"):
        (other / name).write_bytes((runs / "sft" / "seed-0" / name).read_bytes())
    for path in (runs / "sft" / "seed-0" / "model").iterdir():
        (other / "model" / path.name).write_bytes(path.read_bytes())
    held = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**held, "lr": 1e-5}))
    with pytest.raises(InputError, match=r"two trainings \(lr differs\)"):
        restore_runs([runs / "sft" / "seed-0", other], out)
    (other / "summary.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        restore_runs([other], out)
    assert not out.exists()
