"""The numbers behind figure 15 agree with the theory, and it is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from fstsim.paper.figures import kl_estimators as figure
from fstsim.paper.figures.catalogue import FIGURES, save_figure
from fstsim.theory import k3_loss_log_odds, k3_reward_drift, tilt_mass


@pytest.mark.parametrize("name", figure.NAMES)
def test_samples_spread_as_the_moments_say(name: str) -> None:
    kl = np.array([0.05, 0.4])
    found = figure.sampled_spread(name, kl)
    expected = figure.relative_spread(kl)[figure.NAMES.index(name)]
    assert (np.abs(found.mean - expected) < 5.0 * found.error + 1e-4).all()
    below, above = figure.relative_spread(np.array([figure.QUIETER * 0.999, figure.QUIETER * 1.001])).T
    assert below[2] < below[0]
    assert above[2] > above[0]


@pytest.mark.parametrize("tau", [0.12, 0.7])
def test_ascent_ends_where_the_leashes_rest(tau: float) -> None:
    assert figure.ascended("k2", tau) == pytest.approx(float(tilt_mass(figure.RARE, tau)), rel=1e-6)
    rest = expit(k3_loss_log_odds(logit(figure.RARE), 1.0 / tau))
    assert figure.ascended("k3", tau) == pytest.approx(float(rest), rel=1e-6)
    assert figure.ascended("k1", tau) > 1.0 - 1e-12


def test_k3_inside_the_reward_ascends_a_difference_of_divergences() -> None:
    x0, x = float(logit(figure.BASE)), np.linspace(-4.0, 4.0, 9)
    slope = (figure.reward_divergence(x + 1e-5) - figure.reward_divergence(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, k3_reward_drift(x0, x), atol=1e-8)
    np.testing.assert_allclose(figure._enumerated_reward_drift(x0, x), k3_reward_drift(x0, x), atol=1e-12)


def test_it_is_drawn(tmp_path: Path) -> None:
    png, pdf = save_figure(FIGURES["kl-estimators"], tmp_path)
    assert png.stat().st_size > 30_000
    assert pdf.read_bytes().startswith(b"%PDF")
