r"""Which case to read: \(Q(s, c)\), the probability that the plan of case c succeeds on a problem with state s, by a two-layer network."""

from __future__ import annotations

import torch

HIDDEN = 64


class Router(torch.nn.Module):
    r"""\(Q = \sigma(w \cdot \mathrm{relu}(A s + B c + b) + d)\): one hidden layer over the state and the case beside each other.

    ``width`` numbers in a state, ``case`` in a case; ``seed`` draws the initial weights. The last layer begins at 0, so that
    an untrained router says 1/2 of every case: softmax reading is then uniform.
    """

    def __init__(self, width: int, case: int, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        scale = (width + case) ** -0.5

        def normal(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(*shape, generator=draw) * scale)

        self.of_state, self.of_case = normal(width, HIDDEN), normal(case, HIDDEN)
        self.hidden = torch.nn.Parameter(torch.zeros(HIDDEN))
        self.last = torch.nn.Parameter(torch.zeros(HIDDEN))
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def table(self, states: torch.Tensor, cases: torch.Tensor) -> torch.Tensor:
        """Log-odds of success ``(B, C)`` of every case on every state."""
        hidden = (states @ self.of_state)[:, None] + (cases @ self.of_case)[None] + self.hidden
        return torch.relu(hidden) @ self.last + self.bias

    def pairs(self, states: torch.Tensor, cases: torch.Tensor) -> torch.Tensor:
        """Log-odds of success ``(B,)`` of case b on state b."""
        return torch.relu(states @ self.of_state + cases @ self.of_case + self.hidden) @ self.last + self.bias
