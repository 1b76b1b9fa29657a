"""Every claim of the ledger by group, and the ledger as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fstsim.paper import DATA
from fstsim.paper.claims import (
    chains,
    channels,
    fast_slow,
    follows,
    forgetting,
    isolation,
    layers,
    mechanisms,
    plasticity,
    rivals,
    self_distillation,
    skills,
    systems,
)
from fstsim.paper.claims.claim import Claim, Finding
from fstsim.paper.claims.evidence import Evidence

GROUPS: Mapping[str, Sequence[Claim]] = {
    "What is forgotten": (*forgetting.CLAIMS, *self_distillation.CLAIMS, *follows.CLAIMS, *layers.CLAIMS),
    "Fast and slow, plasticity": (*fast_slow.CLAIMS, *rivals.CLAIMS, *plasticity.CLAIMS),
    "Systems beside frozen weights, and parts of the weights": (
        *systems.CLAIMS,
        *mechanisms.CLAIMS,
        *skills.CLAIMS,
        *channels.CLAIMS,
        *chains.CLAIMS,
        *isolation.CLAIMS,
    ),
}
"""Groups of claims, in the order of the page."""


def findings(data: Path = DATA) -> Iterator[tuple[str, Claim, Finding]]:
    """Group, claim and what came out, claim by claim."""
    evidence = Evidence(data)
    for group, claims in GROUPS.items():
        for claim in claims:
            yield group, claim, claim.find(evidence)
