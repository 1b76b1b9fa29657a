"""Whether chains of reasoning are written after training, and whether answers depend on them."""

from __future__ import annotations

from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.experiments.numbers import estimate
from fstsim.paper.pages.faithful import recorded_arms


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


CLAIMS = (
    Claim(
        "Fine-tuning makes chains of reasoning less faithful",
        "2411.15382",
        "`fstsim faithful`: early termination, filler, paraphrase, corruption",
        "the mass of writing a chain falls by the old-mass law ([chain-mass](theory/06-replay-forward.md#chain-mass))",
        _chains,
    ),
)
