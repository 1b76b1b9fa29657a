"""The scratch base: its corpus teaches right chains, its exam asks what greedy decoding writes, its gates hold what is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.config import PRESETS, recorded
from fstsim.llm.pretraining.corpus import CorpusConfig, longest_line, scratch_line, training_batches
from fstsim.llm.pretraining.pretrain import new_model, pretrain
from fstsim.llm.pretraining.scratch_exam import DEPTHS, ScratchExam, chain_table, gates
from fstsim.llm.tasks.chains import read
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import make_problem, parse_start
from fstsim.llm.tasks.splits import split_of
from fstsim.records import read_json, read_rows

MakePolicy = Callable[..., Policy]
SMALL = {"strings": 3, "digits": 2, "star_graph": 3}
TINY = replace(
    PRESETS["scratch"],
    steps=2,
    layers=1,
    width=32,
    start="",
    corpus=CorpusConfig(problems=3, reflections=1, scratch=True),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_chains_of_the_corpus_are_right(name: str) -> None:
    family, rng = FAMILIES[name], np.random.default_rng(0)
    marks = ""
    for _ in range(40):
        shown, written = scratch_line(family, 4, rng, chain=True)
        bar = shown.index("|")
        rules, text = shown[:bar], "".join(shown[bar + 1 : -1])
        problem = make_problem(family, text)
        steps, answer = read("".join(written))
        start = parse_start(problem)
        assert split_of(problem) == "train"
        assert answer == "".join(family.apply(rules, start))
        lists = ([start] if name == "star_graph" else []) + [
            family.apply(rules[:k], start) for k in range(1, len(rules))
        ]
        assert [step.content for step in steps] == ["".join(x) for x in lists]
        marks += "".join(step.mark for step in steps)
        direct = scratch_line(family, 4, rng, chain=False)[1]
        assert not set(direct) & set(">;=")
    assert 0.3 < marks.count(";") / len(marks) < 0.7


def test_the_corpus_has_chains_only_where_they_are_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    config = PRESETS["scratch"].corpus
    mark = tokenizer.convert_tokens_to_ids("=")
    with_answers = [int(((labels == mark).any(1)).sum()) for _, labels in training_batches(config, 0, 0, 0.0)]
    assert with_answers == [0, 0, 32, 0, 0, 0, 40, 0, 0, 0, 16, 0]
    longest = max(tokens.shape[1] for step in range(20) for tokens, _ in training_batches(config, 0, step))
    assert longest <= longest_line(config) <= longest + 8
    plain = training_batches(replace(config, scratch=False), 0, 0, 0.0)
    assert not any(bool((labels == mark).any()) for _, labels in plain)


def test_the_exam_is_what_greedy_decoding_writes(make_policy: MakePolicy, tokenizer: PreTrainedTokenizerFast) -> None:
    """Token by token, where either mark of a step may be written; and the mass of chains is that of the first token."""
    policy = make_policy()
    exam = ScratchExam.of(tokenizer, SMALL, problems=3)
    assert {name.rpartition("_")[0] for name, _ in exam.parts} == {
        f"{kind}_{family}" for kind in ("direct", "chain", "chain_forward", "chain_backward") for family in FAMILIES
    }
    found = exam.sit(policy.model)
    forced = dict(exam.parts)["chain_digits_3"]
    marks = set(exam.marks)
    for tokens, labels in zip(forced.tokens, forced.labels, strict=True):
        places = torch.nonzero(labels >= 0)[:, 0].tolist()
        assert int(tokens[places[0]]) in marks, "the first mark is given"
        # a copy of the answer with the other mark counts as the same answer
        other = labels.clone()
        for k in places:
            if int(labels[k]) in marks:
                other[k] = (marks - {int(labels[k])}).pop()
        twin = replace(forced, labels=other[None], tokens=tokens[None])
        plain = replace(forced, labels=labels[None], tokens=tokens[None])
        assert twin.evaluate(policy.model)[1].tolist() == plain.evaluate(policy.model)[1].tolist()
    direct = dict(exam.parts)["direct_strings_2"]
    total = 0.0
    for tokens, labels in zip(direct.tokens, direct.labels, strict=True):
        first = int(torch.nonzero(labels >= 0)[0])
        logits = policy.model(tokens[None, : first + 1]).logits[0, -1].detach().double().softmax(-1)
        total += float(logits[list(marks)].sum()) / len(direct.tokens)
    assert found["chain_mass_strings_2"] == pytest.approx(total, rel=1e-5)
    assert len(chain_table(found)) == 9


def test_gates() -> None:
    base = {f"accuracy_{family}_{k}": 0.8 for family in FAMILIES for k in (1, 2, 3)}
    base |= {f"old_mass_{family}": 0.3 for family in FAMILIES}
    good = {**base, **{f"chain_{family}_{k}": 0.8 for family in FAMILIES for k in DEPTHS}}
    assert all(gate.passed for gate in gates(good, base))
    failed = {
        gate.name
        for gate in gates({**good, "chain_digits_2": 0.6, "accuracy_strings_3": 0.77, "old_mass_digits": 0.33}, base)
        if not gate.passed
    }
    assert failed == {"chain_digits_2", "accuracy_strings_3", "old_mass_digits"}


def test_a_training_goes_on_from_a_model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    row = pretrain(TINY, tmp_path / "first")
    assert "chain_strings_2" in row
    assert "chain_mass_strings_6" in row
    card = (tmp_path / "first" / "README.md").read_text()
    assert "random weights" in card
    assert "| family | 2 rules" in card
    second = replace(TINY, start=str(tmp_path / "first"), steps=1)
    begun = new_model(second, tokenizer).state_dict()
    held = Policy.load(str(tmp_path / "first")).model.state_dict()
    assert all(torch.equal(begun[name], held[name]) for name in held)
    pretrain(second, tmp_path / "second")
    assert read_json(tmp_path / "second" / "pretrain.json")["start"] == second.start
    assert len(read_rows(tmp_path / "second" / "metrics.jsonl")) == 1
    with pytest.raises(InputError, match="is no model of 2 layers"):
        new_model(replace(second, layers=2), tokenizer)


def test_settings_that_say_nothing_are_not_recorded() -> None:
    held = recorded(PRESETS["small"])
    assert "start" not in held
    assert "scratch" not in held["corpus"]
    assert recorded(PRESETS["scratch"])["start"] == "base"
