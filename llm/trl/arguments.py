"""The arguments of TRL's trainer that a configuration of ours means, and those that a user may add to them."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

from trl.trainer.grpo_config import GRPOConfig

from fstsim.errors import InputError
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.runs.config import TrainConfig

_TOKENS_AT_ONCE = 65_536  # prompt and completion tokens of one forward and backward pass
_PASS = "per_device_train_batch_size"
"""Rollouts that a pass of one process holds."""
FREE = (
    _PASS,
    "use_vllm",
    "vllm_",
    "ddp_bucket",
    "ddp_find",
    "ddp_timeout",
    "dataloader_",
    "deepspeed",
    "torch_compile",
    "tf32",
    "pad_to_multiple_of",
    "cache_implementation",
)
"""What a user may set: names of arguments, or their beginnings. Everything else follows from the configuration."""
_TIMEOUT = 7200  # seconds that processes wait while the main one measures or evolves contexts
_FOLDER = "trl"
"""Folder in a run directory that holds the trainer's checkpoints until the run is finished."""


def checkpoints_of(out: Path) -> Path:
    """Where the trainer of the run in directory ``out`` writes."""
    return out / _FOLDER


def learner_of(config: TrainConfig) -> PolicyGradient:
    """The slow learner, which `fstsim.llm.runs.engines.check_trl` has seen."""
    assert isinstance(config.learner, PolicyGradient)
    return config.learner


def user_arguments(config: TrainConfig) -> dict[str, Any]:
    """What ``config.trl`` says, as Python values. Raises InputError for what is no such argument (`FREE`)."""
    known = {entry.name for entry in fields(GRPOConfig) if entry.init}
    told: dict[str, Any] = {}
    for text in config.trl:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InputError(f"--trl takes KEY=VALUE, got {text!r}")
        if name not in known or not name.startswith(FREE):
            raise InputError(
                f"--trl {text}: taken are arguments of GRPOConfig that say how TRL computes, not what: {', '.join(FREE)} "
                "(names, or how they begin)"
            )
        told[name] = _value(value)
    if not isinstance(told.get(_PASS, 1), int) or told.get(_PASS, 1) < 1:
        raise InputError(f"--trl {_PASS} must be a whole number of at least 1, got {told[_PASS]!r}")
    if not isinstance(told.get("ddp_timeout", 1), int) or told.get("ddp_timeout", 1) < 1:
        raise InputError(
            f"--trl ddp_timeout must be seconds, a whole number of at least 1, got {told['ddp_timeout']!r}"
        )
    return told


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def timeout_of(config: TrainConfig) -> int:
    """Seconds that a process waits for the others."""
    return int(user_arguments(config).get("ddp_timeout", _TIMEOUT))


def check_shares(config: TrainConfig, processes: int) -> int:
    """Rollouts of a step on each of so many ``processes``. Raises InputError unless they and their passes are equal."""
    learner = learner_of(config)
    whole = learner.problems * learner.rollouts
    if whole % processes:
        raise InputError(
            f"{learner.problems} problems x {learner.rollouts} rollouts = {whole} cannot be shared equally by {processes} processes: "
            "change --problems, --rollouts or the number of processes"
        )
    share = whole // processes
    given = user_arguments(config).get(_PASS)
    if given is not None and share % given:
        raise InputError(
            f"--trl {_PASS}={given} must divide the {share} rollouts of a step on each process ({whole} in all)"
        )
    return share


def rows_of_a_pass(config: TrainConfig, processes: int, width: int) -> int:
    """Rollouts of one pass of one process: the user's number, or the largest equal parts that hold no more than so many tokens.

    ``width`` is of a prompt, in tokens.
    """
    share = check_shares(config, processes)
    given = user_arguments(config).get(_PASS)
    if given is not None:
        return int(given)
    most = max(1, _TOKENS_AT_ONCE // (width + learner_of(config).max_new_tokens))
    return share // next(parts for parts in range(1, share + 1) if share % parts == 0 and share // parts <= most)


def trainer_arguments(config: TrainConfig, out: Path, processes: int, rows: int) -> GRPOConfig:
    """The arguments of the run of ``config`` in directory ``out``, ``rows`` rollouts a pass. Raises InputError where TRL refuses them."""
    told = user_arguments(config)
    passes = check_shares(config, processes) // rows
    try:
        backend = "gloo" if config.device == "cpu" and processes > 1 else None
        return GRPOConfig(**(_decided(config, out, rows, passes) | told | {_PASS: rows, "ddp_backend": backend}))
    except (ValueError, TypeError, ImportError) as error:
        what = f" {' '.join(config.trl)}" if config.trl else ""
        raise InputError(
            f"--engine trl{what}: TRL refuses its arguments: {' '.join(str(error).split())[:300]}"
        ) from error


def _decided(config: TrainConfig, out: Path, rows: int, passes: int) -> dict[str, Any]:
    learner = learner_of(config)
    on_cpu = config.device == "cpu"
    return {
        "output_dir": str(checkpoints_of(out)),
        "seed": config.seed,
        "loss_type": "cispo",
        "epsilon_high": learner.ratio_cap,
        # with an adapter TRL would keep a copy of it as the reference; `RunTrainer` takes the model without it
        "beta": 0.0 if config.adapter else learner.leash_loss,
        "use_bias_correction_kl": learner.kl_estimator_ratio,
        "num_generations": learner.rollouts,
        "num_iterations": learner.updates,
        "temperature": learner.temperature,
        "max_completion_length": learner.max_new_tokens,
        "max_steps": config.steps * len(config.tasks) * learner.updates,
        "learning_rate": config.lr,
        "max_grad_norm": config.clip,
        _PASS: rows,
        "gradient_accumulation_steps": passes,
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if config.gradient_checkpointing else None,
        "disable_dropout": True,
        "bf16": config.precision == "bfloat16",
        "fp16": False,
        "use_cpu": on_cpu,
        "ddp_timeout": _TIMEOUT,
        "dataloader_pin_memory": not on_cpu,
        # rows, checkpoints and the picture are written by the run itself
        "save_strategy": "no",
        "logging_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
        "log_level_replica": "error",
    }
