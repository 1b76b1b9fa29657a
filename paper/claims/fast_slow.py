"""Claims of fast-slow training (2605.12484), and of what a drifted model can still learn."""

from __future__ import annotations

import numpy as np

from fstsim.number_text import short_number
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import End, Evidence, rank_correlation
from fstsim.paper.experiments.asymptotes import fit_asymptote
from fstsim.paper.experiments.numbers import estimate, kl_reduction, read_decompositions, speed_up
from fstsim.paper.experiments.reflectors import pooled_difference

_EASY = {"digits:plus": "digits-easy", "star_graph:cross": "star_graph-easy", "strings:rotate": "strings-easy"}
_HARD = {
    "strings:reverse+next": "strings-hard",
    "digits:negate+shift": "digits-hard",
    "star_graph:forward": "star_graph-hard",
}
_SOURCE = "2605.12484"


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
    for task, name in {**_HARD, "star_graph:cross": "star_graph-easy"}.items():
        rl, fst = (e.curves(f"{name}-{method}") for method in ("rl", "fst"))
        a, b = (fit_asymptote(c.samples, c["reward"], rng) for c in (rl, fst))
        parts.append(f"{task} {b} against {a}")
        holds.append(True if b.low > a.high else False if b.high < a.low else None)
    resolved = [x for x in holds if x is not None]
    outcome = all_of(resolved) if resolved else Outcome.OPEN
    why = ""
    if None in holds and outcome is Outcome.HOLDS:
        outcome = Outcome.PARTLY
        why = "words solve the task: where they do not (the star graph) the two are not told apart"
    return Finding(f"asymptote of the sigmoid, FST against RL: {'; '.join(parts)}", outcome, why)


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
        holds.append(bool(solved["rl"].sum() < solved["base"].sum() and solved["fst"].sum() >= solved["base"].sum()))
    outcome = all_of(holds)
    why = "the second task asks for another answer to the same prompts" if outcome is Outcome.PARTLY else ""
    return Finding(f"seeds in which fresh RL then solves a second task, by start: {'; '.join(parts)}", outcome, why)


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
    less = [True if b.high < a.low else False if b.low > a.high else None for a, b in drift]
    stalls = min(rl) < 0.5
    if stalls:
        return Finding(said, Outcome.HOLDS)
    if any(less):
        return Finding(
            said,
            Outcome.PARTLY,
            "tasks conflict: on three unlike families RL does not stall, but FST loses fewer old skills at some rates",
        )
    return Finding(said, Outcome.FAILS)


def _reflector(e: Evidence) -> Finding:
    found = [pooled_difference(e.data / "experiments", stage) for stage in (1, 2)]
    if found[0] is None or found[1] is None:
        return Finding("–", Outcome.UNTESTABLE, "no run of the experiment reflectors is recorded")
    said = f"frozen base less policy, reward after the first fast round: second task {found[0]}, third task {found[1]}"
    return Finding(said, all_of([above(found[1].low, found[1].high, 0.0)]))


def _star(e: Evidence) -> Finding:
    rates = ("0.0001", "0.0003", "0.001")
    best = {m: max((e.end(f"zero-{m}-lr{x}", "reward") for x in rates), key=lambda s: s.value) for m in ("rl", "fst")}
    said = f"end reward at each method's best rate: RL {best['rl']}, FST {best['fst']}"
    better = True if best["fst"].low > best["rl"].high else False if best["fst"].high < best["rl"].low else None
    if better is None and best["fst"].value <= best["rl"].value + 0.02:
        return Finding(said, Outcome.FAILS, "the walk is not put in words, so the fast channel has nothing to say")
    return Finding(said, all_of([better]))


def _decomposition(e: Evidence) -> Finding:
    parts, holds = [], []
    for task, name in {**_EASY, **_HARD}.items():
        seeds = read_decompositions(e.data / "experiments", f"{name}-fst")
        cells = {k: estimate([seed[k] for seed in seeds]) for k in ("trained_empty", "base_evolved", "trained_evolved")}
        single = max(cells["trained_empty"].value, cells["base_evolved"].value)
        parts.append(f"{task} {cells['trained_empty']} / {cells['base_evolved']} / {cells['trained_evolved']}")
        holds.append(bool(cells["trained_evolved"].value >= single - 1e-3))
    return Finding(f"weights / context / both: {'; '.join(parts)}", all_of(holds))


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


def _drifted(e: Evidence) -> Finding:
    """Runs of one task, so that the next task and its start are the same for all."""
    parts, holds = [], []
    for task in ("digits:plus", "strings:rotate"):
        ends = [x for x in e.ends if x.tasks == (task,) and "relearn" in x.last and x.first["relearn"] <= 3]
        kept = np.array([x.last["relearn"] for x in ends if x.last["drift"] <= 0.3], float)
        gone = np.array([x.last["relearn"] for x in ends if x.last["drift"] > 0.3], float)
        lost = [int((v > 60).sum()) for v in (kept, gone)]
        rank = rank_correlation(
            [x.last["drift"] for x in ends], [x.last["relearn"] for x in ends], [x.run for x in ends]
        )
        parts.append(
            f"{task}: median {np.median(kept):.0f} steps up to 30 % ({len(kept)} runs, {lost[0]} not within 60), "
            f"{np.median(gone):.0f} beyond ({len(gone)}, {lost[1]} not within 60); rank correlation {rank}"
        )
        holds.append(bool(lost[1] > len(gone) / 2 and lost[0] <= len(kept) / 2))
    why = "relearning slows down with drift, and most runs beyond 30 % still learn"
    outcome = all_of(holds)
    return Finding(f"steps to half on a new task: {'; '.join(parts)}", outcome, "" if outcome is Outcome.HOLDS else why)


def _leash(e: Evidence) -> Finding:
    parts, holds = [], []
    for rate in ("0.0001", "0.0003", "0.001"):
        free, held = (e.end(f"calibrate-rl-lr{rate}-leash{x}", "relearn") for x in ("0", "0.02"))
        parts.append(f"lr {rate}: {free} without, {held} with")
        holds.append(True if held.high < free.low else False if held.low > free.high else None)
    strong = [x for x in e.ends if x.run.startswith("tilt-")]
    none = [x for x in e.ends if x.run == "plus-rl"]
    tilt, rl = (estimate([x.last["relearn"] for x in rows]) for rows in (strong, none))
    said = f"steps to half on a new task after RL, leash .02: {'; '.join(parts)}; leashes of .25 to 1 on digits:plus {tilt}, none {rl}"
    if tilt.high < rl.low and not any(holds):
        return Finding(
            said,
            Outcome.PARTLY,
            "it is strong enough to keep the old mass: .02 changes nothing that is resolved, .25 and more do",
        )
    return Finding(said, all_of(holds))


def _one_shot(e: Evidence) -> Finding:
    by: dict[float, list[End]] = {}
    for end in sorted((x for x in e.ends if x.run.startswith("tilt-") or x.run == "plus-rl"), key=lambda x: -x.leash):
        by.setdefault(end.leash, []).append(end)
    points = [
        (float(np.mean([x.last["kl_to_base"] for x in ends])), estimate([x.last["reward"] for x in ends]))
        for ends in by.values()
    ]
    alone = ", ".join(f"{kl:.2g} nats {reward}" for kl, reward in points)
    rewards = [reward.value for _, reward in points]
    fst, near = (e.end("plus-fst", name, "validation") for name in ("reward", "kl_to_base_no_context"))
    said = f"final reward on digits:plus by KL(now ‖ base), weights alone: {alone}; with a context, {near} nats: {fst}"
    if sorted(rewards) != rewards:
        return Finding(said, Outcome.FAILS)
    if fst.value >= rewards[-1] - 0.01 and near.value < points[-1][0]:
        return Finding(
            said, Outcome.PARTLY, "the weights alone must carry the task; with a context the same reward costs less"
        )
    return Finding(said, Outcome.HOLDS)


def _entropy(e: Evidence) -> Finding:
    parts, holds = [], []
    for task in ("digits:plus", "strings:rotate"):
        ends = [x for x in e.ends if x.tasks == (task,) and "relearn" in x.last and x.first["relearn"] <= 3]
        entropy = [x.bare("entropy") for x in ends]
        gained = [x.last.get("reward_no_context", x.last["reward"]) for x in ends]
        steps = [x.last["relearn"] for x in ends]
        names = [x.run for x in ends]
        costs, needs = rank_correlation(gained, entropy, names), rank_correlation(entropy, steps, names)
        parts.append(f"{task}: reward of the weights with entropy {costs}, entropy with steps to relearn {needs}")
        holds += [above(-costs.high, -costs.low, 0.0), above(-needs.high, -needs.low, 0.0)]
    return Finding(f"rank correlations over runs: {'; '.join(parts)}", all_of(holds), "")


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
        "continual: three families in one run, 5 seeds, three learning rates",
        "RL near 10 % of peak in the second stage",
        _continual,
    ),
    Claim(
        "The reflector has to be another model than the one in training",
        f"{_SOURCE} (its reflector is frozen and external)",
        "reflectors: three families in one run, three learning rates, the base as frozen reflector beside the policy as its own; reward of the third task after its first fast round",
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
    Claim(
        "Models that drift beyond about 30 % lose plasticity",
        "a note's paraphrase",
        "all recorded runs of two tasks: supervised steps to half on a new task against accuracy lost",
        "",
        _drifted,
    ),
    Claim(
        "KL regularisation keeps a model trainable",
        "ProRL 2505.24864 and notes",
        "steps to half on a new task after RL with and without a leash",
        "",
        _leash,
    ),
    Claim(
        "For a one-shot deployment more drift is the better trade",
        "a note",
        "best final reward against the KL that is allowed",
        "the tilt's reward at each leash",
        _one_shot,
    ),
    Claim(
        "Specialisation costs entropy, and entropy is what learning needs",
        "a note",
        "entropy without context, reward and relearning over all recorded runs of two tasks",
        "",
        _entropy,
    ),
)
