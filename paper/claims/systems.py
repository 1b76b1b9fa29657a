"""Claims of systems that leave the model as it is, on the stream and the switch of the experiment on systems.

What is predicted here was written before the runs were made.
"""

from __future__ import annotations

from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of, untested
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.system_runs import LABELS, end, recorded, when_all_recorded
from fstsim.paper.experiments.numbers import Estimate

_FROZEN = ("gepa", "soft", "soft-bias", "proxy", "cases", "cases-near", "skills")
_STATES = ("soft", "soft-bias", "proxy", "cases", "skills")
_CONTEXTS = ("gepa", "soft-bias")
_ROUNDING = 1e-3
"""nats: what float32 makes of a KL that is its floor"""


def _weights_kl(e: Evidence, task: str, arm: str) -> Estimate:
    c = e.curves(f"systems-{task}-{arm}")
    return end(e, task, arm, "kl_to_base_no_context" if "kl_to_base_no_context" in c.columns else "kl_to_base")


def _nothing_forgotten(e: Evidence) -> Finding:
    """The headline of every frozen system: true of the bare weights; false, or not, of what is deployed."""
    off, on = [], []
    for task in recorded(e):
        for arm in _STATES:
            off.append(abs(end(e, task, arm, "drift").value) < 1e-12 and abs(_weights_kl(e, task, arm).value) < 1e-12)
            on.append((f"{task}, {LABELS[arm]}", end(e, task, arm, "drift_deployed")))
    lost = [bool(x.low > 0.02) for _, x in on]
    said = f"with the state removed the base to the bit in {sum(off)} of {len(off)}; old skills lost with the state on: {', '.join(f'{name} {x}' for name, x in on)}"
    if all(off) and any(lost):
        return Finding(
            said,
            Outcome.PARTLY,
            "the state is taken off before old skills are asked; left on, the system forgets like any other",
        )
    return Finding(said, Outcome.HOLDS if all(off) else Outcome.FAILS)


def _excess(e: Evidence) -> Finding:
    values = {
        f"{task}, {label}": end(e, task, arm, "kl_excess") for task in recorded(e) for arm, label in LABELS.items()
    }
    below = [name for name, x in values.items() if x.high < -_ROUNDING]
    ends = [choose(values.items(), key=lambda item: item[1].value) for choose in (min, max)]
    said = ", ".join(f"{what} {x} ({name})" for what, (name, x) in zip(("least excess", "most"), ends, strict=True))
    return Finding(said, Outcome.FAILS if below else Outcome.HOLDS, ", ".join(below))


def _no_fixed_context(e: Evidence) -> Finding:
    found = {arm: end(e, "switch", arm, "reward") for arm in (*_CONTEXTS, "soft", "cases")}
    said = ", ".join(f"{LABELS[arm]} {x}" for arm, x in found.items())
    beyond = [above(found[arm].low, found[arm].high, 0.6) for arm in _CONTEXTS]
    fixed = [None if value is None else not value for value in beyond]
    return Finding(f"reward on the switch: {said}", all_of(fixed))


def _leash_is_cheapest(e: Evidence) -> Finding:
    parts, holds = [], []
    for task in recorded(e):
        leashed, free, sft = (end(e, task, arm, "kl_excess") for arm in ("rl-leash", "rl", "sft"))
        parts.append(f"{task}: RL with a leash {leashed}, RL {free}, SFT {sft}")
        holds.append(above(sft.low - leashed.high, sft.high - leashed.low, 0.0))
    return Finding(f"KL that success does not need, nats: {'; '.join(parts)}", all_of(holds))


def _rl_against_sft(e: Evidence) -> Finding:
    parts, holds = [], []
    for task in recorded(e):
        rl, sft = (end(e, task, arm, "drift") for arm in ("rl", "sft"))
        reward = [end(e, task, arm, "reward") for arm in ("rl", "sft")]
        parts.append(f"{task}: RL {rl} at reward {reward[0]}, SFT {sft} at {reward[1]}")
        holds.append(above(sft.low - rl.high, sft.high - rl.low, 0.0))
    return Finding(f"old skills lost at one learning rate and as many steps: {'; '.join(parts)}", all_of(holds))


def _cheapest(e: Evidence) -> Finding:
    """Who gets the best reward, task by task."""
    parts, frozen = [], []
    for task in recorded(e):
        ends = sorted(((end(e, task, arm, "reward"), arm) for arm in LABELS), key=lambda x: -x[0].value)
        parts.append(f"{task}: {', '.join(f'{LABELS[arm]} {x}' for x, arm in ends[:4])}")
        frozen.append(ends[0][1] in _FROZEN)
    outcome = all_of(frozen)
    why = "one rule, or one a family, is to be said: where two rules share a family the weights reach more"
    return Finding(f"best rewards, {'; '.join(parts)}", outcome, why if outcome is Outcome.PARTLY else "")


CLAIMS = (
    Claim(
        "A system with frozen weights forgets nothing",
        "SoftCoT, proxy-tuning, VOYAGER, Memento",
        "old skills and old mass with the state removed and left on",
        "state off: the base to the bit; state on: old mass and single rules are lost",
        when_all_recorded(_nothing_forgotten),
    ),
    Claim(
        "No deployed system is nearer to the base than its success allows",
        "statement deployed-kl-floor",
        "KL deployed less its floor, every arm",
        "0 or more ([deployed-kl-floor](theory/20-deployed.md#deployed-kl-floor))",
        when_all_recorded(_excess),
    ),
    Claim(
        "What a leash leaves is the cheapest way to a reward",
        "statement deployed-kl-tilt",
        "excess KL of RL with a leash against SFT",
        "0 at its rest, SFT above",
        when_all_recorded(_leash_is_cheapest),
    ),
    Claim(
        "No fixed context solves a switch",
        "own",
        "GEPA and constant soft vectors on the switch",
        "at most the larger branch, about a half",
        when_all_recorded(_no_fixed_context),
    ),
    Claim(
        "RL forgets less than SFT at one learning rate",
        "2510.18874",
        "RL and SFT on stream and switch, same rate, steps and problems a step",
        "",
        when_all_recorded(_rl_against_sft),
    ),
    Claim(
        "Adaptation outside the weights reaches the best reward where words or cases say the rule",
        "the source texts",
        "all arms of the experiment",
        "cases on the stream; on the switch the weights",
        when_all_recorded(_cheapest),
    ),
    Claim(
        "SoftCoT gains on GSM8K, Memento on GAIA, VOYAGER in a game",
        "2502.12134, 2508.16153, 2305.16291",
        "–",
        "",
        untested(
            "these benchmarks need large models, tools or a game; what is tested here is each mechanism on tasks with exact rewards"
        ),
    ),
)
