"""Where a leash as a loss rests, against an enumerated tree; and where two leashes rest on a pretrained model."""

from __future__ import annotations

import numpy as np
import pytest

from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.language.kl_leashes import answer_token_masses, at_loss_rest
from fstsim.llm.validation.language.scale import FORM, SIZES, demonstrated
from fstsim.llm.validation.prediction import measure_base, tilted
from fstsim.theory.leash_loss import leash_loss_policy, token_decisions


@pytest.mark.parametrize("tau", [0.2, 0.5, 3.0])
@pytest.mark.parametrize("old", [0, 1, 2, 3])
def test_rest_of_a_leash_as_a_loss_is_that_of_the_enumerated_tree(tau: float, old: int) -> None:
    """Two sequences of three tokens among 27: the new answer is 2 1 0, the old one parts from it at the first to the last token."""
    tree = np.random.default_rng(old).dirichlet(np.ones(27), size=5)
    new = (2, 1, 0)
    other = [(0, 1, 1), (1, 1, 0), (2, 0, 2), (2, 1, 2)][old]
    index = lambda tokens: int(np.ravel_multi_index(tokens, (3, 3, 3)))  # noqa: E731
    reward = np.zeros(27)
    reward[index(new)] = 1.0
    rest = leash_loss_policy(tree, reward, tau, tokens=3)
    given = token_decisions(tree, 3, 3)
    masses = np.stack(
        [
            given[t].reshape(5, -1, 3)[:, int(np.ravel_multi_index((0, *new[:t]), (1, *[3] * t))), new[t]]
            for t in range(3)
        ],
        axis=1,
    )
    parted = next(k for k in range(3) if new[k] != other[k])
    padded = np.concatenate([masses, np.ones((5, 2))], axis=1)
    found = at_loss_rest(padded, np.full(5, parted), tree[:, index(other)], tau)
    assert found[0] == pytest.approx(rest[:, index(new)], rel=1e-10)
    assert found[1] == pytest.approx(rest[:, index(other)], rel=1e-10)


@pytest.mark.pretrained
def test_the_two_leashes_rest_apart_and_agree_when_weak(smollm2: Policy) -> None:
    task, count = demonstrated(FORM), 6
    base = measure_base(smollm2, task, count)
    masses, parted = answer_token_masses(smollm2, task, count)
    assert masses.prod(axis=1) == pytest.approx(base.new, rel=1e-4)
    tau = SIZES["small"].leashes[0]
    new, old = at_loss_rest(masses, parted, base.old, tau)
    assert new.mean() > tilted(base, tau)[0].mean() + 0.05
    assert (new + old <= 1.0).all()
    weak = at_loss_rest(masses, parted, base.old, 1e4)
    assert weak[0] == pytest.approx(base.new, rel=1e-3)
    assert weak[1] == pytest.approx(base.old, rel=1e-3)
