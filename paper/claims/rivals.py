"""Claims of what stands nearest to fast-slow training: contexts on dead groups that are learned (P2O), one document edited within bounds.

What is predicted was written before the runs (`fstsim.paper.records.claim_runs`).
"""

from __future__ import annotations

from fstsim.paper.claims.claim import Claim, Finding, above, all_of
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.recorded import CLAIM_RUNS, when_recorded
from fstsim.paper.claims.system_runs import TIE
from fstsim.paper.experiments.numbers import Estimate, estimate
from fstsim.paper.records.claim_runs import EDITS, HARD, SWITCH, TWO_RULES, edits_name

_P2O, _SKILLOPT = "P2O 2603.21877", "SkillOpt 2605.23904"
_ARMS = ("rl", "fst", "p2o")


def _end(e: Evidence, arm: str, column: str) -> Estimate:
    return e.end(f"dead-groups-{arm}", column, CLAIM_RUNS)


def _bare(e: Evidence, arm: str, column: str) -> Estimate:
    """A column at the end without context, where the run has contexts."""
    c = e.curves(f"dead-groups-{arm}", CLAIM_RUNS)
    return _end(e, arm, f"{column}_no_context" if f"{column}_no_context" in c.columns else column)


def _rescued(e: Evidence) -> Finding:
    rl, p2o = (_bare(e, arm, "reward") for arm in ("rl", "p2o"))
    halfway = estimate(e.curves("dead-groups-p2o", CLAIM_RUNS)["reward_no_context"][:, -2])
    return Finding(
        f"reward without context at the end: P2O {p2o} (halfway {halfway}), RL {rl}",
        all_of([above(p2o.low - rl.high, p2o.high - rl.low, 0.0)]),
    )


def _written_in(e: Evidence) -> Finding:
    """What P2O's weights pay for what fast-slow training leaves in the context."""
    kl = {arm: _bare(e, arm, "kl_to_base") for arm in ("p2o", "fst")}
    lost = {arm: _end(e, arm, "drift") for arm in ("p2o", "fst")}
    said = (
        f"P2O without context against FST in its own: reward {_bare(e, 'p2o', 'reward')} against {_end(e, 'fst', 'reward')}; "
        f"KL of the weights, nats {kl['p2o']} against {kl['fst']}; old skills lost {lost['p2o']} against {lost['fst']}; "
        f"rollouts {_end(e, 'p2o', 'samples')} against {_end(e, 'fst', 'samples')}"
    )
    pairs = [(kl["p2o"], kl["fst"]), (lost["p2o"], lost["fst"])]
    return Finding(said, all_of([above(a.low - b.high, a.high - b.low, 0.0) for a, b in pairs]))


def _edited(e: Evidence, task: str, how: str) -> Estimate:
    return e.end(edits_name(f"{task}-{how}"), "reward", CLAIM_RUNS)


def _as_good(e: Evidence) -> Finding:
    parts, holds = [], []
    for task in (TWO_RULES, SWITCH):
        one, many = _edited(e, task, str(EDITS[-1])), _edited(e, task, "population")
        parts.append(f"{task} {one} against {many}")
        holds.append(above(one.low - many.high, one.high - many.low, -TIE))
    said = (
        f"reward at the end, one document (at most {EDITS[-1]} edits a time) against a population: {'; '.join(parts)}"
    )
    return Finding(said, all_of(holds))


def _one_word_stalls(e: Evidence) -> Finding:
    one, more = (_edited(e, TWO_RULES, str(most)) for most in EDITS)
    said = f"reward at the end on {TWO_RULES}: one edit {one}, at most {EDITS[-1]} {more}"
    return Finding(said, all_of([above(-one.high, -one.low, -0.5), above(more.low, more.high, 0.5)]))


_DEAD = tuple(f"dead-groups-{arm}" for arm in _ARMS)
_EDITED = tuple(
    edits_name(f"{task}-{how}")
    for task, hows in ((TWO_RULES, (*map(str, EDITS), "population")), (SWITCH, (str(EDITS[-1]), "population")))
    for how in hows
)

CLAIMS = (
    Claim(
        "Groups without signal, asked again in evolved contexts and learned without them, gain over RL",
        _P2O,
        f"`--method fst --dead-groups context --dead-only` and RL on {HARD}, where every group is dead at the start, preset smoke, 3 seeds",
        "RL below .05; P2O's policy without context above .5 (its source: up to 9.5 points)",
        when_recorded(_rescued, _DEAD),
    ),
    Claim(
        "What P2O writes into the weights costs nearness and old skills that fast-slow training keeps",
        f"own; {_P2O} reports neither",
        f"the same runs, beside FST on {HARD}",
        "rewards above .9 in both; P2O's weights 5 nats or more from the base and .1 or more of old skills lost, FST's below 1 nat and .05",
        when_recorded(_written_in, _DEAD),
    ),
    Claim(
        "One document, edited within bounds and accepted only if strictly better, is the best or tied with the best",
        f"{_SKILLOPT} (52 of 52 cells)",
        f"`--method gepa --edits {EDITS[-1]}` against a population on {TWO_RULES} and {SWITCH}, as many rollouts a round, preset smoke, 3 seeds",
        "tied on two rules, both above .9; tied on the switch, both at most the larger branch, about a half",
        when_recorded(_as_good, _EDITED),
    ),
    Claim(
        "With exact reward one edit a time stalls on a task of two rules, more edits pass",
        f"own, for {_SKILLOPT}",
        f"`--edits {EDITS[0]}` and `--edits {EDITS[-1]}` on {TWO_RULES}; falsified before on {HARD}, where one of the two words is right now and then",
        "below .5 with one edit, above .9 with four",
        when_recorded(_one_word_stalls, _EDITED),
    ),
)
