"""Sizes of the chapters about chat models: every scale has what its learners take."""

from __future__ import annotations

import pytest

from fstsim.llm.experiments.plan import Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.validation.language.scale import FORM, FREE, SIZES, demonstrated, run_config


@pytest.mark.parametrize("scale", list(SIZES))
def test_runs_are_measured_at_their_start_and_in_their_last_quarter(scale: Scale) -> None:
    size = SIZES[scale]
    config = run_config(size, size.sft_steps, FORM, "sft", SupervisedFineTuning(problems=size.taught))
    assert config.clip == FREE
    assert config.method == "sft"
    measured = [step for step in range(1, config.steps + 1) if config.probe.due(step)]
    assert measured == [1, round(0.75 * config.steps)]
    assert PolicyGradient(problems=size.groups, rollouts=size.rollouts).rollouts >= 2
    assert len(list(demonstrated(FORM).problems("test"))) >= size.held
