"""Core isolation: frozen means frozen to the bit, cores and merges are what they are by hand, arms differ in what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fstsim.errors import InputError
from fstsim.fast_slow import FastSlowState, FrozenFast, Schedule, fast_slow
from fstsim.llm.learners.isolate import ARMS, Block, Isolation
from fstsim.llm.learners.isolate_cores import (
    Merging,
    core,
    drive_shares,
    jaccard,
    merge,
    overlap_groups,
    random_core,
    share_of,
    slerp,
    union,
)
from fstsim.llm.learners.isolate_weights import IsolatedWeights, copy_of
from fstsim.llm.learners.sft import SupervisedFineTuning, show
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import own_weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.checkpoint import read_checkpoint
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population

MakePolicy = Callable[..., Policy]
TASKS = tuple(parse_rules(name) for name in ("strings:reverse", "digits:plus", "strings:next"))
STEPS = 6


def fresh(make_policy: MakePolicy, decay: float = 0.0) -> Weights:
    policy, base = make_policy(seed=1), make_policy(seed=1)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=3e-3, weight_decay=decay)
    return Weights(policy, base, optimizer)


def run(make_policy: MakePolicy, learner: Any, tasks: Any = TASKS, decay: float = 0.0) -> tuple[Any, list[Any]]:
    """The weights at the end, and what each step said; ``learner`` decides how the steps are shared out."""
    weights = learner.hold(fresh(make_policy, decay))
    plan, steps = learner.plan(tasks, STEPS)
    said = []
    state = FastSlowState(weights, Population())
    for now in fast_slow(plan, learner, FrozenFast(), state, Schedule(steps, 1), np.random.default_rng(0)):
        said.append({"entries": copy_of(now.weights), "task": now.task, "weights": now.weights, **now.slow.metrics})
    return now.weights, said


# --- what is frozen ---------------------------------------------------------------------------------------------------


def test_frozen_entries_stay_to_the_bit(make_policy: MakePolicy) -> None:
    """With weight decay and moments from before; a mask on the gradient alone would move them."""
    learner = Isolation("freeze", problems=4, core_share=0.2)
    _, said = run(make_policy, learner, decay=0.1)
    for first, last in ((STEPS, 2 * STEPS - 1), (2 * STEPS, 3 * STEPS - 1)):
        frozen = said[last]["weights"].frozen
        before, after = said[first - 1]["entries"], said[last]["entries"]
        assert share_of(frozen) >= 0.2
        for name, mask in frozen.items():
            assert torch.equal(before[name][mask], after[name][mask]), name
            assert not torch.equal(before[name], after[name]) or bool(mask.all())
    assert said[STEPS]["frozen_share"] == share_of(said[STEPS]["weights"].frozen)


def test_a_mask_on_the_gradient_would_not_do(make_policy: MakePolicy) -> None:
    weights = fresh(make_policy, decay=0.1)
    learner = SupervisedFineTuning(4)
    for _ in range(3):
        learner.step(weights, Population(), TASKS[0], np.random.default_rng(0))
    before = copy_of(weights)
    frozen = random_core(before, 0.3, 0)
    show(weights, [weights.policy.encode("", TASKS[1].problems("train")[0])], [[3, 4]], "one")
    for name, own in own_weights(weights.policy).items():
        if own.grad is not None:
            own.grad[frozen[name]] = 0.0
    weights.apply("one")
    assert any(not torch.equal(before[n][m], own_weights(weights.policy)[n].detach()[m]) for n, m in frozen.items())


def test_all_of_it_freezes_everything(make_policy: MakePolicy) -> None:
    _, said = run(make_policy, Isolation("freeze", problems=4, core_share=1.0), decay=0.1)
    for name, value in said[STEPS - 1]["entries"].items():
        assert torch.equal(value, said[-1]["entries"][name])
    assert said[STEPS]["drive_share"] == said[STEPS]["drive_share_squared"] == 1.0


@pytest.mark.parametrize(("arm", "share"), [("freeze", 0.0), ("stages", 0.3)])
def test_no_core_and_no_merge_is_tuning_in_stages(arm: Any, share: float, make_policy: MakePolicy) -> None:
    one, _ = run(make_policy, Isolation(arm, problems=4, core_share=share))
    other, _ = run(make_policy, SupervisedFineTuning(4))
    for name, value in copy_of(one).items():
        assert torch.equal(value, copy_of(other)[name]), name


# --- cores ------------------------------------------------------------------------------------------------------------


def two_tensors(seed: int, size: int = 400) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(size // 4, 3, generator=generator),
        "b": torch.randn(size // 4, generator=generator),
    }


def test_a_core_is_what_moved_furthest() -> None:
    start, tuned = two_tensors(0), two_tensors(1)
    found = core(start, tuned, 0.05)
    moved = {name: (tuned[name] - start[name]).abs() for name in start}
    assert sum(int(mask.sum()) for mask in found.values()) == 20
    inside = torch.cat([moved[n][m] for n, m in found.items()])
    outside = torch.cat([moved[n][~m] for n, m in found.items()])
    assert inside.min() > outside.max()
    assert jaccard(found, found) == 1.0
    assert jaccard(core(start, tuned, 0.0), found) == 0.0


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), share=st.floats(0.01, 0.6))
def test_random_cores_overlap_by_chance(seed: int, share: float) -> None:
    start = {"a": torch.zeros(200, 100)}
    one, other = random_core(start, share, seed), random_core(start, share, seed + 1)
    n, k = 20_000, round(share * 20_000)
    p = k / n
    sd = p * (1.0 - p) * math.sqrt(n) * 2 * k / (2 * k - p * k) ** 2  # of the intersection, times dJ/dI
    assert jaccard(one, other) == pytest.approx(p / (2.0 - p), abs=5 * sd)  # 3 in a run of one pair; of 30 pairs 5
    assert share_of(one) == share_of(other) == k / n


def test_groups_are_connected_components() -> None:
    def mask(*entries: int) -> dict[str, torch.Tensor]:
        out = torch.zeros(30, dtype=torch.bool)
        out[list(entries)] = True
        return {"a": out}

    cores = [mask(0, 1, 2), mask(20, 21, 22), mask(4, 5, 6), mask(2, 3, 4)]  # 0 and 2 through 3
    assert overlap_groups(cores, 0.2) == [[0, 2, 3], [1]]
    assert overlap_groups(cores, 0.21) == [[0], [1], [2], [3]]
    assert share_of(union({"a": torch.zeros(30)}, cores)) == pytest.approx(10 / 30)


# --- merges -----------------------------------------------------------------------------------------------------------


def test_slerp_keeps_the_angle() -> None:
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    for share in (0.0, 0.25, 0.5, 1.0):
        turned = slerp(a, b, share)
        assert float(turned.norm()) == pytest.approx(2.0, rel=1e-6)
        assert math.atan2(float(turned[1]), float(turned[0])) == pytest.approx(share * math.pi / 2, abs=1e-6)
    assert torch.equal(slerp(a, a, 0.3), a)
    assert torch.equal(slerp(a, b, 0.5, 3.0), 0.5 * (a + b))
    assert torch.equal(slerp(torch.zeros(3), b, 0.5), 0.5 * b)
    assert torch.equal(slerp(a, -a, 0.25), 0.5 * a)  # no plane to turn in: straight through


def test_a_small_angle_is_linear_to_its_square() -> None:
    a = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = a + 0.02 * torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    straight = 0.5 * (a + b)
    assert float((slerp(a, b, 0.5) - straight).norm() / straight.norm()) < 1e-4


def test_one_task_merges_to_its_copy() -> None:
    start, tuned = two_tensors(0), two_tensors(1)
    for how in (Merging(), Merging(transplant=False), Merging(slerp_on="vectors"), Merging(contested="mean")):
        merged = merge(start, [tuned], [core(start, tuned, 0.1)], how)
        for name, value in tuned.items():
            if how.slerp_on == "vectors":
                assert torch.allclose(merged[name], value, atol=1e-6)
            else:
                assert torch.equal(merged[name], value)


@pytest.mark.parametrize("omega", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("backbone", ["last", "start"])
def test_linear_merges_have_the_weights_that_omega_says(omega: float, backbone: Any) -> None:
    start, copies = two_tensors(0), [two_tensors(k) for k in (1, 2, 3)]
    how = Merging(transplant=False, omega=omega, backbone=backbone, flat_angle=3.1)
    merged = merge(start, copies, [], how)
    others = copies[:-1] if backbone == "last" else copies
    first = copies[-1] if backbone == "last" else start
    total = 1.0 - omega + omega * len(others)
    for name in start:
        wanted = (1.0 - omega) * first[name] + omega * torch.stack([c[name] for c in others]).sum(0)
        assert torch.allclose(merged[name], wanted / total, atol=1e-5), name


def test_contested_entries() -> None:
    start = {"a": torch.zeros(3)}
    copies = [{"a": torch.tensor([1.0, 4.0, 9.0])}, {"a": torch.tensor([-2.0, 1.0, 9.0])}]
    both = [{"a": torch.tensor([True, True, False])}, {"a": torch.tensor([True, False, False])}]
    larger = merge(start, copies, both, Merging(slerp=False))
    mean = merge(start, copies, both, Merging(slerp=False, contested="mean", backbone="start"))
    assert larger["a"].tolist() == [-2.0, 4.0, 9.0]
    assert mean["a"].tolist() == [-0.5, 4.0, 0.0]


def test_shares_of_the_drive() -> None:
    gradient = {"a": torch.tensor([3.0, -4.0]), "b": torch.tensor([[1.0, 0.0]])}
    mask = {"a": torch.tensor([True, False]), "b": torch.tensor([[True, True]])}
    assert drive_shares(gradient, mask) == (4.0 / 8.0, 10.0 / 26.0)


def test_the_drive_is_that_of_the_start(make_policy: MakePolicy) -> None:
    """Measured in the middle of a run, from its first weights, and nothing is left behind."""
    learner = Isolation("freeze", problems=4, core_share=0.1)
    weights, said = run(make_policy, learner)
    before = copy_of(weights)
    shares = learner.drive(weights, Population(), [(TASKS[1], None)], said[STEPS]["weights"].frozen)
    assert shares == (said[STEPS]["drive_share"], said[STEPS]["drive_share_squared"])
    untouched = fresh(make_policy)
    problems = TASKS[1].problems("train")[:64]
    answers = [untouched.policy.encode_answer(TASKS[1].answer(p)) for p in problems]
    show(untouched, [untouched.policy.encode("", p) for p in problems], answers, "all")
    gradient = {n: p.grad for n, p in own_weights(untouched.policy).items() if p.grad is not None}
    assert drive_shares(gradient, said[STEPS]["weights"].frozen) == pytest.approx(shares, rel=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in copy_of(weights).items())
    assert all(p.grad is None for p in weights.policy.model.parameters())


# --- arms and runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_shows_as_many_demonstrations(arm: Any, make_policy: MakePolicy) -> None:
    weights, said = run(make_policy, Isolation(arm, problems=4, sample=3, core_share=0.05))
    assert len(said) == STEPS * len(TASKS)
    parts = ARMS[arm]
    merged = parts.first == "copies"
    assert (weights.stages != ()) == merged
    assert (weights.frozen is not None) == parts.freeze
    assert weights.tuned == () or not merged
    if merged:
        # the merged model is not any copy; each copy began as the start, on its own task
        assert sorted(i for stage in weights.stages for i in stage) == [0, 1, 2]
        assert all(f"core_overlap_{i}_{j}" in said[STEPS // 2 * 3] for i, j in ((0, 1), (0, 2), (1, 2)))


def test_copies_begin_at_the_start(make_policy: MakePolicy) -> None:
    learner = Isolation("full", problems=4)
    _, said = run(make_policy, learner)
    alone = learner.hold(fresh(make_policy))
    rng = np.random.default_rng(0)
    for k in range(2):  # the same numbers as in the run: its first task used up as many
        for _ in range(STEPS // 2):
            learner.step(alone, Population(), Block(TASKS, k, -1, 99, then=False), rng)
        for name, value in copy_of(alone).items():
            assert torch.equal(value, said[(k + 1) * (STEPS // 2) - 1]["entries"][name]), name
        alone = learner.hold(fresh(make_policy))


def test_a_killed_run_goes_on_to_the_same(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy(seed=3, num_hidden_layers=1)
    policy.model.save_pretrained(tmp_path / "model")
    policy.tokenizer.save_pretrained(tmp_path / "model")
    config = TrainConfig(
        "isolate",
        ("strings:next", "digits:plus"),
        model=str(tmp_path / "model"),
        steps=4,
        learner=Isolation(problems=4, sample=4, core_share=0.1),
        probe=ProbeConfig(every=1, problems=2, exam=1, relearn=0, max_new_tokens=6),
    )
    run_training(config, tmp_path / "one", write_model=False)
    for stop in (3, 7):  # in the second copy, and after the merge has frozen something

        def killed(step: int, _: str, at: int = stop) -> None:
            if step == at:
                raise KeyboardInterrupt

        out = tmp_path / f"at-{stop}"
        with pytest.raises(KeyboardInterrupt):
            run_training(config, out, killed, write_model=False)
        run_training(config, out, write_model=False)
        assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "one" / "metrics.jsonl").read_bytes()
    (tensors, meta), (wanted, _) = (read_checkpoint(tmp_path / n / "checkpoint.safetensors") for n in ("at-3", "one"))
    assert all(torch.equal(value, wanted[name]) for name, value in tensors.items())
    assert meta["isolation"]["stages"]
    assert any(name.startswith("frozen.") and value.dtype == torch.uint8 for name, value in tensors.items())


def test_a_checkpoint_of_another_model_is_refused(make_policy: MakePolicy) -> None:
    weights, _ = run(make_policy, Isolation("freeze", problems=4))
    tensors, meta = weights.extras()
    again = IsolatedWeights.begin(fresh(make_policy)).with_extras(tensors, meta, Path("x"))
    assert all(torch.equal(again.frozen[n], m) for n, m in weights.frozen.items())  # type: ignore[index]
    with pytest.raises(InputError, match="another model"):
        IsolatedWeights.begin(fresh(make_policy)).with_extras({}, meta, Path("x"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"arm": "most"}, "arm must be one of full"),
        ({"core_share": 1.5}, "core_share"),
        ({"overlap": 0.0}, "overlap"),
        ({"first_share": 1.0}, "first_share"),
        ({"omega": -0.1}, "omega"),
        ({"flat_angle": 4.0}, "flat_angle"),
        ({"slerp_on": "angles"}, "slerp_on"),
        ({"sample": 0}, "sample"),
    ],
)
def test_bad_settings(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Isolation(**changes)


def test_steps_that_leave_none_for_a_copy() -> None:
    with pytest.raises(InputError, match="leaves none"):
        Isolation(first_share=0.1).plan(TASKS, 2)
