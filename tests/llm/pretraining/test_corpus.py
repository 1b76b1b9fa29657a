"""What the base model is trained on: labels where they belong, train problems only, the mixture as documented."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from fstsim.errors import InputError
from fstsim.llm.pretraining.config import PRESETS
from fstsim.llm.pretraining.corpus import (
    DEPTHS,
    EMPHASIS,
    EXAMPLES,
    IGNORED,
    NO_CONTEXT,
    NO_RULES_SHARE,
    REFLECTION_DEPTHS,
    WALKS_FIRST,
    CorpusConfig,
    behaviour_without_context,
    collate,
    longest_line,
    problem_line,
    reflection_line,
    training_batches,
)
from fstsim.llm.pretraining.tokenizer import BOS, EOS, PAD, vocabulary
from fstsim.llm.tasks.families import FAMILIES, Family, rule_masses
from fstsim.llm.tasks.rules import SIZES, make_problem, parse_start
from fstsim.llm.tasks.splits import split_of

EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
STANDARD_ERRORS = 4.5  # two-sided, 7 in a million a comparison


def close(hits: int, trials: int, probability: float) -> bool:
    """Whether a frequency is within the given number of standard errors of its probability."""
    return abs(hits / trials - probability) <= STANDARD_ERRORS * np.sqrt(probability * (1 - probability) / trials)


def words_of(tokens: torch.Tensor) -> list[str]:
    """Tokens of a row in words, without padding."""
    known = vocabulary()
    return [known[i] for i in tokens.tolist() if known[i] != PAD]


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_collated_row_in_full() -> None:
    """Two lines of different lengths, written out by hand: labels are the next token, and only of what is written."""
    tokens, labels = collate([(["next", "|", "A", "B", "="], ["B", "C"]), (["|", "A", "="], ["A"])])
    ids = {token: i for i, token in enumerate(vocabulary())}
    first, second = [BOS, "next", "|", "A", "B", "=", "B", "C"], [BOS, "|", "A", "=", "A", PAD, PAD, PAD]
    assert tokens.tolist() == [[ids[t] for t in first], [ids[t] for t in second]]
    x = IGNORED
    assert labels.tolist() == [
        [x, x, x, x, x, ids["B"], ids["C"], ids[EOS]],
        [x, x, x, ids["A"], ids[EOS], x, x, x],
    ]
    assert tokens.dtype == labels.dtype == torch.int64


@EACH_FAMILY
def test_labels_are_the_next_tokens_of_what_is_written(family: Family, rng: np.random.Generator) -> None:
    """The first label stands at the last token shown, each later one is the token after it, the last is the end."""
    lines = [make(family, SIZES[family.name], rng) for make in (problem_line, reflection_line) for _ in range(40)]
    tokens, labels = collate(lines)
    ids = {token: i for i, token in enumerate(vocabulary())}
    for (shown, written), row, label in zip(lines, tokens, labels, strict=True):
        places = torch.nonzero(label != IGNORED)[:, 0].tolist()
        assert places == list(range(len(shown), len(shown) + len(written) + 1)), "one run, from the mark on"
        assert row[places[0]] == ids[shown[-1]]
        assert label[places[:-1]].tolist() == row[[p + 1 for p in places[:-1]]].tolist() == [ids[t] for t in written]
        assert label[places[-1]] == ids[EOS]
        assert (row[places[-1] + 1 :] == ids[PAD]).all()


# --- lines -----------------------------------------------------------------------------------------------------------


def split_line(shown: list[str]) -> tuple[list[str], str]:
    """Rules and problem text of a line with a problem."""
    bar = shown.index("|")
    assert shown[-1] == "="
    return shown[:bar], "".join(shown[bar + 1 : -1])


@EACH_FAMILY
def test_problems_are_of_the_train_split_and_answers_right(family: Family, rng: np.random.Generator) -> None:
    """Answers of lines with rules are the rules applied; without rules, one of the behaviours of the mixture."""
    size = SIZES[family.name]
    words = list(family.rules)
    behaviours = [(), *((w,) for w in words), *((a, b) for a in words for b in words)]
    for _ in range(400):
        shown, written = problem_line(family, size, rng)
        rules, text = split_line(shown)
        problem = make_problem(family, text)
        assert split_of(problem) == "train"
        start = parse_start(problem)
        assert len(start) == size
        if rules:
            assert tuple(written) == family.apply(rules, start)
        else:
            assert tuple(written) in {family.apply(b, start) for b in behaviours}


@EACH_FAMILY
def test_depths_of_lines_with_rules(family: Family, rng: np.random.Generator) -> None:
    """Shares of lines without rules and with one, two and three, and each word as often as any other."""
    count = 4000
    depths: Counter[int] = Counter()
    words: Counter[str] = Counter()
    for _ in range(count):
        rules, _ = split_line(problem_line(family, 2, rng)[0])
        depths[len(rules)] += 1
        words.update(rules)
    assert close(depths[0], count, NO_RULES_SHARE)
    for depth, share in DEPTHS.items():
        assert close(depths[depth], count, (1 - NO_RULES_SHARE) * share)
    assert set(depths) == {0, *DEPTHS}
    assert set(words) == set(family.rules)
    for word in family.rules:
        assert close(words[word], words.total(), 1 / len(family.rules))


@EACH_FAMILY
def test_reflections_show_what_their_rules_do(family: Family, rng: np.random.Generator) -> None:
    """Examples ``in > out``, each by the rules that are then written; one or two rules as often as documented."""
    size, count = SIZES[family.name], 2000
    depths: Counter[int] = Counter()
    for k in range(count):
        shown, rules = reflection_line(family, size, rng)
        depths[len(rules)] += 1
        assert shown[-1] == "?"
        if k >= 200:
            continue
        examples = " ".join(shown[:-1]).split(" ; ")
        assert len(examples) == EXAMPLES
        for example in examples:
            before, after = (tuple(side.split()) for side in example.split(" > "))
            assert len(before) == size
            assert after == family.apply(rules, before)
    for depth, share in REFLECTION_DEPTHS.items():
        assert close(depths[depth], count, share)


@EACH_FAMILY
def test_the_mixture_without_context(family: Family, rng: np.random.Generator) -> None:
    """Identity, single rules by their masses, pairs uniformly: every frequency within 4.5 standard errors."""
    count = 20_000
    seen = Counter(behaviour_without_context(family, rng) for _ in range(count))
    words, masses = list(family.rules), rule_masses(family)
    expected = {(): NO_CONTEXT[0]}
    expected |= {(w,): NO_CONTEXT[1] * masses[w] for w in words}
    expected |= {(a, b): NO_CONTEXT[2] / len(words) ** 2 for a in words for b in words}
    assert sum(expected.values()) == pytest.approx(1.0)
    assert set(seen) <= set(expected)
    for behaviour, probability in expected.items():
        assert close(seen[behaviour], count, probability), behaviour
    observed = np.array([seen[b] for b in expected])
    assert stats.chisquare(observed, count * np.array(list(expected.values()))).pvalue > 1e-6


def test_the_mixture_is_what_lines_without_rules_write(rng: np.random.Generator) -> None:
    """End to end: how often such a line repeats its list, against the mixture's mass of behaviours that do so there."""
    family = FAMILIES["strings"]
    words, masses = list(family.rules), rule_masses(family)
    hits, probabilities = 0, []
    while len(probabilities) < 800:
        shown, written = problem_line(family, 5, rng)
        rules, text = split_line(shown)
        if rules:
            continue
        start = tuple(text)
        same = NO_CONTEXT[0] + NO_CONTEXT[1] * sum(masses[w] for w in words if family.apply((w,), start) == start)
        pairs = sum(family.apply((a, b), start) == start for a in words for b in words)
        probabilities.append(same + NO_CONTEXT[2] * pairs / len(words) ** 2)
        hits += tuple(written) == start
    p = np.array(probabilities)
    assert abs(hits - p.sum()) <= STANDARD_ERRORS * np.sqrt((p * (1 - p)).sum())


# --- batches ---------------------------------------------------------------------------------------------------------


def equal(a: list[tuple[torch.Tensor, torch.Tensor]], b: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.equal(x, y)
        for one, two in zip(a, b, strict=True)
        for x, y in zip(one, two, strict=True)
    )


def test_batches_are_a_function_of_seed_and_step() -> None:
    """Asked twice or out of order, the same; of another seed or step, others. So training resumes exactly."""
    config = CorpusConfig(problems=6, reflections=3)
    asked = {(seed, step): training_batches(config, seed, step) for seed in (0, 1) for step in (0, 1, 7)}
    for (seed, step), batches in reversed(asked.items()):
        assert equal(training_batches(config, seed, step), batches)
    keys = list(asked)
    assert not any(equal(asked[a], asked[b]) for i, a in enumerate(keys) for b in keys[:i])


def test_batches_hold_what_the_configuration_says() -> None:
    """One batch of problems and one of reflections a family, of the configured numbers and sizes."""
    sizes = {"strings": 3, "digits": 4, "star_graph": 3}
    config = CorpusConfig(problems=10, reflections=4, sizes={family: (size,) for family, size in sizes.items()})
    batches = training_batches(config, 0, 0)
    assert len(batches) == 2 * len(FAMILIES)
    for k, family in enumerate(FAMILIES.values()):
        (problems, labels), (reflections, reflected) = batches[2 * k], batches[2 * k + 1]
        assert len(problems) == round(10 * EMPHASIS[family.name])
        assert len(reflections) == 4
        assert ((labels >= 0).sum(1) == sizes[family.name] + 1).all()
        assert set((reflected >= 0).sum(1).tolist()) <= {2, 3}
        for row in problems:
            line = words_of(row)
            assert line[0] == BOS
            assert set(line[line.index("|") + 1 : line.index("=")]) <= {*family.symbols, ":", ";"}


def test_what_the_shipped_model_was_trained_on_never_changes() -> None:
    """Tokens and labels of three steps of its configuration, taken when it was trained."""
    found = hashlib.sha256()
    for step in (0, 5, 1100):
        for tokens, labels in training_batches(CorpusConfig(), 0, step, step / 1200):
            found.update(tokens.numpy().tobytes())
            found.update(labels.numpy().tobytes())
    assert found.hexdigest() == "1af1b1891ff8426c06d927a9a99ac7e8341ba7f2452efea28bfee5896f768467"


def test_sizes_take_turns() -> None:
    """Each step has lines of one size in every family; problems of the train split of that size, answers as long."""
    config = CorpusConfig(12, 3, {"strings": (5, 8, 12), "digits": (6,), "star_graph": (4, 5)})
    for step in range(6):
        batches = training_batches(config, 0, step)
        for k, family in enumerate(FAMILIES.values()):
            size = config.sizes_of(family.name)[step % len(config.sizes_of(family.name))]
            assert size == config.size(family.name, step)
            tokens, labels = batches[2 * k]
            assert ((labels >= 0).sum(1) == size + 1).all()
            for row in tokens:
                line = words_of(row)
                problem = make_problem(family, "".join(line[line.index("|") + 1 : line.index("=")]))
                assert split_of(problem) == "train"
                assert len(parse_start(problem)) == size
    assert config.worlds() == [
        {"strings": 12, "digits": 6, "star_graph": 5},
        {"strings": 8, "star_graph": 4},
        {"strings": 5},
    ]
    assert CorpusConfig().worlds() == [dict(SIZES)]


def test_depths_are_those_of_the_configuration() -> None:
    """Shares of lines with one to five rules among those with rules, within 4.5 standard errors."""
    depths = (0.1, 0.0, 0.3, 0.2, 0.4)
    config = CorpusConfig(problems=1500, reflections=1, depths=depths)
    told = [words_of(row) for row in training_batches(config, 0, 0)[2][0]]  # digits: the batch of problems
    count = Counter(line.index("|") - 1 for line in told)
    with_rules = len(told) - count.pop(0)
    assert set(count) == {1, 3, 4, 5}
    for depth, share in enumerate(depths, start=1):
        assert close(count[depth], with_rules, share)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_line_is_longer_than_the_longest(preset: str) -> None:
    """And the longest is drawn, in one of the family's turns: lines are counted with their last written token."""
    config = PRESETS[preset].corpus
    longest = 0
    config = dataclasses.replace(config, problems=16, reflections=16)
    for step in range(6):
        for tokens, _ in training_batches(config, 3, step):
            longest = max(longest, tokens.shape[1])
    assert longest == longest_line(config) <= 512


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"problems": 0}, "at least 1"),
        ({"reflections": 0}, "at least 1"),
        ({"sizes": {"strings": (5,)}}, "strings, digits, star_graph"),
        ({"sizes": {"strings": (5,), "digits": (), "star_graph": (4,)}}, "digits must not be empty"),
        ({"sizes": {"strings": (5,), "digits": (5,), "star_graph": (4, 6)}}, r"2\.\.5, got 6"),
        ({"depths": ()}, "sum to 1"),
        ({"depths": (0.5, 0.4)}, "sum to 1"),
        ({"depths": (1.5, -0.5)}, "sum to 1"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        CorpusConfig(**wrong)
    assert "\n" not in str(caught.value)


def test_walks_come_first() -> None:
    """At the start of a training star graphs show the bare walk, reflections and the other families what they always do."""
    config = CorpusConfig(problems=8, reflections=3)
    early, late, unsaid = (training_batches(config, 0, 3, *progress) for progress in ((0.0,), (WALKS_FIRST,), ()))
    assert equal(late, unsaid)
    place = 2 * list(FAMILIES).index("star_graph")
    assert equal(early[:place], late[:place])
    assert not equal(early[place:], late[place:])
    tokens, labels = early[place]
    for row, label in zip(tokens, labels, strict=True):
        line = words_of(row)
        assert line[:2] == [BOS, "|"], "no rules"
        problem = make_problem(FAMILIES["star_graph"], "".join(line[2 : line.index("=")]))
        assert split_of(problem) == "train"
        assert tuple(words_of(label[label >= 0])) == (*parse_start(problem), EOS)
