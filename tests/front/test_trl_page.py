"""The page about TRL (paper/docs/measure-a-trl-run.md): its example runs, its names are those of the log."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.llm.tasks.parse import parse_task

pytestmark = pytest.mark.skipif(not find_spec("trl"), reason="TRL is not installed")
PAGE = (Path(__file__).resolve().parents[2] / "paper/docs/measure-a-trl-run.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
def test_the_example_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    import datasets

    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = code.replace('report_to="none"', 'report_to="none", use_cpu=True, bf16=False')  # as the page says of a CPU
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    make_model(max_position_embeddings=256).save_pretrained("my-model")
    tokenizer.save_pretrained("my-model")
    task = parse_task("strings:reverse")
    for name, split in (("train", "train"), ("new", "test"), ("old", "test")):
        lines = []
        for problem in list(task.problems(split))[:6]:  # type: ignore[arg-type]
            answer = task.answer(problem)  # type: ignore[attr-defined]
            shown = {"completion": f" {answer}"} if name == "train" else {"answer": answer, "split": split}
            lines.append(json.dumps({"prompt": f"| {problem.text} =", **shown}) + "\n")
        Path(f"{name}.jsonl").write_text("".join(lines))
    told: dict[str, object] = {}
    exec(compile(code, "measure-a-trl-run.md", "exec"), told)
    log = told["trainer"].state.log_history  # type: ignore[attr-defined]
    rows = [row for row in log if "drift/new/kl_to_base" in row]
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert (tmp_path / "out/drift/card.html").exists()
    named = set(re.findall(r"`(drift/[\w/@]+)`", PAGE)) - {
        "drift/new/old_mass"
    }  # the files of this test have no old answers
    assert len(named) > 5
    assert named <= rows[-1].keys()
