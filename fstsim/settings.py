"""Types of settings, checked in one place from their annotations: what is built in Python meets the same rules as a flag."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fstsim.errors import InputError

_LARGEST = 10**9  # of a whole number that is no seed: more steps, samples or problems than anyone can wait for
_LARGEST_SEED = 2**63 - 1
_LONGEST = 100_000  # characters of a name or a context


def type_hints(kind: Any) -> Mapping[str, Any]:
    """Types of the fields of a dataclass by name, worked out once a class: annotations are texts, and reading them takes long."""
    return _type_hints(kind)


@functools.cache
def _type_hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def check_types(settings: Any) -> None:
    """InputError unless each field of the frozen dataclass ``settings`` is of its annotated type.

    numpy's numbers become Python's and lists tuples. Whole numbers are at most 10^9, those called seed below 2^63. Fields of
    other types than numbers, texts, choices, tuples and dataclasses are left alone.
    """
    hints = type_hints(type(settings))
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        held = _of_type(entry.name, value, hints[entry.name])
        if held is not value:
            object.__setattr__(settings, entry.name, held)


def _of_type(name: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind``; InputError if it is something else."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        if (
            not isinstance(value, (str, int))
            or value not in inner
            or isinstance(value, bool) != (value in (True, False))
        ):
            raise InputError(f"{name} must be one of {', '.join(map(str, inner))}; got {_shown(value)}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        kinds = [each for each in inner if each is not type(None)]
        return _of_type(name, value, kinds[0]) if len(kinds) == 1 else value
    if origin is tuple:
        return _tuple(name, value, inner)
    if kind in _SIMPLE:
        return _SIMPLE[kind](name, value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not isinstance(value, kind):
        raise InputError(f"{name} must be of type {kind.__name__}, got {_shown(value)}")
    return value


def _tuple(name: str, value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise InputError(f"{name} must be a tuple, got {_shown(value)}")
    if len(inner) == 2 and inner[1] is ...:
        return tuple(_of_type(name, item, inner[0]) for item in value)
    if len(value) != len(inner):
        raise InputError(f"{name} must have {len(inner)} parts, got {len(value)}")
    return tuple(_of_type(name, item, each) for item, each in zip(value, inner, strict=True))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputError(f"{name} must be a whole number, got {_shown(value)}")
    held, largest = int(value), _LARGEST_SEED if name == "seed" else _LARGEST
    if abs(held) > largest:
        raise InputError(f"{name} must be at most {largest}, got {_shown(held)}")
    return held


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} must be a number, got {_shown(value)}")
    try:
        held = float(value)
    except OverflowError:
        held = math.nan
    if math.isnan(held):
        raise InputError(f"{name} must be a number, got {_shown(value)}")
    return held


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text, got {_shown(value)}")
    if len(value) > _LONGEST:
        raise InputError(f"{name} must have at most {_LONGEST} characters, got {len(value)}")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InputError(f"{name} must be text that UTF-8 can hold, got {_shown(value)}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {_shown(value)}")
    return value


_SIMPLE = {int: _whole, float: _number, str: _text, bool: _flag}


def _shown(value: Any) -> str:
    try:
        text = ascii(value)
    except ValueError:  # a number of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
