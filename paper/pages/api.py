"""Pages of the public names: one a module, each name rendered from its docstring by mkdocstrings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """One page: the public names of a module, under the headings ``groups``."""

    module: str
    title: str
    about: str
    groups: Mapping[str, Sequence[str]]

    @property
    def page(self) -> str:
        """Its place in the documentation."""
        return f"api/{self.module}.md"

    def text(self) -> str:
        """Markdown with a directive a name."""
        parts = [f"# {self.title}\n\n{self.about}\n"]
        for group, names in self.groups.items():
            parts.append(f"## {group}\n")
            parts += [f"::: {self.module}.{name}\n" for name in names]
        return "\n".join(parts)


def _theory_groups() -> dict[str, list[str]]:
    """Names of `fstsim.theory` by the module that defines them, in the order of the sections."""
    import fstsim.theory

    groups: dict[str, list[str]] = {}
    for name in fstsim.theory.__all__:
        module = getattr(getattr(fstsim.theory, name), "__module__", "fstsim.theory") or "fstsim.theory"
        last = module.removeprefix("fstsim.theory").removeprefix(".").split(".")[0] or "tables"
        groups.setdefault(last, []).append(name)
    return groups


def rooms() -> tuple[Room, ...]:
    """All pages of public names."""
    import fstsim
    import fstsim.llm
    import fstsim.testing

    own = sorted((name for name in fstsim.__all__ if name != "__version__"), key=str.lower)
    tools = [
        name
        for name, thing in vars(fstsim.testing).items()
        if getattr(thing, "__module__", "") == "fstsim.testing" and not name.startswith("_") and name != "Kind"
    ]
    return (
        Room("fstsim", "fstsim", "The simulator: problems, objectives, optimizers, runs.", {"Names": own}),
        Room("fstsim.testing", "fstsim.testing", "Strategies and checks for bounds and objectives of your own.", {"Names": tools}),
        Room("fstsim.theory", "fstsim.theory", "Numbers of the theory, by the file that defines them.", _theory_groups()),
        Room("fstsim.llm", "fstsim.llm", "The language-model laboratory.", {"Names": sorted(fstsim.llm.__all__, key=str.lower)}),
    )  # fmt: skip
