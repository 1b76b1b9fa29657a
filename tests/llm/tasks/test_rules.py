"""The world: its rules against plain string code, its star graphs, splits, scores and names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstsim.errors import InputError
from fstsim.llm.tasks import rules as world
from fstsim.llm.tasks.families import FAMILIES, UNNAMED, Family, rule_masses
from fstsim.llm.tasks.rules import RuleTask, draw_problem, make_problem, parse_rules, parse_start
from fstsim.llm.tasks.splits import split_of
from fstsim.llm.types import SPLITS, Demonstrated, Problem, Split, Task

EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)

NODES = "JKLMNOPQRSTUVW"


def running_sums(x: str) -> str:
    return "".join(str(sum(int(c) for c in x[: i + 1]) % 10) for i in range(len(x)))


def differences(x: str) -> str:
    return "".join(str((int(c) - (int(x[i - 1]) if i else 0)) % 10) for i, c in enumerate(x))


# What each word says, in string code that shares nothing with the code under test.
REFERENCE: dict[str, dict[str, Callable[[str], str]]] = {
    "strings": {
        "reverse": lambda x: "".join(reversed(x)),
        "next": lambda x: x.translate(str.maketrans("ABCDEFGH", "BCDEFGHA")),
        "rotate": lambda x: x[1:] + x[0],
        "mirror": lambda x: x.translate(str.maketrans("ABCDEFGH", "HGFEDCBA")),
        "ends": lambda x: x[-1] + x[1:-1] + x[0],
        "pairs": lambda x: re.sub("(.)(.)", r"\2\1", x),
        "prev": lambda x: x.translate(str.maketrans("BCDEFGHA", "ABCDEFGH")),
        "sort": lambda x: "".join(c * x.count(c) for c in "ABCDEFGH"),
    },
    "digits": {
        "negate": lambda x: x.translate(str.maketrans("0123456789", "0987654321")),
        "plus": lambda x: x.translate(str.maketrans("0123456789", "3456789012")),
        "shift": lambda x: x[-1] + x[:-1],
        "triple": lambda x: x.translate(str.maketrans("0123456789", "0369258147")),
        "sums": running_sums,
        "steps": differences,
        "flip": lambda x: "".join(reversed(x)),
        "lead": lambda x: x[0] + "".join(str((int(x[0]) + int(c)) % 10) for c in x[1:]),
    },
    "star_graph": {
        "cross": lambda x: re.sub("(.)(.)", r"\2\1", x),
        "forward": lambda x: "".join(reversed(x)),
        "up": lambda x: x.translate(str.maketrans(NODES, NODES[1:] + NODES[0])),
        "roll": lambda x: x[1:] + x[0],
        "inner": lambda x: x[0] + "".join(reversed(x[1:-1])) + x[-1],
        "down": lambda x: x.translate(str.maketrans(NODES, NODES[-1] + NODES[:-1])),
    },
}


def unnamed_reference(family: Family, x: str) -> str:
    """Places 2, 4, ... first, then 1, 3, ...; of the star graph only that places move and symbols do not matter."""
    if family.name == "star_graph":
        return "".join(x[i] for i in family.unnamed(tuple(range(len(x)))))  # type: ignore[arg-type]
    return "".join(c for i, c in enumerate(x) if i % 2) + "".join(c for i, c in enumerate(x) if not i % 2)


def refer(family: Family, words: tuple[str, ...], x: str) -> str:
    for word in words:
        x = unnamed_reference(family, x) if word == UNNAMED else REFERENCE[family.name][word](x)
    return x


# --- rules -----------------------------------------------------------------------------------------------------------


@EACH_FAMILY
@given(data=st.data())
def test_rules_are_what_their_words_say(family: Family, data: st.DataObject) -> None:
    """Every rule and the unnamed one against string code, on lists of every length; a list in, one as long out."""
    x = data.draw(st.text(alphabet=family.symbols, min_size=2, max_size=9))
    for word in [*family.rules, UNNAMED]:
        out = family.apply([word], tuple(x))
        assert "".join(out) == refer(family, (word,), x), word
        assert len(out) == len(x)
        assert set(out) <= set(family.symbols)


@EACH_FAMILY
@given(data=st.data())
def test_rules_act_from_left_to_right(family: Family, data: st.DataObject) -> None:
    x = data.draw(st.text(alphabet=family.symbols, min_size=2, max_size=7))
    words = tuple(data.draw(st.lists(st.sampled_from([*family.rules, UNNAMED]), max_size=4)))
    assert "".join(family.apply(words, tuple(x))) == refer(family, words, x)


@EACH_FAMILY
def test_rules_have_an_explanation_and_a_mass(family: Family) -> None:
    assert set(REFERENCE[family.name]) == set(family.rules) == set(family.explained)
    masses = rule_masses(family, ratio=0.6)
    assert list(masses) == list(family.rules)
    assert sum(masses.values()) == pytest.approx(1.0)
    values = list(masses.values())
    assert [b / a for a, b in pairwise(values)] == pytest.approx([0.6] * (len(values) - 1))


@EACH_FAMILY
def test_no_one_or_two_words_describe_the_unnamed_rule(family: Family) -> None:
    """Every word and every pair of words writes something else on some problem, and on most for the best of them."""
    starts = [parse_start(p) for p in RuleTask(family.name, (UNNAMED,)).problems("test")]
    right = [family.apply([UNNAMED], start) for start in starts]
    words = list(family.rules)
    agreement = {
        rules: np.mean([family.apply(rules, s) == r for s, r in zip(starts, right, strict=True)])
        for rules in [(), *((w,) for w in words), *product(words, repeat=2)]
    }
    best = max(agreement, key=lambda rules: agreement[rules])
    assert agreement[best] < 0.5, (best, agreement[best])


@EACH_FAMILY
def test_no_two_words_of_a_family_mean_the_same(family: Family) -> None:
    start = parse_start(RuleTask(family.name, ()).problems("test")[0])
    problems = RuleTask(family.name, ()).problems("test")[:50]
    seen = {tuple(family.apply([w], parse_start(p)) for p in problems) for w in family.rules}
    assert len(seen) == len(family.rules)
    assert len(start) == world.SIZES[family.name]


# --- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_star_graph_is_a_star(size: int, rng: np.random.Generator) -> None:
    """Three arms of ``size - 1`` edges at one centre, and the start list is the walk from the goal, a leaf, to it."""
    family = FAMILIES["star_graph"]
    for _ in range(50):
        text, start = family.draw(rng, size)
        listed, goal = text.split(":")
        edges = re.findall("[A-Z]{2}", listed)
        neighbours: dict[str, set[str]] = {}
        for a, b in edges:
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
        assert set(neighbours) <= set(family.symbols)
        assert len(edges) == len(set(edges)) == 3 * (size - 1) == len(neighbours) - 1
        centre = start[-1]
        distance, border = {centre: 0}, [centre]
        while border:  # breadth first: with one edge less than nodes, all reached means a tree
            node = border.pop(0)
            for other in neighbours[node] - distance.keys():
                distance[other] = distance[node] + 1
                border.append(other)
        assert set(distance) == set(neighbours)
        leaves = {node for node, near in neighbours.items() if len(near) == 1 and node != centre}
        assert len(leaves) == len(neighbours[centre]) == 3
        assert {distance[leaf] for leaf in leaves} == {size - 1}
        assert goal in leaves
        assert all(distance[a] == distance[b] + 1 for a, b in edges), "an edge names its far side first"
        assert start[0] == goal
        assert len(start) == len(set(start)) == size
        assert all(b in neighbours[a] for a, b in pairwise(start))
        assert parse_start(make_problem(family, text)) == start


def test_the_goal_is_not_given_away_by_where_its_edge_stands(rng: np.random.Generator) -> None:
    """Places of the goal's edge among the nine are uniform: chi-square at one in a million."""
    places = np.zeros(9)
    for _ in range(3000):
        text, _ = FAMILIES["star_graph"].draw(rng, 4)
        edges, goal = text.split(":")
        places[[edge[0] for edge in re.findall("[A-Z]{2}", edges)].index(goal)] += 1
    assert ((places - 3000 / 9) ** 2 / (3000 / 9)).sum() < 43.1  # 1 - 1e-6 quantile of chi-square with 8 degrees


@EACH_FAMILY
@pytest.mark.parametrize("size", [None, 2, 3])
def test_splits_are_disjoint_by_hash_and_without_repetition(family: Family, size: int | None) -> None:
    task = RuleTask(family.name, (), size=size)
    texts = {split: [p.text for p in task.problems(split)] for split in SPLITS}
    for split in SPLITS:
        assert len(set(texts[split])) == len(texts[split]) > 0
        assert all(split_of(p) == split for p in task.problems(split))
        assert all(p.family == family.name and p.text in p.question for p in task.problems(split))
    assert not set(texts["train"]) & set(texts["validation"])
    assert not set(texts["train"]) & set(texts["test"])
    assert not set(texts["validation"]) & set(texts["test"])
    if size is None:
        assert [len(texts[split]) for split in SPLITS] == [4096, 512, 512]


def test_shares_of_the_splits() -> None:
    """All 32,768 strings of five letters: 80, 10 and 10 %."""
    splits = [split_of(make_problem(FAMILIES["strings"], "".join(x))) for x in product("ABCDEFGH", repeat=5)]
    shares = [splits.count(split) / len(splits) for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


# of "uid|question" of all problems of a split, one a line; taken when the shipped model was trained
PINNED = {
    ("strings", "train"): "9a290a6ec86cd76a",
    ("strings", "validation"): "53309a7f0ed59dc2",
    ("strings", "test"): "0904ed692928b89c",
    ("digits", "train"): "509685e5015cb75b",
    ("digits", "validation"): "e45ae67f9e6cb52a",
    ("digits", "test"): "dbcdca0f77fd1700",
    ("star_graph", "train"): "b169271499b334c9",
    ("star_graph", "validation"): "1e9a8ba54a787af7",
    ("star_graph", "test"): "bc29f138f81d1ce0",
}


@pytest.mark.parametrize(("family", "split"), PINNED)
def test_problems_of_the_shipped_world_never_change(family: str, split: Split) -> None:
    """Recorded runs were trained and measured on exactly these, in this order."""
    lines = [f"{p.uid}|{p.question}" for p in RuleTask(family, ()).problems(split)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == PINNED[family, split]


def test_the_split_of_a_problem_never_changes() -> None:
    """The shipped model was trained on the train split: these must stay what they are, on every machine and version."""
    known = {
        ("strings", "ABCDE"): "train",
        ("strings", "HGFED"): "validation",
        ("strings", "HHADE"): "test",
        ("digits", "12345"): "train",
        ("digits", "76297"): "validation",
        ("digits", "39598"): "test",
        ("star_graph", "JQ;LW;PW;NP;OV;SN;VW;MO;QL:J"): "train",
        ("star_graph", "KV;QR;RT;MS;SK;PJ;TV;WV;JW:P"): "validation",
        ("star_graph", "QS;PN;VP;ST;LK;KN;OL;TN;JV:J"): "test",
    }
    assert {key: split_of(Problem(*key, "")) for key in known} == known


def test_the_split_depends_on_the_problem_alone() -> None:
    """Not on the question's wording: the uid decides."""
    assert split_of(Problem("strings", "ABCDE", "one")) == split_of(Problem("strings", "ABCDE", "another"))


@EACH_FAMILY
@pytest.mark.parametrize("split", SPLITS)
def test_problems_are_the_same_at_every_call(family: Family, split: Split) -> None:
    """For every task of the family, and when they are drawn anew as another process would."""
    first = list(RuleTask(family.name, ()).problems(split))
    assert list(parse_rules(f"{family.name}:unnamed/share").problems(split)) == first
    world._drawn.cache_clear()
    assert list(RuleTask(family.name, ()).problems(split)) == first


@EACH_FAMILY
def test_draws_from_a_split_stay_in_it(family: Family, rng: np.random.Generator) -> None:
    for split in SPLITS:
        for _ in range(20):
            problem, start = draw_problem(family, rng, split, 4)
            assert split_of(problem) == split
            assert parse_start(problem) == start


# --- tasks and scores ------------------------------------------------------------------------------------------------


def tasks() -> st.SearchStrategy[RuleTask]:
    def of(name: str) -> st.SearchStrategy[RuleTask]:
        words = st.lists(st.sampled_from([*FAMILIES[name].rules, UNNAMED]), min_size=1, max_size=4).map(tuple)
        sizes = st.sampled_from([None, 5] if name == "star_graph" else [None, 5, 8, 12])
        return st.builds(RuleTask, st.just(name), words, st.sampled_from(["exact", "share"]), sizes)

    return st.sampled_from(sorted(FAMILIES)).flatmap(of)


@given(task=tasks())
def test_a_task_is_its_name(task: RuleTask) -> None:
    assert parse_rules(task.name) == task
    assert isinstance(task, Demonstrated)
    typed: Task = task
    assert typed.name.startswith(task.family)
    assert {len(parse_start(p)) for p in task.problems("validation")[:3]} == {task.symbols}


def test_sizes_in_names() -> None:
    """After the family, whatever follows; the size of the shipped world is not said, so that a task has one name."""
    task = parse_rules("strings@12:reverse+next/share")
    assert task == RuleTask("strings", ("reverse", "next"), "share", 12)
    assert task.name == "strings@12:reverse+next/share"
    assert parse_rules("digits@8") == RuleTask("digits", ("negate", "shift"), size=8)
    assert parse_rules("star_graph@5/share").symbols == 5
    for family, size in world.SIZES.items():
        plain = RuleTask(family, ("unnamed",))
        assert parse_rules(f"{family}@{size}:unnamed") == plain == RuleTask(family, ("unnamed",), size=size)
        assert "@" not in plain.name
        assert plain.symbols == size


@pytest.mark.parametrize(("family", "size"), [("strings", 8), ("strings", 12), ("digits", 12), ("star_graph", 5)])
def test_larger_problems_are_answered_and_split_like_small_ones(family: str, size: int) -> None:
    """Full splits, answers of every rule by string code, and no problem of one size is one of another."""
    task = RuleTask(family, tuple(FAMILIES[family].rules)[:6], size=size)
    assert [len(task.problems(split)) for split in SPLITS] == [4096, 512, 512]
    for problem in task.problems("test")[:40]:
        start = "".join(parse_start(problem))
        assert len(start) == size
        assert task.answer(problem) == refer(FAMILIES[family], task.rules, start)
        assert task.score(problem, task.answer(problem)).reward == 1.0
        assert task.score(problem, task.answer(problem)[:-1]).reward == 0.0
    small = {p.uid for split in SPLITS for p in RuleTask(family, ()).problems(split)}
    assert not small & {p.uid for split in SPLITS for p in task.problems(split)}


@given(task=tasks(), index=st.integers(0, 511), data=st.data())
def test_scores(task: RuleTask, index: int, data: st.DataObject) -> None:
    """Reward of lists near the right one, of any text, with any spaces, against a plain count of places."""
    problem = task.problems("test")[index]
    start = "".join(parse_start(problem))
    right = refer(FAMILIES[task.family], task.rules, start)
    assert task.answer(problem) == right
    assert task.old_answer(problem) == start
    symbols = FAMILIES[task.family].symbols
    near = st.tuples(*(st.sampled_from([c, data.draw(st.sampled_from(symbols))]) for c in right)).map("".join)
    wrote = data.draw(st.one_of(near, st.just(right), st.text(alphabet=symbols, max_size=8), st.text(max_size=90)))
    spaced = data.draw(st.sampled_from(["", " ", "\n", " \t"])).join(wrote)
    score = task.score(problem, spaced)
    bare = "".join(wrote.split())
    if task.reward == "exact":
        expected = 1.0 if bare == right else 0.0
    else:
        hits = [bare[i] == right[i] for i in range(len(right))] if len(bare) == len(right) else [False]
        expected = hits.count(True) / len(hits)
    assert score.reward == expected
    assert score.feedback.startswith("correct" if bare == right else "wrong")
    assert f"start: {start} " in score.feedback
    assert f"right: {right}" in score.feedback
    assert f"wrote: {bare[:64]} " in score.feedback


@given(task=tasks(), index=st.integers(0, 511), seed=st.integers(0, 10**6))
def test_feedback_never_names_a_rule(task: RuleTask, index: int, seed: int) -> None:
    """Whatever lists are written, the words that a fast channel is to find are not in what it may see."""
    problem = task.problems("validation")[index]
    rng = np.random.default_rng(seed)
    wrote = "".join(rng.choice(list(FAMILIES[task.family].symbols), size=rng.integers(8)))
    words = [word for family in FAMILIES.values() for word in family.rules] + [UNNAMED]
    for text in (wrote, task.answer(problem)):
        said = set(re.findall("[a-z]+", task.score(problem, text).feedback))
        assert not said & set(words)


def test_default_tasks_and_rewards() -> None:
    for name, family in FAMILIES.items():
        task = parse_rules(name)
        assert 1 <= len(task.rules) <= 2
        assert set(task.rules) <= set(family.rules)
        assert task.reward == "exact"
        assert parse_rules(f"{name}/share") == parse_rules(name, reward="share")
    assert parse_rules("strings:reverse/exact", reward="share").reward == "exact", "what the name says goes first"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("words", "strings, digits, star_graph"),
        ("", "strings, digits, star_graph"),
        ("Strings:reverse", "strings, digits, star_graph"),
        ("strings:flip", "reverse"),
        ("strings:", "reverse"),
        ("strings:reverse+", "unnamed"),
        ("strings:reverse rotate", "rotate"),
        ("strings:reverse/partial", "exact, share"),
        ("strings:reverse/", "exact, share"),
        ("strings:" + "+".join(["reverse"] * 7), "at most 6"),
        ("strings@:reverse", r"2\.\.64, got ''"),
        ("strings@1:reverse", r"2\.\.64, got 1"),
        ("strings@65", r"2\.\.64, got 65"),
        ("strings@1000", r"2\.\.64, got '1000'"),
        ("digits@-3:plus", r"2\.\.64, got '-3'"),
        ("digits@8.0:plus", "whole number"),
        ("digits@٨:plus", "whole number"),
        ("digits@ 8:plus", "whole number"),
        ("digits@8@8:plus", "whole number"),
        ("star_graph@6:up", r"2\.\.5, got 6"),
        ("star_graph@large:up", r"2\.\.5, got 'large'"),
        ("@8:reverse", "strings, digits, star_graph"),
        ("strings:reverse@8", "reverse"),
    ],
)
def test_bad_task_names(name: str, says: str) -> None:
    """One line that says what is allowed."""
    with pytest.raises(InputError, match=says) as caught:
        parse_rules(name)
    assert "\n" not in str(caught.value)


def test_bad_reward_and_sizes() -> None:
    with pytest.raises(InputError, match="exact, share"):
        parse_rules("strings", reward="half")
    for size in (1, 65):
        with pytest.raises(InputError, match=r"2\.\.64"):
            RuleTask("strings", (), size=size)


def test_a_star_graph_has_names_for_three_arms_only_up_to_five_nodes() -> None:
    """1 + 3 arms of 5 nodes need 16 names; there are 14. It must be said, not made up with shorter arms."""
    with pytest.raises(InputError, match="size"):
        RuleTask("star_graph", ("up",), size=6)


def test_the_task_of_the_relearning_probe_is_new_to_the_run() -> None:
    def after(*names: str) -> str | None:
        met = [parse_rules(name) for name in names]
        found = met[-1].next_task(met, "world")
        return None if found is None else found.name

    assert after("strings:reverse+next") == "strings:rotate"
    assert after("strings:next", "digits:negate/share") == "digits:plus"
    assert after("star_graph:cross", "star_graph:up", "star_graph:forward") == "star_graph:roll"
    assert after("star_graph:cross") == "star_graph:up", "forward takes longer than the probe lasts"
    assert after("star_graph:cross+up+roll+down") is None
    assert parse_rules("strings:reverse").next_task([], "chat") is None, "only models of the world know its words"


def test_a_rule_in_words() -> None:
    task = parse_rules("strings:reverse+rotate")
    assert task.rule_words("world") == "reverse rotate"
    assert task.rule_words("chat") == "write it backwards; then move the first letter to the end"
    assert parse_rules("strings:reverse+unnamed").rule_words("world") is None
