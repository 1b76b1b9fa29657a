"""Muon in float32: torch's own up to its bfloat16, its state, and orthogonal steps."""

from __future__ import annotations

import torch

from fstsim.llm.pretraining.muon import Float32Muon


def moved(kind: type[torch.optim.Muon], steps: int) -> list[torch.Tensor]:
    """What each weight moved by in ``steps`` steps on a loss that is far from its minimum."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (8, 8), (8, 24))]
    start = [w.detach().clone() for w in weights]
    optimizer = kind(weights, lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([(w @ w.T - torch.eye(len(w))).square().mean() for w in weights]).sum().backward()
        optimizer.step()
    assert all(set(optimizer.state[w]) == {"momentum_buffer"} for w in weights)
    return [w.detach() - before for w, before in zip(weights, start, strict=True)]


def test_it_is_torchs_muon_up_to_bfloat16() -> None:
    for steps in (1, 5):
        for ours, theirs in zip(moved(Float32Muon, steps), moved(torch.optim.Muon, steps), strict=True):
            assert float((ours - theirs).norm()) < 0.1 * float(theirs.norm())


def test_steps_are_nearly_orthogonal() -> None:
    weight = torch.nn.Parameter(torch.zeros(16, 48))
    optimizer = Float32Muon([weight], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    weight.grad = torch.randn(16, 48, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    values = torch.linalg.svdvals(weight.detach()) / (0.2 * 48**0.5)
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.5
