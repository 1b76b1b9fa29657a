"""What a training run is: method, tasks, settings of every channel, what is measured; and the presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from fstsim.errors import InputError
from fstsim.fast_slow import FastLearner, FrozenFast, FrozenSlow, SlowLearner
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.reflection import ReflectorConfig
from fstsim.llm.learners.distill import Distillation
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.learners.slow import PolicyGradient, SupervisedFineTuning
from fstsim.llm.learners.ttt import TTTDiscover
from fstsim.llm.policy.loading import SHIPPED
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.types import Population

Method = Literal["rl", "sft", "fst", "gepa", "distill", "sdft", "ttt", "oapl", "mixture"]
Preset = Literal["smoke", "small", "paper"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainConfig:
    """What is trained on what, and what is measured."""

    method: Method = "rl"
    """rl: policy gradient on verified rewards; sft: forward KL on demonstrations; gepa: evolved contexts alone; fst: both;
    distill: the policy without context learns from its start in ``context``; sdft: from its own average with a demonstration;
    ttt: entropic policy gradient; oapl: regression on a lagged policy's rollouts; mixture: distillation to a given mixture of
    old and new behaviour"""
    tasks: tuple[str, ...] = ("strings:reverse",)
    """tasks, one after the other in one uninterrupted run"""
    old: tuple[str, ...] = ()
    """tasks whose forgetting is measured, each in its own context"""
    problems_sha256: tuple[tuple[str, str], ...] = ()
    """(name, hash of the problems) of every task that its name alone does not fix, filled in when a run begins"""
    model: str = SHIPPED
    """the shipped base model, or any causal LM by path or hub name"""
    context: str = ""
    """context at the start: the seed of the population with fst and gepa, the teacher's with distill, frozen with all others"""
    steps: int = 200
    """slow steps on each task"""
    lr: float = 3e-4
    """learning rate of AdamW"""
    clip: float = 1.0
    """largest norm of a gradient that AdamW sees; longer ones are cut to it"""
    device: str = "cpu"
    """torch device"""
    precision: Precision = "float32"
    """of activations while learning, in sampling and scoring; weights, optimizer and probes are float32 always"""
    seed: int = 0
    """the one seed of the run"""
    slow: PolicyGradient = field(default_factory=PolicyGradient)
    """settings of rl"""
    demonstrations: SupervisedFineTuning = field(default_factory=SupervisedFineTuning)
    """settings of sft"""
    fast: PromptEvolution = field(default_factory=PromptEvolution)
    """settings of the fast channel (fst, gepa)"""
    reflector: ReflectorConfig = field(default_factory=ReflectorConfig)
    """who writes new contexts (fst, gepa)"""
    slow_steps_per_round: int = 6
    """slow steps between fast rounds (fst); gepa has a round a step"""
    distillation: Distillation = field(default_factory=Distillation)
    """settings of distill"""
    sdft: SDFT = field(default_factory=SDFT)
    """settings of sdft"""
    ttt: TTTDiscover = field(default_factory=TTTDiscover)
    """settings of ttt"""
    oapl: OAPL = field(default_factory=OAPL)
    """settings of oapl"""
    mixture: MixtureDistillation = field(default_factory=MixtureDistillation)
    """settings of mixture"""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """what is measured, and when"""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(f"method {self.method!r} is unknown; allowed: {', '.join(get_args(Method))}")
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        if not 0.0 < self.lr < 10.0:
            raise InputError(f"lr must be positive and below 10, got {self.lr}")
        if not self.clip > 0.0:
            raise InputError(f"clip must be positive, got {self.clip}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")
        if self.slow_steps_per_round < 1:
            raise InputError(f"slow_steps_per_round must be at least 1, got {self.slow_steps_per_round}")
        if not self.tasks:
            raise InputError("tasks must not be empty")
        if self.fast.reuse and (self.fast.max_new_tokens, 1.0) != (self.slow.max_new_tokens, self.slow.temperature):
            raise InputError("reuse needs slow temperature 1, and the same max_new_tokens in both channels")

    def learners(self) -> tuple[SlowLearner[Any, Population, Any], FastLearner[Any, Population, Any], int]:
        """Slow channel, fast channel, slow steps a round: the methods differ in these settings alone."""
        evolution: FastLearner[Any, Population, Any] = FrozenFast()
        if self.method in ("fst", "gepa"):
            evolution = replace(self.fast, reflector=self.reflector.build())
        slow: dict[Method, SlowLearner[Any, Population, Any]] = {
            "rl": self.slow,
            "fst": self.slow,
            "gepa": FrozenSlow(),
            "sft": self.demonstrations,
            "distill": replace(self.distillation, teacher_context=self.context),
            "sdft": self.sdft,
            "ttt": self.ttt,
            "oapl": self.oapl,
            "mixture": self.mixture,
        }
        return slow[self.method], evolution, 1 if self.method == "gepa" else self.slow_steps_per_round


PRESETS: dict[str, TrainConfig] = {
    "smoke": TrainConfig(
        steps=40,
        slow=PolicyGradient(problems=24),
        demonstrations=SupervisedFineTuning(problems=24),
        sdft=SDFT(problems=24),
        ttt=TTTDiscover(problems=24),
        oapl=OAPL(problems=24),
        mixture=MixtureDistillation(problems=24),
        probe=ProbeConfig(every=10, problems=32, exam=16),
    ),
    # so that on 2 cores the probes take less than a tenth of a run, even of one whose groups soon have no signal
    "small": TrainConfig(probe=ProbeConfig(every=200, problems=32, exam=8, early=8)),
    "paper": TrainConfig(
        steps=400,
        slow=PolicyGradient(problems=64),
        demonstrations=SupervisedFineTuning(problems=64),
        sdft=SDFT(problems=64),
        ttt=TTTDiscover(problems=64),
        oapl=OAPL(problems=64),
        mixture=MixtureDistillation(problems=64),
        probe=ProbeConfig(every=20, problems=256, exam=128),
    ),
}
