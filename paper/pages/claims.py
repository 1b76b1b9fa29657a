"""The page of claims: the ledger as Markdown tables, every number from the records."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from fstsim.number_text import signed
from fstsim.paper import DATA
from fstsim.paper.claims.ledger import GROUPS, findings
from fstsim.paper.pages.blocks import table

_HEAD = ("claim", "who says so", "how it is tested here", "predicted", "measured", "verdict")


def claim_tables(data: Path = DATA) -> str:
    """Markdown: how many claims came out how, then a table for each group."""
    found = list(findings(data))
    count = Counter(finding.outcome for _, _, finding in found)
    parts = [f"{len(found)} claims: {', '.join(f'{n} {outcome.value}' for outcome, n in count.most_common())}.\n"]
    for group in GROUPS:
        rows = [
            [
                *(claim.text, claim.source, claim.tested, claim.predicted or "–"),
                *(_printed(finding.measured), f"**{_printed(finding.verdict)}**"),
            ]
            for name, claim, finding in found
            if name == group
        ]
        parts.append(f"## {group}\n\n{table(_HEAD, rows)}")
    return "\n".join(parts)


def _printed(text: str) -> str:
    """Numbers as a page shows them: a minus sign, and what stands in an exponent raised."""
    return re.sub(r"10\^(−?[\d.]*\d)", r"10<sup>\1</sup>", signed(text))
