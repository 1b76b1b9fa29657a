"""Trainers that say nothing; without TRL there is nothing to test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("trl") else ["test_*"]


@pytest.fixture
def quiet_trainers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tables and bars between the tests, nothing from the network."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    level = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)
    yield
    logging.getLogger("transformers").setLevel(level)
