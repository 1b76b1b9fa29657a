"""Small tools for the sympy derivations.

`sympy.simplify` does not close identities with nested exponentials and logarithms. The honest fallback is to evaluate
the difference of the two sides at rational points to 30 digits: that is evidence, not a proof, and `Derivation.method`
says which of the two it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from fstsim.theory.statements.statement import Derivation

_DIGITS = 40
_ZERO = sp.Float("1e-30")


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))`` as a sympy expression."""
    return 1 / (1 + sp.exp(-x))


def softplus(x: Any) -> Any:
    """``log(1 + exp(x))`` as a sympy expression."""
    return sp.log(1 + sp.exp(x))


def vanishes(difference: Any) -> bool:
    """Whether sympy reduces ``difference`` to zero (rational in exponentials, or after simplification)."""
    rational = sp.cancel(sp.together(sp.expand(difference.rewrite(sp.exp))))
    if rational == 0:
        return True
    return bool(sp.simplify(difference) == 0)


def vanishes_at(difference: Any, points: Sequence[Mapping[Any, Any]]) -> bool:
    """Whether ``difference`` is zero to 30 digits at every rational point."""
    return all(abs(sp.N(difference.subs(dict(point)), _DIGITS)) < _ZERO for point in points)


def symbolic(claims: Sequence[str], differences: Sequence[Any]) -> Derivation:
    """Derivation whose differences must all simplify to zero."""
    return Derivation(tuple(claims), all(vanishes(d) for d in differences), "symbolic")


def numeric(claims: Sequence[str], checks: Sequence[bool]) -> Derivation:
    """Derivation whose checks were evaluated to 30 digits at rational points."""
    return Derivation(tuple(claims), all(checks), "numeric")


def nothing(*claims: str) -> Derivation:
    """A statement that sympy cannot carry: its proof is an inequality or a probabilistic argument in prose."""
    return Derivation(claims, False, "none")
