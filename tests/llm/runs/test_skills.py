"""Old skills: what a probe measures of them is what a plain computation gives, in the task's own context."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import Exam, ExamSkills
from fstsim.llm.runs.old_prompts import OldPrompts
from fstsim.llm.runs.probes import Probe, ProbeConfig
from fstsim.llm.runs.skills import TaskSkills, old_skills
from fstsim.llm.tasks.jsonl import read_jsonl
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population

MakePolicy = Callable[..., Policy]
SMALL = ProbeConfig(every=1, problems=8, exam=2, max_new_tokens=6)


def mass(policy: Policy, context: str, text: str, answer: str) -> float:
    """Probability of an answer from one forward pass over the whole line, without padding, sharing or cache."""
    prompt = policy.tokenizer(f"{context} | {text} =")["input_ids"]
    written = [*policy.tokenizer(answer, add_special_tokens=False)["input_ids"], policy.end_token]
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt + written]), use_cache=False).logits[0].double()
    logp = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    return float(logp[torch.arange(len(written)), torch.tensor(written)].sum().exp())


def lines(path: Path, context: str) -> str:
    found = [
        {"prompt": f"{a}B", "answer": f"B {a}", "split": split, "context": context}
        for split, letters in (("train", "A"), ("validation", "B"), ("test", "CDEFG"))
        for a in letters
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    return str(path)


def test_exact_tasks_are_measured_exactly_each_in_its_own_context(make_policy: MakePolicy, tmp_path: Path) -> None:
    base = make_policy(max_position_embeddings=80)
    tasks = [parse_rules("strings:reverse"), read_jsonl(lines(tmp_path / "own.jsonl", "rotate next"))]
    now = Policy.of(copy.deepcopy(base.model), base.tokenizer)
    with torch.no_grad():
        for weight in now.model.parameters():
            weight.mul_(0.9)
    contexts = ("reverse", "rotate next")
    wanted = [
        [
            np.mean([mass(policy, c, p.text, task.answer(p)) for p in list(task.problems("test"))[:8]])
            for policy in (base, now)
        ]
        for c, task in zip(contexts, tasks, strict=True)
    ]
    skills = TaskSkills.of(base, tasks, SMALL, seed=0)
    row = skills.measure(now)
    names = list(row)
    assert names[0] == "old_skill_strings_reverse"
    assert names[1].endswith("_own_jsonl")
    assert names[2:] == ["old_skills", "old_skills_drift"]
    np.testing.assert_allclose([row[name] for name in names[:2]], [w[1] for w in wanted], rtol=1e-4)
    assert row["old_skills"] == pytest.approx(np.mean([w[1] for w in wanted]), rel=1e-4)
    assert row["old_skills_drift"] == pytest.approx(np.mean([w[0] - w[1] for w in wanted]), rel=1e-3)
    assert skills.measure(base)["old_skills_drift"] == 0.0


def test_other_tasks_are_sampled_always_with_the_same_numbers(make_policy: MakePolicy) -> None:
    base = make_policy(max_position_embeddings=80)
    task = parse_rules("strings:next/share")
    row = TaskSkills.of(base, [task], SMALL, seed=3).measure(base)
    problems = list(task.problems("test"))[:8]
    drawn = base.sample(
        [base.encode("next", p) for p in problems], 1, torch.Generator().manual_seed(3), max_new_tokens=6
    )
    rewards = [task.score(p, text).reward for p, text in zip(problems, base.decode(drawn), strict=True)]
    assert row["old_skill_strings_next_share"] == row["old_skills"] == pytest.approx(np.mean(rewards))


def test_columns_of_the_same_name_are_numbered(make_policy: MakePolicy) -> None:
    base = make_policy(max_position_embeddings=80)
    skills = TaskSkills.of(base, [parse_rules("strings:next")] * 2, SMALL, seed=0)
    assert skills.columns == ("old_skill_strings_next_0", "old_skill_strings_next_1")


def test_a_model_of_the_world_has_its_exam_and_every_probe_measures_all(make_policy: MakePolicy) -> None:
    base = make_policy(max_position_embeddings=80)
    kinds = [type(each) for each in old_skills(base, [parse_rules("strings:next")], SMALL, 0)]
    assert kinds == [ExamSkills, TaskSkills, OldPrompts]
    assert [type(each) for each in old_skills(base, [], SMALL, 0)] == [ExamSkills, OldPrompts]
    skills = old_skills(base, [parse_rules("strings:next")], SMALL, 0)
    row = Probe(base, parse_rules("digits:plus"), SMALL, skills=skills).measure(base, Population())
    sat = Exam.of_world(base.tokenizer, problems=2, reflections=False).sit(base.model)
    assert {name: row[name] for name in sat} == sat
    assert (row["drift"], row["drift_nll"], row["old_skills_drift"]) == (0.0, 0.0, 0.0)
