"""Claims about chat models: where a leash as a loss rests, against an enumerated tree; what is read from rows; every claim."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fstsim.errors import InputError
from fstsim.llm.forecast.agreement import agreement
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.pretrained import cached_path
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.validation import language
from fstsim.llm.validation.claim import Records
from fstsim.llm.validation.language import FORM, SIZES, Compared, answer_token_masses, at_loss_rest, old_among_both
from fstsim.llm.validation.prediction import measure_base, tilted
from fstsim.llm.validation.validate import CHAPTERS, LANGUAGE, all_chapters, validate
from fstsim.theory import ALL_STATEMENTS
from fstsim.theory.leash_loss import leash_loss_policy, token_decisions

NO_BASE: Any = None


@pytest.mark.parametrize("tau", [0.2, 0.5, 3.0])
@pytest.mark.parametrize("old", [0, 1, 2, 3])
def test_rest_of_a_leash_as_a_loss_is_that_of_the_enumerated_tree(tau: float, old: int) -> None:
    """Two sequences of three tokens among 27: the new answer is 2 1 0, the old one parts from it at the first to the last token."""
    tree = np.random.default_rng(old).dirichlet(np.ones(27), size=5)
    new = (2, 1, 0)
    other = [(0, 1, 1), (1, 1, 0), (2, 0, 2), (2, 1, 2)][old]
    index = lambda tokens: int(np.ravel_multi_index(tokens, (3, 3, 3)))  # noqa: E731
    reward = np.zeros(27)
    reward[index(new)] = 1.0
    rest = leash_loss_policy(tree, reward, tau, tokens=3)
    given = token_decisions(tree, 3, 3)
    masses = np.stack(
        [
            given[t].reshape(5, -1, 3)[:, int(np.ravel_multi_index((0, *new[:t]), (1, *[3] * t))), new[t]]
            for t in range(3)
        ],
        axis=1,
    )
    parted = next(k for k in range(3) if new[k] != other[k])
    padded = np.concatenate([masses, np.ones((5, 2))], axis=1)
    found = at_loss_rest(padded, np.full(5, parted), tree[:, index(other)], tau)
    assert found[0] == pytest.approx(rest[:, index(new)], rel=1e-10)
    assert found[1] == pytest.approx(rest[:, index(other)], rel=1e-10)


def test_shares_and_changes_are_read_from_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": 0, "samples": 0, "reward": 0.1, "old_mass": 0.3},
        {"step": 1, "samples": 0, "reward": None},
        {"step": 2, "samples": 0, "reward": 0.2, "old_mass": 0.2},
        {"step": 4, "samples": 0, "reward": 0.3, "old_mass": 0.1},
    ]
    assert old_among_both(rows) == pytest.approx([0.75, 0.5, 0.25])
    place = tmp_path / "runs" / "a" / "seed-0"
    place.mkdir(parents=True)
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = Records(tmp_path, 1, NO_BASE)
    assert language.share_at_end("a")(records) == pytest.approx([0.375])
    assert language.moved("a", old_among_both)(records) == pytest.approx([-0.25])


def test_replay_is_predicted_and_planned_without_a_model() -> None:
    chapter = language.replay("smoke", NO_BASE)
    shares = SIZES["smoke"].shares
    assert len(shares) >= 3
    values = [c.prediction.value for c in chapter.claims if c.prediction.label.kind == "replay-share"]
    assert values == list(shares)
    for share, run in zip(shares, chapter.runs, strict=True):
        assert run.config.learner.replay_share == share  # type: ignore[union-attr]
        assert run.config.clip > 1e6
        assert not run.write_model
        measured = [step for step in range(run.config.steps + 1) if step == 0 or run.config.probe.due(step)]
        assert measured == [0, 1, round(0.75 * run.config.steps)], "and the end of the run, which always is"


def test_a_seed_is_compared_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = agreement({"old": np.array([-1.0, -2.0])}, {"old": np.array([-1.0, -2.0])})
    row = {
        "step": 4,
        "means": {"reward": {"run": 0.5}},
        "prompts": {k: vars(v) for k, v in held.items()},
        "changes": {"old": {"run": [-1.0, -2.0]}},
    }
    calls: list[Path] = []
    monkeypatch.setattr(language, "forecast", lambda *_: None)
    monkeypatch.setattr(
        language,
        "compare",
        lambda _, place: calls.append(place) or {"rows": [{"step": 2}, row]},  # type: ignore[func-returns-value]
    )
    compared, records = Compared(SimpleNamespace(), 4), Records(tmp_path, 2, NO_BASE)  # type: ignore[arg-type]
    assert compared.mean("reward")(records) == [0.5, 0.5]
    assert compared.change("old")(records) == [-1.5, -1.5]
    assert compared.agreement("old")(records) == [1.0, 1.0]
    assert len(calls) == 2


def test_chapters_are_of_one_kind_of_model(tmp_path: Path) -> None:
    assert not CHAPTERS.keys() & LANGUAGE.keys()
    with pytest.raises(
        InputError, match="chapter 'language-replay' is not of models of its world; for 'base' allowed: dead"
    ):
        next(validate("smoke", "base", 3, tmp_path, only=("language-replay",)))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def smollm2() -> Policy:
    if not cached_path("smollm2").is_dir():
        pytest.skip("the pretrained model is not in the cache: run fstsim model smollm2")
    return Policy.load("smollm2")


@pytest.mark.pretrained
def test_claims_about_smollm2(smollm2: Policy) -> None:
    chapters = all_chapters("smoke", smollm2)
    assert list(chapters) == list(LANGUAGE)
    claims = [claim for chapter in chapters.values() for claim in chapter.claims]
    names = [claim.prediction.name for claim in claims]
    assert len(names) == len(set(names))
    runs = {run.name for chapter in chapters.values() for run in chapter.runs}
    for claim in claims:
        p = claim.prediction
        assert p.statement in {statement.slug for statement in ALL_STATEMENTS}, p.name
        assert set(claim.needs) <= runs
        assert p.low <= p.value <= p.high


@pytest.mark.pretrained
def test_the_two_leashes_rest_apart_and_agree_when_weak(smollm2: Policy) -> None:
    task, count = parse_task(FORM), 6
    base = measure_base(smollm2, task, count)  # type: ignore[arg-type]
    masses, parted = answer_token_masses(smollm2, task, count)  # type: ignore[arg-type]
    assert masses.prod(axis=1) == pytest.approx(base.new, rel=1e-4)
    tau = SIZES["smoke"].leashes[0]
    new, old = at_loss_rest(masses, parted, base.old, tau)
    assert new.mean() > tilted(base, tau)[0].mean() + 0.05
    assert (new + old <= 1.0).all()
    weak = at_loss_rest(masses, parted, base.old, 1e4)
    assert weak[0] == pytest.approx(base.new, rel=1e-3)
    assert weak[1] == pytest.approx(base.old, rel=1e-3)
