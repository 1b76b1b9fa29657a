"""`fstsim measure` from end to end on tiny random models: what it writes, the gate, and one line for a mistake."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.__main__ import main
from fstsim.llm.policy.loading import shipped_path
from fstsim.records import read_json

MakeModel = Callable[..., PreTrainedModel]


@pytest.fixture(scope="module")
def models(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for name, seed in (("start", 0), ("<b>end&", 1)):
        make_model(seed=seed).save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


@pytest.fixture(autouse=True)
def _here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)


def measure(*flags: str) -> int:
    small = ("--problems", "4", "--samples", "2", "--max-new-tokens", "4")
    return main(["measure", "--base", "start", "--out", "out", *small, *flags])


SETS = ("--new", "strings:reverse", "--old", "digits:negate")


def test_table_picture_card_and_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure("--checkpoint", "<b>end&", *SETS) == 0
    said = capsys.readouterr().out
    assert 0 < said.count("\n") <= 40
    assert max(map(len, said.splitlines())) <= 100
    assert "KL(now || base)" in said
    out = tmp_path / "out"
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    card = (out / "card.html").read_text()
    assert "<b>end" not in card
    assert "&lt;b&gt;end&amp;" in card
    assert "http" not in card.split("<body>")[1].replace("data:image", "")  # nothing is loaded
    (row,) = read_json(out / "measure.json")["checkpoints"]
    kl = row["sets"]["new"]["kl_to_base"]
    assert measure("--checkpoint", "<b>end&", *SETS, "--at-most-kl", "1000", "--at-most-forgetting", "1") == 0
    capsys.readouterr()
    assert measure("--checkpoint", "<b>end&", *SETS[:2], "--out", "gate", "--at-most-kl", f"{kl / 2}") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "above --at-most-kl" in line
    assert line.startswith("fstsim: <b>end&: KL to the base on the new set is")


def test_two_outputs_of_lm_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, values in (("a", (1.0, 1.0, 0.0)), ("b", (0.0, 1.0, 0.0))):
        (tmp_path / name).mkdir()
        lines = [f'{{"doc_id": {k}, "metrics": ["acc"], "acc": {value}}}\n' for k, value in enumerate(values)]
        (tmp_path / name / "samples_[bold]arc_2026-11-26T10-00-00.1.jsonl").write_text("".join(lines))
    assert main(["measure", "--lm-eval", "a", "b", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "[bold]arc, acc" in said
    (row,) = read_json(tmp_path / "out/lm_eval.json")["rows"]
    assert (row["lost"], row["gained"], row["documents"]) == (1, 0, 3)


def test_relearning_is_in_table_and_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fstsim.llm.measure.relearn.RELEARN_MOST", 2)
    again = ("--relearn", "digits:negate", "--relearn-lr", "0.5")
    assert measure("--checkpoint", "start", *SETS[:2], *again) == 0
    assert "steps to probability 0.5" in capsys.readouterr().out
    assert "<h2>Relearning</h2>" in (tmp_path / "out/card.html").read_text()


MISTAKES = {
    "--lm-eval start nowhere": "start holds no samples_TASK_DATE.jsonl",
    "--lm-eval start start --new strings:reverse": "leave --new out",
    "--checkpoint start": "give --new, --old or both",
    "--new strings:reverse": "--checkpoint",
    "--checkpoint nowhere --new strings:reverse": "there is no model at 'nowhere'",
    "--checkpoint start --new strings:sideways": "sideways",
    "--checkpoint start --new empty.jsonl": "empty.jsonl is empty",
    "--checkpoint start --new strings:reverse --samples 0": "samples must be at least 1",
    "--checkpoint start --new strings:reverse --at-most-kl -1": "--at-most-kl must be finite and at least 0",
    "--checkpoint start --new strings:reverse --at-most-forgetting 0.1": "give --old",
    "--checkpoint start --new strings:reverse --max-new-tokens 80": "do not fit the model's 64 positions",
}


@pytest.mark.parametrize(("base", "checkpoint", "missing"), [("nosuch", "nosuch2", "nosuch"), ("start", "no", "no")])
def test_a_name_that_is_no_model_is_said_at_once(
    base: str, checkpoint: str, missing: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is loaded for it, nobody is asked for it, and no model is named that is not there."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket.socket, "connect", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr("fstsim.llm.measure.measure.load_base", never)
    assert main(["measure", "--base", base, "--checkpoint", checkpoint, "--new", "strings:reverse"]) == 2
    err = capfd.readouterr().err
    there = ", ".join(name for name in ("base", "tiny", "scratch") if shipped_path(name).is_dir())
    assert (
        err
        == f"fstsim: error: there is no model at '{missing}': give a path, {there}, smollm2, or a hub name owner/model\n"
    )


@pytest.mark.parametrize("flags", MISTAKES)
def test_one_line_code_2_nothing_written(flags: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    assert measure(*flags.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert MISTAKES[flags] in err
    assert not (tmp_path / "out").exists()
