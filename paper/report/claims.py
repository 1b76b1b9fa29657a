"""The ledger of claims in ``report.html``: the rows of the documentation's page, with the recorded numbers."""

from __future__ import annotations

from html import escape
from pathlib import Path

from fstsim.paper import DATA
from fstsim.paper.claims.claim import Outcome
from fstsim.paper.claims.ledger import findings
from fstsim.paper.report.page import row, table

_BAD = (Outcome.FAILS, Outcome.OPEN, Outcome.UNTESTABLE)


def claim_section(data: Path = DATA) -> str:
    """HTML of all claims; empty where nothing is recorded. Raises InputError on a record that is malformed."""
    if not (data / "validation" / "validation.json").exists():
        return ""
    rows = []
    for group, claim, finding in findings(data):
        cells = (
            ("tested", escape(claim.tested)),
            ("measured", escape(finding.measured)),
            ("verdict", f"<b>{escape(finding.verdict)}</b>"),
        )
        name = f"{escape(claim.text)}<br><span class=kind>{escape(claim.source)} · {escape(group)}</span>"
        rows.append(row(name, cells, "bad" if finding.outcome in _BAD else ""))
    return f'<h2 id="claims">Claims, and what the records say of them</h2>{table(("claim", "tested", "measured", "verdict"), rows)}'
