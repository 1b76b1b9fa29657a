"""Clipped replay of several tokens and prompts: against flows and against runs of clipped gradient descent in the logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from fstsim import InputError
from fstsim.theory import clipped_replay_mass
from fstsim.theory.clipping_tokens import clipped_prompts_bounds, clipped_prompts_mass, clipped_tokens_mass


@pytest.mark.parametrize(("share", "batch", "clip"), [(0.2, 4, 0.3), (0.35, 8, 0.5), (0.1, 1, 0.4)])
def test_logits_of_one_prompt_come_to_one_mass(share: float, batch: int, clip: float) -> None:
    """Expected clipped descent of four logits from unequal starts, every number of old demonstrations written out."""
    x = np.array([3.0, -2.0, 0.0, -5.0])
    k = np.arange(batch + 1)
    chance = binom.pmf(k, batch, share)
    for _ in range(20_000):
        gap = expit(x) - (k / batch)[:, None]
        cut = np.minimum(1.0, clip / np.linalg.norm(gap, axis=1))
        # divided by the curvature, so that logits far out move too: the rest is the same
        x = x - 0.2 * (chance * cut) @ gap / np.maximum(expit(x) * expit(-x), 1e-3)
    expected = float(clipped_tokens_mass(share, batch, clip, 4))
    np.testing.assert_allclose(expit(x), expected, atol=2e-6)
    assert expected == pytest.approx(float(clipped_replay_mass(share, batch, clip / 2.0)))


@pytest.mark.parametrize(
    ("share", "batch", "clip", "tokens"), [(0.3, 8, 0.05, 1), (0.2, 4, 0.6, 5), (0.4, 16, 0.01, 3)]
)
def test_prompts_that_share_nothing_rest_at_the_law(share: float, batch: int, clip: float, tokens: int) -> None:
    """Clipped SGD on 64 prompts with logits of their own, batches drawn without replacement; mean over the last steps."""
    rng = np.random.default_rng(batch)
    runs, prompts, steps = 24, 64, 12_000
    expected = float(clipped_prompts_mass(share, batch, clip, tokens))
    mass = np.full((runs, prompts), expected + 0.1)
    lr = 0.05 * batch / min(1.0, clip / (np.sqrt(tokens / batch) * 0.4))
    rows = np.arange(runs)[:, None]
    late = []
    for step in range(steps):
        chosen = np.argsort(rng.random((runs, prompts)), axis=1)[:, :batch]
        old = rng.random((runs, batch)) < share
        gap = (mass[rows, chosen] - old) / batch
        norm = np.sqrt(tokens * (gap**2).sum(1, keepdims=True))
        mass[rows, chosen] -= lr * gap * np.minimum(1.0, clip / norm)
        if step > steps // 2:
            late.append(mass.mean(1))
    found = np.mean(late, axis=0)
    error = found.std(ddof=1) / np.sqrt(runs)
    assert found.mean() == pytest.approx(expected, abs=5.0 * error + 0.01)


def test_one_demonstration_is_the_law_of_one_logit() -> None:
    for share, clip, tokens in ((0.2, 0.3, 1), (0.1, 0.5, 4), (0.4, 0.01, 9)):
        expected = share * min(1.0, clip / np.sqrt(tokens) / (1.0 - share))
        assert float(clipped_prompts_mass(share, 1, clip, tokens)) == pytest.approx(expected, abs=1e-12)
        assert float(clipped_prompts_bounds(share, 1, clip, tokens)[0]) == pytest.approx(expected)


def test_what_nothing_cuts_rests_at_the_share_and_hard_clipping_keeps_common_shares() -> None:
    assert float(clipped_prompts_mass(0.2, 8, 10.0, 1)) == pytest.approx(0.2)
    kept = float(clipped_prompts_mass(0.3, 64, 1e-6, 1))
    assert kept > float(clipped_prompts_bounds(0.3, 64, 1e-6)[0]) > 0.28
    assert float(clipped_prompts_mass(0.02, 8, 1e-6, 1)) < 1e-4


BAD: list[Callable[[], object]] = [
    lambda: clipped_tokens_mass(0.2, 4, 0.5, 0),
    lambda: clipped_prompts_mass(1.2, 4, 0.5),
    lambda: clipped_prompts_mass(0.2, 4, 0.0),
    lambda: clipped_prompts_bounds(0.6, 4, 0.5),
]


@pytest.mark.parametrize("call", BAD)
def test_bad_input(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
