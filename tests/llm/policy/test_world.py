"""Which models are of the world: what is stored with them decides, not what the families are today."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from fstsim.errors import InputError
from fstsim.llm.contexts.reflection import SelfReflection
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.world import shipped_world
from fstsim.llm.pretraining.exam import Exam
from fstsim.llm.pretraining.tokenizer import build_tokenizer, vocabulary
from fstsim.llm.runs.config import PRESETS
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.families import FAMILIES, STRINGS, Family
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.tasks.table import measure_tasks, table_tasks

MakeModel = Callable[..., PreTrainedModel]


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule word more in strings, and a family more."""
    more = replace(
        STRINGS,
        rules={**STRINGS.rules, "double": lambda x: x[:1] * len(x)},
        explained={**STRINGS.explained, "double": "write the first letter everywhere"},
    )
    other = Family("shapes", "XYZ", {"turn": lambda x: x[::-1]}, lambda x: x, STRINGS.draw, "{text}", {"turn": "turn"})
    monkeypatch.setitem(FAMILIES, "strings", more)
    monkeypatch.setitem(FAMILIES, "shapes", other)


def test_the_file_beside_the_weights_is_the_vocabulary_of_the_tokenizer_there() -> None:
    tokens = json.loads((shipped_path() / "tokenizer.json").read_text())["model"]["vocab"]
    world = shipped_world()
    assert world["vocabulary"] == sorted(tokens, key=tokens.__getitem__)
    assert set(world["words"]) == {token for token in tokens if token.isalpha() and token.islower()}
    assert set(world["sizes"]) == {"strings", "digits", "star_graph"}


def test_a_new_word_and_a_new_family_make_the_shipped_model_no_stranger(grown: None) -> None:  # noqa: ARG001
    assert "double" in vocabulary()
    policy = Policy.load()
    assert policy.template == "world"
    assert "double" not in policy.words
    assert policy.words == tuple(shipped_world()["words"])
    assert policy.sizes == shipped_world()["sizes"]
    assert policy.unknown("reverse double | AB =") == ["double"]


def test_what_is_measured_on_it_stays_the_same(request: pytest.FixtureRequest) -> None:
    policy = Policy.load()
    before = Exam.of_world(policy.tokenizer, policy.sizes, problems=6, reflections=False).sit(policy.model)
    table = [task.name for task in table_tasks(policy.sizes)]
    request.getfixturevalue("grown")
    after = Exam.of_world(policy.tokenizer, policy.sizes, problems=6, reflections=False).sit(policy.model)
    assert after == before
    assert [task.name for task in table_tasks(policy.sizes) if "double" not in task.name] == table
    (row,) = measure_tasks(policy, [parse_rules("strings:double")], problems=4)
    assert "told" not in row, "it has no word for the rule"


def test_it_learns_the_new_rule_and_is_shown_no_word_for_it(grown: None, tmp_path: Path) -> None:  # noqa: ARG001
    config = replace(
        PRESETS["smoke"].config("sft"),
        steps=1,
        tasks=("strings:double",),
        probe=ProbeConfig(every=10, problems=4, exam=2),
    )
    rows = run_training(config, tmp_path / "run")
    assert {"drift", "old_mass", "relearn"} <= rows[-1].keys()
    assert Policy.load(str(tmp_path / "run" / "model")).template == "world"
    with pytest.raises(InputError, match="the rule of strings:double has words that the model does not know: double"):
        SDFT().check(Policy.load(), "", parse_rules("strings:double"))
    with pytest.raises(InputError, match="the context of strings:double has words that base does not know: 'double'"):
        run_training(replace(config, old=("strings:double",)), tmp_path / "other")


def test_a_model_that_says_its_words_is_of_the_world_whatever_the_shipped_list_is(make_model: MakeModel) -> None:
    """Another world, without most words of this one: its own model reads it, and writes its words only."""
    tokenizer = build_tokenizer()
    model = make_model()
    model.config.world_words, model.config.world_sizes = ["reverse", "next"], {"strings": 3}
    policy = Policy.of(model, tokenizer)
    assert (policy.template, policy.words, policy.sizes) == ("world", ("reverse", "next"), {"strings": 3})
    assert Policy.of(make_model(), tokenizer).words == tuple(shipped_world()["words"])


def test_reflection_writes_the_words_of_the_policys_world_alone(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    model = make_model(max_position_embeddings=128)
    model.config.world_words = ["reverse"]
    policy = Policy.of(model, build_tokenizer())
    monkeypatch.setattr(Policy, "decode", lambda self, rollouts: ["next reverse A reverse"])  # noqa: ARG005
    feedback = [{"Feedback": f"wrong. start: {a}B wrote: {a} right: B{a}"} for a in "ABCDE"]
    written, cost = SelfReflection().propose(policy, "", feedback, np.random.default_rng(0))
    assert (written, cost) == ("reverse reverse", 1)
