"""`fstsim measure`: given checkpoints against their base, as a table, a picture, a report card and a gate."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fstsim.errors import InputError
from fstsim.front.command import Directory, in_own_directory, quiet
from fstsim.front.console import Progress, complain, show
from fstsim.front.measure_table import lm_eval_table, measure_table
from fstsim.reading import understood
from fstsim.records import claimed_directory, environment, plain, write_json

_Checkpoints = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required, but with --lm-eval)")
]
_Set = Annotated[str, tyro.conf.arg(metavar="TASK", help_behavior_hint="(default: none)")]
_Folders = Annotated[
    tuple[Path, Path] | None, tyro.conf.arg(metavar="BASE_DIR CHECKPOINT_DIR", help_behavior_hint="(default: none)")
]
_Limit = Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: no limit)")]


@dataclass(frozen=True)
class Measure:
    """Measure what a training changed: KL from the base, success, forgetting, flips, pass@k and weights of given checkpoints."""

    checkpoint: _Checkpoints = ()
    """full models by path or hub name, or folders of adapters (PEFT) that were trained on the base"""
    base: str = "base"
    """the model that the checkpoints came from: the shipped base model, or any causal LM by path or hub name"""
    new: _Set = ""
    """what was trained, named as for fstsim train --task; shown without context"""
    old: _Set = ""
    """what should not be forgotten, named in the same way; shown in its own context (its rule in words, or that of its file)"""
    out: Directory = Path("out/measure")
    """directory; what is measured in it is not measured again"""
    problems: int = 64
    """test problems of each set"""
    samples: int = 8
    """sampled completions of each problem: KL, entropy and pass@k are of them"""
    max_new_tokens: int = 64
    """longest completion, tokens"""
    seed: int = 0
    """random numbers of sampling, the same for every model"""
    device: str = "cpu"
    """torch device, for example cuda"""
    relearn: _Set = ""
    """a task that a copy of base and of each checkpoint learns, named in the same way: steps until it knows half of it"""
    relearn_lr: float = 1e-3
    """learning rate of that; 1e-5 suits pretrained models"""
    lm_eval: _Folders = None
    """instead of models: two outputs of lm-eval --log_samples, of which paired flips are reported"""
    at_most_kl: _Limit = None
    """exit with 1 if KL(now || base) of a checkpoint on a set is above it, nats a sequence"""
    at_most_forgetting: _Limit = None
    """exit with 1 if the mean reward that a checkpoint lost on the old set is above it"""
    stopped: ClassVar[str] = "stopped; what is measured is kept, continue with"

    @in_own_directory
    def run(self) -> int:
        """Measure and show; 1 if a limit was passed."""
        if self.lm_eval is not None:
            return self._compare(*self.lm_eval)
        from fstsim.llm.measure.config import MeasureConfig, MeasureSettings
        from fstsim.llm.measure.gate import Limits
        from fstsim.llm.measure.measure import measurements, run_measure

        quiet()
        settings = MeasureSettings(self.problems, self.samples, self.max_new_tokens, self.seed)
        config = MeasureConfig(self.base, self.new, self.old, settings, self.device, self.relearn, self.relearn_lr)
        limits = Limits(self.at_most_kl, self.at_most_forgetting)
        limits.check(tuple(config.sets))
        total = measurements(config, len(self.checkpoint))
        with contextlib.closing(Progress("measure", total, "measurements")) as progress:
            measured = run_measure(config, self.checkpoint, self.out, progress.at)
        from fstsim.paper.records.measure_card import write_measure_card
        from fstsim.paper.records.measure_picture import save_measure_picture

        with understood(self.out / "cache"):
            passed = limits.passed(measured["checkpoints"])
            picture = save_measure_picture(measured, self.out / "picture.png")
            card = write_measure_card(measured, passed if limits.set else None, picture, self.out / "card.html")
            table = measure_table(measured)
        if errors := measured.get("verifier_errors"):
            complain(f"the verifier failed {errors['count']} times, each scored 0; first: {errors['first']}")
        show(table, f"picture: {picture}; report card: {card}")
        if passed:
            complain("; ".join(passed))
        return int(bool(passed))

    def _compare(self, base: Path, checkpoint: Path) -> int:
        """Show what flipped between two outputs of lm-eval."""
        from fstsim.llm.measure.lm_eval import compare_lm_eval

        models = {
            f"--{name}": value for name, value in vars(self).items() if name in ("checkpoint", "new", "old", "relearn")
        }
        if given := [flag for flag, value in models.items() if value]:
            raise InputError(f"--lm-eval reads what lm-eval wrote and measures no models: leave {given[0]} out")
        compared = plain(compare_lm_eval(str(base), str(checkpoint)))
        config = {"lm_eval": [str(base), str(checkpoint)]}
        with claimed_directory(self.out, config, environment(0, "cpu"), "comparison of lm-eval samples"):
            write_json(self.out / "lm_eval.json", compared)
        show(lm_eval_table(compared), f"all numbers: {self.out / 'lm_eval.json'}")
        return 0
