"""The predictions of the recorded scale, made once for the tests that look at them: each takes seconds of the base model."""

from __future__ import annotations

import functools
from typing import Any

from fstsim.llm.validation.base import Base
from fstsim.llm.validation.validate import all_chapters


@functools.cache
def small_chapters() -> Any:
    """`all_chapters` at the scale of small from the shipped model; nobody changes them."""
    base = Base.load("base")
    base.model.eval()
    return all_chapters("small", base)
