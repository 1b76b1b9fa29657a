"""One-screen tables of the experiments, with 95 % intervals over seeds and the paper's numbers beside ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from fstsim.crossings import first_crossing
from fstsim.llm.experiments import CALIBRATE, CONTINUAL, CORE, DISTILL, PLASTICITY, REUSE, ZERO
from fstsim.llm.experiments.continual import SEQUENCE
from fstsim.llm.experiments.plan import LR
from fstsim.llm.experiments.plasticity import FIRST
from fstsim.llm.experiments.zero import TASK
from fstsim.paper.experiments.asymptotes import Sigmoid, fit_asymptote, fit_sigmoid, running_maximum
from fstsim.paper.experiments.numbers import (
    Curves,
    Estimate,
    estimate,
    kl_reduction,
    own_context,
    read_curves,
    read_decompositions,
    speed_up,
    totals,
)
from fstsim.paper.experiments.planned import grouped, kind_and_task, task
from fstsim.paper.experiments.reference import PAPER

LEFT_ZERO = 0.1
"""Reward at which a run counts as having left zero."""
QUOTED = "italic"
"""Style of a row that quotes numbers of the paper."""


def plain_table(title: str, *names: str) -> Table:
    """An empty table, its first column to the left."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        title=title,
        title_justify="left",
        caption_justify="left",
    )
    for k, name in enumerate(names):
        table.add_column(name, justify="left" if k == 0 else "right", no_wrap=k == 0)
    return table


def core_tables(out: Path) -> list[Table]:
    """Speed, asymptote and KL at matched reward on every task that has both runs; then the 2 x 2."""
    speed = plain_table(
        "samples of both channels to 95 % of RL's running peak (95 % intervals over seeds; inf: not reached)",
        "task", "RL's level", "RL", "FST", "RL / FST",
    )  # fmt: skip
    end = plain_table(
        "asymptote of the sigmoid fit, and last reward", "task", "RL A", "FST A", "RL end", "FST end", "GEPA end"
    )
    kl = plain_table(
        "KL(now || base) at half of RL's peak, and at the end",
        "task",
        "reduction",
        "RL end",
        "FST end",
        "FST end, no context",
    )
    cells = plain_table(
        "2 x 2: reward with {base, trained} weights x {empty, evolved} context",
        "task",
        "neither",
        "weights",
        "context",
        "both",
    )
    rng = np.random.default_rng(0)
    for (_, name), runs in grouped(CORE, kind_and_task).items():
        methods = {run.method: run.name for run in runs}
        rl, fst, gepa = (read_curves(out, methods[m]) if m in methods else None for m in ("rl", "fst", "gepa"))
        if rl is None or fst is None:
            continue
        peak = float(np.mean([r.max() for r in rl["reward"]]))
        if peak >= 0.05:
            s = speed_up(rl, fst)
            speed.add_row(name, *(str(s[key]) for key in ("level", "rl", "fst", "ratio")))
        else:
            speed.add_row(name, "RL never leaves 0", "-", "-", "-")
        ends = [str(estimate(c["reward"][:, -1])) if c is not None else "-" for c in (rl, fst, gepa)]
        end.add_row(
            name, str(fit_asymptote(rl.samples, rl["reward"], rng)), str(fit_asymptote(fst.samples, fst["reward"], rng)), *ends
        )  # fmt: skip
        reduction = kl_reduction(rl, fst, 0.5 * peak) if peak >= 0.05 else Estimate(np.nan, np.nan, np.nan, 0)
        bare = (
            fst["kl_to_base_no_context"][:, -1] if "kl_to_base_no_context" in fst.columns else fst["kl_to_base"][:, -1]
        )
        kl.add_row(
            name, str(reduction), *(str(estimate(v)) for v in (rl["kl_to_base"][:, -1], fst["kl_to_base"][:, -1], bare))
        )  # fmt: skip
        seeds = read_decompositions(out, methods["fst"])
        if seeds:
            keys = ("base_empty", "trained_empty", "base_evolved", "trained_evolved")
            cells.add_row(name, *(str(estimate([seed[key] for seed in seeds])) for key in keys))
    speed.caption = "paper: " + ", ".join(f"{k} {v} times fewer" for k, v in PAPER["speed"].items())
    end.caption = "paper, percent, RL and FST: " + ", ".join(
        f"{k} {v[1]}, {v[0]}" for k, v in PAPER["asymptote"].items()
    )
    kl.caption = f"paper: up to {PAPER['kl_reduction']:.0%} lower at matched reward"
    cells.caption = "paper, HoVer-hard: " + ", ".join(f"{v / 100:.3f}" for v in PAPER["decomposition"]["HoVer-hard"])
    return [speed, end, kl, cells, running_table(out)]


def running_table(out: Path) -> Table:
    """The fit and "times fewer" read in the paper's way: every reward is the best so far, and RL's level may be its peak itself."""
    table = plain_table(
        "with the running maximum of the reward, as the paper has it",
        "task", "C / Cmid, RL", "C / Cmid, FST", "RL A", "FST A", "RL / FST", "RL / FST, to the peak",
    )  # fmt: skip
    for (_, name), runs in grouped(CORE, kind_and_task).items():
        methods = {run.method: read_curves(out, run.name) for run in runs if run.method in ("rl", "fst")}
        rl, fst = methods.get("rl"), methods.get("fst")
        if rl is None or fst is None:
            continue
        best = running_maximum(rl), running_maximum(fst)
        fits = [fit_sigmoid(c.samples.mean(0), c["reward"].mean(0)) for c in best]
        asymptotes = ["-" if fitted.refused else f"{fitted.asymptote:.3g}" for fitted in fits]
        rises = float(np.mean([r.max() for r in rl["reward"]])) >= 0.05
        ratios = [_ratio(*best, share) if rises else "-" for share in (0.95, 1.0)]
        table.add_row(name, *map(_way, best, fits), *asymptotes, *ratios)
    table.caption = "C / Cmid: end of the runs over the middle of their rise, below 1 refused; n of m: seeds in which FST reaches the level"
    return table


def _way(curves: Curves, fitted: Sigmoid) -> str:
    """How far the runs go beyond the middle of their rise, or why there is none."""
    if np.isnan(fitted.middle):
        return fitted.refused
    samples = curves.samples.mean(0)
    # before the first measurement the middle can be anywhere
    early = fitted.middle < samples[1]
    return f"{'> ' if early else ''}{samples[-1] / max(fitted.middle, samples[1]):.3g}"


def _ratio(rl: Curves, fst: Curves, share: float) -> str:
    """Samples of RL over those of FST to ``share`` of RL's peak; how many seeds of FST get there, where not all do."""
    levels = share * rl["reward"].max(axis=1)
    count = min(len(levels), len(fst.samples))
    reached = int((fst["reward"].max(axis=1)[:count] >= levels[:count]).sum())
    return str(speed_up(rl, fst, share)["ratio"]) if reached == count else f"{reached} of {count}"


def continual_table(out: Path) -> Table:
    """Reward at the end of each stage on its own task; at the very end on the earlier ones, in the contexts of the last
    task and in the best context that was written for each; accuracy lost on old skills."""
    table = plain_table(
        "continual: reward at the end of each stage; then at the end of the run (learning rate 0.0003 unless said)",
        "method",
        *(f"stage {k + 1}: {t}" for k, t in enumerate(SEQUENCE)),
        *(f"task {k + 1} at end{tail}" for k in range(len(SEQUENCE) - 1) for tail in ("", ", own context")),
        "drift at end",
    )
    for run in CONTINUAL.runs("small"):
        c = read_curves(out, run.name)
        if c is None:
            continue
        last = [int(np.flatnonzero(c["task"][0] == k)[-1]) for k in range(len(SEQUENCE))]
        table.add_row(
            run.method.upper() + ("" if run.lr == LR else f", learning rate {run.lr:g}"),
            *(str(estimate(c["reward"][:, k])) for k in last),
            *(
                "-" if values is None else str(estimate(values[:, -1]))
                for k in range(len(SEQUENCE) - 1)
                for values in (c.columns.get(f"reward_task{k}"), own_context(c, k))
            ),
            str(estimate(c["drift"][:, -1])),
        )
    return table


def reuse_table(out: Path) -> Table:
    """FST whose slow steps reuse rollouts of the fast rounds, beside FST as it is: samples, reward and distance."""
    table = plain_table(
        "reuse of the fast rounds' rollouts (95 % intervals over seeds; level: 95 % of the peak of FST without reuse)",
        "task", "method", "samples to level", "without / with", "samples in all", "of fast rounds", "reused",
        "reward at end", "KL at end",
    )  # fmt: skip
    for name, runs in grouped(REUSE, task).items():
        plain, reusing = (read_curves(out, run.name) for run in runs)
        if plain is None or reusing is None:
            continue
        speed = speed_up(plain, reusing)
        for c, method, level, ratio in (
            (plain, "FST", speed["rl"], "1"),
            (reusing, "FST, reuse", speed["fst"], str(speed["ratio"])),
        ):
            columns = (c.samples, c["reward"], c["kl_to_base"])
            samples, reward, kl = (str(estimate(x[:, -1])) for x in columns)
            fast, reused = (str(estimate(totals(out, c.name, column))) for column in ("fast_rollouts", "reused"))
            table.add_row(name, method, str(level), ratio, samples, fast, reused, reward, kl)
    return table


def zero_table(out: Path) -> Table:
    """From next to no reward on a star graph: what each method reaches at each learning rate, and what weights and context carry."""
    table = plain_table(
        f"from zero: {TASK} at every learning rate (95 % intervals over seeds; samples of both channels)",
        "method, learning rate", f"samples to {LEFT_ZERO:g}", "reward at end", "weights alone", "context alone",
        "KL at end", "drift at end",
    )  # fmt: skip
    for run in ZERO.runs("small"):
        c = read_curves(out, run.name)
        if c is None:
            continue
        cells = read_decompositions(out, run.name)
        curves = zip(c.samples, c["reward"], strict=True)
        reached = [first_crossing(x, y, LEFT_ZERO, never=np.inf) for x, y in curves]
        table.add_row(
            f"{run.method.upper()}, {run.lr:g}",
            str(estimate(reached)) if np.isfinite(reached).all() else f"not all {len(reached)} seeds",
            str(estimate(c["reward"][:, -1])),
            *(str(estimate([s[k] for s in cells])) if cells else "-" for k in ("trained_empty", "base_evolved")),
            str(estimate(c["kl_to_base"][:, -1])),
            str(estimate(c["drift"][:, -1])),
        )
    return table


def plasticity_table(out: Path) -> Table:
    """Reward after fresh RL on a second task, by what the weights went through before."""
    columns = ("task, start", "reward at the end", "mean over the run", "seeds above 1/2")
    table = plain_table(f"plasticity: fresh RL on a second task, after {FIRST}", *columns)
    for run in PLASTICITY.runs("small"):
        c = read_curves(out, run.name)
        if c is not None:
            end = c["reward"][:, -1]
            solved = f"{int((end > 0.5).sum())} of {len(end)}"
            table.add_row(f"{run.task}, {run.kind}", str(estimate(end)), str(estimate(c["reward"].mean(1))), solved)
    for name, values in PAPER["plasticity"].items():
        table.add_row(f"paper, {name}", "{}, {}, {} %".format(*values), "from base, RL, FST", "", style=QUOTED)
    return table


def calibration_table(out: Path) -> Table:
    """The declared sweep: reward averaged over the whole run, and at its end."""
    table = plain_table(
        "declared sweep (reward averaged over the run / at its end)", "learning rate, leash", "RL", "FST"
    )
    for (lr, leash), runs in grouped(CALIBRATE, lambda run: (run.lr, run.leash)).items():
        columns = [read_curves(out, run.name) for run in runs]  # RL, then FST
        cells = ["-" if c is None else f"{c['reward'].mean():.3f} / {c['reward'][:, -1].mean():.3f}" for c in columns]
        table.add_row(f"{lr:g}, {leash:g}", *cells)
    return table


def distill_table(out: Path) -> Table:
    """What the policy without context keeps of what the evolved context gave, and what it costs."""
    table = plain_table("FST-distill", "", "before", "after")
    (run,) = DISTILL.runs("small")
    c = read_curves(out, run.name)
    if c is not None:
        for column, label in (
            ("reward", "reward without context"),
            ("drift", "accuracy lost on old skills"),
            ("old_mass", "old behaviour without context"),
            ("kl_to_base", "KL(now || its start), nats"),
        ):
            table.add_row(label, str(estimate(c[column][:, 0])), str(estimate(c[column][:, -1])))
    return table
