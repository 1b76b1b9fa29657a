"""What every test shares: the Hypothesis profiles and a seeded generator.

Folders: `simulator/` tests fstsim/, `theory/` tests theory/, `front/` the command line, README and packaging,
`benchmarks/` only measures (its files are called bench_*.py, so a plain `pytest` leaves them out).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import numpy as np
import pytest
from hypothesis import settings

# No deadlines: a shared machine may be slow, and time is measured in benchmarks only.
settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)  # the same examples every time
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("FSTSIM_HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Garbage is collected neither while all modules are loaded, which stay, nor among their objects later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed: a test that fails, fails again."""
    return np.random.default_rng(20260312)
