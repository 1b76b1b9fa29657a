"""Tools of the random instances: what exact side and bound share is worked out once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fstsim.theory.statements.instances import once

Array = NDArray[np.float64]


def test_the_same_numbers_are_worked_out_once_and_others_anew() -> None:
    calls = []

    @once
    def added(x: Array, y: Array) -> Array:
        calls.append(x.shape)
        return x + y.sum(axis=-1)

    x, y = np.arange(3.0), np.ones((3, 2))
    assert added(x, y).tolist() == [2.0, 3.0, 4.0]
    assert added(x.copy(), y.copy()).tolist() == [2.0, 3.0, 4.0]
    assert calls == [(3,)]
    x[0] = 5.0  # written into: other numbers, although the same array
    assert added(x, y)[0] == 7.0
    assert len(calls) == 2
