"""Length bias against enumerations of whole batches, against the gradient of a softmax policy, and against mpmath."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.theory import (
    group_advantage_means,
    group_normalised_drift,
    length_growth,
    sequence_length_bias,
    token_bias_bounds,
    token_length_bias,
)

# kinds: right of 3 and of 7 tokens, wrong of 2 and of 11
REWARDS = np.array([1.0, 1.0, 0.0, 0.0])
LENGTHS = np.array([3.0, 7.0, 2.0, 11.0])
PI = np.array([0.15, 0.2, 0.25, 0.4])
P = float(PI[:2].sum())
SHAPED = np.array([[2.0, 11.0], [3.0, 7.0]])
SHARES = np.array([PI[2:] / (1.0 - P), PI[:2] / P])


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Of groups of one problem a row; 0 where a group is dead."""
    centred = rewards - rewards.mean(-1, keepdims=True)
    spread = rewards.std(-1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0.0)


def expected_weights(group: int, problems: int, mean: str) -> np.ndarray:
    """Expected A c of the first rollout by its kind, over every batch there is."""
    total, chance = np.zeros(4), np.zeros(4)
    for kinds in itertools.product(range(4), repeat=group * problems):
        batch = np.array(kinds)
        likely = PI[batch].prod()
        a = advantages(REWARDS[batch].reshape(problems, group))[0, 0]
        c = 1.0 / LENGTHS[batch[0]] if mean == "sequences" else len(batch) / LENGTHS[batch].sum()
        total[batch[0]] += likely * a * c
        chance[batch[0]] += likely
    return total / chance


@pytest.mark.parametrize(("group", "problems"), [(2, 1), (4, 1), (2, 2), (3, 2)])
def test_both_means_by_enumeration(group: int, problems: int) -> None:
    x = logit(P)
    sequences, tokens = (expected_weights(group, problems, mean) for mean in ("sequences", "tokens"))
    for i, j, right in ((0, 1, 1), (2, 3, 0)):
        pair = (LENGTHS[i], LENGTHS[j])
        assert float(sequence_length_bias(x, group, *pair, right)) == pytest.approx(sequences[i] - sequences[j])
        found = token_length_bias(x, group, SHAPED, SHARES, pair, right, problems)
        assert float(found) == pytest.approx(tokens[i] - tokens[j], rel=1e-10)


def test_update_of_a_softmax_policy_has_these_weights() -> None:
    """The expected gradient of GRPO's loss over all groups, solved for natural gradient, moves kinds of one reward apart."""
    group, gradient = 4, np.zeros(4)
    for kinds in itertools.product(range(4), repeat=group):
        batch = np.array(kinds)
        a = advantages(REWARDS[batch][None])[0]
        scores = np.eye(4)[batch] - PI
        gradient += PI[batch].prod() * (a / LENGTHS[batch]) @ scores / group
    natural = np.linalg.pinv(np.diag(PI) - np.outer(PI, PI)) @ gradient
    x = logit(P)
    assert natural[0] - natural[1] == pytest.approx(float(sequence_length_bias(x, group, 3, 7, 1)))
    assert natural[2] - natural[3] == pytest.approx(float(sequence_length_bias(x, group, 2, 11, 0)))
    moved = PI * (natural - PI @ natural)
    inside, speed = PI[2:] / PI[2:].sum(), moved[2:]
    mean_length = ((speed - inside * speed.sum()) / PI[2:].sum()) @ LENGTHS[2:]
    assert mean_length == pytest.approx(float(length_growth(x, group, LENGTHS[2:], SHARES[0])))


def test_advantages_balance_and_are_those_of_the_drift() -> None:
    p = np.array([0.01, 0.3, 0.5, 0.97])
    right, wrong = group_advantage_means(logit(p), 8)
    assert p * right + (1 - p) * wrong == pytest.approx(0.0, abs=1e-14)
    assert p * right == pytest.approx(group_normalised_drift(p, 8))


@settings(max_examples=30)
@given(st.floats(-8.0, 8.0), st.integers(2, 12), st.integers(1, 30), st.floats(0.001, 1.5), st.integers(0, 1))
def test_integral_of_two_lengths_against_high_precision(
    x: float, group: int, problems: int, spread: float, right: int
) -> None:
    """Wrong of one length, right of another: R is decided by the number of right ones in the rest of the batch."""
    wrong_length, right_length = 10.0, 10.0 * np.exp(spread)
    lengths = np.array([[wrong_length, wrong_length], [right_length, right_length]])
    pair = (right_length, 0.5 * right_length) if right else (wrong_length, 2.0 * wrong_length)
    found = token_length_bias(x, group, lengths, np.full((2, 2), 0.5), pair, right, problems)
    p, rest, total = mpmath.mpf(float(expit(x))), (problems - 1) * group, group * problems
    exact = mpmath.mpf(0)
    for k in range(group):
        own = mpmath.sqrt(mpmath.mpf(group - k - 1) / (k + 1)) if right else -mpmath.sqrt(mpmath.mpf(k) / (group - k))
        chance = mpmath.binomial(group - 1, k) * p**k * (1 - p) ** (group - 1 - k)
        for j in range(rest + 1):
            tokens = (k + j) * mpmath.mpf(right_length) + (total - 1 - k - j) * mpmath.mpf(wrong_length)
            weight = chance * mpmath.binomial(rest, j) * p**j * (1 - p) ** (rest - j)
            exact += weight * own * total * (1 / (pair[0] + tokens) - 1 / (pair[1] + tokens))
    assert float(found) == pytest.approx(float(exact), rel=1e-9)


def test_a_batch_divides_the_bias_by_its_rollouts() -> None:
    """Where lengths nearly agree the ratio of the two means is 1/N, and signs are those of the mean over sequences."""
    near = 10.0 + 1e-3 * np.arange(4).reshape(2, 2)
    for problems in (1, 4, 48):
        ratio = token_length_bias(0.3, 8, near, np.full((2, 2), 0.5), (10.002, 10.003), 1, problems)
        ratio = ratio / sequence_length_bias(0.3, 8, 10.002, 10.003, 1)
        assert float(ratio) == pytest.approx(1.0 / (8 * problems), rel=1e-3)
    low, high = token_bias_bounds(10.0, 10.0, 10.0, 10.0, 64)
    assert float(low) == float(high) == pytest.approx(1 / 64)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sequence_length_bias(0.0, 8, 0.0, 3.0, 1), "length must be positive"),
        (lambda: length_growth(0.0, 8, [1.0, 2.0], [0.5, 0.6]), "shares must be nonnegative and sum to 1"),
        (lambda: token_length_bias(0.0, 8, [1.0, 2.0], [0.5, 0.5], (1.0, 2.0), 1), r"lengths must have shape"),
        (lambda: token_length_bias(0.0, 8, SHAPED, SHARES, (1.0, 2.0), 1, 1.5), "problems must be a whole number"),
    ],
)
def test_bad_input(call: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()  # type: ignore[operator]
