"""Three behaviours in turn: what is read from the rows of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.validation.claim import Records
from fstsim.llm.validation.language.continual import RUN, THREE, continual
from fstsim.llm.validation.language.scale import SIZES


@pytest.mark.pretrained
def test_signal_and_what_stays_are_read_from_their_stages(smollm2: Policy, tmp_path: Path) -> None:
    size = SIZES["smoke"]
    claims = {claim.prediction.name: claim for claim in continual("smoke", smollm2).claims}
    place = tmp_path / "runs" / RUN / "seed-0"
    place.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for step in range(3 * size.free_steps + 1):
        stage = max(0, step - 1) // size.free_steps
        row = {
            "step": step,
            "samples": 32 * step,
            "task": stage,
            "reward": 0.1 * (stage + 1),
            "dead_share": 0.25 * stage + 0.01 * (step > 15),
        }
        rows.append(row | {f"reward_task{k}": 0.9 - 0.2 * k for k in range(3) if k != stage})
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = Records(tmp_path, 1, smollm2)
    assert claims[f"{RUN}-signal-2"].measured(records) == [pytest.approx(0.25)]  # steps 13 to 15
    assert claims[f"{RUN}-signal-3"].measured(records) == [pytest.approx(0.51)]
    assert claims[f"{RUN}-kept-1"].measured(records) == [pytest.approx(0.9 - 0.1)]
    assert claims[f"{RUN}-kept-2"].measured(records) == [pytest.approx(0.7 - 0.2)]
    task = parse_task(THREE[1])
    problems = list(task.problems("test"))[: size.held]
    shown = smollm2.forced(
        [smollm2.encode("", p) for p in problems], [smollm2.encode_answer(task.answer(p)) for p in problems]
    )  # type: ignore[attr-defined]
    with torch.no_grad():
        masses = (smollm2.logprobs(shown) * shown.mask).double().sum(1).exp().numpy()
    dead = np.mean((1 - masses) ** size.rollouts + masses**size.rollouts)
    assert claims[f"{RUN}-signal-2"].prediction.value == pytest.approx(dead, abs=1e-5)
