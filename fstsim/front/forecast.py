"""`fstsim forecast`: what a training will learn and forget, before it is run; and held against a run made afterwards."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from fstsim.errors import InputError
from fstsim.front.command import Directory, in_own_directory, quiet
from fstsim.front.console import Progress, show
from fstsim.front.forecast_table import check_table, forecast_tables, grid_table
from fstsim.front.train import Train
from fstsim.reading import is_there, understood

_Lr = Annotated[
    tuple[float, ...],
    tyro.conf.arg(metavar="FLOAT [FLOAT ...]", help_behavior_hint="(default: the preset's)"),
]
_Steps = Annotated[
    tuple[int, ...],
    tyro.conf.arg(metavar="INT [INT ...]", help_behavior_hint="(default: 1/16, 1/8, 1/4, 1/2, 3/4 and all of the run)"),
]
_Limit = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: no recommendation)")]
_Run = Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: none)")]


@dataclass(frozen=True)
class Forecast(Train):
    """Forecast a training before it is run: reward, old mass, KL and forgetting of each old skill, from a few gradients."""

    out: Directory = Path("out/forecast")
    """directory; with several settings, one directory a setting in it. What is in it is not forecast again"""
    lr: _Lr = ()  # type: ignore[assignment]
    """learning rate; several are a grid"""
    at: _Steps = ()
    """steps of the run that are looked at"""
    tolerance: float = 0.2
    """most nats, root mean square over control prompts, by which two orders of the integrator may differ in a piece"""
    batches: int = 2
    """batches at each aim; up to 6 are drawn where the mean gradient is within its noise"""
    replicates: int = 2
    """independent forecasts from different batches, whose mean is the forecast; with 1 half the cost, and wider intervals"""
    shortest: int = 2
    """slow steps of the shortest piece; with 1 a forecast never loses its way, and may cost more than the run"""
    at_most_forgetting: _Limit = None
    """recommend the setting, and the step to stop at, that learns most while the reward lost on the old skills (without --old:
    the share of the old answers' mass) stays below it"""
    check: _Run = None
    """directory of one finished run (seed-k) that the forecast in --out is held against"""
    rerun: bool = False
    """with --check: make the run again, to hold every prompt against the forecast at every step and not at the end alone"""
    seeds: tyro.conf.Suppress[int] = 1
    no_model: tyro.conf.Suppress[bool] = False
    slow_steps_per_round: tyro.conf.Suppress[int | None] = None
    reflector: tyro.conf.Suppress[Literal["self", "openai", "local"]] = "self"
    base_url: tyro.conf.Suppress[str] = ""
    reflector_model: tyro.conf.Suppress[str] = ""
    reflector_timeout: tyro.conf.Suppress[float] = 60.0
    reflector_tokens: tyro.conf.Suppress[int] = 0
    probe_every: tyro.conf.Suppress[int | None] = None
    probe_relearn: tyro.conf.Suppress[int | None] = None
    stopped: ClassVar[str] = "stopped; every finished piece is kept, continue with"

    @in_own_directory
    def run(self) -> int:
        """Forecast, recommend, compare and show."""
        from fstsim.llm.forecast.config import ForecastConfig
        from fstsim.llm.forecast.recommend import recommend
        from fstsim.llm.forecast.settings import ForecastSettings

        quiet()
        if self.rerun and self.check is None:
            raise InputError("--rerun is used with --check only")
        settings = ForecastSettings(
            tolerance=self.tolerance,
            batches=self.batches,
            most_batches=max(self.batches, ForecastSettings().most_batches),
            shortest=self.shortest,
            replicates=self.replicates,
        )
        grid = {name: ForecastConfig(config, self.at, settings) for name, config in self._grid().items()}
        if self.check is not None and len(grid) > 1:
            raise InputError("--check holds one forecast against one run: give one value of each setting")
        if self.check is not None:
            from fstsim.llm.forecast.compare import check_same
            from fstsim.llm.runs.run_input import with_tasks

            check_same(with_tasks(next(iter(grid.values())).train)[0], self.check)
        if self.at_most_forgetting is not None:
            recommend({}, self.at_most_forgetting)  # what is wrong with the limit is said before any work
        found = self._forecasts(grid)
        if self.check is not None:
            return self._held_against(next(iter(found.values())), self.check)
        for name, each in found.items():
            show(
                *forecast_tables(each.to_dict(), f"{self._where(name)}: {self._title(grid[name])}"),
                *self._pictured(name, each),
            )
        if len(found) > 1 or self.at_most_forgetting is not None:
            choice = None if self.at_most_forgetting is None else recommend(found, self.at_most_forgetting)
            show(*grid_table(found, self.at_most_forgetting, choice))
        return 0

    def _grid(self) -> dict[str, Any]:
        """Configuration of each setting, by what differs between them."""
        from fstsim.front.train_flags import with_settings

        train = with_settings(Train)
        given = {entry.name: getattr(self, entry.name) for entry in fields(train) if entry.name not in _AXES}
        found: dict[str, Any] = {}
        values = [getattr(self, axis, ()) or (None,) for axis in _AXES]
        for point in itertools.product(*values):
            varied = [
                f"{a.replace('_', '-')}-{v:g}" for a, v, all_ in zip(_AXES, point, values, strict=True) if len(all_) > 1
            ]
            name = "_".join(varied)
            if name in found:
                raise InputError(f"the grid has {name} twice")
            found[name] = train(**given, **dict(zip(_AXES, point, strict=True)))._config()
        return found

    def _where(self, name: str) -> Path:
        return self.out / name if name else self.out

    def _title(self, config: Any) -> str:
        train = config.train
        return f"{train.method} on {train.tasks[0]} from {train.model}, {train.steps:,} steps at learning rate {train.lr:g}"

    def _forecasts(self, grid: dict[str, Any]) -> dict[str, Any]:
        from fstsim.llm.forecast.forecast import forecast

        each = max(config.train.steps * config.settings.replicates for config in grid.values())
        found = {}
        with contextlib.closing(Progress("forecast", each * len(grid), "steps of the paths")) as progress:
            for k, (name, config) in enumerate(grid.items()):
                at = lambda step, note, first=k * each: progress.at(first + step, note)  # noqa: E731
                kept = self._where(name) / "forecast.json"
                # what is there is only loaded, and may be anything
                with understood(kept) if is_there(kept) else contextlib.nullcontext():
                    found[name] = forecast(config, self._where(name), at)
                    forecast_tables(found[name].to_dict(), "")
                progress.at((k + 1) * each)
        return found

    def _pictured(self, name: str, found: Any) -> list[str]:
        from fstsim.paper.records.forecast_picture import save_forecast_picture

        picture = save_forecast_picture(found.to_dict(), self._title(found.config), self._where(name) / "picture.png")
        return [f"picture: {picture}"]

    def _held_against(self, found: Any, run: Path) -> int:
        from fstsim.llm.forecast.compare import compare
        from fstsim.paper.records.forecast_picture import save_check_picture
        from fstsim.records import write_json

        with contextlib.closing(Progress("run again", found.config.train.steps, "steps")) as progress:
            held = compare(found, run, rerun=self.rerun, progress=progress.at)
        write_json(self.out / "check.json", held)
        picture = save_check_picture(held, f"forecast in {self.out} against {run}", self.out / "check.png")
        show(check_table(held, f"{run} against the forecast in {self.out}"), f"picture: {picture}")
        return 0


_AXES = ("lr", "replay_share")
"""Settings of which a grid may be given."""
