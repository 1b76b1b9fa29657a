"""What the pages on core isolation and on resets say of the runs, and the figure (``python -m fstsim.paper.records.isolation_page``).

Every number comes from ``paper/data/isolation`` and ``paper/data/resets``; verdicts are computed by the margins of the predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.paper import DATA, checkout
from fstsim.paper.figures.drawing import SERIES, Drawing, drawing_style, save_png
from fstsim.paper.pages.blocks import table
from fstsim.records import read_json

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
PICTURE = "isolation.png"


def recorded(name: str, data: Path = DATA) -> Runs:
    """The recorded runs of a set of tasks by variant."""
    runs: Runs = read_json(data / "isolation" / f"{name}.json")["runs"]
    return runs


def final(runs: Runs, variant: str) -> np.ndarray:
    """Rewards at the end, ``(seeds, tasks)``."""
    return np.array([run["blocks"][-1]["rewards"] for run in runs[variant]])


def log_odds(p: float) -> float:
    """Of a probability inside (0, 1)."""
    return float(np.log(p) - np.log1p(-p))


def falls(run: Mapping[str, Any]) -> tuple[float, float]:
    """The first task's fall during the second stage in log-odds of reward, and its loss of reward from its own stage to the end."""
    first = [block["rewards"][0] for block in run["blocks"]]
    return log_odds(first[1]) - log_odds(first[2]), first[1] - first[-1]


def results_table(name: str, tasks: Sequence[str], data: Path = DATA) -> str:
    """A row a variant: rewards at the end by seed, old skills, distance."""
    runs, rows = recorded(name, data), []
    for variant, own in runs.items():
        ends = final(runs, variant)
        drift, kl = ([run["blocks"][-1][key] for run in own] for key in ("drift", "kl_to_base"))
        cells = [", ".join(f"{x:.2f}" for x in ends[:, k]) for k in range(len(tasks))]
        rows.append(
            [f"`{variant}`", *cells, f"{ends.min(1).mean():.2f}", f"{np.mean(drift):.2f}", f"{np.mean(kl):.1f}"]
        )
    return table(["variant", *tasks, "smallest", "old skills lost", "KL(now‖base)"], rows)


@dataclass(frozen=True)
class Verdict:
    """One prediction: what was said, what was measured, whether that is within its margins."""

    name: str
    said: str
    measured: str
    held: bool

    @property
    def cells(self) -> list[str]:
        """Of its row."""
        return [self.name, self.said, self.measured, "held" if self.held else "**falsified**"]


def verdicts(data: Path = DATA) -> list[Verdict]:
    """All of them, in the order of the page."""
    families, conflict = recorded("families", data), recorded("conflict", data)
    both = {"families": families, "conflict": conflict}
    return [
        *(_clock(name, runs) for name, runs in both.items()),
        *(
            _random(name, runs, margin)
            for (name, runs), margin in zip(both.items(), (0.02, 0.03), strict=True)
            if "random" in runs
        ),
        *_sample(families),
        *(_linear(name, runs) for name, runs in both.items() if "linear" in runs),
        *_shares(conflict),
        _groups("families", families, 3),
        _groups("conflict", conflict, 2),
        *(_held(name, runs) for name, runs in both.items()),
    ]


def _pairs(runs: Runs, one: str, other: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Runs of two variants with the same seed."""
    by = {run["seed"]: run for run in runs[other]}
    return [(run, by[run["seed"]]) for run in runs[one] if run["seed"] in by]


def _clock(name: str, runs: Runs) -> Verdict:
    ratios, shares, losses = [], [], []
    for frozen, plain in _pairs(runs, "freeze", "stages"):
        ratios.append(falls(frozen)[0] / falls(plain)[0])
        losses.append(falls(frozen)[1] / falls(plain)[1])
        shares.append(next(said["drive_share"] for said in frozen["said"] if said.get("drive_share") is not None))
    said = f"{name}: fall × (1 − φ), φ = {_list(shares)}"
    measured = f"fall × {_list(ratios)}; loss of reward × {_list(losses)}"
    near = all(abs(r - (1.0 - phi)) <= 0.1 for r, phi in zip(ratios, shares, strict=True))
    return Verdict("I1", said, measured, near and all(loss > 2.0 / 3.0 for loss in losses))


def _random(name: str, runs: Runs, margin: float) -> Verdict:
    gap = float(np.mean([_mean(a) - _mean(b) for a, b in _pairs(runs, "random", "full")]))
    return Verdict("I2", f"{name}: random − full within {margin}", f"{gap:+.3f}", abs(gap) < margin)


def _mean(run: Mapping[str, Any]) -> float:
    return float(np.mean(run["blocks"][-1]["rewards"]))


def _sample(runs: Runs) -> list[Verdict]:
    least = {name: float(final(runs, name).min(1).mean()) for name in ("full", "sample")}
    pairs = _pairs(runs, "no-sample", "full")
    apart, full = (float(np.mean([min(pair[k]["blocks"][-1]["rewards"]) for pair in pairs])) for k in (0, 1))
    held = least["sample"] >= 0.8 and least["full"] - least["sample"] <= 0.1
    return [
        Verdict(
            "I3",
            "families: smallest reward of `sample` ≥ .8, within .1 of `full`",
            f"{least['sample']:.2f}, {least['full']:.2f}",
            held,
        ),
        Verdict("I3", "families: `no-sample` lower than `full`", f"{apart:.2f}, {full:.2f}", apart < full),
    ]


def _linear(name: str, runs: Runs) -> Verdict:
    gaps = [np.subtract(a["merged"]["rewards"], b["merged"]["rewards"]) for a, b in _pairs(runs, "linear", "full")]
    largest = float(np.abs(gaps).max())
    return Verdict("I4", f"{name}: linear and SLERP within .01 after the merge", f"{largest:.4f}", largest <= 0.01)


def _shares(runs: Runs) -> list[Verdict]:
    out = []
    for variant in ("joint", "full", "sample"):
        ends = final(runs, variant)[:, :2].mean(0)
        held = bool((np.abs(ends - 0.5) <= 0.1).all())
        out.append(Verdict("I5", f"conflict, `{variant}`: .5 ± .1 on both", f"{ends[0]:.2f} and {ends[1]:.2f}", held))
    first, second = final(runs, "stages")[:, :2].mean(0)
    held = bool(first < 0.1 and second > 0.8)
    return [*out, Verdict("I5", "conflict, `stages`: below .1, above .8", f"{first:.2f} and {second:.2f}", held)]


def _groups(name: str, runs: Runs, wanted: int) -> Verdict:
    merges = [said for run in runs["full"] for said in run["said"] if "core_groups" in said]
    counts = [said["core_groups"] for said in merges]
    pairs = [[said[f"core_overlap_{pair}"] for said in merges] for pair in ("0_1", "0_2", "1_2")]
    measured = f"{', '.join(map(str, counts))}; overlaps {'; '.join(_list(values) for values in pairs)}"
    return Verdict("I6", f"{name}: {wanted} groups", measured, all(count == wanted for count in counts))


def _held(name: str, runs: Runs) -> Verdict:
    found = [said for run in runs["full"] for said in run["said"] if "core_drive_share" in said]
    low, high = (f([said["core_drive_share"] for said in found]) for f in (min, max))
    inside = low >= 0.005 and high <= 0.04
    squares = [said["core_drive_share_squared"] for said in found]
    measured = f"{low:.4f} to {high:.4f} (of |g|²: {min(squares):.4f} to {max(squares):.4f})"
    return Verdict("I7", f"{name}: φ of a core of 1 % between .005 and .04", measured, inside)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def isolation_block(data: Path = DATA) -> str:
    """Tables of both sets, and the verdicts."""
    parts = []
    for name in ("families", "conflict"):
        held = read_json(data / "isolation" / f"{name}.json")
        counts = [len(runs) for runs in held["runs"].values()]
        words = f"`{name}`: rewards at the end, a number a seed."
        if min(counts) < 3:
            words += f" Recorded so far are {min(counts)} to {max(counts)} of the three seeds of a variant: verdicts are of those."
        parts += [words, results_table(name, held["tasks"], data)]
    parts += [f"![Rewards at the end by variant](../images/{PICTURE})\n", "Predictions against the runs:"]
    parts.append(table(["", "predicted", "measured", ""], [verdict.cells for verdict in verdicts(data)]))
    return "\n" + "\n\n".join(part.rstrip() for part in parts) + "\n\n"


def resets_block(data: Path = DATA) -> str:
    """Predicted and measured rewards at the ends of periods, and the verdicts."""
    held = read_json(data / "resets" / "resets.json")
    period, predicted, runs = held["period"], held["predicted"], held.get("runs", {})
    rows, judged = [], []
    means: dict[str, list[float]] = {}
    for k in range(1, len(predicted)):
        cells = [str(k * period), f"{predicted[k]:.3f}"]
        for name in ("resets", "none"):
            at = [next(row for row in run["rows"] if row["step"] == k * period) for run in runs.get(name, [])]
            means.setdefault(name, []).append(float(np.mean([row["reward"] for row in at])) if at else np.nan)
            cells.append(", ".join(f"{row['reward']:.3f}" for row in at) or "–")
            cells.append(", ".join(f"{row['kl_to_base']:.2f}" for row in at) or "–")
        rows.append(cells)
    gaps = np.array(means["resets"]) - predicted[1:]
    worst = float(np.abs(gaps).max())
    measured = _list([float(gap) for gap in gaps])
    judged.append(Verdict("R1", "mean reward within .06 of σ(logit p₀ + k/τ)", measured, worst <= 0.06))
    if runs.get("none"):
        gap = float(np.abs(np.array(means["none"]) - predicted[1]).max())
        judged.append(Verdict("R2", "without resets within .06 of one period", f"{gap:.3f}", gap <= 0.06))
        judged.append(_kl(runs, period, len(predicted) - 1))
    head = ["step", "predicted reward", "with resets, by seed", "KL(now‖base)", "without", "KL(now‖base)"]
    slack = sorted({step for run in runs.get("resets", []) for step in run["slack"]})
    due = [k * period + 1 for k in range(len(predicted) - 1)]
    where = "the first steps with a reference tied anew, and no others" if slack == due else f"expected at {due}"
    note = f"KL to the reference was exactly 0 at steps {', '.join(map(str, slack))}: {where}."
    if not runs.get("none"):
        note += " Runs without resets are not recorded yet: R2 and R3 are open."
    return (
        "\n"
        + "\n\n".join(
            (
                table(head, rows).rstrip(),
                table(["", "predicted", "difference or measured", ""], [v.cells for v in judged]),
                note,
            )
        )
        + "\n\n"
    )


def _kl(runs: Mapping[str, Any], period: int, periods: int) -> Verdict:
    kl = {
        name: np.mean(
            [
                [row["kl_to_base"] for row in run["rows"] if row["step"] in range(period, periods * period + 1, period)]
                for run in own
            ],
            axis=0,
        )
        for name, own in runs.items()
    }
    grows = bool((np.diff(kl["resets"]) > 0.0).all())
    stays = bool((np.abs(kl["none"] / kl["none"][0] - 1.0) <= 0.2).all())
    measured = f"{_list(kl['resets'])}; {_list(kl['none'])}"
    return Verdict("R3", "KL grows with resets, stays within a fifth without", measured, grows and stays)


def draw(data: Path = DATA) -> Drawing:
    """Rewards at the end: a panel a set, a row a variant, a mark a task and seed."""
    figure = Drawing(figsize=(9.5, 4.2))
    for ax, name in zip(figure.subplots(1, 2), ("families", "conflict"), strict=True):
        held = read_json(data / "isolation" / f"{name}.json")
        variants = list(held["runs"])
        for row, variant in enumerate(variants):
            ends = final(held["runs"], variant)
            for k, task in enumerate(held["tasks"]):
                look = SERIES[k]
                place = np.full(len(ends), len(variants) - row + 0.22 * (1 - k))
                label = task if row == 0 else None
                ax.plot(ends[:, k], place, look.marker, color=look.color, ms=4, ls="", label=label)
        ax.set_yticks(range(len(variants), 0, -1), variants)
        ax.set_xlim(-0.03, 1.03)
        ax.set_xlabel("reward at the end")
        ax.set_title(name)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=6)
    return figure


@dataclass(frozen=True)
class Config:
    """Draw the figure on core isolation from the records in paper/data."""


def rewrite(_: Config) -> int:
    """Do it; InputError outside a checkout."""
    root = checkout()
    with drawing_style():
        show(f"{save_png(draw(), root / 'paper/images' / PICTURE)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.isolation_page", Config, rewrite))
