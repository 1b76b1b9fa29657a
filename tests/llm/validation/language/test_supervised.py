"""A run of supervised training beside its forecast: every seed is compared once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fstsim.llm.forecast.agreement import agreement
from fstsim.llm.validation.claim import Records
from fstsim.llm.validation.language import supervised
from fstsim.llm.validation.language.supervised import Compared

NO_BASE: Any = None


def test_a_seed_is_compared_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = agreement({"old": np.array([-1.0, -2.0])}, {"old": np.array([-1.0, -2.0])})
    row = {
        "step": 4,
        "means": {"reward": {"run": 0.5}},
        "prompts": {k: vars(v) for k, v in held.items()},
        "changes": {"old": {"run": [-1.0, -2.0]}},
    }
    calls: list[Path] = []
    monkeypatch.setattr(supervised, "forecast", lambda *_: None)
    monkeypatch.setattr(
        supervised,
        "compare",
        lambda _, place: calls.append(place) or {"rows": [{"step": 2}, row]},  # type: ignore[func-returns-value]
    )
    compared, records = Compared(SimpleNamespace(), 4), Records(tmp_path, 2, NO_BASE)  # type: ignore[arg-type]
    assert compared.mean("reward")(records) == [0.5, 0.5]
    assert compared.change("old")(records) == [-1.5, -1.5]
    assert compared.agreement("old")(records) == [1.0, 1.0]
    assert len(calls) == 2
