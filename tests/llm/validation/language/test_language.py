"""Every claim about chat models: of one kind of model, with runs, statements and intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.language import LANGUAGE
from fstsim.llm.validation.validate import CHAPTERS, all_chapters, validate
from fstsim.theory import ALL_STATEMENTS


def test_chapters_are_of_one_kind_of_model(tmp_path: Path) -> None:
    assert not CHAPTERS.keys() & LANGUAGE.keys()
    with pytest.raises(
        InputError, match="chapter 'language-replay' is not of models of its world; for 'base' allowed: dead"
    ):
        next(validate("smoke", "base", 3, tmp_path, only=("language-replay",)))
    assert not list(tmp_path.iterdir())


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
        assert p.calibration or claim.ahead or p.low <= p.value <= p.high
