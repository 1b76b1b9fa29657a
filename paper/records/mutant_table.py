"""The table of the last `make mutants` on the page about security, from paper/data/mutants.json."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fstsim.paper import DATA
from fstsim.paper.records.attack_table import code
from fstsim.reading import check_object, understood
from fstsim.records import read_json

RECORD = DATA / "mutants.json"
_COLUMNS = ("tried", "killed", "equivalent", "undecided", "alive")


def mutant_table(record: Mapping[str, Any]) -> str:
    """Tried, killed, equivalent, undecided and alive by room; the share that was killed; and every mutant that lives."""
    rooms, campaign, made = record["rooms"], record["campaign"], record["environment"]
    total = {name: sum(row[name] for row in rooms) for name in _COLUMNS}
    counted = max(1, total["tried"] - total["equivalent"] - total["undecided"])
    lines = [f"| room | {' | '.join(_COLUMNS)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    lines += [f"| `{escape(row['room'])}/` | {' | '.join(f'{row[name]:,}' for name in _COLUMNS)} |" for row in rooms]
    lines += [
        f"| **all** | {' | '.join(f'**{total[name]:,}**' for name in _COLUMNS)} |",
        "",
        (
            f"{escape(record['date'])}, commit {escape(str(campaign['commit'])[:12])}, Python {escape(made['python'])}, "
            f"{campaign['each']} mutants of each room drawn with seed {campaign['seed']}, {total['tried']:,} of them tried in "
            f"the time there was: {total['killed'] / counted:.0%} of those that are decided and not equivalent are killed, "
            f"{len(record['killed_since'])} of them only since, by tests that were written for them or are asked now."
        ),
    ]
    for title, kind in (("Alive", "alive"), ("Undecided, their tests are too slow", "undecided")):
        if record[kind]:
            lines += ["", f"{title}:", "", *(f"- `{code(row['name'])}`" for row in record[kind])]
    return "\n".join(lines)


def recorded_mutants() -> str:
    """The table of the record. Raises InputError where it is missing or damaged."""
    held = check_object(RECORD, read_json(RECORD), {"rooms": list, "campaign": dict, "environment": dict})
    with understood(RECORD):
        return mutant_table(held)
