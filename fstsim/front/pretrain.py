"""`fstsim pretrain`: the base model from scratch. torch is imported when it runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from fstsim.front.command import CONTINUE, Directory, OfPreset, OfPresetInt, given, in_own_directory, quiet
from fstsim.front.console import Progress, show
from fstsim.reading import read_text


@dataclass(frozen=True)
class Pretrain:
    """Train a base model of the laboratory, or continue a training that was stopped."""

    preset: Literal["smoke", "tiny", "small", "medium", "scratch"] = "small"
    """smoke: seconds, to see it run; tiny: the shipped model that steers (--expert-base tiny), 4 minutes on 2 cores; small: the
    shipped model base, 15 minutes on 2 cores; medium: for a GPU; scratch: goes on from the shipped model so that it can write
    chains, 15 minutes on one free core"""
    out: Directory = Path("out/base")
    """directory of the model"""
    steps: OfPresetInt = None
    """updates of the weights"""
    seed: int = 0
    """seed of weights and data"""
    precision: OfPreset[Literal["float32", "bfloat16"]] = None
    """precision of activations; tiny and scratch use float32, the other presets bfloat16"""
    device: str = "cpu"
    """torch device, for example cuda"""
    stopped: ClassVar[str] = CONTINUE

    @in_own_directory
    def run(self) -> int:
        """Train it."""
        from fstsim.llm.policy.loading import check_device
        from fstsim.llm.pretraining.config import PRESETS
        from fstsim.llm.pretraining.pretrain import pretrain

        quiet()
        check_device(self.device)
        config = replace(PRESETS[self.preset], seed=self.seed, **given(self, ("steps", "precision")))
        with contextlib.closing(Progress("pretrain", config.steps, "steps")) as progress:
            pretrain(config, self.out, device=self.device, progress=progress.at)
        show(read_text(self.out / "README.md").rpartition("---\n")[2], f"model: {self.out}")
        return 0
