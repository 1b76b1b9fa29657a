"""The examples in the docstrings run and print what they say.

Not `pytest --doctest-modules`: that would import theory/ under the name `theory`, a second copy of `fstsim.theory`.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("fstsim", "fstsim.theory")


def module_names() -> list[str]:
    names = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [package, *(f"{package}.{module.name}" for module in pkgutil.iter_modules(path) if not module.ispkg)]
    return names


@pytest.mark.parametrize("name", module_names())
def test_docstring_examples(name: str) -> None:
    failures, _ = doctest.testmod(importlib.import_module(name))
    assert failures == 0
