"""Claims of fast-slow training (2605.12484)."""

from __future__ import annotations

import numpy as np
from scipy.stats import fisher_exact

from fstsim.intervals import LEVEL
from fstsim.number_text import short_number
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.experiments.asymptotes import fit_asymptote
from fstsim.paper.experiments.numbers import Curves, Estimate, estimate, kl_reduction, read_decompositions, speed_up
from fstsim.paper.experiments.reflectors import pooled_difference

_EASY = {"digits:plus": "digits-easy", "star_graph:cross": "star_graph-easy", "strings:rotate": "strings-easy"}
_HARD = {
    "strings:reverse+next": "strings-hard",
    "digits:negate+shift": "digits-hard",
    "star_graph:forward": "star_graph-hard",
}
_SOURCE = "2605.12484"
_FULL = 0.99
"""reward that leaves nothing to gain"""


def _speed(e: Evidence) -> Finding:
    ratios = {task: speed_up(e.curves(f"{name}-rl"), e.curves(f"{name}-fst"))["ratio"] for task, name in _EASY.items()}
    said = ", ".join(f"{task} {ratio}" for task, ratio in ratios.items())
    return Finding(
        f"samples to 95 % of RL's peak, RL over FST: {said}",
        all_of([above(r.low, r.high, 1.0) for r in ratios.values()]),
    )


def _asymptote(e: Evidence) -> Finding:
    rng = np.random.default_rng(0)
    parts, holds = [], []
    tasks = {**_HARD, "star_graph:cross": "star_graph-easy"}
    for task, name in tasks.items():
        rl, fst = (e.curves(f"{name}-{method}") for method in ("rl", "fst"))
        a, b = (fit_asymptote(c.samples, c["reward"], rng) for c in (rl, fst))
        parts.append(f"{task} {b} against {a}")
        holds.append(True if b.low > a.high else False if b.high < a.low else None)
    open_ones = [task for task, value in zip(tasks, holds, strict=True) if value is None]
    why = f"higher in the others; on {' and '.join(open_ones)} RL's curve does not bend, and determines no asymptote"
    resolved = [value for value in holds if value is not None]
    if open_ones and resolved and all(resolved):
        return Finding(f"asymptote of the sigmoid, FST against RL: {'; '.join(parts)}", Outcome.OPEN, why)
    return Finding(f"asymptote of the sigmoid, FST against RL: {'; '.join(parts)}", all_of(holds))


def _closer(e: Evidence) -> Finding:
    parts, holds = [], []
    for task, name in _EASY.items():
        rl, fst = e.curves(f"{name}-rl"), e.curves(f"{name}-fst")
        peak = float(np.mean([r.max() for r in rl["reward"]]))
        saved = kl_reduction(rl, fst, 0.5 * peak)
        parts.append(f"{task} {saved}")
        holds.append(above(saved.low, saved.high, 0.0))
    return Finding(f"1 - KL(FST) / KL(RL) at half of RL's peak: {', '.join(parts)}", all_of(holds))


def _plasticity(e: Evidence) -> Finding:
    parts, holds = [], []
    for what, stem in {"another family": "plasticity", "a conflicting rule": "plasticity-conflict"}.items():
        solved = {s: (e.curves(f"{stem}-from-{s}")["reward"][:, -1] > 0.5) for s in ("base", "rl", "fst")}
        parts.append(f"{what}: " + ", ".join(f"{s} {int(x.sum())} of {len(x)}" for s, x in solved.items()))
        table = np.array([[x.sum(), (~x).sum()] for x in (solved["fst"], solved["rl"])])
        chance = float(fisher_exact(table).pvalue)
        parts[-1] += f" (fst against rl, exact test: p = {chance:.2g})"
        resolved = chance < 1.0 - LEVEL
        holds.append(bool(table[0, 0] > table[1, 0]) if resolved or (table[0] == table[1]).all() else None)
    said = f"seeds in which fresh RL then solves a second task, by start: {'; '.join(parts)}"
    outcome = all_of(holds)
    if outcome is Outcome.PARTLY:
        return Finding(said, outcome, "the second task asks for another answer to the same prompts")
    return Finding(said, outcome, "five seeds a start are too few for counts like these" if None in holds else "")


def _continual(e: Evidence) -> Finding:
    def last(name: str) -> list[float]:
        c = e.curves(name)
        return [float(np.nanmin([c["reward"][:, c["task"][0] == k][:, -1].mean() for k in range(3)]))]

    lr = ("", "-lr0.0001", "-lr0.001")
    rl, fst = ([last(f"continual-{m}{x}")[0] for x in lr] for m in ("rl", "fst"))
    drift = [(e.end(f"continual-rl{x}", "drift"), e.end(f"continual-fst{x}", "drift")) for x in lr]
    said = (
        f"least reward at the end of a stage over three learning rates: RL {short_number(min(rl))}, FST {short_number(min(fst))}; "
        f"old skills lost: {'; '.join(f'RL {a}, FST {b}' for a, b in drift)}"
    )
    turns = {m: [_second_stage(e, f"alternate-{task}-{m}") for task in ("plus", "rotate")] for m in ("rl", "fst")}
    pairs = [f"RL {a}, FST {b}" for a, b in zip(turns["rl"], turns["fst"], strict=True)]
    said += f". Two tasks on the same prompts in turn, reward at the end of the second stage: {'; '.join(pairs)}"
    stalls = all(value.high < 0.5 for value in turns["rl"]) and all(value.low > 0.5 for value in turns["fst"])
    unlike = min(rl) < 0.5 <= min(fst)
    if unlike and stalls:
        return Finding(said, Outcome.HOLDS)
    if stalls:
        why = "tasks conflict: on three unlike families RL does not stall, but FST loses fewer old skills at some rates"
        return Finding(said, Outcome.PARTLY, why)
    return Finding(said, Outcome.FAILS)


def _reflector(e: Evidence) -> Finding:
    found = [pooled_difference(e.data / "experiments", stage) for stage in (1, 2)]
    if found[0] is None or found[1] is None:
        return Finding("–", Outcome.UNTESTABLE, "no run of the experiment reflectors is recorded")
    said = f"frozen base less policy, reward after the first fast round: second task {found[0]}, third task {found[1]}"
    return Finding(said, all_of([above(found[1].low, found[1].high, 0.0)]))


def _second_stage(e: Evidence, name: str) -> Estimate:
    """Reward at the end of the second of several stages."""
    c = e.curves(name, "validation")
    return estimate([float(row[stage == 1][-1]) for row, stage in zip(c["reward"], c["task"], strict=True)])


def _star(e: Evidence) -> Finding:
    rates = ("0.0001", "0.0003", "0.001")
    best = {m: max((e.end(f"zero-{m}-lr{x}", "reward") for x in rates), key=lambda s: s.value) for m in ("rl", "fst")}
    said = f"end reward at each method's best rate: RL {best['rl']}, FST {best['fst']}"
    better = True if best["fst"].low > best["rl"].high else False if best["fst"].high < best["rl"].low else None
    first = {m: [_first_above(e.curves(f"zero-{m}-lr0.0001"), 0.1)] for m in ("rl", "fst")}
    shown = [f"{name} {', '.join(f'{n:.0f}' for n in first[m][0])}" for m, name in (("rl", "RL"), ("fst", "FST"))]
    said += f"; samples to reward .1 at the lowest rate, a number a seed: {'; '.join(shown)}"
    sooner = [a < b for a, b in zip(first["fst"][0], first["rl"][0], strict=True)]
    earlier = all(sooner) or (None if any(sooner) else False)
    why = "the walk is not put in words, so the fast channel has little to say: ends are equal, and seeds disagree on who is first"
    outcome = all_of([better, earlier])
    return Finding(said, outcome, why if outcome is Outcome.OPEN else "")


def _first_above(c: Curves, level: float) -> list[float]:
    """Samples at the first measurement with a reward above ``level``, by seed; inf where there is none."""
    return [
        float(at[np.argmax(reward > level)]) if (reward > level).any() else float("inf")
        for at, reward in zip(c.samples, c["reward"], strict=True)
    ]


def _decomposition(e: Evidence) -> Finding:
    parts, holds, full = [], [], []
    for task, name in {**_EASY, **_HARD}.items():
        seeds = read_decompositions(e.data / "experiments", f"{name}-fst")
        cells = {k: estimate([seed[k] for seed in seeds]) for k in ("trained_empty", "base_evolved", "trained_evolved")}
        gain = estimate([s["trained_evolved"] - max(s["trained_empty"], s["base_evolved"]) for s in seeds])
        parts.append(f"{task} {cells['trained_empty']} / {cells['base_evolved']} / {cells['trained_evolved']}")
        if cells["base_evolved"].value > _FULL:  # nothing is left to gain
            full.append(task)
        else:
            parts[-1] += f" (both less the better one {gain})"
            holds.append(above(gain.low, gain.high, 0.0))
    said = f"weights / context / both: {'; '.join(parts)}"
    outcome = all_of(holds) if holds else Outcome.UNTESTABLE
    if full and outcome is Outcome.HOLDS:
        why = f"words alone leave something to reach: on {len(full)} of {len(parts)} tasks they reach {_FULL} and more"
        return Finding(said, Outcome.PARTLY, why)
    return Finding(said, outcome)


def _fixed_budget(e: Evidence) -> Finding:
    parts: list[str] = []
    order: list[bool | None] = []
    for task, name in _HARD.items():
        curves = {m: e.curves(f"{name}-{m}") for m in ("fst", "rl", "gepa")}
        budget = min(float(c.samples[:, -1].min()) for c in curves.values())
        fst, rl, gepa = (
            estimate([float(np.interp(budget, at, reward)) for at, reward in zip(c.samples, c["reward"], strict=True)])
            for c in curves.values()
        )
        parts.append(f"{task} at {budget:.0f} samples {fst} / {rl} / {gepa}")
        steps = [above(a.low - b.high, a.high - b.low, 0.0) for a, b in ((fst, rl), (rl, gepa))]
        order.append(False if False in steps else None if None in steps else True)
    said = f"reward of FST / RL / prompt evolution alone: {'; '.join(parts)}"
    if False in order and True not in order:
        why = "where words solve the task, prompts alone are first and RL is last at so few samples"
        return Finding(said, Outcome.FAILS, why)
    return Finding(said, all_of(order))


def _out_of_domain(e: Evidence) -> Finding:
    parts, holds = [], []
    for task, name in _EASY.items():
        rl, fst = (e.end(f"{name}-{m}", "drift") for m in ("rl", "fst"))
        parts.append(f"{task} RL {rl}, FST {fst}")
        holds.append(fst.low <= rl.high)
    return Finding(f"accuracy lost on old skills, without the evolved prompt: {'; '.join(parts)}", all_of(holds))


def _distil(e: Evidence) -> Finding:
    alone, joint = e.curves("distill"), e.curves("strings-hard-fst")
    reward, both = estimate(alone["reward"][:, -1]), estimate(joint["reward"][:, -1])
    kl, other = estimate(alone["kl_to_base"][:, -1]), estimate(joint["kl_to_base_no_context"][:, -1])
    drift, less = estimate(alone["drift"][:, -1]), estimate(joint["drift"][:, -1])
    said = f"reward without context {reward}, joint with context {both}; nats from the base {kl} against {other}; old skills lost {drift} against {less}"
    if reward.low > both.low - 0.02:
        return Finding(
            said,
            Outcome.PARTLY,
            "what joint training keeps counts: the reward is replicated, the nearness to the base is not",
        )
    return Finding(said, Outcome.HOLDS)


CLAIMS = (
    Claim(
        "Fast-slow training reaches RL's level with fewer samples",
        _SOURCE,
        "core, three tasks that RL learns, 5 seeds",
        "1.4 to 3.0 times fewer",
        _speed,
    ),
    Claim(
        "Its asymptote is higher",
        _SOURCE,
        "core, fits of a 4-parameter sigmoid",
        "higher on all three of its tasks",
        _asymptote,
    ),
    Claim(
        "At the same reward it is nearer to the base in KL",
        _SOURCE,
        "core, KL(now ‖ base) at half of RL's peak",
        "up to 70 % lower",
        _closer,
    ),
    Claim(
        "It keeps plasticity: fresh RL on another task succeeds from its weights, not from RL's",
        _SOURCE,
        "plasticity, 5 seeds",
        "RL's start 0, its own near the base's",
        _plasticity,
    ),
    Claim(
        "Over a sequence of tasks RL stalls and fast-slow training does not",
        _SOURCE,
        "continual: three families in one run, 5 seeds, three learning rates; two tasks on the same prompts in turn, 3 seeds",
        "RL near 10 % of peak in the second stage",
        _continual,
    ),
    Claim(
        "The reflector has to be another model than the one in training",
        f"{_SOURCE} (its reflector is frozen and external)",
        "reflectors: three families in one run, three learning rates, the base as frozen reflector beside the policy as its own; reward of the third task after its first fast round and one slow step",
        "frozen above own: what training did to the policy, it did to its reflections",
        _reflector,
    ),
    Claim(
        "On a star graph with reward 0 at the start it leaves zero earlier and ends higher",
        _SOURCE,
        "zero, three learning rates, 3 seeds",
        "steps 50 to 100 against 250",
        _star,
    ),
    Claim(
        "Weights and context together reach more than either alone",
        _SOURCE,
        "2 x 2 of base and trained weights, empty and evolved context",
        "most on HoVer-hard",
        _decomposition,
    ),
    Claim(
        "At a fixed number of samples fast-slow training is first, RL second, prompt evolution alone third",
        _SOURCE,
        "core, the three hard tasks, 5 seeds, at the samples that all three have drawn",
        "37.5 %, 34.8 %, 21.8 % over its three tasks",
        _fixed_budget,
    ),
    Claim(
        "Without its prompt it does as well out of domain as RL",
        _SOURCE,
        "old skills of the exam, context removed",
        "equal within a point",
        _out_of_domain,
    ),
    Claim(
        "Distilling the context into the weights alone does not replicate joint training",
        f"{_SOURCE} (second hand)",
        "distill against core on strings:reverse+next",
        "",
        _distil,
    ),
)
