"""Types of settings: what each annotation takes, what becomes of numpy's numbers and of lists, and what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from fstsim.errors import InputError
from fstsim.settings import check_types


@dataclass(frozen=True)
class Inner:
    x: int = 0


@dataclass(frozen=True)
class Settings:
    count: int = 1
    seed: int = 0
    rate: float = 0.5
    name: str = "a"
    on: bool = False
    kind: Literal["a", "b"] = "a"
    few: tuple[float, ...] = ()
    pair: tuple[str, int] = ("a", 1)
    maybe: int | None = None
    inner: Inner = field(default_factory=Inner)
    other: Any = None

    def __post_init__(self) -> None:
        check_types(self)


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ({"count": np.int64(3)}, 3),
        ({"rate": 2}, 2.0),
        ({"rate": np.float32(0.5)}, 0.5),
        ({"rate": math.inf}, math.inf),
        ({"few": [1, 2.5]}, (1.0, 2.5)),
        ({"pair": ["b", 2]}, ("b", 2)),
        ({"maybe": None}, None),
        ({"maybe": 3}, 3),
        ({"seed": 2**63 - 1}, 2**63 - 1),
        ({"other": object}, object),
    ],
)
def test_what_is_taken(given: dict[str, Any], held: Any) -> None:
    (name,) = given
    value = getattr(Settings(**given), name)
    assert value == held
    assert type(value) is type(held)


@pytest.mark.parametrize(
    "given",
    [
        *({"count": v} for v in ("1", 1.0, True, None, [1], 10**9 + 1, -(10**9) - 1, 10**5000)),
        *({"seed": v} for v in (2**63, 0.0, None)),
        *({"rate": v} for v in ("0.5", True, None, math.nan, 1j, 10**400, [0.5])),
        *({"name": v} for v in (None, 1, b"a", "\0", "\ud800", "x" * 100_001)),
        *({"on": v} for v in (1, 0, None, "yes")),
        *({"kind": v} for v in ("c", None, 1, ["a"], True)),
        *({"few": v} for v in (1.0, "12", None, ("1",), (None,), {1.0})),
        *({"pair": v} for v in (("a",), ("a", 1, 2), (1, "a"), "a1", None)),
        *({"maybe": v} for v in ("1", 1.5, True)),
        *({"inner": v} for v in (None, {"x": 1}, 1)),
    ],
)
def test_what_is_refused_names_the_field_in_one_line(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(InputError) as found:
        Settings(**given)
    assert str(found.value).startswith(name)
    assert len(str(found.value)) < 200
    assert "\n" not in str(found.value)
