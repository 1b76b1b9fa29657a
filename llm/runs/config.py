"""What a training run is: method, tasks, settings of the channels that run, what is measured; and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from fstsim.errors import InputError
from fstsim.fast_slow import FastLearner, FrozenFast, FrozenSlow, SlowLearner
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.reflectors import ReflectorConfig
from fstsim.llm.learners import LEARNERS
from fstsim.llm.learners.learner import Learner
from fstsim.llm.policy.adapters import LoraSettings
from fstsim.llm.policy.loading import SHIPPED
from fstsim.llm.runs.engines import Engine, check_trl
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.types import Population
from fstsim.settings import check_types

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Method:
    """Which channels move: ``learner`` the weights (None: they stay), ``evolves`` the contexts."""

    about: str
    learner: type[Learner] | None
    evolves: bool = False


METHODS: Mapping[str, Method] = {
    **{name: Method(learner.about, learner) for name, learner in LEARNERS.items()},
    "gepa": Method("contexts evolved by reflection, weights frozen", None, evolves=True),
    "fst": Method("fast-slow training: rl on the weights, gepa on the contexts", LEARNERS["rl"], evolves=True),
}
"""Every method: the slow learners alone, the fast channel alone, and both."""


@dataclass(frozen=True)
class TrainConfig:
    """What is trained on what, and what is measured.

    ``learner``, ``fast`` and ``reflector`` are those of the method: left out, they have their defaults; a channel that the
    method does not move is None.
    """

    method: str = "rl"
    """one of `METHODS`"""
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
    """learning rate"""
    clip: float = 1.0
    """largest norm of a gradient that the optimizer sees; longer ones are cut to it"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """how gradients become steps"""
    adapter: str = ""
    """adapter that is trained in place of all weights, as lora:r=16; none: all weights are trained"""
    gradient_checkpointing: bool = False
    """compute activations a second time in the backward pass in place of holding them"""
    device: str = "cpu"
    """torch device"""
    precision: Precision = "float32"
    """of activations while learning, in sampling and scoring; weights, optimizer and probes are float32 always"""
    seed: int = 0
    """the one seed of the run"""
    learner: Learner | None = None
    """settings of the slow channel"""
    fast: PromptEvolution | None = None
    """settings of the fast channel"""
    reflector: ReflectorConfig | None = None
    """who writes new contexts"""
    slow_steps_per_round: int = 6
    """slow steps between fast rounds (fst); gepa has a round a step"""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """what is measured, and when"""
    engine: Engine = "own"
    """who samples and updates: the laboratory's loop, or TRL's trainer"""
    trl: tuple[str, ...] = ()
    """further arguments of TRL's trainer (`trl.GRPOConfig`), each KEY=VALUE"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r} is unknown; allowed: {', '.join(METHODS)}")
        self._fill_channels(METHODS[self.method])
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")
        if self.adapter:
            LoraSettings.parse(self.adapter)
            if METHODS[self.method].learner is None:
                raise InputError(
                    f"--adapter is used by methods that train weights; {self.method} leaves them as they are"
                )
        if self.learner is not None and self.learner.deploys:
            for flag, on in {
                "--adapter": self.adapter,
                "--gradient-checkpointing": self.gradient_checkpointing,
            }.items():
                if on:
                    raise InputError(
                        f"{flag} is used by methods that train weights; {self.method} leaves them as they are"
                    )
            if self.precision != "float32":
                raise InputError(
                    f"--precision {self.precision} is used by methods that train weights; {self.method} has float32 alone"
                )
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
        self.optimizer.check(self.steps * len(self.tasks))
        if self.engine == "trl":
            check_trl(self.method, self.learner, self.fast, self.device)
        elif self.trl:
            raise InputError("--trl is used with --engine trl only: remove it, or choose that engine")
        if self.fast is not None and self.learner is not None:
            asked = asdict(self.learner)
            if self.fast.dead_only and asked["dead_groups"] != "context":
                raise InputError("--dead-only needs --dead-groups context: slow steps note what is unsolved")
            if self.fast.reuse and asked["dead_groups"] == "context":
                raise InputError("--reuse goes without --dead-groups context: a step asks without context first")
        elif self.fast is not None and self.fast.dead_only:
            raise InputError(
                "--dead-only is used by method fst only: with frozen weights no step notes what is unsolved"
            )
        if self.fast is not None and self.fast.reuse and self.learner is not None:
            sampled = asdict(self.learner)
            if (self.fast.max_new_tokens, 1.0) != (sampled["max_new_tokens"], sampled["temperature"]):
                raise InputError("--reuse needs --temperature 1, and the same max_new_tokens in learner and contexts")

    def _fill_channels(self, method: Method) -> None:
        """Defaults for channels of the method that were left out; InputError for one that it does not have."""
        wanted = {
            "learner": method.learner,
            "fast": PromptEvolution if method.evolves else None,
            "reflector": ReflectorConfig if method.evolves else None,
        }
        for name, kind in wanted.items():
            given = getattr(self, name)
            if given is None and kind is not None:
                object.__setattr__(self, name, kind())
            elif given is not None and type(given) is not kind:
                has = "has no such channel" if kind is None else f"takes {kind.__name__}"
                raise InputError(f"{name} is {type(given).__name__}, but method {self.method} {has}")

    @property
    def max_new_tokens(self) -> int:
        """Longest completion that every channel can write, tokens; where none writes, that of the probe."""
        parts = [asdict(part) for part in (self.learner, self.fast) if part is not None]
        limits = [part["max_new_tokens"] for part in parts if "max_new_tokens" in part]
        return int(min(limits, default=self.probe.max_new_tokens))

    def begin(self) -> tuple[SlowLearner[Any, Population, Any], str]:
        """The slow channel, and the context that the run starts in."""
        return (FrozenSlow(), self.context) if self.learner is None else self.learner.begin(self.context)

    def evolution(self) -> tuple[FastLearner[Any, Population, Any], int]:
        """The fast channel, and slow steps a round. Raises InputError where its reflector cannot be had."""
        if self.fast is None or self.reflector is None:
            return FrozenFast(), self.slow_steps_per_round
        every = 1 if self.learner is None else self.slow_steps_per_round
        return replace(self.fast, reflector=self.reflector.build()), every

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> TrainConfig:
        """From what JSON made of `dataclasses.asdict`. Raises InputError, TypeError or KeyError where it is none."""
        held = dict(recorded)
        method = METHODS[held["method"]]
        held["tasks"] = tuple(held["tasks"])
        held["old"] = tuple(held.get("old", ()))
        held["trl"] = tuple(held.get("trl", ()))
        held["problems_sha256"] = tuple(map(tuple, held.get("problems_sha256", ())))
        held["probe"] = ProbeConfig(**held["probe"])
        held["optimizer"] = OptimizerConfig(**held.get("optimizer", {}))
        held["learner"] = None if method.learner is None else method.learner(**_tuples(held["learner"]))
        if method.evolves:
            held["fast"] = PromptEvolution(**{k: v for k, v in held["fast"].items() if k != "reflector"})
            held["reflector"] = ReflectorConfig(**held["reflector"])
        return cls(**held)


def _tuples(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where settings have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()}


@dataclass(frozen=True)
class Preset:
    """How large a run is: slow steps on each task, problems a step, and what is measured."""

    about: str
    steps: int
    problems: int
    probe: ProbeConfig

    def config(self, method: str) -> TrainConfig:
        """A run of ``method`` at this size."""
        config = TrainConfig(method=method, steps=self.steps, probe=self.probe)
        learner = config.learner
        if learner is None:
            return config
        if hasattr(learner, "problems"):
            learner = replace(learner, problems=self.problems)  # type: ignore[call-arg]
        return replace(config, lr=learner.rate, learner=learner)


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset("under a minute a seed on 2 cores", 40, 24, ProbeConfig(every=10, problems=32, exam=16)),
    # so that on 2 cores the probes take less than a tenth of a run, even of one whose groups soon have no signal
    "small": Preset("minutes", 200, 48, ProbeConfig(every=200, problems=32, exam=8, early=8)),
    "paper": Preset("for a GPU", 400, 64, ProbeConfig(every=20, problems=256, exam=128)),
}
