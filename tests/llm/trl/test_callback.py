"""`DriftCallback` in real trainers: training to the bit as without it, numbers as `run_measure` of the saved checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import NEW, OLD, STEPS, TRAINERS, lora, sft
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from fstsim.errors import InputError
from fstsim.llm.measure.config import MeasureConfig, MeasureSettings
from fstsim.llm.measure.measure import run_measure
from fstsim.llm.trl import DriftCallback
from fstsim.records import read_json

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet_trainers")]
MakeModel = Callable[..., PreTrainedModel]
SETTINGS = MeasureSettings(problems=6, samples=3, max_new_tokens=5)
KINDS = [
    pytest.param(name, adapted, marks=() if (name, adapted) in (("plain", False), ("grpo", True)) else pytest.mark.slow)
    for adapted in (False, True)
    for name in TRAINERS
    if not (adapted and name in ("plain", "sdft"))
]


def callback(**changes: Any) -> DriftCallback:
    return DriftCallback(**{"new": NEW, "old": OLD, "every": 2, "settings": SETTINGS, **changes})


@pytest.fixture
def start(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A saved base with dropout."""
    make_model(attention_dropout=0.1).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


def load(start: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    return AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)


def numbers(log: list[dict[str, Any]], drift: bool) -> list[dict[str, float]]:
    """Rows of a trainer's log: those of the callback, or all others without times."""
    timed = ("runtime", "per_second", "step_time")
    rows = [row for row in log if any(key.startswith("drift/") for key in row) == drift]
    return [{k: v for k, v in row.items() if not any(word in k for word in timed)} for row in rows]


@pytest.mark.parametrize(("name", "adapted"), KINDS)
def test_training_is_undisturbed_and_numbers_are_those_of_the_saved_checkpoint(
    name: str, adapted: bool, start: Path, tmp_path: Path
) -> None:
    weights, logs, spied = [], [], Spy()
    for callbacks in ([], [callback(), spied]):
        torch.manual_seed(5)
        model, tokenizer = load(start)
        trainer = TRAINERS[name](model, tokenizer, tmp_path / "run", callbacks, lora() if adapted else None)
        trainer.train()
        weights.append({key: value.clone() for key, value in trainer.model.state_dict().items()})
        logs.append(trainer.state.log_history)
    assert spied.modes == {True}
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert repr(numbers(logs[0], drift=False)) == repr(numbers(logs[1], drift=False))

    rows = numbers(logs[1], drift=True)
    assert [row["step"] for row in rows] == [0, 2, STEPS]
    assert (rows[0]["drift/new/kl_to_base"], rows[0]["drift/weights"]) == (0.0, 0.0)
    trainer.save_model(str(tmp_path / "end"))
    config = MeasureConfig(str(start), NEW, OLD, SETTINGS)
    measured = run_measure(config, [str(tmp_path / "end")], tmp_path / "measured")
    held = read_json(tmp_path / "run/drift/measure.json")
    assert held["base_sha256"] == measured["base_sha256"]
    assert held["sets"] == measured["sets"]
    (after,) = measured["checkpoints"]
    assert after["sets"]["new"]["kl_to_base"] > 0.0
    same(held["checkpoints"][-1]["sets"], after["sets"])
    same(held["checkpoints"][-1]["weights"], after["weights"])
    assert rows[-1]["drift/old/kl_from_base"] == pytest.approx(after["sets"]["old"]["kl_from_base"], abs=1e-5)
    assert {path.name for path in (tmp_path / "run/drift").iterdir()} == {
        *("config.json", "environment.json", "measure.json", "picture.png", "card.html", "cache")
    }


def same(ours: Any, theirs: Any) -> None:
    """Equal to 1e-5, however deep."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            same(value, theirs[key])
    else:
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5)


class Spy(TrainerCallback):
    """Sees the modes of all modules, and that the trainer's flags are left alone."""

    def __init__(self) -> None:
        self.modes: set[bool] = set()

    def on_step_end(self, _args: Any, _state: Any, control: Any, *, model: Any, **_: Any) -> None:
        self.modes |= {module.training for module in model.modules()}
        assert control.should_log  # logging_steps 1


def test_a_module_and_weights_that_are_frozen_stay_so(start: Path, tmp_path: Path) -> None:
    model, tokenizer = load(start)
    model.model.layers[0].eval()
    model.model.embed_tokens.requires_grad_(False)
    trainer = sft(model, tokenizer, tmp_path / "run", [callback(), frozen := Frozen()])
    trainer.train()
    assert frozen.seen == {(True, False)}


class Frozen(TrainerCallback):
    """Asks after each step what the callback before it should have left."""

    def __init__(self) -> None:
        self.seen: set[tuple[bool, bool]] = set()

    def on_step_begin(self, *_: Any, model: Any, **__: Any) -> None:
        model.model.layers[0].eval()  # the trainer switches all modules on before every pass

    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        self.seen.add((model.model.layers[1].training, model.model.embed_tokens.weight.requires_grad))


@pytest.mark.slow
def test_trainable_head_of_an_adapter(start: Path, tmp_path: Path) -> None:
    """Modules that peft trains whole count, and are off in the base."""
    model, tokenizer = load(start)
    adapter = lora(modules_to_save=["norm"])
    trainer = sft(model, tokenizer, tmp_path / "run", [callback()], adapter)
    trainer.train()
    trainer.save_model(str(tmp_path / "end"))
    config = MeasureConfig(str(start), NEW, OLD, SETTINGS)
    (after,) = run_measure(config, [str(tmp_path / "end")], tmp_path / "measured")["checkpoints"]
    row = read_json(tmp_path / "run/drift/measure.json")["checkpoints"][-1]
    assert row["weights"]["norm"] > 0.0
    same(row["weights"], after["weights"])
    same(row["sets"], after["sets"])


def test_autocast_is_of_training_only(start: Path, tmp_path: Path) -> None:
    """What is measured are the float32 weights, as in the saved checkpoint."""
    model, tokenizer = load(start)
    trainer = sft(model, tokenizer, tmp_path / "run", [callback()], bf16=True)
    trainer.train()
    assert "forward" in trainer.model.__dict__  # accelerate's
    trainer.save_model(str(tmp_path / "end"))
    config = MeasureConfig(str(start), NEW, OLD, SETTINGS)
    (after,) = run_measure(config, [str(tmp_path / "end")], tmp_path / "measured")["checkpoints"]
    same(read_json(tmp_path / "run/drift/measure.json")["checkpoints"][-1]["sets"], after["sets"])


def test_a_resumed_training_measures_against_the_same_base(start: Path, tmp_path: Path) -> None:
    """And its rows go on where the checkpoint was written."""
    saving = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    settings = MeasureSettings(problems=4, samples=2, max_new_tokens=4)
    for out, steps in (("once", STEPS), ("twice", 3)):
        torch.manual_seed(5)
        model, tokenizer = load(start)
        sft(model, tokenizer, tmp_path / out, [callback(settings=settings)], **saving, max_steps=steps).train()
    model, tokenizer = load(start)
    again = sft(model, tokenizer, tmp_path / "twice", [callback(settings=settings)], **saving)
    with pytest.raises(InputError, match="training goes on at step 2, where the model is not the base any more"):
        again.train(resume_from_checkpoint=str(tmp_path / "twice/checkpoint-2"))
    model, tokenizer = load(start)
    again = sft(model, tokenizer, tmp_path / "twice", [callback(settings=settings, base=str(start))], **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "twice/checkpoint-2"))
    once, twice = (read_json(tmp_path / out / "drift/measure.json") for out in ("once", "twice"))
    assert [row["step"] for row in twice["checkpoints"]] == [0, 2, 4], "what was measured at step 3 is not of this run"
    for ours, theirs in zip(once["checkpoints"], twice["checkpoints"], strict=True):
        same(ours["sets"], theirs["sets"])


def test_evaluations_decide_when(start: Path, tmp_path: Path) -> None:
    model, tokenizer = load(start)
    drift = callback(every=None, old="", out=tmp_path / "own")
    trainer = sft(model, tokenizer, tmp_path / "run", [drift], eval_strategy="steps", eval_steps=3)
    trainer.train()
    held = read_json(tmp_path / "own/measure.json")
    assert [row["step"] for row in held["checkpoints"]] == [0, 3, STEPS]
    assert list(held["sets"]) == ["new"]
    assert all(math.isfinite(row["drift/new/kl_to_base"]) for row in numbers(trainer.state.log_history, drift=True))


def test_mistakes_are_said_in_one_line(start: Path, tmp_path: Path, make_model: MakeModel) -> None:
    with pytest.raises(InputError, match="give new, old or both"):
        DriftCallback()
    with pytest.raises(InputError, match="every must be at least 1, or None, got 0"):
        DriftCallback(new=NEW, every=0)
    model, tokenizer = load(start)
    llama = make_model("llama")
    trainer = sft(model, tokenizer, tmp_path / "run", [callback(base=llama)])
    with pytest.raises(InputError, match="base= is of architecture llama, the base of qwen3"):
        trainer.train()
    with pytest.raises(InputError, match="give it in callbacks"):
        callback().on_train_begin(None, None, None)  # type: ignore[arg-type]  # nobody calls
    assert not (tmp_path / "run/drift").exists()
    model, tokenizer = load(start)
    trainer = sft(model, tokenizer, tmp_path / "run", [callback(base=make_model())], lora())
    with pytest.raises(InputError, match="leave base= out"):
        trainer.train()
