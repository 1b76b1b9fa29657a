"""Case memory: the exact mixture against samples and sums, reading against softmax, the router against permuted rewards."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.learners.cases import CaseMemory
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.systems.cases import Cases, Read, Reading
from fstsim.llm.systems.measure import answer_scores
from fstsim.llm.systems.system import Asked, Bare
from fstsim.llm.systems.weights import SystemWeights
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Answered, Demonstrated, Population

SWITCH = "strings:rotate~sort"


@pytest.fixture(scope="module")
def base() -> Policy:
    policy = Policy.load()
    policy.model.requires_grad_(False)
    return policy


@pytest.fixture(scope="module")
def switch() -> Demonstrated:
    return parse_task(SWITCH)  # type: ignore[return-value]


def asked_of(task: Answered, split: str, count: int) -> list[Asked]:
    return [("", p) for p in list(task.problems(split))[:count]]  # type: ignore[arg-type]


def bank(base: Policy, task: Answered, plans: tuple[str, ...], **reading: object) -> Cases:
    """Cases with ``plans``, each on a problem of its own."""
    system = Cases(base, replace(Reading(capacity=0), **reading))  # type: ignore[arg-type]
    system.add(system.states(asked_of(task, "train", len(plans))), plans, [1.0] * len(plans))
    return system


def shaken(system: Cases) -> Cases:
    """With a router that says something."""
    assert system.router is not None
    with torch.no_grad():
        system.router.last.copy_(torch.randn(len(system.router.last), generator=torch.Generator().manual_seed(1)))
    return system


def test_reward_and_old_mass_are_sums_over_cases(base: Policy, switch: Demonstrated) -> None:
    """Of each case's own exact probabilities; and the share of right samples is within three standard errors of it."""
    plans = ("rotate", "sort", "sort next")
    system = shaken(bank(base, switch, plans, alpha=0.3))
    asked = asked_of(switch, "test", 8)
    problems = [p for _, p in asked]
    mu = system.masses(system.states(asked)).numpy()
    for answers in ([switch.answer(p) for p in problems], [switch.old_answer(p) for p in problems]):
        each = np.exp(answer_logprobs(base, plans, problems, answers))
        logps, _ = answer_scores(system, asked, answers)
        np.testing.assert_allclose(np.exp(logps), (mu.T * each).sum(0), rtol=3e-5, atol=1e-30)
    logps, _ = answer_scores(system, asked[:1] * 2, [switch.answer(problems[0])] * 2)
    exact = float(np.exp(logps[0]))
    many = asked[:1] * 600
    wrote = system.sample(many, torch.Generator().manual_seed(0), max_new_tokens=8)
    right = np.mean([switch.score(problems[0], text).reward for text in base.decode(wrote)])
    assert abs(right - exact) < 3.0 * np.sqrt(exact * (1.0 - exact) / len(many)) + 1e-3


def test_softmax_reading(base: Policy, switch: Demonstrated) -> None:
    plans = ("rotate", "sort", "next", "mirror")
    asked = asked_of(switch, "test", 5)
    system = shaken(bank(base, switch, plans, alpha=0.2))
    states = system.states(asked)
    q = system.values(states).numpy()
    weights = np.exp(q / 0.2)
    np.testing.assert_allclose(system.masses(states), weights / weights.sum(1, keepdims=True), rtol=1e-12)
    for alpha, limit in ((1e6, np.full_like(q, 0.25)), (1e-6, np.eye(4)[q.argmax(1)])):
        system.reading = replace(system.reading, alpha=alpha)
        np.testing.assert_allclose(system.masses(states), limit, atol=1e-6)
    system.reading = replace(system.reading, read="top", retrieved=1)
    np.testing.assert_allclose(system.masses(states), np.eye(4)[q.argmax(1)])


@pytest.mark.parametrize("read", ["softmax", "top", "similarity"])
def test_a_clone_changes_nothing(base: Policy, switch: Demonstrated, read: Read) -> None:
    system = bank(base, switch, ("rotate", "sort", "next"), read=read, retrieved=2)
    if system.router is not None:
        shaken(system)
    asked = asked_of(switch, "test", 4)
    before = system.masses(system.states(asked))
    answers = [switch.answer(p) for _, p in asked]
    logps, _ = answer_scores(system, asked, answers)
    system.add(system.keys[:1].clone(), ["rotate"], [1.0])
    after = system.masses(system.states(asked))
    for clone in (0, 3):  # the router's product in float32 may round otherwise with one case more
        torch.testing.assert_close(after[:, clone], before[:, 0] / 2.0, rtol=1e-5, atol=0.0)
    np.testing.assert_allclose(answer_scores(system, asked, answers)[0], logps, rtol=1e-5)


def test_an_empty_bank_is_the_base_to_the_bit(base: Policy, switch: Demonstrated) -> None:
    asked = asked_of(switch, "test", 6)
    shown = base.forced(base.encode_all(asked), [base.encode_answer(switch.answer(p)) for _, p in asked])
    for read in ("none", "softmax", "similarity"):
        assert torch.equal(
            Cases(base, Reading(read=read)).logits(asked, shown),  # type: ignore[arg-type]
            Bare(base).logits(asked, shown),
        )


def trained_router(base: Policy, task: Demonstrated, permuted: bool) -> Cases:
    """A router of two right plans after many plays; ``permuted``: rewards belong to other plays."""
    learner = CaseMemory(capacity=0, alpha=0.02, updates=300)
    system = bank(base, task, ("rotate", "sort"), alpha=0.02)
    asked = asked_of(task, "train", 400)
    states = system.states(asked)
    problems = [p for _, p in asked]
    success = np.exp(answer_logprobs(base, ("rotate", "sort"), problems, [task.answer(p) for p in problems]))
    rng = np.random.default_rng(0)
    which = rng.integers(2, size=len(asked))
    got = (rng.random(len(asked)) < success[which, np.arange(len(asked))]).astype(np.float32)
    if permuted:
        got = rng.permutation(got)
    system.plays = (states * system.scale, system.features[torch.from_numpy(which)], torch.from_numpy(got))
    optimizer = torch.optim.AdamW(system.parameters(), lr=3e-3, weight_decay=0.0)
    weights = SystemWeights(base, base, optimizer, 1e9, system=system)
    learner._update(weights, system, rng, "plays")
    return system


@pytest.mark.slow
def test_the_router_learns_the_branch_and_nothing_from_permuted_rewards(base: Policy, switch: Demonstrated) -> None:
    asked = asked_of(switch, "test", 64)
    answers = [switch.answer(p) for _, p in asked]
    learned, chance = (trained_router(base, switch, permuted) for permuted in (False, True))
    row = learned.measured(switch, asked)
    assert row["router_brier"] < 0.6 * row["router_brier_base"]
    assert row["read_oracle"] > 0.95
    assert np.exp(answer_scores(learned, asked, answers)[0]).mean() > 0.85
    assert abs(np.exp(answer_scores(chance, asked, answers)[0]).mean() - row["read_random"]) < 0.2
    assert chance.measured(switch, asked)["router_brier"] > row["router_brier_base"] - 0.03


def play(base: Policy, task: Demonstrated, learner: CaseMemory, steps: int) -> tuple[Cases, list[list[str]]]:
    system = learner.deploy(base, 0)
    parameters = system.parameters() or [torch.nn.Parameter(torch.zeros(0))]
    weights = SystemWeights(base, base, torch.optim.AdamW(parameters, lr=1e-3), 1.0, system=system)
    rng, held = np.random.default_rng(0), []
    for _ in range(steps):
        weights, info = learner.step(weights, Population(), task, rng)
        held.append([case.plan for case in system.held])
        assert info.samples >= learner.problems
    return system, held


def test_episodes_fill_a_bank_that_only_grows(base: Policy, switch: Demonstrated) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    _, held = play(base, switch, CaseMemory(problems=8, capacity=0), 4)
    assert [len(plans) for plans in held] == [0, 8, 16, 24]  # the first episodes have no examples to plan from
    assert held[3][:16] == held[2]
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    system, held = play(base, switch, CaseMemory(problems=8, capacity=10, read="similarity"), 4)
    assert len(held[-1]) == 10
    assert len(system.keys) == len(system.plans_at) == 10
    system, _ = play(base, switch, CaseMemory(problems=8, read="none"), 2)
    assert not system.held
    assert not system.examples


def test_eviction_keeps_plans_apart(base: Policy, switch: Demonstrated) -> None:
    """Of nine cases of one plan and one of another, all that work, those of the first leave, the older ones first."""
    for plans in (("rotate",) * 9 + ("sort",), ("sort",) + ("rotate",) * 9):
        system = bank(base, switch, plans, capacity=4, read="similarity")
        assert sorted(case.plan for case in system.held) == ["rotate"] * 3 + ["sort"]


def test_failures_are_not_read_by_similarity(base: Policy, switch: Demonstrated) -> None:
    """The nearest case is one that failed: the next one that succeeded is read."""
    system = Cases(base, Reading(read="similarity", retrieved=1, capacity=0))
    asked = asked_of(switch, "train", 2)
    system.add(system.states(asked), ["rotate", "sort"], [0.0, 1.0])
    np.testing.assert_array_equal(system.masses(system.states(asked)), [[0.0, 1.0], [0.0, 1.0]])


def test_the_router_is_told_state_plan_and_reward(base: Policy, switch: Demonstrated) -> None:
    """Two cases that differ in one of the three are two cases to it."""
    system = Cases(base, Reading(capacity=0))
    one, other = system.states(asked_of(switch, "train", 2))
    system.add(torch.stack((one, one, one, other)), ["rotate", "sort", "rotate", "rotate"], [1.0, 1.0, 0.0, 1.0])
    assert len(torch.unique(system.features, dim=0)) == 4


def test_problems_of_the_train_split_alone_enter(base: Policy, switch: Demonstrated) -> None:
    system, _ = play(base, switch, CaseMemory(problems=8, capacity=0), 3)
    pairs = {s: {(switch.old_answer(p), switch.answer(p)) for p in switch.problems(s)} for s in ("train", "test")}  # type: ignore[arg-type]
    assert set(system.examples) <= pairs["train"]
    assert not set(system.examples) & pairs["test"]
    train = system.states(asked_of(switch, "train", 10**6))
    assert all(float((train @ key).max()) > 1.0 - 1e-5 for key in system.keys)


def test_a_bank_of_another_model_or_another_kind_is_refused(base: Policy, switch: Demonstrated) -> None:
    system = bank(base, switch, ("rotate", "sort"))
    tensors, notes = system.tensors(), system.notes()
    again = Cases(base, Reading())
    again.restore(tensors, notes)
    asked = asked_of(switch, "test", 3)
    assert torch.equal(again.masses(again.states(asked)), system.masses(system.states(asked)))
    with pytest.raises(ValueError, match="another model"):
        Cases(base, Reading()).restore(tensors, {**notes, "model": "00000000"})
    with pytest.raises(ValueError, match="router"):
        Cases(base, Reading(read="similarity")).restore(tensors, notes)
    with pytest.raises(ValueError, match="keys has shape"):
        Cases(base, Reading()).restore(tensors, {**notes, "cases": notes["cases"][:1]})


Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]


def _first_case(*value: object) -> Change:
    return lambda _, notes: notes["cases"].__setitem__(0, list(value))


def _tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda tensors, _: tensors.__setitem__(name, change(tensors[name]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_first_case(7, 1.0), "plan must be a text"),
        (_first_case("fly", 1.0), "no word 'fly'"),
        (_first_case("sort " * 600, 1.0), "tokens"),
        (_first_case("sort", float("nan")), "reward must be a number"),
        (_first_case("sort", 7.0), "reward of a case"),
        (_first_case("sort", None), "reward must be a number"),
        (lambda _, notes: notes["examples"].append([1, 2]), "pair of texts"),
        (_tensor("keys", lambda t: t * torch.nan), "keys is not finite"),
        (_tensor("keys", lambda t: t.double()), "keys is of type"),
        (_tensor("plans_at", lambda t: t + torch.inf), "plans_at is not finite"),
        (_tensor("play_rewards", lambda t: t + 2.0), "outside of"),
        (_tensor("router.last", lambda t: t * torch.nan), "last is not finite"),
        (_tensor("router.last", lambda t: t.double()), "last is of type"),
        (lambda tensors, _: tensors.pop("plans_at"), "lacks a tensor 'plans_at'"),
        (lambda tensors, _: tensors.__setitem__("more", torch.zeros(1)), "has a tensor 'more'"),
    ],
)
def test_a_state_with_one_strange_value_is_refused_and_nothing_changes(
    change: Change, said: str, base: Policy, switch: Demonstrated
) -> None:
    system = shaken(bank(base, switch, ("rotate", "sort")))
    system.plays = (system.keys, system.features, torch.tensor([0.0, 1.0]))
    tensors, notes = dict(system.tensors()), copy.deepcopy(dict(system.notes()))
    fresh = Cases(base, Reading())
    fresh.restore(tensors, notes)
    assert fresh.notes() == notes
    tensors = {name: value.clone() for name, value in tensors.items()}
    before = {name: value.clone() for name, value in fresh.tensors().items()}
    change(tensors, notes)
    with pytest.raises(ValueError, match=re.escape(said)):
        fresh.restore(tensors, notes)
    assert fresh.notes() == system.notes()
    assert all(torch.equal(value, before[name]) for name, value in fresh.tensors().items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"read": "best"}, "read must be"),
        ({"alpha": 0.0}, "alpha"),
        ({"capacity": -1}, "capacity"),
        ({"write": 1.5}, "write"),
        ({"retrieved": 0}, "at least 1"),
    ],
)
def test_settings_that_are_not_allowed(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CaseMemory(**given)  # type: ignore[arg-type]
