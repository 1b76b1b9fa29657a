"""The dictionary of names (paper/docs/names.md) against the code: every flag and name on it exists, every setting is on it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import fstsim
import fstsim.llm
from fstsim.front.train import Train
from fstsim.front.train_flags import USERS, with_settings
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.reflectors import ReflectorConfig
from fstsim.llm.learners import LEARNERS

PAGE = Path(__file__).resolve().parents[2] / "paper/docs/names.md"
TEXT = PAGE.read_text(encoding="utf-8")
# of words that are in both worlds, the mixture's come first on the page
MIXTURE, _, MODEL = TEXT.partition("## All slow learners")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in MODEL.splitlines() if "| `--" in line]
SETTINGS = {cls.__name__: cls for cls in (*LEARNERS.values(), PromptEvolution, ReflectorConfig)}


def flags(text: str) -> set[str]:
    return {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]*)", text)}


def test_every_flag_exists() -> None:
    there = {field.name for field in dataclasses.fields(with_settings(Train))}  # type: ignore[arg-type]
    assert flags(TEXT) - there == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2])
def test_methods_of_a_flag(row: list[str]) -> None:
    (flag,) = flags(row[2])
    if flag in USERS:
        assert row[-1].split(", ") == list(USERS[flag])


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z]\w+\.\w+)`", MODEL))))
def test_fields_of_settings_exist(name: str) -> None:
    cls, field = name.split(".")
    assert field in {entry.name for entry in dataclasses.fields(SETTINGS[cls])}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z]\w+\.\w+)`", MIXTURE))))
def test_names_of_the_mixture_exist(name: str) -> None:
    cls, field = name.split(".")
    kind = getattr(fstsim, cls)
    assert hasattr(kind, field) or field in kind.__annotations__


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`fstsim\.(?:llm\.)?\w+`", TEXT))))
def test_modules_export_what_is_named(name: str) -> None:
    *_, last = name.strip("`").split(".")
    assert hasattr(fstsim.llm if ".llm." in name else fstsim, last) or last == "llm"
