"""The summary of verdicts is that of the recorded validation, and no prediction is left out of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from small_chapters import small_chapters

from fstsim import InputError
from fstsim.llm.validation.kinds import KINDS, Label
from fstsim.paper.bridge.numbers import Verdict, read_verdicts
from fstsim.paper.records.verdict_summary import command_of, grouped, pretrained_folders, verdict_summary
from fstsim.records import write_json

ROOT = Path(__file__).parents[3]
LABEL = Label("replay", run="replay-0.1", x=0.1)
ROW = Verdict("replay-0.1", LABEL, "replay-forward", "q", 0.1, 0.06, 0.14, 0.11, 0.1, 0.12, 3, "confirmed")


def test_every_prediction_has_one_line() -> None:
    made = [c.prediction for chapter in small_chapters().values() for c in chapter.claims]
    lines = grouped([replace(ROW, name=p.name, label=p.label) for p in made])
    assert sorted(row.name for _, own in lines for row in own) == sorted(p.name for p in made)
    assert [title for title, _ in lines] == [
        kind.title
        for name, kind in KINDS.items()
        if not kind.chat
        and not name.startswith("chain-")  # chat models and the scratch base have chapters of their own
    ], "a kind of which there is none"
    by_name = {row.name: title for title, own in lines for row in own}
    assert by_name["ttt-2-exact"] != by_name["ttt-2"]
    assert by_name["sft-new-only-logit-rest"] != by_name["sft-new-only-logit"] != by_name["sft-new-only-adam"]
    recorded = {row.name: row.label for row in read_verdicts(ROOT / "paper" / "data" / "validation")}
    assert {p.name: p.label for p in made if p.name in recorded} == recorded


def test_recorded_verdicts_are_counted() -> None:
    rows = read_verdicts(ROOT / "paper" / "data" / "validation")
    counts = Counter(row.verdict for row in rows)
    text = verdict_summary(rows)
    assert text.startswith(f"{len(rows)} predictions: {counts['confirmed']} confirmed, {counts['falsified']} falsified")
    assert sum(len(own) for _, own in grouped(rows)) == len(rows)


def test_few_seeds_are_said() -> None:
    assert "(1 seed: fewer than 3 decide nothing)" in verdict_summary([replace(ROW, seeds=1, verdict="undecided")])


def test_numbers_and_verdicts_are_those_of_the_row() -> None:
    text = verdict_summary(
        [ROW, replace(ROW, name="replay-0.2", value=-1.234, measured=float("nan"), verdict="falsified")]
    )
    assert "(`replay-forward`) | 0.1, −1.23 | 0.11, – | 1 confirmed, **1 falsified** |" in text


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(InputError, match="kind of prediction 'tea' is unknown; allowed: replay,"):
        Label("tea")


def test_what_needs_no_run_is_counted_once_of_the_pretrained_model() -> None:
    """Of the base alone: a validation with an adapter says nothing new of it."""
    rows = [row for folder in pretrained_folders() for row in read_verdicts(folder)]
    base_alone = [row.name for row in rows if not row.label.run]
    assert base_alone
    assert len(base_alone) == len(set(base_alone))


def test_the_command_says_how_runs_were_trained(tmp_path: Path) -> None:
    about = {"model": "smollm2", "scale": "small"}
    for more, said in [
        ({}, ""),
        ({"adapter": "", "precision": "float32"}, ""),
        ({"precision": "bfloat16"}, " --precision bfloat16"),
    ]:
        write_json(tmp_path / "predictions.json", about | more)
        assert command_of(tmp_path) == f"`fstsim validate --model smollm2 --preset small{said}`"
