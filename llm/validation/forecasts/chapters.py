"""Which runs are forecast: pairs of task and learning rate that no run of the repository has used, and old skills of their own."""

from __future__ import annotations

from fstsim.llm.experiments.plan import Scale
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.validation.claim import Chapter
from fstsim.llm.validation.forecasts.foretold import Foretold, chapter

PROBLEMS = 32
"""Held-out problems of the task and of each old skill."""
NOISY = ForecastSettings(tolerance=0.5, most_batches=4, replicates=3)
"""Of few rollouts in few steps: two batches differ by more than a fifth of a nat."""
LEAN = ForecastSettings(batches=1, most_batches=1)
"""Two paths for the gradients of one."""


def _run(
    method: str, task: str, lr: float, at: tuple[int, ...], learner: Learner, old: tuple[str, ...], **more: object
) -> Foretold:
    probe = ProbeConfig(every=at[0], problems=PROBLEMS, exam=8, early=1000, relearn=0)
    name = f"forecast-{method}-{task.split(':')[1]}"
    settings = more.pop("settings", ForecastSettings())
    config = TrainConfig(
        method=method, tasks=(task,), old=old, steps=at[-1], lr=lr, learner=learner, probe=probe, **more  # type: ignore[arg-type]
    )  # fmt: skip
    return Foretold(name, config, at, settings)  # type: ignore[arg-type]


FORETOLD = (
    _run(
        "sft", "digits:negate", 2e-4, (3, 6, 12, 24), SupervisedFineTuning(problems=16, replay_share=0.1),
        ("digits:plus", "digits:shift", "strings:rotate", "star_graph:up"),
    ),
    _run(
        "sft", "strings:mirror", 5e-5, (20, 40, 60, 80), SupervisedFineTuning(problems=24),
        ("star_graph:cross", "strings:reverse", "strings:sort", "digits:plus", "digits:shift"),
    ),
    _run(
        "sft", "digits:triple", 2e-5, (50, 100, 150, 300), SupervisedFineTuning(problems=24),
        ("digits:plus", "digits:negate", "strings:reverse", "star_graph:cross"),
    ),
    _run(
        "rl", "digits:negate", 1e-4, (4, 8, 12, 20), PolicyGradient(problems=24, leash_loss=0.05),
        ("digits:plus", "digits:shift", "strings:reverse", "star_graph:cross"),
    ),
)  # fmt: skip
"""SFT with replay, of a hard rule, and slowly; RL with a leash. The first is that of the smallest scale."""

FURTHER = (
    _run(
        "rl", "strings:ends", 1.5e-4, (6, 12, 18, 24), PolicyGradient(problems=32),
        ("strings:reverse", "digits:triple", "star_graph:roll"), settings=NOISY,
    ),
    _run(
        "rl", "digits:lead", 1.5e-4, (6, 12, 18, 24), PolicyGradient(problems=20, leash_reward=0.1),
        ("digits:shift", "strings:sort", "star_graph:cross"), settings=NOISY,
    ),
    _run(
        "rl", "star_graph:forward", 2e-4, (5, 10, 15, 20), PolicyGradient(problems=32),
        ("star_graph:roll", "strings:rotate", "digits:plus"), settings=NOISY, context="forward",
    ),
    _run(
        "sft", "strings:pairs", 7e-4, (10, 20, 30, 40), SupervisedFineTuning(problems=16),
        ("strings:mirror", "digits:negate", "star_graph:roll"), adapter="lora:r=8",
    ),
    _run(
        "sft", "star_graph:roll", 1.5e-5, (75, 150, 225, 300), SupervisedFineTuning(problems=20),
        ("star_graph:cross", "strings:next", "digits:negate"),
        settings=LEAN, optimizer=OptimizerConfig(schedule="cosine", warmup=15),
    ),
)  # fmt: skip
"""RL without a leash and with one in the reward; RL in the context that fast-slow training evolves for the task and keeps; SFT of
an adapter; SFT with a schedule, slowly."""


def forecasts(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001 -- what is forecast waits until the chapter is chosen
    """Reward, log old mass and old prompts of runs by coarse Adam, written before the runs."""
    return chapter(FORETOLD[:1] if scale == "smoke" else FORETOLD)


def forecasts_further(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001 -- see above
    """The same of methods that the first chapter leaves out."""
    return chapter(() if scale == "smoke" else FURTHER)
