"""Predictors of the league: gradients against finite differences and a real small step, overlap and fits against definitions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.llm.forecast.agreement import r_squared
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.forecast import Given
from fstsim.llm.forecast.league import AtBase, at_base, best_fit, gradient_products, league, overlap_of_outputs
from fstsim.llm.forecast.reading import OLD, Asked
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.tasks.rules import parse_rules

MakePolicy = Callable[..., Policy]
MakeModel = Callable[..., PreTrainedModel]


def asked_of(task: str, context: str, count: int) -> Asked:
    rule = parse_rules(task)
    problems = list(rule.problems("test"))[:count]
    return Asked(task, context, problems, [rule.answer(p) for p in problems])


def test_products_are_derivatives_of_the_log_probability(make_policy: MakePolicy) -> None:
    """Along a direction in double precision (log-probabilities are float32): central differences; the cosine from autograd's own flat gradient."""
    policy = make_policy(seed=3)
    policy.model.double()
    asked = asked_of("strings:reverse", "reverse", 2)
    generator = torch.Generator().manual_seed(0)
    along, other = (
        [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in policy.model.parameters()] for _ in range(2)
    )
    for k in range(2):
        product, cosine = gradient_products(policy, asked, k, along, other)
        moved = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for p, start, u in zip(moved.model.parameters(), policy.model.parameters(), along, strict=True):
                    p.copy_(start + sign * 3e-4 * u)
                values.append(answer_logprobs(moved, ("reverse",), asked.problems, asked.answers)[0, k])
        assert product == pytest.approx((values[0] - values[1]) / 6e-4, rel=1e-3)
        shown = [policy.encode("reverse", asked.problems[k])]
        value = policy.answer_logprobs(shown, [policy.encode_answer(asked.answers[k])]).sum()
        own = torch.autograd.grad(value, list(policy.model.parameters()), allow_unused=True)
        mine = torch.cat([(torch.zeros_like(o) if g is None else g).flatten() for g, o in zip(own, other, strict=True)])
        theirs = torch.cat([o.flatten() for o in other])
        assert cosine == pytest.approx(float(torch.cosine_similarity(mine, theirs, dim=0)), rel=1e-9)
    assert all(p.grad is None for p in policy.model.parameters())


def test_the_kernel_is_a_small_step_along_adams_direction(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    make_model(seed=0, initializer_range=0.1).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    train = TrainConfig(
        method="sft", tasks=("strings:reverse",), old=("digits:negate",), model=str(tmp_path / "m"), steps=4, lr=1e-5,
        learner=SupervisedFineTuning(16), probe=ProbeConfig(problems=6),
    )  # fmt: skip
    given = Given.of(ForecastConfig(train))
    found = at_base(given, batches=1)
    assert set(found.kernel) == {OLD, "digits:negate"} == set(found.overlap)
    reader = given.reader()
    before = reader.log_old(given.base)
    field = given.field
    optimizer = torch.optim.AdamW(given.policy.model.parameters(), lr=1e-5, weight_decay=0.0)
    weights = replace(field.weights, optimizer=optimizer)
    field.learner.step(weights, field.context, field.task, np.random.default_rng(0))  # type: ignore[arg-type]
    after = reader.log_old(given.policy)
    for name, rates in found.kernel.items():
        np.testing.assert_allclose(1e-5 * rates, after[name] - before[name], rtol=0.05, atol=2e-5)
        assert (np.abs(found.cosine[name]) <= 1.0).all()
        assert ((found.overlap[name] > 0.0) & (found.overlap[name] <= 1.0)).all()


def test_overlap_is_one_side_of_itself_and_by_hand(make_policy: MakePolicy) -> None:
    base = make_policy(seed=1)
    asked = asked_of("digits:negate", "negate", 4)
    old = answer_logprobs(base, ("negate", "plus"), asked.problems, asked.answers)
    found = overlap_of_outputs(base, asked, "plus", 3)
    assert (found >= np.exp(old.mean(0)) - 1e-12).all()  # the other answer adds to it
    assert (found <= 1.0).all()
    same = overlap_of_outputs(base, asked, "negate", 3)
    assert (same >= np.exp(old[0]) - 1e-12).all()


def test_fits_are_those_of_least_squares() -> None:
    x = np.linspace(-1.0, 2.0, 30)
    np.testing.assert_allclose(best_fit(x, 2.0 - 3.0 * x + x**2, 2), 2.0 - 3.0 * x + x**2, atol=1e-12)
    np.testing.assert_allclose(best_fit(np.ones(30), x, 2), x.mean())
    rng = np.random.default_rng(0)
    y = rng.normal(size=30)
    assert r_squared(best_fit(x, y, 1), y) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


def test_league_of_a_run_whose_answer_is_known() -> None:
    """Changes that are exactly the kernel's: it has R2 of 1, a forecast at half of it less, scalars what steps explain."""
    rng = np.random.default_rng(2)
    kernel = {"a": rng.normal(size=5), "b": rng.normal(size=7)}
    distance = {1: 0.5, 3: 2.0}
    rows = [
        {
            "step": step,
            "means": {"kl_to_base": {"run": d}},
            "changes": {k: {"run": (d * v).tolist(), "forecast": (0.5 * d * v).tolist()} for k, v in kernel.items()},
        }
        for step, d in distance.items()
    ]
    base = AtBase(kernel, {k: np.sign(v) for k, v in kernel.items()}, {k: np.ones_like(v) for k, v in kernel.items()})
    found = {e.name: e for e in league(base, {"rows": rows}, distance)}
    assert list(found) == ["forecast", "kernel", "cosine", "overlap", "kl"]
    assert found["kernel"].r2 == pytest.approx(1.0)
    assert found["kernel"].rank == pytest.approx(1.0)
    assert found["kernel"].fitted == 0
    assert found["forecast"].rank == pytest.approx(1.0)
    y = np.concatenate([d * np.concatenate(list(kernel.values())) for d in distance.values()])
    assert found["forecast"].r2 == pytest.approx(1.0 - 0.25 * (y**2).sum() / ((y - y.mean()) ** 2).sum())
    step = np.repeat([0.0, 1.0], 12)
    assert found["kl"].r2 == pytest.approx(np.corrcoef(step, y)[0, 1] ** 2)
    assert np.isnan(found["kl"].rank)
    assert "loss" in {e.name for e in league(base, {"rows": rows}, distance, {1: 0.1, 3: 0.2})}
