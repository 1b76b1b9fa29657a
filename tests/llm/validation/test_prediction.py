"""Predictions against independent calculations, and the rule of judgement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit, logit
from scipy.stats import t as student

from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import (
    BaseMasses,
    Prediction,
    judge,
    old_token_masses,
    predict_dead_groups,
    predict_replay,
    predict_tilt,
    shared_escape_time,
    tilted,
)
from fstsim.theory import ALL_STATEMENTS, group_escape_time, group_normalised_drift


def masses(new: list[float], old: list[float], same: list[bool] | None = None) -> BaseMasses:
    return BaseMasses(np.array(new), np.array(old), np.array(same or [False] * len(new)))


PREDICTION = Prediction("x", Label("replay"), "s", "q", 0.5, 0.45, 0.55, 0.2)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ([0.50, 0.51, 0.52], "confirmed"),
        ([0.56, 0.57, 0.58], "confirmed"),  # 0.545 to 0.595 meets 0.45 to 0.55
        ([0.70, 0.71, 0.72], "falsified"),
        ([0.5, 0.5], "undecided"),
        ([0.1, 0.5, 0.9], "undecided"),
    ],
)
def test_the_rule(measured: list[float], verdict: str) -> None:
    found = judge(PREDICTION, measured)
    assert found.verdict == verdict
    assert found.measured == pytest.approx(np.mean(measured))


def test_the_interval_is_students() -> None:
    x = [0.4, 0.5, 0.55, 0.61]
    found = judge(PREDICTION, x)
    expected = student.interval(0.95, len(x) - 1, np.mean(x), np.std(x, ddof=1) / np.sqrt(len(x)))
    assert (found.low, found.high) == pytest.approx(expected)


@given(
    st.floats(1e-4, 0.9),
    st.floats(0.01, 1.0),
    st.floats(0.05, 3.0),
    st.tuples(*[st.floats(1e-6, 1.0)] * 3),
)
def test_the_tilt_maximises_reward_less_kl(
    new: float, share: float, temperature: float, other: tuple[float, float, float]
) -> None:
    """Over three outcomes (new, old, rest) no distribution has more, and the maximum is tau log E e^(r / tau)."""
    old = share * (1.0 - new) * 0.98
    base = np.array([new, old, 1.0 - new - old])

    def objective(p: np.ndarray) -> float:
        return float(p[0] - temperature * np.sum(p * np.log(p / base)))

    found_new, found_old = tilted(masses([new], [old]), temperature)
    best = np.array([found_new[0], found_old[0], found_old[0] * base[2] / old])
    assert best.sum() == pytest.approx(1.0, abs=1e-9)
    maximum = temperature * np.log(new * np.exp(1.0 / temperature) + 1.0 - new)
    assert objective(best) == pytest.approx(maximum, abs=1e-9)
    assert objective(np.array(other) / sum(other)) <= maximum + 1e-9


def test_the_tilt_is_averaged_after_it_is_taken() -> None:
    base = masses([0.01, 0.2], [0.5, 0.1])
    new, _ = predict_tilt(base, 0.5)
    each = [p * np.exp(2.0) / (1 - p + p * np.exp(2.0)) for p in (0.01, 0.2)]
    assert new.value == pytest.approx(np.mean(each))
    pooled = 0.105 * np.exp(2.0) / (1 - 0.105 + 0.105 * np.exp(2.0))
    assert abs(new.value - pooled) > 0.02


def test_replay_ends_at_its_share_and_shared_answers_count_fully() -> None:
    assert predict_replay(masses([0.1] * 4, [0.3] * 4), 0.2).value == pytest.approx(0.2)
    with_same = predict_replay(masses([0.1] * 4, [0.3] * 4, [True, False, False, False]), 0.2)
    assert with_same.value == pytest.approx(0.25 + 0.75 * 0.2)


def test_dead_groups_against_simulation() -> None:
    rng = np.random.default_rng(3)
    p = rng.beta(0.5, 2.0, size=200)
    prediction = predict_dead_groups(masses(p.tolist(), [0.0] * 200), 8)
    wins = rng.binomial(8, p, size=(2000, 200))
    share = ((wins == 0) | (wins == 8)).mean(axis=1)
    assert prediction.value == pytest.approx(share.mean(), abs=4.5 * share.std() / np.sqrt(2000))


def test_tokens_of_the_old_answer_are_its_decisions() -> None:
    policy = Policy.load("base")
    policy.model.eval()
    task = parse_rules("digits:plus")
    tokens = old_token_masses(policy, task, 12)
    problems = [p for p in list(task.problems("test"))[:12] if task.answer(p) != task.old_answer(p)]
    assert len(tokens) == len(problems)
    whole = np.exp(answer_logprobs(policy, ("",), problems, [task.old_answer(p) for p in problems]))[0]
    # plus changes every digit: only the end token, of which the base is sure, is no decision
    assert tokens.prod(-1) == pytest.approx(whole, rel=0.02)
    assert (tokens.prod(-1) >= whole - 1e-12).all()
    for row, problem in zip(tokens, problems, strict=True):
        assert (row < 1.0).sum() == len(task.answer(problem))


def test_equal_prompts_escape_as_one() -> None:
    # the theory's own quadrature, and the shift itself at constant speed
    time, shift = shared_escape_time(np.full(7, -3.0), 0.5, 8)
    assert time == pytest.approx(float(group_escape_time(-3.0, 0.0, 1.0, 8)), rel=1e-9)
    assert shift == pytest.approx(3.0)


def test_escape_times_follow_one_over_p0_far_below_one_over_the_group() -> None:
    # theory 16.3: T ~ 1 / (p0 sqrt(G - 1)) for p0 << 1 / G; independent of the quadrature
    times = [shared_escape_time(np.array([logit(p)]), 0.5, 8)[0] for p in (1e-5, 1e-4)]
    assert times[0] / times[1] == pytest.approx(10.0, rel=0.01)


def test_unequal_prompts_escape_by_the_flow_of_their_shift() -> None:
    x = np.array([-4.0, -1.0, 0.5])

    def speed(_: float, u: np.ndarray) -> float:
        return float(np.mean([group_normalised_drift(float(expit(v + u[0])), 8) for v in x]))

    def reached(_: float, u: np.ndarray) -> float:
        return float(expit(x + u[0]).mean()) - 0.6

    reached.terminal = True  # type: ignore[attr-defined]
    flow = solve_ivp(speed, (0.0, 200.0), [0.0], events=reached, rtol=1e-10, atol=1e-12)
    assert shared_escape_time(x, 0.6, 8) == pytest.approx((flow.t[-1], flow.y[0, -1]), rel=1e-6)


def test_what_is_reached_at_the_start_takes_no_time() -> None:
    assert shared_escape_time(np.array([1.0, 2.0]), 0.5, 8) == (0.0, 0.0)


def test_seeds_without_a_measurement_do_not_count() -> None:
    assert judge(PREDICTION, [0.5, float("nan"), 0.51, 0.52]).seeds == 3
    assert judge(PREDICTION, [0.5, float("nan"), 0.51]).verdict == "undecided"
    assert judge(PREDICTION, [float("nan")] * 3).verdict == "undecided"


def test_every_prediction_names_a_statement() -> None:
    base = masses([0.1, 0.2], [0.3, 0.3])
    found = [predict_replay(base, 0.1), predict_dead_groups(base, 8), *predict_tilt(base, 0.5)]
    slugs = {statement.slug for statement in ALL_STATEMENTS}
    assert {prediction.statement for prediction in found} | {"mass-forgetting", "group-normalised-escape"} <= slugs
