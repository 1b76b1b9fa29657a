"""The flags of ``fstsim train`` that are settings of a channel: derived from the fields of learners, optimizer and fast channel.

Importing the learners imports torch: `fstsim.__main__` asks for these flags only when a training is asked for.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

import tyro

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.runs.config import METHODS
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.settings import type_hints

_C = TypeVar("_C")

_OF_PRESET = "problems"
"""The setting whose default is the preset's."""
_OF_ALL = "max_new_tokens"
"""The setting that the probe has as well: a flag of its own."""


@functools.cache  # reading a source takes long: once a file, where inspect.getsource of a class reads its file for each class
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module, by name."""
    return {
        each.name: each
        for each in ast.parse(inspect.getsource(sys.modules[module])).body
        if isinstance(each, ast.ClassDef)
    }


@functools.cache  # a class is asked for once a field
def field_help(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, its bases' included, in one line."""
    found = {}
    for kind in reversed(cls.__mro__):
        if not is_dataclass(kind):
            continue
        body = _classes(kind.__module__)[kind.__name__]
        for before, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                assert isinstance(before.target, ast.Name)
                found[before.target.id] = " ".join(str(after.value.value).split())
    return found


@functools.cache
def setting_fields(cls: Any) -> dict[str, Field[Any]]:
    """The fields of a channel's settings that are flags, by flag: the field's name, or what its metadata say."""
    flags = ((entry.metadata.get("flag", entry.name), entry) for entry in fields(cls))
    return {flag: entry for flag, entry in flags if flag}


def _users() -> dict[str, dict[str, type]]:
    """``{flag: {method: class that has the setting}}``, in the order of the methods."""
    users: dict[str, dict[str, type]] = {}
    for name, method in METHODS.items():
        optimizer = None if method.learner is None else OptimizerConfig
        for cls in (method.learner, PromptEvolution if method.evolves else None, optimizer):
            for flag in setting_fields(cls) if cls is not None else ():
                users.setdefault(flag, {})[name] = cls  # type: ignore[assignment]
    del users[_OF_ALL]
    return users


USERS: Mapping[str, Mapping[str, type]] = _users()
_WITH_WEIGHTS = tuple(name for name, method in METHODS.items() if method.learner is not None)
_WITH_BOTH = tuple(name for name in _WITH_WEIGHTS if METHODS[name].evolves)


def _help(flag: str, users: Mapping[str, type]) -> str:
    """What the setting is, and by which methods it is used; for each class in turn where they differ."""
    said: dict[str, list[str]] = {}
    for method, cls in users.items():
        said.setdefault(field_help(cls).get(setting_fields(cls)[flag].name, ""), []).append(method)
    if list(said.values()) in ([list(METHODS)], [list(_WITH_WEIGHTS)]):
        return next(iter(said))
    return "; ".join(f"{text} ({', '.join(methods)})" for text, methods in said.items())


def _default(flag: str, users: Mapping[str, type]) -> str:
    """What holds without the flag, for help."""
    if flag == _OF_PRESET:
        return "(default: the preset's)"
    values: dict[str, list[str]] = {}
    for method, cls in users.items():
        entry = setting_fields(cls)[flag]
        value = entry.default if entry.default is not MISSING else "..."
        shown = (
            "none"
            if value in ("", ())
            else "adapted"
            if value is None
            else f"{value:.4g}"
            if isinstance(value, float)
            else str(value)
        )
        values.setdefault(shown, []).append(method)
    if len(values) == 1:
        return f"(default: {next(iter(values))})"
    return "(default: " + ", ".join(f"{value} for {'/'.join(m)}" for value, m in values.items()) + ")"


@functools.cache
def with_settings(command: type[_C]) -> type[_C]:
    """The command `train` with a flag for every setting of every channel."""
    about = tyro.conf.arg(help="; ".join(f"{name}: {method.about}" for name, method in METHODS.items()))
    names: Any = Literal.__getitem__(tuple(METHODS))
    own: list[tuple[str, Any, Any]] = [("method", Annotated[names, about], field(default="rl"))]
    for flag, users in USERS.items():
        kinds = {type_hints(cls)[setting_fields(cls)[flag].name] for cls in users.values()}
        kind = kinds.pop()
        for other in kinds:
            kind |= other
        unset = False if kind is bool else None
        # without it tyro says `{None}|INT`, `{None,cispo,reinforce}` of a flag that may be left out
        choices = get_args(kind)
        metavar = (
            kind.__name__.upper()
            if kind in (int, float)
            else f"{{{','.join(choices)}}}"
            if kind is not bool and all(isinstance(c, str) for c in choices) and choices
            else None
        )
        arg = tyro.conf.arg(help=_help(flag, users), help_behavior_hint=_default(flag, users), metavar=metavar)
        own.append((flag, Annotated[kind if kind is bool else kind | None, arg], field(default=unset)))
    made = make_dataclass(command.__name__, own, bases=(command,), frozen=True, namespace={"__doc__": command.__doc__})
    made.__module__ = command.__module__
    return made


def _given(command: Any, flag: str) -> bool:
    value = getattr(command, flag)
    return value is not None and value is not False


def check_flags(command: Any) -> None:
    """InputError for a flag that the method does not use."""
    users: dict[str, tuple[str, ...]] = {flag: tuple(found) for flag, found in USERS.items()}
    users |= {"lr": _WITH_WEIGHTS, "clip": _WITH_WEIGHTS, "slow_steps_per_round": _WITH_BOTH}
    for flag, methods in users.items():
        if _given(command, flag) and command.method not in methods:
            name = flag.replace("_", "-")
            if len(methods) == 1:
                raise InputError(
                    f"--{name} is used by method {methods[0]} only; remove it, or choose --method {methods[0]}"
                )
            raise InputError(f"--{name} is used by methods {', '.join(methods)} only; remove it, or choose one of them")
    if _given(command, "inverse_temperature") and _given(command, "entropy_budget"):
        raise InputError("--inverse-temperature is fixed, --entropy-budget adapts it: give one of them")


def settings_of(command: Any, cls: Any) -> dict[str, Any]:
    """The settings of ``cls`` that the user gave, by field."""
    return {entry.name: getattr(command, flag) for flag, entry in setting_fields(cls).items() if _given(command, flag)}
