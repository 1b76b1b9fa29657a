"""The declarations of experiments: every file of runs is one, a run's name means one thing, and names cost no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import fstsim.llm.experiments as declared
from fstsim.llm.experiments import EXPERIMENTS, REUSE
from fstsim.llm.experiments.experiment import Experiment
from fstsim.llm.experiments.plan import LR, Planned, Scale


def test_every_file_with_runs_is_declared() -> None:
    folder = Path(declared.__file__).parent
    assert {p.stem for p in folder.glob("*.py") if "\ndef runs(" in p.read_text()} == {e.name for e in EXPERIMENTS}
    assert {e for e in vars(declared).values() if isinstance(e, Experiment)} == set(EXPERIMENTS)


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_a_run_of_one_name_is_the_same_run(scale: Scale) -> None:
    """Whoever declares it; ``kind`` is the word of each experiment for it, the rest is not."""
    found: dict[str, Planned] = {}
    for run in (run for experiment in EXPERIMENTS for run in experiment.runs(scale)):
        before = found.setdefault(run.name, run)
        assert (before.config, before.after, before.leash) == (run.config, run.after, run.leash)


@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_small_has_the_runs_of_every_scale(scale: Scale) -> None:
    for experiment in EXPERIMENTS:
        names = {run.name for run in experiment.runs("small")}
        assert {run.name for run in experiment.runs(scale)} <= names


def test_a_run_says_what_it_is() -> None:
    """The words that tables use tell every two runs of an experiment apart."""
    for experiment in EXPERIMENTS:
        runs = experiment.runs("small")
        assert len({(run.kind, run.task, run.method, run.lr, run.leash) for run in runs}) == len(runs)
        for run in runs:
            settings = asdict(run.config)["learner"] or {}
            assert settings.get("leash_reward", 0.0) == run.leash


def test_what_the_sweep_chose_is_taken() -> None:
    chosen = {"fst": (1e-4, 0.02)}
    assert {(run.lr, run.leash) for run in REUSE.runs("small", chosen)} == {(1e-4, 0.02)}
    assert {(run.lr, run.leash) for run in REUSE.runs("small")} == {(LR, 0.0)}


def test_names_do_not_load_torch() -> None:
    code = "import sys; from fstsim.llm.experiments import EXPERIMENTS; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
