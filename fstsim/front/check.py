"""`fstsim check`: the search for a counterexample."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from fstsim.front.command import AGAIN, check_numbers
from fstsim.front.console import Progress, show
from fstsim.front.tables import check_summary, check_table
from fstsim.records import plain

_Slug = Annotated[str | None, tyro.conf.arg(metavar="SLUG", help_behavior_hint="(default: all)")]


@dataclass(frozen=True)
class Check:
    """Search random instances for one that violates a statement; exit code 1 if there is one."""

    examples: int = 2000
    """random instances of each statement"""
    statement: _Slug = None
    """check this statement only; a name that is like none lists those that exist"""
    json: bool = False
    """print JSON instead of a table"""
    seed: int = 0
    """seed of the instances"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Check them."""
        check_numbers(self.examples, self.seed)
        from fstsim.theory import ALL_STATEMENTS, check_statement, examples_of, find_statements

        statements = ALL_STATEMENTS if self.statement is None else find_statements(self.statement)
        total = sum(examples_of(statement, self.examples) for statement in statements)
        checks = []
        with contextlib.closing(Progress("check", total, "examples")) as progress:
            for statement in statements:
                slug = statement.slug
                progress.add(0, slug)
                more = lambda k, slug=slug: progress.add(k, slug)  # noqa: E731
                checks.append(check_statement(statement, self.examples, self.seed, more).to_dict())
        if self.json:
            print(json.dumps(plain(checks), indent=2))
        else:
            show(check_table(checks), check_summary(checks))
        return int(any(check["violations"] for check in checks))
