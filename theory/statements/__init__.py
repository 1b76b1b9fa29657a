"""Claims about the formulas of `fstsim.theory`: a module a section, in paper order in `SECTIONS`.

`statement` says what a statement is, `check` looks for violations, `symbolic` and `instances` are what derivations and
random instances are made of.
"""

from __future__ import annotations

from difflib import get_close_matches

from fstsim.errors import InputError
from fstsim.theory.statements import (
    adam,
    chain_mass,
    clipping,
    clipping_tokens,
    coarse_adam,
    convergence,
    deployed,
    deployed_proxy,
    fast_slow,
    fast_slow_asymptote,
    fast_slow_time,
    forward_drift,
    forward_joint,
    forward_mass,
    group_batches,
    group_contexts,
    group_normalised,
    isolation,
    kl_estimator_gradients,
    kl_estimators,
    leash_loss,
    leashes,
    length_bias,
    maps,
    merged,
    modes,
    natural_noise,
    noise,
    oapl,
    plasticity,
    plasticity_sequence,
    plasticity_softmax,
    replay,
    replay_drift,
    replay_importance,
    replay_own,
    replay_variance,
    retrieval,
    reverse_kl,
    sdft,
    sdft_anchored,
    sdft_demonstrator,
    sdft_drift,
    sdft_mixing,
    sdft_response,
    sequences,
    stall,
    starvation,
    tools,
    ttt,
)
from fstsim.theory.statements.statement import Statement

# in paper order, a module a line: the section and its statements
SECTIONS: tuple[tuple[str, tuple[Statement, ...]], ...] = (
    ("tool", tools.STATEMENTS),
    ("forward", forward_mass.STATEMENTS),
    ("forward", forward_joint.STATEMENTS),
    ("forward", forward_drift.STATEMENTS),
    ("tool", (tools.MISASSIGNMENT,)),
    ("reverse", reverse_kl.STATEMENTS),
    ("reverse", merged.STATEMENTS),
    ("convergence", convergence.STATEMENTS),
    ("replay", replay.STATEMENTS),
    ("replay", replay_drift.STATEMENTS),
    ("replay", leashes.STATEMENTS),
    ("replay", replay_own.STATEMENTS),
    ("starvation", starvation.STATEMENTS),
    ("starvation", replay_importance.STATEMENTS),
    ("starvation", replay_variance.STATEMENTS),
    ("sdft", sdft.STATEMENTS),
    ("sdft", sdft_anchored.STATEMENTS),
    ("sdft", sdft_mixing.STATEMENTS),
    ("sdft", sdft_demonstrator.STATEMENTS),
    ("sdft", sdft_drift.STATEMENTS),
    ("sdft", sdft_response.STATEMENTS),
    ("ttt", ttt.STATEMENTS),
    ("oapl", oapl.STATEMENTS),
    ("map", maps.STATEMENTS),
    ("fast slow", fast_slow.STATEMENTS),
    ("fast slow", fast_slow_time.STATEMENTS),
    ("fast slow", fast_slow_asymptote.STATEMENTS),
    ("plasticity", plasticity.STATEMENTS),
    ("plasticity", plasticity_sequence.STATEMENTS),
    ("plasticity", plasticity_softmax.STATEMENTS),
    ("plasticity", stall.STATEMENTS),
    ("noise", noise.STATEMENTS),
    ("noise", natural_noise.STATEMENTS),
    ("modes", modes.STATEMENTS),
    ("group normalised", group_normalised.STATEMENTS),
    ("group batches", group_contexts.STATEMENTS),
    ("group batches", group_batches.STATEMENTS),
    ("group batches", length_bias.STATEMENTS),
    ("adam", adam.STATEMENTS),
    ("sequences", sequences.STATEMENTS),
    ("clipping", clipping.STATEMENTS),
    ("clipping", clipping_tokens.STATEMENTS),
    ("leash as a loss", leash_loss.STATEMENTS),
    ("KL estimators", kl_estimators.STATEMENTS),
    ("KL estimators", kl_estimator_gradients.STATEMENTS),
    ("coarse adam", coarse_adam.STATEMENTS),
    ("deployed systems", deployed.STATEMENTS),
    ("deployed systems", deployed_proxy.STATEMENTS),
    ("deployed systems", retrieval.STATEMENTS),
    ("chains", chain_mass.STATEMENTS),
    ("isolation", isolation.STATEMENTS),
)
ALL_STATEMENTS: tuple[Statement, ...] = tuple(statement for _, section in SECTIONS for statement in section)


_NEAR = 4  # slugs that are named in place of an unknown one


def find_statements(slug: str) -> tuple[Statement, ...]:
    """The statements called ``slug`` (one); InputError names the nearest slugs, or lists all where none is near."""
    found = tuple(s for s in ALL_STATEMENTS if s.slug == slug)
    if not found:
        slugs = [s.slug for s in ALL_STATEMENTS]
        if near := get_close_matches(slug, slugs, n=_NEAR):
            raise InputError(
                f"statement {slug!r} is unknown; nearest: {', '.join(near)}; fstsim check --examples 1 lists all"
            )
        raise InputError(f"statement {slug!r} is unknown; allowed: {', '.join(slugs)}")
    return found
