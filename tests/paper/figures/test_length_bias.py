"""The numbers behind the figure of the length bias agree with the theory, and it is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from fstsim.paper.figures import length_bias as figure
from fstsim.paper.figures.catalogue import FIGURES, figure_of, save_figure
from fstsim.theory import group_advantage_means, length_growth, token_bias_bounds


@pytest.mark.parametrize("right", [True, False])
def test_drawn_groups_weigh_lengths_as_the_theory_says(right: bool) -> None:
    found = figure.sampled_weights(right, 100_000)
    mean = group_advantage_means(logit(figure.SUCCESS), figure.GROUP)[0 if right else 1]
    expected = float(mean) * figure.LENGTHS.mean() / figure.LENGTHS
    assert (np.abs(found.mean - expected) < 4.5 * found.error).all()
    assert (found.error < 0.02 * np.abs(expected)).all()


def test_drawn_groups_make_wrong_answers_grow() -> None:
    found = figure.sampled_growth(np.array([0.2, 0.7]), 40_000)
    shares = np.full(3, 1.0 / 3.0)
    expected = length_growth(logit(found.time), figure.GROUP, figure.LENGTHS, shares)
    assert (np.abs(found.mean - expected) < 5.0 * found.error).all()


def test_drawn_batches_have_the_exact_ratio_between_the_bounds() -> None:
    problems = np.array([1.0, 6.0])
    exact, found = figure.exact_ratio(problems), figure.sampled_ratio(problems, 10_000)
    assert (np.abs(found.mean - exact) < 4.5 * found.error).all()
    low, high = token_bias_bounds(figure.SHORT, figure.LONG, 20.0, 80.0, problems * figure.GROUP)
    assert ((low < exact) & (exact < high)).all()


def test_it_is_drawn_and_shows_its_statements(tmp_path: Path) -> None:
    png, pdf = save_figure(FIGURES["length-bias"], tmp_path)
    assert png.stat().st_size > 30_000
    assert pdf.read_bytes().startswith(b"%PDF")
    assert figure_of("length-bias-tokens") == "length-bias"
