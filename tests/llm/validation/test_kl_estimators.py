"""Where leashes by k1, k2 and k3 are predicted to rest: new and old mass of an enumerated tree; and what the chapter runs."""

from __future__ import annotations

import numpy as np
import pytest

from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.kinds import KINDS
from fstsim.llm.validation.kl_estimators import both_at_rest, kl_estimators
from fstsim.theory import ALL_STATEMENTS, k3_loss_answer, k3_loss_policy, leash_loss_answer, leash_loss_policy
from fstsim.theory.leash_loss import token_decisions


@pytest.mark.parametrize("tau", [0.15, 0.5, 3.0])
@pytest.mark.parametrize("old", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("law", "tree_law"), [(leash_loss_answer, leash_loss_policy), (k3_loss_answer, k3_loss_policy)]
)
def test_both_masses_are_those_of_the_enumerated_tree(law: object, tree_law: object, tau: float, old: int) -> None:
    """Two sequences of three tokens among 27: the new answer is 2 1 0, the old one parts from it at the first to the last token."""
    tree = np.random.default_rng(old).dirichlet(np.ones(27), size=5)
    new, other = (2, 1, 0), [(0, 1, 1), (1, 1, 0), (2, 0, 2), (2, 1, 2)][old]
    index = lambda tokens: int(np.ravel_multi_index(tokens, (3, 3, 3)))  # noqa: E731
    reward = np.zeros(27)
    reward[index(new)] = 1.0
    rest = tree_law(tree, reward, tau, tokens=3)  # type: ignore[operator]
    given = token_decisions(tree, 3, 3)
    prefixes = [0, new[0], new[0] * 3 + new[1]]
    masses = np.stack([given[t][:, prefixes[t], new[t]] for t in range(3)], axis=1)
    parted = next(k for k in range(3) if new[k] != other[k])
    found = both_at_rest(law, masses, np.full(5, parted), tree[:, index(other)], tau)  # type: ignore[arg-type]
    assert found[0] == pytest.approx(rest[:, index(new)], rel=1e-9)
    assert found[1] == pytest.approx(rest[:, index(other)], rel=1e-9)


def test_the_chapter_has_every_estimator_and_its_predictions_tell_them_apart() -> None:
    base = Policy.load("base")
    base.model.eval()
    chapter = kl_estimators("smoke", base)
    learners = [run.config.learner for run in chapter.runs]
    assert all(isinstance(x, PolicyGradient) for x in learners)
    assert [(x.kl_estimator, x.kl_estimator_ratio) for x in learners if isinstance(x, PolicyGradient)] == [
        ("k1", False), ("k2", False), ("k3", False), ("k3", True),
    ]  # fmt: skip
    slugs = {statement.slug for statement in ALL_STATEMENTS}
    values = {claim.prediction.name: claim.prediction for claim in chapter.claims}
    assert all(p.statement in slugs and p.label.kind in KINDS for p in values.values())
    k1, k2, k3 = (values[f"kl-estimator-{k}-new"] for k in ("k1", "k2", "k3"))
    assert k1.low > k2.high
    assert k2.low > k3.high
    assert values["kl-estimator-k3-ratio-new"].value == pytest.approx(k2.value)
