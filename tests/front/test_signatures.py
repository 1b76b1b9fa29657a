"""No public function or method takes more than seven parameters: what belongs together travels as one object."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 7
CONTRACT = {
    # names of the theory's document that others call as they stand there
    "simulate_forward_kl",
    "simulate_reverse_kl",
    "simulate_fast_slow",
    "task_sequence",
}


def signatures(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Public functions and methods, ``__init__`` too, by dotted name, with their number of parameters; none inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from signatures(node, f"{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            a = node.args
            names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
            if not node.name.startswith("_") or node.name == "__init__":
                yield prefix + node.name, len(names) - (names[:1] in (["self"], ["cls"]))


def test_public_signatures_are_short() -> None:
    files = [path for room in ("fstsim", "theory", "llm", "paper") for path in (ROOT / room).rglob("*.py")]
    found = {
        name: f"{path.relative_to(ROOT)}: {name} takes {count}"
        for path in files
        for name, count in signatures(ast.parse(path.read_text(encoding="utf-8")))
        if count > MOST
    }
    assert set(found) == CONTRACT, sorted(found.values())


def test_parameters_are_counted() -> None:
    source = "def f(a, /, b, *c, d=1, **e): ...\nclass A:\n    def g(self, x): ...\n    def _h(self, x, y): ...\n"
    assert dict(signatures(ast.parse(source))) == {"f": 3, "A.g": 1}
