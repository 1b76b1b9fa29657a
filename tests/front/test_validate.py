"""`fstsim validate` from end to end in this process, on a tiny random model: what is written when, and what mistakes say.

No verdict on such a model means anything; that predictions come before runs, and that a killed validation ends like one
that was not, does not depend on the model.
"""

from __future__ import annotations

import functools
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

import fstsim.llm.runs.run as train_run
from fstsim.__main__ import main
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.validation.equilibria import SHARES
from fstsim.records import read_json, read_rows

MakeModel = Callable[..., PreTrainedModel]

VERDICTS = {"confirmed", "falsified", "undecided"}


@pytest.fixture(scope="module")
def tiny(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    make_model(num_hidden_layers=1, max_position_embeddings=80, initializer_range=0.05).save_pretrained(place)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(place)
    shutil.copytree(place, place.with_name("chat"))  # the same model, spoken to in another way
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(place.with_name("chat"))
    return place


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the model; the relearning probe takes one step: it is tested on its own."""
    (tmp_path / "tiny").symlink_to(tiny)
    (tmp_path / "chat").symlink_to(tiny.with_name("chat"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_run, "relearn_steps", functools.partial(relearn_steps, most=1, batch=2))


def command(out: str, *flags: str) -> int:
    return main(["validate", "--preset", "smoke", "--model", "tiny", "--jobs", "1", "--out", out, *flags])


def contents(place: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else None for p in sorted(place.rglob("*"))}


# command line -> what its one line must say
MISTAKES = {
    "validate --preset tiny": "smoke",
    "validate --seeds 0 --out empty": "seeds must be at least 1",
    "validate --seeds few": "--seeds",
    "validate --out file": "file is not a directory",
    "validate --out /proc/here": "cannot write in /proc/here",
    "validate --out empty --model nowhere": "nowhere",
    "validate --out empty --model tiny --only chess": "chapter 'chess' is unknown; allowed: dead-groups, replay",
    "validate --no-such-flag": "--no-such-flag",
    "validate --out new --only foo": "chapter 'foo' is unknown",
    "validate --out new --model nowhere": "nowhere",
    "validate --out new --model tiny --jobs 0": "jobs must not be 0",
    "validate --out new --model chat": "or a chat model that writes English; 'chat' is another",
    "validate --out full --model tiny --only dead-groups": "full is not empty and holds no training runs",
    "validate --out begun --model tiny --only replay --seeds 1": "is not empty and holds no training run",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_code_2_nothing_written(mistake: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "full", tmp_path / "begun" / "runs" / f"replay-{SHARES['smoke'][0]:g}" / "seed-0"):
        place.mkdir(parents=True)
        (place / "thesis.tex").write_text("mine too")
    before = contents(tmp_path)
    code = main(shlex.split(mistake))
    said, err = capfd.readouterr()
    assert code == 2, err
    assert said == ""
    assert err.count("\n") == 1
    assert err.startswith("fstsim: error: ")
    assert MISTAKES[mistake] in err
    assert contents(tmp_path) == before


def test_what_needs_no_run_is_judged_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Predictions for every chapter, a verdict on those without runs; another model or scale is refused and changes nothing."""
    out = tmp_path / "out"
    assert command("out", "--only", "dead-groups", "--seeds", "1") == 0, capfd.readouterr().err
    predictions, judged = read_json(out / "predictions.json"), read_json(out / "validation.json")
    assert predictions["model"] == "tiny"
    assert predictions["scale"] == "smoke"
    names = [p["name"] for p in predictions["predictions"]]
    assert len(set(names)) == len(names) > len(judged) >= 3
    assert {j["name"] for j in judged} == {name for name in names if name.startswith("dead-groups")}
    assert {j["verdict"] for j in judged} <= VERDICTS
    assert all(j["seeds"] == 1 for j in judged)
    assert not (out / "runs").exists()
    said = capfd.readouterr().out
    assert all(j["name"] in said for j in judged)
    before = contents(out)
    assert main(["validate", "--preset", "small", "--model", "tiny", "--only", "dead-groups", "--out", "out"]) == 2
    assert "holds a validation with scale smoke, not small" in capfd.readouterr().err
    assert contents(out) == before


@pytest.mark.slow
def test_interrupted_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed in the second run: predictions are there and stay as they are, the rest ends as it would have."""
    flags = ("--only", "replay", "--seeds", "1")
    assert command("whole", *flags) == 0, capfd.readouterr().err
    real, calls = SupervisedFineTuning.step, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 95:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedFineTuning, "step", interrupted)
        assert command("stopped", *flags) == 130
    stopped = tmp_path / "stopped"
    assert "continue with: fstsim validate" in capfd.readouterr().err
    assert not (stopped / "validation.json").exists()
    written = (stopped / "predictions.json").read_bytes()
    assert command("stopped", *flags) == 0
    assert (
        (stopped / "predictions.json").read_bytes() == written == (tmp_path / "whole" / "predictions.json").read_bytes()
    )
    assert read_json(stopped / "validation.json") == read_json(tmp_path / "whole" / "validation.json")
    for share in SHARES["smoke"]:
        held = [tmp_path / d / "runs" / f"replay-{share:g}" / "seed-0" for d in ("stopped", "whole")]
        assert read_rows(held[0] / "metrics.jsonl") == read_rows(held[1] / "metrics.jsonl")
        config = read_json(held[0] / "config.json")
        assert config["model"] == "tiny"
        assert config["demonstrations"]["replay"] == share
