"""What `test_two_processes` starts twice: a supervised training over gloo with the callback; writes what this process saw."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fstsim.errors import InputError
from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.trl import DriftCallback

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))  # after fstsim, which has a folder of that name among the tests
    from tiny_trainers import NEW, OLD, sft

    start, out, base = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    drift = DriftCallback(new=NEW, old=OLD, every=2, base=base or None, settings=MeasureSettings(4, 2, 5))
    trainer = sft(
        AutoModelForCausalLM.from_pretrained(start),
        AutoTokenizer.from_pretrained(start),
        Path(out) / "run",
        [drift],
        ddp_backend="gloo",
    )
    try:
        trainer.train()
        said = ""
    except InputError as error:
        said = str(error)
    total = float(sum(weight.double().sum() for weight in trainer.model.parameters()))
    seen = {"log": trainer.state.log_history, "weights": total, "said": said}
    (Path(out) / f"seen-{rank}.json").write_text(json.dumps(seen))
