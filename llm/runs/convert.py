"""Configurations of older runs in the form that is read today (``python -m fstsim.paper.records.convert`` rewrites them).

Until 2026-11-26 a configuration held the settings of every learner, and some settings had other names. What is written is
the one learner that ran; a setting that did not exist yet keeps its default. A file that is of today is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fstsim.llm.runs.config import METHODS, TrainConfig
from fstsim.reading import understood
from fstsim.records import plain, read_json, write_json

_OLD_FIELD = {
    "rl": "slow",
    "fst": "slow",
    "sft": "demonstrations",
    "distill": "distillation",
    "sdft": "sdft",
    "ttt": "ttt",
    "oapl": "oapl",
    "mixture": "mixture",
}
"""Where the settings of a method's learner were."""
_RENAMED: Mapping[str, Mapping[str, str]] = {
    "sft": {"replay": "replay_share"},
    "sdft": {"anchor": "teacher_share", "anchor_sees": "base_sees"},
    "ttt": {"budget": "entropy_budget"},
    "oapl": {"anchor": "lagged_share"},
    "fast": {"budget": "rollout_budget"},
    "reflector": {"budget": "call_budget"},
}
"""Settings by today's names."""


def _renamed(what: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    names = _RENAMED.get(what, {})
    return {names.get(name, name): value for name, value in settings.items()}


def is_old(config: Any) -> bool:
    """Whether ``config`` is the recorded configuration of a training run in the old form."""
    return isinstance(config, dict) and "method" in config and "slow" in config


def converted(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the old form (`is_old`) as one of today. Raises KeyError for an unknown method."""
    method = config["method"]
    kept = {name: value for name, value in config.items() if name in {entry.name for entry in fields(TrainConfig)}}
    kept["learner"] = _renamed(method, config.get(_OLD_FIELD.get(method, ""), {}))
    for channel in ("fast", "reflector"):
        kept[channel] = _renamed(channel, config[channel]) if METHODS[method].evolves else None
    return dict(plain(asdict(TrainConfig.from_dict(kept))))


def convert(directories: Sequence[Path]) -> list[Path]:
    """Rewrite every old ``config.json`` below ``directories``; returns those that were rewritten."""
    changed = []
    for directory in directories:
        for path in sorted(directory.rglob("config.json")):
            config = read_json(path)
            if is_old(config):
                with understood(path):
                    held = converted(config)
                write_json(path, held)
                changed.append(path)
    return changed
