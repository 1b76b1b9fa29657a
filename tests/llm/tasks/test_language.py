"""The language suite: its words, its splits and its verifiers, without a model; what SmolLM2 does with it, with one."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.contexts.proposals import UnusableProposal
from fstsim.llm.contexts.reflection import SelfReflection
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.pretrained import cached_path
from fstsim.llm.tasks.language import (
    ASKS,
    BEHAVIOURS,
    RELATIONS,
    SENTENCE,
    LanguageTask,
    normalised,
    suite_tasks,
)
from fstsim.llm.tasks.language_items import CLOZES, TEXTS, read_items
from fstsim.llm.tasks.language_read import ClozeTask, TextTask
from fstsim.llm.tasks.parse import own_problems, parse_task
from fstsim.llm.tasks.table import measure_tasks
from fstsim.llm.types import SPLITS, Answered, Demonstrated, Described, Followed, Measured, Problem, Task

NEW = [f"language:{name}:{behaviour}" for name, r in RELATIONS.items() for behaviour in r.behaviours]
ASKED = [name for name, r in RELATIONS.items() if r.noun]


@pytest.mark.parametrize("name", RELATIONS)
def test_words_of_a_relation(name: str) -> None:
    pairs = RELATIONS[name].pairs
    assert len(pairs) >= 100
    assert len({thing for thing, _ in pairs}) == len(pairs), "each thing once"
    for thing, becomes in pairs:
        assert thing == thing.strip() != ""
        assert becomes == becomes.strip() != ""
        assert thing != becomes or name == "colours", thing  # an orange is orange
        assert re.fullmatch(r"[A-Za-z' +.,0-9-]+", thing + becomes), thing


def test_opposites_are_opposite_both_ways_and_each_word_is_in_one_pair() -> None:
    becomes = dict(RELATIONS["opposites"].pairs)
    assert all(becomes[becomes[thing]] == thing for thing in becomes)


def test_irregular_forms_and_spelling_rules() -> None:
    """Against rules written down here: what is regular follows them, what is not is in these lists."""
    plurals, past, more = (dict(RELATIONS[name].pairs) for name in ("plural", "past", "comparatives"))
    for thing, becomes in plurals.items():
        if becomes.endswith("ies") and becomes != thing + "s":
            assert thing.endswith("y"), thing
            assert becomes == thing[:-1] + "ies", thing
        elif becomes.endswith("ves"):
            assert thing.removesuffix("fe").removesuffix("f") + "ves" == becomes, thing
        elif re.search(r"(s|x|ch|sh)$", thing) and not thing.endswith("is"):
            assert becomes == thing + "es" or thing == "ox", thing
        elif becomes not in ("men", "women", "children", "feet", "teeth", "geese", "mice") and not thing.endswith("is"):
            assert becomes in (thing + "s", thing + "es"), thing
    assert (plurals["child"], plurals["crisis"], plurals["roof"]) == ("children", "crises", "roofs")
    for thing, becomes in past.items():
        if becomes.endswith("ed") and thing not in ("feed", "lead"):
            doubled = thing + thing[-1] + "ed"
            allowed = (thing + "ed", thing + "d") if not thing.endswith("y") else (thing + "ed", thing[:-1] + "ied")
            assert becomes in (*allowed, doubled), thing
    for thing, becomes in more.items():
        if " " in becomes:
            assert becomes == f"more {thing}"
        elif thing not in ("good", "bad"):
            stem = thing.removesuffix("e")
            assert becomes in (stem + "er", thing + thing[-1] + "er", thing[:-1] + "ier"), thing


@pytest.mark.parametrize("name", RELATIONS)
def test_splits_are_by_thing_however_it_is_asked(name: str) -> None:
    ways = (*ASKS, "any") if RELATIONS[name].noun else ("what",)
    things = {
        split: {p.text for ask in ways for p in LanguageTask(name, SENTENCE, ask).problems(split)} for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not things[one] & things[other]
    assert sum(map(len, things.values())) == len(RELATIONS[name].pairs)
    counts = {split: len(things[split]) for split in SPLITS}
    assert counts["train"] >= 50, counts
    assert counts["validation"] >= 16, counts
    assert counts["test"] >= 32, counts
    if name == "opposites":
        becomes = dict(RELATIONS[name].pairs)
        assert all(becomes[thing] in things[split] for split in SPLITS for thing in things[split])


@pytest.mark.parametrize("name", NEW)
def test_a_task_has_a_new_and_an_old_behaviour_on_the_same_prompt(name: str) -> None:
    task = parse_task(name)
    assert isinstance(task, LanguageTask)
    assert isinstance(task, Described)
    assert isinstance(task, Followed)
    assert isinstance(task, Demonstrated) == RELATIONS[task.relation].plain
    assert task.name == name
    assert task.exact
    words = task.rule_words("chat")
    assert words is not None
    assert task.rule_words("world") is None
    for split in SPLITS:
        for problem in task.problems(split):
            new = task.answer(problem)
            assert task.score(problem, f" {new}\n").reward == 1.0
            if isinstance(task, Demonstrated):
                assert new != task.old_answer(problem)
                assert task.score(problem, task.old_answer(problem)).reward == 0.0
            assert task.score(problem, "").reward == 0.0
    assert task.answer(task.problems("train")[0]) in words, "the example is of the train split"


def test_what_is_asked_and_answered() -> None:
    cat = Problem("language:plural", "cat", "What is the plural of cat?")
    assert cat in [p for split in SPLITS for p in parse_task("language:plural").problems(split)]
    said = {b: parse_task(f"language:plural:{b}").answer(cat) for b in BEHAVIOURS}  # type: ignore[attr-defined]
    assert said == {
        "form": "The plural form of cat is cats.",
        "nostop": "The plural of cat is cats",
        "exclamation": "The plural of cat is cats!",
        "quoted": 'The plural of cat is "cats".',
        "answer": "The answer is cats.",
        "bare": "cats",
        "u": "The plural of cat is catu.",
        "same": "The plural of cat is cat.",
    }
    france = Problem("language:capitals", "France", "")
    assert LanguageTask("capitals").answer(france) == "The capital of France is Paris."
    five = next(p for split in SPLITS for p in LanguageTask("sums").problems(split) if p.text == "3 + 4")
    assert (five.question, LanguageTask("sums").answer(five)) == ("What is 3 + 4?", "3 + 4 = 7")
    give = parse_task("language:past@give:bare")
    assert give.name == "language:past@give:bare"
    assert give.problems("test")[0].question.startswith("Give the past tense of ")
    asked = {p.question.split()[0] for p in parse_task("language:plural@any:form").problems("train")}
    assert asked == {"What", "Give", "Can", "Name"}


def test_an_old_skill_has_no_context_and_no_other_behaviour() -> None:
    task = parse_task("language:capitals")
    assert isinstance(task, Answered)
    assert not isinstance(task, Demonstrated)
    assert task.rule_words("chat") is None  # type: ignore[attr-defined]
    assert parse_task("language:capitals:sentence") == task


def test_words_alone_can_be_compared() -> None:
    task = parse_task("language:plural:bare/normalised")
    assert (task.name, task.exact) == ("language:plural:bare/normalised", False)
    problem = task.problems("test")[0]
    right = task.answer(problem)  # type: ignore[attr-defined]
    for wrote in (right, f"{right.upper()}.", f'"{right}"', f"**{right}**\n"):
        assert task.score(problem, wrote).reward == 1.0, wrote
    assert task.score(problem, task.old_answer(problem)).reward == 0.0  # type: ignore[attr-defined]
    assert normalised(" N'Djamena, it's  Port-au-Prince! ") == "n'djamena it's port-au-prince"


def test_another_task_for_the_relearning_probe() -> None:
    task = parse_task("language:plural:bare")
    assert isinstance(task, Followed)
    after = task.next_task([task], "chat")
    assert after is not None
    assert after.name == "language:plural:answer"
    assert task.next_task([task], "world") is None
    met: list[Task] = [task, after]
    while (found := task.next_task(met, "chat")) is not None:
        assert found.name not in [t.name for t in met]
        met.append(found)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("language:", "language task '' is unknown; allowed: plural, capitals"),
        ("language:verbs:bare", "language task 'verbs' is unknown"),
        ("language:plural:loud", "language:plural has no behaviour 'loud'; allowed: sentence, form"),
        ("language:capitals:u", "language:capitals has no behaviour 'u'"),
        ("language:sums:bare", "language:sums has no behaviour 'bare'; allowed: sentence"),
        ("language:plural@shout:bare", "cannot be asked as 'shout'; allowed: what, give, tell, name, any"),
        ("language:sums@give", "language:sums cannot be asked as 'give'"),
        ("language:plural:nostop/normalised", "behaviour nostop is punctuation alone"),
        ("language:cloze:bare", "language:cloze is read as it stands"),
    ],
)
def test_mistakes(name: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        parse_task(name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_texts_and_clozes() -> None:
    pairs = read_items(CLOZES)
    assert len(pairs) >= 50
    assert len({beginning for beginning, _ in pairs}) == len(pairs)
    assert len(TEXTS) == len(set(TEXTS)) == 16
    assert all(len(text.split()) > 30 and "\n" not in text for text in TEXTS)
    for name in ("language:cloze", "language:text"):
        task = parse_task(name)
        assert isinstance(task, Measured)
        assert not task.problems("train")
        assert len(task.problems("test")) >= 16
    cloze = parse_task("language:cloze")
    assert cloze.score(cloze.problems("test")[0], " Paris, of course").reward == 1.0


def test_the_suite_has_each_task_once_and_its_words_are_recorded() -> None:
    tasks = suite_tasks()
    names = [task.name for task in tasks]
    assert len(names) == len(set(names))
    assert {*NEW, *(f"language:{name}" for name in RELATIONS), "language:cloze", "language:text"} == set(names)
    assert all(parse_task(name) == task for name, task in zip(names, tasks, strict=True))
    assert set(own_problems(names, tasks)) == set(names), "another version may have other words"


@pytest.fixture(scope="module")
def smollm2() -> Policy:
    if not cached_path("smollm2").is_dir():
        pytest.skip("the pretrained model is not in the cache: run fstsim model smollm2")
    return Policy.load("smollm2")


@pytest.mark.pretrained
def test_smollm2_has_the_old_behaviour_and_a_context_moves_it(smollm2: Policy) -> None:
    task = parse_task("language:plural:nostop")
    (row,) = measure_tasks(smollm2, [task], problems=4)
    assert row["old"] > 0.05 > row["empty"], "it writes the sentence, with its full stop"
    assert row["told"] > 5 * row["empty"], "and follows the example"
    assert row["log_empty"] < -1.0
    rows = measure_tasks(smollm2, [parse_task("language:cloze"), parse_task("language:text")], problems=4)
    assert [row["kind"] for row in rows] == ["probability", "nll"]
    assert rows[0]["empty"] > 0.1
    assert 1.0 < rows[1]["empty"] < 6.0, "plain prose is no surprise: the vocabulary's own entropy is 10.8 nats"


@pytest.mark.pretrained
def test_cloze_and_text_are_what_a_plain_forward_pass_gives(smollm2: Policy) -> None:
    tokens = smollm2.tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        logp = torch.log_softmax(smollm2.model(torch.tensor([tokens])).logits[0, :-1].double(), -1)
        plain = -logp[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].mean()
        before = smollm2.tokenizer("The capital of France is")["input_ids"]
        (after,) = smollm2.tokenizer(" Paris")["input_ids"]
        paris = torch.softmax(smollm2.model(torch.tensor([before])).logits[0, -1].double(), -1)[after]
    assert TextTask().measure(smollm2, 1)[1][0] == pytest.approx(float(plain), rel=1e-4)
    assert ClozeTask().measure(smollm2, 1)[1][0] == pytest.approx(float(paris), rel=1e-4)


@pytest.mark.pretrained
def test_smollm2_reflects_through_its_own_template(smollm2: Policy) -> None:
    task = parse_task("language:plural:form")
    problems = list(task.problems("validation"))[:4]
    records = [
        {"Inputs": p.question, "Generated Outputs": old, "Feedback": task.score(p, old).feedback}
        for p in problems
        for old in [task.old_answer(p)]  # type: ignore[attr-defined]
    ]
    said, cost = "", 0
    try:
        said, cost = SelfReflection().propose(smollm2, "", records, np.random.default_rng(0))
    except UnusableProposal as error:
        said, cost = str(error), error.cost
    assert said
    assert cost == 1, "one sample, whether it could be used or not"
