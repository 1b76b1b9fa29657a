"""The theory: every statement with derivation, exact value, bounds and random instances; and its numeric API.

Functions take and return float64 arrays and broadcast. Names and argument orders are the public contract.
Read in this order: `statement`, `overlap`, `forward_kl`, `reverse_kl`, `drift`, `geometry`, then the ``*_statements``.
"""

from fstsim.errors import InputError
from fstsim.logistic_normal import (
    expected_softplus,
    log_expected_softplus,
    log_logistic_normal_mean,
    log_logistic_normal_slope,
    logistic_normal_mean,
    logistic_normal_slope,
)
from fstsim.overlap import (
    bhattacharyya_coefficient,
    chernoff_coefficient,
    harmonic_overlap,
    misassignment_probability,
    weight_fisher_information,
)
from fstsim.theory import (
    convergence_statements,
    forward_statements,
    modes_statements,
    reverse_statements,
    tool_statements,
)
from fstsim.theory.check import CheckResult, check_statement, examples_of
from fstsim.theory.drift import convergence_certificate, reverse_drift_certificate
from fstsim.theory.forward_kl import (
    forward_kl_gradient,
    late_collapse_mass,
    mass_forgetting_bounds,
    mass_forgetting_separated,
    mass_forgetting_time,
    mass_forgetting_ultimate,
    old_mean_drift_forward,
    old_mean_drift_saddle,
    simulate_forward_kl,
)
from fstsim.theory.geometry import (
    condition_number_bound,
    fisher_information,
    missing_information_bound,
    missing_information_fraction,
)
from fstsim.theory.modes import (
    chernoff_information,
    misassignment_matrix,
    mixture_weight_fisher,
    total_misassignment_bound,
    weight_velocity_forward,
)
from fstsim.theory.overlap import logistic_normal_bounds, misassignment_bound_table, misassignment_bounds
from fstsim.theory.reverse_kl import (
    merged_saddle_growth,
    merged_state,
    old_mean_force,
    old_mean_force_bounds,
    reverse_kl,
    reverse_kl_gradient,
    reverse_kl_weight_time,
    simulate_reverse_kl,
    skeleton_kl,
)
from fstsim.theory.statement import Derivation, Statement

# in paper order
ALL_STATEMENTS: tuple[Statement, ...] = (
    *tool_statements.STATEMENTS,
    *forward_statements.STATEMENTS,
    tool_statements.MISASSIGNMENT,
    *reverse_statements.STATEMENTS,
    *convergence_statements.STATEMENTS,
    *modes_statements.STATEMENTS,
)


def find_statements(slug: str) -> tuple[Statement, ...]:
    """The statements called ``slug`` (one); InputError lists the slugs that exist."""
    found = tuple(s for s in ALL_STATEMENTS if s.slug == slug)
    if not found:
        raise InputError(f"statement {slug!r} is unknown; allowed: {', '.join(s.slug for s in ALL_STATEMENTS)}")
    return found


__all__ = [
    "ALL_STATEMENTS",
    "CheckResult",
    "Derivation",
    "Statement",
    "bhattacharyya_coefficient",
    "check_statement",
    "chernoff_coefficient",
    "chernoff_information",
    "condition_number_bound",
    "convergence_certificate",
    "examples_of",
    "expected_softplus",
    "find_statements",
    "fisher_information",
    "forward_kl_gradient",
    "harmonic_overlap",
    "late_collapse_mass",
    "log_expected_softplus",
    "log_logistic_normal_mean",
    "log_logistic_normal_slope",
    "logistic_normal_bounds",
    "logistic_normal_mean",
    "logistic_normal_slope",
    "mass_forgetting_bounds",
    "mass_forgetting_separated",
    "mass_forgetting_time",
    "mass_forgetting_ultimate",
    "merged_saddle_growth",
    "merged_state",
    "misassignment_bound_table",
    "misassignment_bounds",
    "misassignment_matrix",
    "misassignment_probability",
    "missing_information_bound",
    "missing_information_fraction",
    "mixture_weight_fisher",
    "old_mean_drift_forward",
    "old_mean_drift_saddle",
    "old_mean_force",
    "old_mean_force_bounds",
    "reverse_drift_certificate",
    "reverse_kl",
    "reverse_kl_gradient",
    "reverse_kl_weight_time",
    "simulate_forward_kl",
    "simulate_reverse_kl",
    "skeleton_kl",
    "total_misassignment_bound",
    "weight_fisher_information",
    "weight_velocity_forward",
]
