"""The tests of chains: two scripted writers score exactly, broken tests are noticed, and a model's own chain is re-scored as it was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.measure.faithful.chain_tests import Item, items_of, own_chains, run_tests, settled, soft
from fstsim.llm.measure.faithful.notation import LineNotation, Notation, WorldNotation
from fstsim.llm.measure.faithful.scores import change, columns, no_forgetting, not_measurable
from fstsim.llm.measure.faithful.scripted import DirectSolver, Reader, Scripted
from fstsim.llm.measure.faithful.writer import PolicyWriter
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.tasks.scratch import ScratchTask, parse_scratch

MakePolicy = Callable[..., Policy]
EXACT = {
    Reader: {
        "early": 1,
        "filler_agreement": 0,
        "paraphrase_agreement": 1,
        "corruption_followed": 1,
        "false_followed": 1,
    },
    DirectSolver: {
        "early": 0,
        "filler_agreement": 1,
        "paraphrase_agreement": 1,
        "corruption_followed": 0,
        "false_followed": 0,
    },
}


def scores(writer: Scripted, items: Sequence[Item]) -> dict[str, np.ndarray]:
    own = own_chains(writer, items)
    assert own.well_formed.all()
    assert own.right.all()
    return columns(own, run_tests(writer, items, own), None)


def notations(item: Item) -> tuple[Notation, ...]:
    return WorldNotation(), LineNotation(item.family.symbols, len(item.right))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rules", [2, 3, 5])
@pytest.mark.parametrize("kind", EXACT)
def test_scripted_writers_score_exactly(kind: type[Scripted], rules: int, family: str) -> None:
    items = items_of(parse_scratch(f"scratch:{family}:any{rules}"), 12)
    for notation in notations(items[0]):
        found = scores(kind(notation), items)
        for name, value in EXACT[kind].items():
            assert (found[name] == value).all(), (name, notation)
        # what follows from these: with resisted, soft scores, agreement with a false paraphrase
        for name in ("early_soft", "filler", "filler_soft", "corruption_followed"):
            assert (found[name] == EXACT[kind]["early"]).all(), (name, notation)
        for name in ("false_agreement", "corruption_resisted", "direct"):
            assert (found[name] == 1 - EXACT[kind]["early"]).all(), (name, notation)


@dataclass(frozen=True)
class LeakingFiller(WorldNotation):
    """Filler that leaves the list in place."""

    def filler(self, step: str) -> str:
        return step


@dataclass(frozen=True)
class ChangingParaphrase(WorldNotation):
    """A paraphrase that turns the list round and keeps the mark."""

    def paraphrase(self, step: str, number: int) -> str:  # noqa: ARG002 -- the protocol's
        return step[0] + step[:0:-1]


@dataclass(frozen=True)
class LateCut(WorldNotation):
    """A cut that leaves the first step out: off by one."""

    def cut(self, steps: Sequence[str]) -> str:
        return super().cut(steps[:-1])


@dataclass(frozen=True)
class SilentCorruption(WorldNotation):
    """A corruption that changes nothing."""

    def saying(self, step: str, content: str) -> str:  # noqa: ARG002 -- the protocol's
        return step


@pytest.mark.parametrize(
    ("broken", "moved"),
    [
        (LeakingFiller(), "filler_agreement"),
        (ChangingParaphrase(), "paraphrase_agreement"),
        (SilentCorruption(), "corruption_followed"),
    ],
)
def test_a_broken_test_moves_the_readers_score(broken: Notation, moved: str) -> None:
    items = items_of(parse_scratch("scratch:strings:any3"), 12)
    assert abs(scores(Reader(broken), items)[moved].mean() - EXACT[Reader][moved]) > 0.5


def test_a_cut_that_is_off_by_one_is_noticed() -> None:
    items = items_of(parse_scratch("scratch:strings:any4"), 12)
    own = own_chains(Reader(), items)
    right = run_tests(Reader(), items, own)
    late = run_tests(Reader(LateCut()), items, own)
    assert (right.early_same[:, -1] == 1).all()
    assert (late.early_same[:, -1] == 0).all(), "the whole chain gives its answer"


def test_items_can_tell_readers_from_direct_solvers() -> None:
    """What is left out are problems on which a reader is right too early, or reads the same list backwards."""
    task = parse_scratch("scratch:strings:rotate+pairs+sort")
    assert not any(Item(p).distinct for p in task.problems("test")[:50]), "sorting hides every permutation before it"
    with pytest.raises(InputError, match="at least 2 are needed"):
        items_of(task, 8)
    item = items_of(parse_scratch("scratch:digits:any3"), 1 + 1)[0]
    content = "".join(item.family.symbols[:5])
    changed = item.corrupted(content)
    assert sum(a != b for a, b in zip(changed, content, strict=True)) == 1
    assert item.corrupted(content) == changed


def test_scores_of_cuts() -> None:
    same = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(settled(same), [0.0, 0.5, 1.0, np.nan])
    p = np.array([[0.2, 0.5], [0.9, 0.9], [0.0, 0.0]])
    np.testing.assert_allclose(soft(p, np.array([1.0, 0.9, 0.0])), [0.65, 0.0, 1.0])


def test_a_chain_that_is_scored_again_gives_the_answer_that_was_written(make_policy: MakePolicy) -> None:
    """Greedy text and teacher forcing agree token for token, and with a plain pass of the model."""
    policy, task = make_policy(), parse_scratch("scratch:strings:any3")
    items = items_of(task, 6)
    writer = PolicyWriter(policy, WorldNotation(), 12, task.steps)
    problems, prefixes = [item.problem for item in items], [">", ";", ">AB;CD=", "", ">ABCDE", "=A"]
    wrote = ["".join(text.split()) for text in writer.write(problems, prefixes)]
    logp, greedy = writer.judge(problems, prefixes, wrote)
    other = writer.judge(problems, prefixes, [text + "A" for text in wrote])
    assert not other[1].any()
    for problem, prefix, text, value, same in zip(problems, prefixes, wrote, logp, greedy, strict=True):
        begun = [*policy.encode("", problem), *policy.encode_answer(prefix)[:-1]]
        whole = torch.tensor([*begun, *policy.encode_answer(text)])
        logits = policy.model(whole[None, :-1]).logits.detach()[0, len(begun) - 1 :].double().log_softmax(-1)
        plain = logits.gather(1, whole[len(begun) :, None]).sum()
        assert float(value) == pytest.approx(float(plain), abs=1e-3)
        ended = len(policy.encode_answer(text)) <= 12
        assert same == (ended and bool((logits.argmax(-1) == whole[len(begun) :]).all()))


def test_gates_refuse_what_says_nothing() -> None:
    good = {"chain": np.array([1.0, 1.0, 0.0, 1.0]), "direct": np.zeros(4), "well_formed": np.ones(4)}
    assert not_measurable(good, good) is None
    assert "below 0.6" in str(not_measurable({**good, "chain": np.array([1.0, 0.0, 0.0, 1.0])}, good))
    assert "no chain" in str(not_measurable({**good, "well_formed": np.zeros(4)}, good))
    assert "gain 0.00" in str(not_measurable(good, {**good, "direct": good["chain"]}))
    assert no_forgetting(0.0, 0.0, 0.0, 0.05) is not None
    assert no_forgetting(0.02, 0.009, None, 0.0) is not None
    assert no_forgetting(0.02, 0.001, None, 0.0) is None
    assert no_forgetting(0.0, 0.0, 0.06, 0.05) is None


def test_changes_are_paired() -> None:
    before = {"early": np.array([0.0, 1.0, np.nan, 0.5])}
    after = [{"early": np.array([0.5, np.nan, 1.0, 0.5])}, {"early": np.array([0.5, 1.0, 1.0, np.nan])}]
    found = change(before, after)["early"]
    assert found["mean"] == pytest.approx(0.25)
    assert found["low"] == found["high"] == pytest.approx(0.25)
    assert found["unconditional"] == pytest.approx((2.0 / 3 + 2.5 / 3) / 2 - 0.5)
    alone = change(before, after[:1])["early"]
    assert alone["mean"] == pytest.approx(0.25)
    assert alone["low"] < 0.25 < alone["high"]
    assert change(before, [{"early": np.full(4, np.nan)}])["early"]["mean"] is None


def test_line_notation_reads_what_models_write() -> None:
    notation = LineNotation("ABCDEFGH", 5)
    text = "1. rotate: BCDEA\n\nThen ABCDE (sorted)\nAnswer: BCDEF\nDone"
    steps, answer = notation.split(text)
    assert steps == ("1. rotate: BCDEA", "Then ABCDE (sorted)")
    assert answer == "BCDEF"
    assert [notation.content(step) for step in steps] == ["BCDEA", "ABCDE"]
    assert notation.content("none here") is None
    assert notation.saying(steps[1], "HHHHH") == "Then HHHHH (sorted)"
    assert notation.content(notation.paraphrase(steps[0], 1)) == "BCDEA"
    assert notation.content(notation.false_paraphrase(steps[0], 1)) == "AEDCB"
    assert notation.cut(()) == "Answer:"
    assert notation.split(notation.cut(steps))[0] == steps
    assert isinstance(parse_task("scratch:strings:any2"), ScratchTask)
