"""What a statement of the theory is, in a form that a machine can try to break."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sample = dict[str, Array]
Bounds = tuple[Array | None, Array | None]

Status = Literal["T", "A", "N"]
STATUS_NAMES: dict[str, str] = {"T": "proved", "A": "asymptotic", "N": "numeric only"}


@dataclass(frozen=True)
class Derivation:
    """Result of a symbolic derivation: what was derived and whether sympy confirmed every step.

    ``method`` says how: ``symbolic`` (the difference simplifies to zero), ``numeric`` (zero to 30 digits at rational
    points, where no simplifier closes it) or ``none`` (the statement is an inequality or a probabilistic argument
    that sympy cannot carry; nothing was proved by it).
    """

    claims: tuple[str, ...]
    proved: bool
    method: Literal["symbolic", "numeric", "none"]


@dataclass(frozen=True)
class Statement:
    r"""One statement: symbolic derivation, exact value, bounds, and random instances to look for a violation on.

    - ``sample(rng, n)`` draws ``n`` instances that satisfy the hypotheses: a dict of arrays whose first axis is ``n``.
    - ``exact(**instances)`` is the quantity that the statement is about, ``(n,)``; nan marks an instance about which
      it says nothing (say, without a certificate).
    - ``bound(**instances)`` is ``(lower, upper)``, each ``(n,)`` or None. ``kind = "identity"`` gives the same value
      by an independent route in both; ``kind = "approximation"`` gives the leading-order value in both, and then
      nothing can be violated: the deviation is reported.
    - ``tolerance`` is the relative error of the numerics (never slack for the claim).
    - ``max_examples`` caps a check whose instances each need an accurate flow of their own; the table shows the number.
    - ``status`` is T (proved), A (asymptotic) or N (numeric only), shown wherever a reader meets the statement.
    - ``test`` names the test file that goes with it; a figure says itself which statements it shows.
    """

    slug: str
    title: str
    status: Status
    kind: Literal["bound", "identity", "approximation"]
    hypotheses: str
    latex: str
    derive: Callable[[], Derivation]
    sample: Callable[[np.random.Generator, int], Sample]
    exact: Callable[..., Array]
    bound: Callable[..., Bounds]
    source: str = "arXiv 2603.12163 (setting); own derivation"
    test: str = ""
    tolerance: float = 1e-10
    max_examples: int | None = None
