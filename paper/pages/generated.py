"""Every generated part of README and documentation, and the page that it stands on."""

from __future__ import annotations

from fstsim.paper.pages.blocks import Block
from fstsim.paper.pages.claims import claim_tables
from fstsim.paper.pages.faithful import faithful_blocks
from fstsim.paper.pages.forecast import forecast_blocks
from fstsim.paper.pages.growth import growth_table
from fstsim.paper.pages.layers import layers_block
from fstsim.paper.pages.lists import column_table, command_table
from fstsim.paper.pages.methods import choose_table, method_table
from fstsim.paper.pages.results import experiment_tables, result_lines
from fstsim.paper.records.attack_table import recorded_attack
from fstsim.paper.records.isolation_page import isolation_block, resets_block
from fstsim.paper.records.language_roles import recorded_roles
from fstsim.paper.records.large_models import measured_table, step_table
from fstsim.paper.records.mutant_table import recorded_mutants
from fstsim.paper.records.statement_table import recorded_table
from fstsim.paper.records.verdict_summary import recorded_summary

BLOCKS = (
    Block("results", "README.md", result_lines),
    Block("commands", "paper/docs/commands.md", command_table),
    Block("choice", "paper/docs/choose.md", choose_table),
    Block("methods", "paper/docs/methods.md", method_table),
    Block("columns", "paper/docs/columns.md", column_table),
    Block("statements", "paper/docs/statements.md", recorded_table),
    Block("verdicts", "paper/docs/verdicts.md", recorded_summary),
    Block("claims", "paper/docs/claims.md", claim_tables),
    Block("forecasts", "paper/docs/forecast.md", forecast_blocks),
    Block("faithful", "paper/docs/faithful.md", faithful_blocks),
    Block("layers", "paper/docs/layers.md", layers_block),
    Block("isolation", "paper/docs/isolation.md", isolation_block),
    Block("resets", "paper/docs/resets.md", resets_block),
    Block("roles", "paper/docs/language.md", recorded_roles),
    Block("step", "paper/docs/large-models.md", step_table),
    Block("measured", "paper/docs/large-models.md", measured_table),
    Block("attack", "paper/docs/security.md", recorded_attack),
    Block("mutants", "paper/docs/security.md", recorded_mutants),
    Block("growth", "paper/docs/growth.md", growth_table),
    Block("experiments", "paper/docs/results.md", experiment_tables),
)
"""In the order in which ``make readme`` writes them."""
