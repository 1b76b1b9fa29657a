"""The page about many GPUs shows what is computed, and its example is one that trains."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(not find_spec("trl"), reason="TRL is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of TRL and peft
]
PAGE = Path(__file__).resolve().parents[3] / "paper/docs/many-gpus.md"


def test_the_page_is_what_is_computed() -> None:
    from fstsim.paper.records.many_gpus import with_table

    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text


def test_the_example_trains_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    smaller = {
        "AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)": "model",
        "AutoTokenizer.from_pretrained(name)": "tokenizer",
        "mine.jsonl": "strings:reverse",
        "1024": "6",
        "max_steps=200": "max_steps=1, use_cpu=True, bf16=False, report_to='none', disable_tqdm=True",
        "save_steps=20": "save_strategy='no'",
        "per_device_train_batch_size=4": "per_device_train_batch_size=8",
        "PromptEvolution(contexts=4,": "PromptEvolution(contexts=2, rollout_budget=48, validation=4, shown=3,",
    }
    for there, here in smaller.items():
        assert there in code
        code = code.replace(there, here)
    from fstsim.llm.policy.loading import load_model

    monkeypatch.chdir(tmp_path)
    model, tokenizer = load_model("base", "cpu", "float32")
    told: dict[str, object] = {"model": model, "tokenizer": tokenizer}
    exec(compile(code, "many-gpus.md", "exec"), told)
    assert told["trainer"].state.global_step == 1  # type: ignore[attr-defined]
    assert [held["step"] for held in told["trainer"].rounds] == [0]  # type: ignore[attr-defined]
