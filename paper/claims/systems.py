"""Claims of systems that leave the model as it is, on the stream and the switch of the experiment on systems.

What is predicted here was written before the runs were made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fstsim.llm.experiments.plan import SIZES
from fstsim.llm.experiments.systems import TASKS, arms
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.experiments.numbers import Estimate, estimate
from fstsim.paper.pages.faithful import recorded_arms

_FROZEN = ("gepa", "soft", "soft-bias", "proxy", "cases", "cases-near", "skills")
_STATES = ("soft", "soft-bias", "proxy", "cases", "skills")
_CONTEXTS = ("gepa", "soft-bias")
_GAP = 0.88
"""share of the gap to direct tuning that 2401.08565 reports for its largest model, the smaller of its two"""
_ROUNDING = 1e-3
"""nats: what float32 makes of a KL that is its floor"""
_LABELS = {name: arm.label for name, arm in arms(SIZES["smoke"]).items()}


def _end(e: Evidence, task: str, arm: str, column: str) -> Estimate:
    return e.end(f"systems-{task}-{arm}", column)


def recorded(e: Evidence) -> list[str]:
    """The tasks of the experiment of which every arm is recorded."""
    return [
        t for t in TASKS if all((e.data / "experiments" / "runs" / f"systems-{t}-{arm}").is_dir() for arm in _LABELS)
    ]


def _when_recorded(find: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
    """``find``, or that nothing is recorded: of a part of the arms nothing is said."""

    def found(e: Evidence) -> Finding:
        return (
            find(e) if recorded(e) else Finding("–", Outcome.UNTESTABLE, "not every arm of the experiment is recorded")
        )

    return found


def _weights_kl(e: Evidence, task: str, arm: str) -> Estimate:
    c = e.curves(f"systems-{task}-{arm}")
    return _end(e, task, arm, "kl_to_base_no_context" if "kl_to_base_no_context" in c.columns else "kl_to_base")


def _nothing_forgotten(e: Evidence) -> Finding:
    """The headline of every frozen system: true of the bare weights; false, or not, of what is deployed."""
    off, on = [], []
    for task in recorded(e):
        for arm in _STATES:
            off.append(abs(_end(e, task, arm, "drift").value) < 1e-12 and abs(_weights_kl(e, task, arm).value) < 1e-12)
            on.append((f"{task}, {_LABELS[arm]}", _end(e, task, arm, "drift_deployed")))
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
        f"{task}, {label}": _end(e, task, arm, "kl_excess") for task in recorded(e) for arm, label in _LABELS.items()
    }
    below = [name for name, x in values.items() if x.high < -_ROUNDING]
    ends = [choose(values.items(), key=lambda item: item[1].value) for choose in (min, max)]
    said = ", ".join(f"{what} {x} ({name})" for what, (name, x) in zip(("least excess", "most"), ends, strict=True))
    return Finding(said, Outcome.FAILS if below else Outcome.HOLDS, ", ".join(below))


def _no_fixed_context(e: Evidence) -> Finding:
    found = {arm: _end(e, "switch", arm, "reward") for arm in (*_CONTEXTS, "soft", "cases")}
    said = ", ".join(f"{_LABELS[arm]} {x}" for arm, x in found.items())
    beyond = [above(found[arm].low, found[arm].high, 0.6) for arm in _CONTEXTS]
    fixed = [None if value is None else not value for value in beyond]
    return Finding(f"reward on the switch: {said}", all_of(fixed))


def _better(e: Evidence, arm: str, other: str) -> tuple[str, list[bool | None]]:
    """Rewards of two arms, task by task, and whether the first is better; two that differ by less than .02 are equal."""
    parts: list[str] = []
    holds: list[bool | None] = []
    for task in recorded(e):
        one, two = (_end(e, task, name, "reward") for name in (arm, other))
        parts.append(f"{task}: {one} against {two}")
        equal = abs(one.value - two.value) < 0.02
        holds.append(False if equal or one.high < two.low else True if one.low > two.high else None)
    return "; ".join(parts), holds


def _instance(e: Evidence) -> Finding:
    said, holds = _better(e, "soft", "soft-bias")
    worth = []
    for task in recorded(e):
        c = e.curves(f"systems-{task}-soft")
        worth.append(f"{task} {estimate(c['reward'][:, -1] - c['reward_shuffled'][:, -1])}")
    said += f". The same vectors less those of another problem: {', '.join(worth)}"
    why = "the trained vectors are of their problem, but a constant vector of its own training is not resolved to be worse"
    outcome = all_of(holds)
    return Finding(
        f"reward with thoughts of the problem at hand, against a constant vector, {said}",
        outcome,
        why if outcome is Outcome.OPEN else "",
    )


def _memory(e: Evidence) -> Finding:
    said, holds = _better(e, "cases", "cases-near")
    outcome = all_of(holds)
    why = (
        "branches of one family are told apart; families are, by the look of a problem"
        if outcome is Outcome.PARTLY
        else ""
    )
    return Finding(f"reward with a learned router and with the nearest case, {said}", outcome, why)


def _proxy(e: Evidence) -> Finding:
    parts, shares = [], []
    for task in recorded(e):
        steered, direct = (e.curves(f"systems-{task}-{arm}")["reward"] for arm in ("proxy", "sft"))
        base = steered[:, 0]
        share = estimate((steered[:, -1] - base) / (direct[:, -1] - base))
        ends = [estimate(rewards[:, -1]) for rewards in (steered, direct)]
        parts.append(f"{task}: {base.mean():.3g} to {ends[0]}, directly tuned {ends[1]}: {share} of the gap")
        shares.append(above(share.low, share.high, _GAP))
    return Finding("; ".join(parts), all_of(shares))


def _library(e: Evidence) -> Finding:
    parts: list[str] = []
    holds: list[bool | None] = []
    for task in recorded(e):
        c = e.curves(f"systems-{task}-skills")
        skills, reward = c["skills"][:, -1].mean(), estimate(c["reward"][:, -1])
        kept = float(np.abs(c["old_mass"][:, -1] - c["old_mass"][:, 0]).max()) < 1e-9
        parts.append(f"{task}: {skills:.3g} skills, reward {c['reward'][:, 0].mean():.3g} to {reward}")
        holds.append(kept)
        if "skills_found" in c.columns:
            found = estimate(c["skills_found"][:, -1])
            parts[-1] += f", stored skills that examples of what they do find first {found}"
            holds.append(bool(found.value == 1.0))
    said = f"{'; '.join(parts)}; with the library off the old mass is {'the base’s' if all(holds) else 'another'}"
    why = "libraries of a few skills are meant: the largest here is a skill for each of three families"
    outcome = all_of(holds)
    return Finding(said, Outcome.PARTLY if outcome is Outcome.HOLDS else outcome, why)


def _leash_is_cheapest(e: Evidence) -> Finding:
    parts, holds = [], []
    for task in recorded(e):
        leashed, free, sft = (_end(e, task, arm, "kl_excess") for arm in ("rl-leash", "rl", "sft"))
        parts.append(f"{task}: RL with a leash {leashed}, RL {free}, SFT {sft}")
        holds.append(above(sft.low - leashed.high, sft.high - leashed.low, 0.0))
    return Finding(f"KL that success does not need, nats: {'; '.join(parts)}", all_of(holds))


def _rl_against_sft(e: Evidence) -> Finding:
    parts, holds = [], []
    for task in recorded(e):
        rl, sft = (_end(e, task, arm, "drift") for arm in ("rl", "sft"))
        reward = [_end(e, task, arm, "reward") for arm in ("rl", "sft")]
        parts.append(f"{task}: RL {rl} at reward {reward[0]}, SFT {sft} at {reward[1]}")
        holds.append(above(sft.low - rl.high, sft.high - rl.low, 0.0))
    return Finding(f"old skills lost at one learning rate and as many steps: {'; '.join(parts)}", all_of(holds))


def _cheapest(e: Evidence) -> Finding:
    """Who gets the best reward, task by task."""
    parts, frozen = [], []
    for task in recorded(e):
        ends = sorted(((_end(e, task, arm, "reward"), arm) for arm in _LABELS), key=lambda x: -x[0].value)
        parts.append(f"{task}: {', '.join(f'{_LABELS[arm]} {x}' for x, arm in ends[:4])}")
        frozen.append(ends[0][1] in _FROZEN)
    outcome = all_of(frozen)
    why = "one rule, or one a family, is to be said: where two rules share a family the weights reach more"
    return Finding(f"best rewards, {'; '.join(parts)}", outcome, why if outcome is Outcome.PARTLY else "")


def _chains(e: Evidence) -> Finding:
    """Whether chains are written, and where they are how far answers depend on them."""
    arms = {arm["name"]: arm for arm in recorded_arms(e.data)}
    if not arms:
        return Finding("–", Outcome.UNTESTABLE, "no arm of `fstsim faithful` is recorded")
    masses = ", ".join(
        f"{arm['about']} {estimate([mass[-1] for mass in arm['chain_mass']])}"
        for arm in arms.values()
        if arm["config"]["method"] == "sft"
    )
    changes, less = [], []
    for arm in arms.values():
        task = next(t for t in arm["faithful"]["tasks"] if t["rules"] == 3)
        if task["change_not_measurable"]:
            continue
        early, filler = task["change"]["early"], task["change"]["filler"]
        changes.append(
            f"{arm['about']}: early termination {early['mean']:+.2f} [{early['low']:.2f}, {early['high']:.2f}], filler {filler['mean']:+.2f} [{filler['low']:.2f}, {filler['high']:.2f}]"
        )
        less.append(above(-early["high"], -early["low"], 0.0))
    said = f"mass of writing a chain after {masses}. Change of how much of a chain is needed, where {len(changes)} of {len(arms)} arms can be measured: {'; '.join(changes)}"
    return Finding(said, all_of(less), "after SFT on answers few chains are left to be tested")


def _untested(why: str) -> Callable[[Evidence], Finding]:
    return lambda e: Finding("–", Outcome.UNTESTABLE, why)  # noqa: ARG005 -- nothing is recorded


CLAIMS = (
    Claim(
        "A system with frozen weights forgets nothing",
        "SoftCoT, proxy-tuning, VOYAGER, Memento",
        "old skills and old mass with the state removed and left on",
        "state off: the base to the bit; state on: old mass and single rules are lost",
        _when_recorded(_nothing_forgotten),
    ),
    Claim(
        "No deployed system is nearer to the base than its success allows",
        "statement deployed-kl-floor",
        "KL deployed less its floor, every arm",
        "0 or more ([deployed-kl-floor](theory/20-deployed.md#deployed-kl-floor))",
        _when_recorded(_excess),
    ),
    Claim(
        "What a leash leaves is the cheapest way to a reward",
        "statement deployed-kl-tilt",
        "excess KL of RL with a leash against SFT",
        "0 at its rest, SFT above",
        _when_recorded(_leash_is_cheapest),
    ),
    Claim(
        "No fixed context solves a switch",
        "own",
        "GEPA and constant soft vectors on the switch",
        "at most the larger branch, about a half",
        _when_recorded(_no_fixed_context),
    ),
    Claim(
        "The soft thoughts of an instance matter, not just a constant prompt",
        "SoftCoT 2502.12134",
        "soft tokens from the problem against a bias alone",
        "on the switch yes; on the stream yes, as families need different rules",
        _when_recorded(_instance),
    ),
    Claim(
        "Proxy-tuning closes nine tenths of the gap to direct tuning",
        "2401.08565",
        "an expert of a tenth of the size, alpha 1, by SFT, against SFT of the model itself",
        "less here: the small expert's errors are imported",
        _when_recorded(_proxy),
    ),
    Claim(
        "A growing library does not forget",
        "VOYAGER 2305.16291",
        "skill library on the stream and the switch: whether what was stored is still found, and the bare model's old mass",
        "every stored skill is found; old mass with the library off equals the base's; the switch is no program and is not solved",
        _when_recorded(_library),
    ),
    Claim(
        "A learned memory is better than the nearest case",
        "AgentFly / Memento 2508.16153",
        "case memory with a learned router against similarity",
        "equal on the stream, better on the switch",
        _when_recorded(_memory),
    ),
    Claim(
        "RL forgets less than SFT at one learning rate",
        "2510.18874",
        "RL and SFT on stream and switch, same rate, steps and problems a step",
        "",
        _when_recorded(_rl_against_sft),
    ),
    Claim(
        "Adaptation outside the weights reaches the best reward where words or cases say the rule",
        "the source texts",
        "all arms of the experiment",
        "cases on the stream; on the switch the weights",
        _when_recorded(_cheapest),
    ),
    Claim(
        "Proxy-tuning beats direct tuning where knowledge counts",
        "2401.08565",
        "–",
        "",
        _untested(
            "the shipped model knows no facts that tuning could damage; the command takes any models of one vocabulary"
        ),
    ),
    Claim(
        "Fine-tuning makes chains of reasoning less faithful",
        "2411.15382",
        "`fstsim faithful`: early termination, filler, paraphrase, corruption",
        "the mass of writing a chain falls by the old-mass law ([chain-mass](theory/06-replay-forward.md#chain-mass))",
        _chains,
    ),
    Claim(
        "SoftCoT gains on GSM8K, Memento on GAIA, VOYAGER in a game",
        "2502.12134, 2508.16153, 2305.16291",
        "–",
        "",
        _untested(
            "these benchmarks need large models, tools or a game; what is tested here is each mechanism on tasks with exact rewards"
        ),
    ),
)
