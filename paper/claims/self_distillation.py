"""Claims on dense self-distillation: whether a teacher at every token moves the model further than a reward at the end.

Read from the experiment on what forgetting follows, whose runs had been made for another question. SDFT is our default one: the
teacher is an average of the policy that sees the rule, without an anchor; published runs lower the forward KL.
"""

from __future__ import annotations

from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence

_CELLS = tuple((family, lr) for family in ("digits", "strings") for lr in ("0.0001", "0.0003"))
_TESTED = (
    "SDFT without an anchor against {} at two learning rates on digits:plus and strings:rotate, as many steps, {} "
    "(runs that had been made before this row was written)"
)
_COLUMNS = {"weight_distance": "relative distance of the weights", "old_kl_to_base": "KL(now ‖ base) on old prompts"}


def _more(e: Evidence, column: str, other: str) -> tuple[str, list[bool | None]]:
    """SDFT's ends against another method's, cell by cell, and whether SDFT's are higher."""
    parts: list[str] = []
    holds: list[bool | None] = []
    for family, lr in _CELLS:
        dense, sparse = (e.end(f"forgetting-{family}-{method}-lr{lr}", column) for method in ("sdft", other))
        parts.append(f"{family}, lr {lr}: {dense} against {sparse}")
        holds.append(above(dense.low - sparse.high, dense.high - sparse.low, 0.0))
    return "; ".join(parts), holds


def _moves(e: Evidence) -> Finding:
    found = {name: _more(e, column, "rl") for column, name in _COLUMNS.items()}
    said = ". ".join(f"{name}, SDFT against RL: {cells}" for name, (cells, _) in found.items())
    return Finding(said, all_of([value for _, holds in found.values() for value in holds]))


def _forgets_more(e: Evidence) -> Finding:
    """The source says that it can: one resolved cell is enough, if none is resolved against it."""
    said, holds = _more(e, "drift", "rl")
    said = f"accuracy lost on old skills, SDFT against RL: {said}; more in {holds.count(True)} of {len(holds)}, less in {holds.count(False)}"
    if False in holds:
        return Finding(said, all_of(holds))
    return Finding(said, Outcome.HOLDS if True in holds else Outcome.OPEN)


def _forgets_less(e: Evidence) -> Finding:
    said, more = _more(e, "drift", "sft")
    holds = [None if value is None else not value for value in more]
    return Finding(f"accuracy lost on old skills, SDFT against SFT: {said}", all_of(holds))


CLAIMS = (
    Claim(
        "Denser supervision moves weights and answers further",
        "Denser is not better 2607.01763",
        _TESTED.format("RL without a leash", "distance of the weights and KL on old prompts"),
        "",
        _moves,
    ),
    Claim(
        "Dense self-distillation can forget more than RL",
        "Denser is not better 2607.01763",
        _TESTED.format("RL without a leash", "old skills"),
        "",
        _forgets_more,
    ),
    Claim(
        "Learning from its own average that sees demonstrations forgets less than SFT",
        "SDFT 2601.19897",
        _TESTED.format("SFT", "old skills"),
        "",
        _forgets_less,
    ),
)
