"""The ledger: outcomes by their rule, correlations against scipy, and every claim judged from the records as they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fstsim.errors import InputError
from fstsim.paper.claims.claim import Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence, rank_correlation
from fstsim.paper.claims.ledger import GROUPS, findings


@pytest.mark.parametrize(
    ("holds", "outcome"),
    [
        ([True, True], Outcome.HOLDS),
        ([False], Outcome.FAILS),
        ([True, False], Outcome.PARTLY),
        ([True, None], Outcome.OPEN),
    ],
)
def test_outcomes(holds: list[bool | None], outcome: Outcome) -> None:
    assert all_of(holds) is outcome


def test_an_interval_that_holds_the_level_resolves_nothing() -> None:
    assert above(1.1, 2.0, 1.0) is True
    assert above(0.2, 0.9, 1.0) is False
    assert above(0.9, 1.1, 1.0) is None


def test_a_condition_is_part_of_the_verdict() -> None:
    assert Finding("", Outcome.PARTLY, "it rains").verdict == "holds only if it rains"
    assert Finding("", Outcome.FAILS, "it never rained").verdict == "does not hold: it never rained"
    assert Finding("", Outcome.HOLDS).verdict == "holds"


def test_rank_correlation_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    groups = [str(k // 3) for k in range(120)]
    x = rng.standard_normal(120)
    y = x + rng.standard_normal(120)
    found = rank_correlation(x.tolist(), y.tolist(), groups)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.value < found.high
    assert found.count == 40
    assert found.high - found.low == pytest.approx(4 * 0.06, rel=0.5)  # about (1 - rho²) / sqrt(n) on each side


def test_every_claim_has_a_verdict_with_numbers() -> None:
    found = list(findings())
    assert len(found) == sum(map(len, GROUPS.values()))
    assert len({claim.text for _, claim, _ in found}) == len(found)
    for _, claim, finding in found:
        assert claim.source
        assert claim.tested
        assert any(letter.isdigit() for letter in finding.measured) or finding.outcome is Outcome.UNTESTABLE, claim.text
        assert "nan" not in finding.measured, claim.text
        if finding.outcome in (Outcome.PARTLY, Outcome.FAILS):
            assert finding.why or finding.outcome is Outcome.FAILS, claim.text


def test_a_run_that_is_not_recorded_is_named() -> None:
    with pytest.raises(InputError, match="no finished run nowhere"):
        Evidence().curves("nowhere")
