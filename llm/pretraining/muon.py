"""Muon with its Newton-Schulz iteration in float32: on processors without bfloat16 torch's takes nine times as long."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


class Float32Muon(torch.optim.Muon):
    r"""`torch.optim.Muon`, orthogonalised in float32, all matrices of one shape at once; the learning rate matches AdamW's RMS.

    \(X \leftarrow aX + (bA + cA^2)X\), \(A = XX^\top\), from \(X = U/\lVert U\rVert\), U the Nesterov momentum. State and settings are
    torch's. Source: Muon (Jordan et al., 2024).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # no closure here
        """One update of all matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, parameters in shapes.items():
                updates = torch.stack([self._momentum(p, group) for p in parameters])
                turned = shape[0] > shape[1]
                steps = _orthogonal(updates.mT if turned else updates, group)
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                for p, step in zip(parameters, steps.mT if turned else steps, strict=True):
                    p.mul_(1.0 - group["lr"] * group["weight_decay"])
                    p.add_(step, alpha=-rate)

    def _momentum(self, p: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        held: torch.Tensor = state["momentum_buffer"]
        assert p.grad is not None
        held.lerp_(p.grad, 1.0 - group["momentum"])
        return p.grad.lerp(held, group["momentum"]) if group["nesterov"] else held


def _orthogonal(x: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """Newton-Schulz iterations on matrices ``(n, rows, columns)``, rows not above columns."""
    a, b, c = group["ns_coefficients"]
    x = x / x.flatten(1).norm(dim=1).clamp(min=group["eps"])[:, None, None]
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
