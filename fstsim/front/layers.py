"""`fstsim layers`: which layers hold what a training changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro
from rich import box
from rich.table import Table
from rich.text import Text

from fstsim.front.command import Directory, in_own_directory, quiet
from fstsim.front.console import Progress, show
from fstsim.number_text import terminal_number

_Runs = tyro.conf.Positional[
    Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")]
]
_Model = Annotated[str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="(default: the base of the runs)")]


@dataclass(frozen=True)
class Layers:
    """Put the base's weights back layer by layer into trained models: what returns of old skills, what goes of the new task."""

    runs: _Runs
    """finished runs of one training: the directory of one seed, or of all"""
    out: Directory = Path("out/layers")
    """directory; what is measured in it is not measured again"""
    model: _Model = None
    """where the base is now, if it has moved since"""
    parts: tuple[Literal["layer", "ends", "block", "stack"], ...] = ("layer", "ends", "block", "stack")
    """what is put back: whole layers, the ends (embeddings, output side), blocks of a layer, stacks of layers; a model of many
    layers has hundreds of parts"""
    stopped: ClassVar[str] = "stopped; the runs that are measured are kept, continue with"

    @in_own_directory
    def run(self) -> int:
        """Measure and show."""
        from fstsim.llm.measure.restored_runs import means, restore_runs, total_parts
        from fstsim.paper.records.layers.picture import save_layers_picture

        quiet()
        total = total_parts(self.runs, self.model, self.parts)
        with contextlib.closing(Progress("layers", total, "measurements")) as progress:
            found = restore_runs(self.runs, self.out, progress.at, model=self.model, groups=self.parts)
        picture = save_layers_picture(found, self.out / "picture.png")
        show(layers_table(means(found), found), f"picture: {picture}; every row: {self.out / 'layers.json'}")
        return 0


def layers_table(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> Table:
    """The trained model, the base, and each layer and end restored alone: means over runs with half their intervals."""
    from fstsim.llm.measure.restored_runs import forgotten_column

    lost = forgotten_column(rows)
    columns = {"reward": "reward", "old_mass": "old mass", "kl_to_base": "KL to base"}
    columns |= {lost: "lost on old skills"} if lost is not None else {}
    columns = {name: text for name, text in columns.items() if name in rows[0]}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    title = f"{found['method']} on {', '.join(found['tasks'])}, {len(found['runs'])} run{'s' * (len(found['runs']) > 1)}: base's weights put back"
    table.title, table.title_justify = Text(title), "left"
    table.add_column("restored", no_wrap=True)
    for text in ("numbers", *columns.values()):
        table.add_column(text, justify="right")
    for row in rows:
        if row["kind"] in ("none", "all", "ends", "layer"):
            table.add_row(Text(row["part"]), f"{row['parameters']:,}", *(_cell(row[name]) for name in columns))
    return table


def _cell(values: Sequence[float]) -> str:
    mean, low, high = values
    half = (high - low) / 2.0
    return terminal_number(mean) + (f" ± {half:.1g}" if half == half else "")
