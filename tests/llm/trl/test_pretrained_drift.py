"""`DriftCallback` on a pretrained model: what it says is what `run_measure` says of the saved checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny_trainers import common, lora
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from fstsim.llm.measure.config import MeasureConfig, MeasureSettings
from fstsim.llm.measure.measure import run_measure
from fstsim.llm.policy.pretrained import cached_path
from fstsim.llm.trl import DriftCallback
from fstsim.records import read_json

pytestmark = [
    pytest.mark.pretrained,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("quiet_trainers"),
    pytest.mark.skipif(not cached_path("smollm2").exists(), reason="fstsim model smollm2 was not run"),
]
NOUNS = ("cat", "dog", "tree", "house", "river", "stone", "cloud", "horse")
LARGEST = {"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Greece": "Athens"}


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps({**row, "split": "test"}) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("adapted", [False, True])
def test_numbers_are_those_of_the_saved_checkpoint(adapted: bool, tmp_path: Path) -> None:
    asked = {noun: f"What is the plural of {noun}?" for noun in NOUNS}
    new = write(
        tmp_path / "new.jsonl",
        [{"prompt": asked[n], "answer": f"{n}s!", "old_answer": f"The plural of {n} is {n}s."} for n in NOUNS[:4]],
    )
    old = write(
        tmp_path / "old.jsonl",
        [
            {"prompt": f"What is the capital of {c}?", "answer": f"The capital of {c} is {city}."}
            for c, city in LARGEST.items()
        ],
    )
    place = cached_path("smollm2")
    settings = MeasureSettings(problems=4, samples=2, max_new_tokens=12)
    chat: Any = [
        {
            "prompt": [{"role": "user", "content": asked[n]}],
            "completion": [{"role": "assistant", "content": f"{n}s!"}],
        }
        for n in NOUNS
    ]
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(place),
        args=SFTConfig(
            **common(
                tmp_path / "run", max_steps=3, per_device_train_batch_size=2, learning_rate=1e-3 if adapted else 2e-5
            )
        ),
        train_dataset=Dataset.from_list(chat),
        processing_class=AutoTokenizer.from_pretrained(place),
        callbacks=[DriftCallback(new=new, old=old, every=10, settings=settings)],
        peft_config=lora() if adapted else None,
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "end"))
    held = read_json(tmp_path / "run/drift/measure.json")
    del trainer
    measured = run_measure(MeasureConfig("smollm2", new, old, settings), [str(tmp_path / "end")], tmp_path / "measured")
    assert held["base_sha256"] == measured["base_sha256"]
    (after,) = measured["checkpoints"]
    first, last = held["checkpoints"]
    assert first["sets"]["new"]["kl_to_base"] == pytest.approx(0.0, abs=1e-5)
    assert last["sets"]["new"]["kl_to_base"] > 1e-2
    for name in ("new", "old"):
        for key in ("kl_to_base", "kl_from_base", "reward", "answer_nll", "entropy"):
            assert last["sets"][name][key] == pytest.approx(after["sets"][name][key], abs=1e-5, rel=1e-5), (name, key)
    assert last["weights"] == pytest.approx(after["weights"], rel=1e-5)
