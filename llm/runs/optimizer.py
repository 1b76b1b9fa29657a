r"""The optimizer of a run: which one, its settings, the learning rate of every step; and AdamW with moments in bfloat16.

The learning rate of a step is a pure function of its number, so that a continued run takes the steps of an uninterrupted
one. Beside float32 weights, AdamW holds two float32 moments (twice the weights), `AdamWHalfMoments` two in bfloat16 (once),
SGD none, or one with momentum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch.optim import SGD, AdamW, Optimizer

from fstsim.errors import InputError
from fstsim.settings import check_types

Kind = Literal["adamw", "adamw-bf16-moments", "sgd"]
Rates = Literal["constant", "linear", "cosine"]

_LARGE = 1 << 24  # weights
_AT_ONCE = 1 << 20  # parameters that `AdamWHalfMoments` holds in float32 at a time


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become steps; the learning rate and the largest gradient norm are the run's own ``lr`` and ``clip``."""

    kind: Kind = field(default="adamw", metadata={"flag": "optimizer"})
    """adamw: moments in float32, twice the memory of the weights; adamw-bf16-moments: in bfloat16, once; sgd: none"""
    weight_decay: float = 0.0
    """share of every weight that a step takes away, times the learning rate; with sgd part of the gradient"""
    momentum: float = 0.0
    """share of the last step that is made again (sgd), at least 0 and below 1"""
    warmup: int = 0
    """first slow steps of a run, below the full learning rate and rising by equal amounts"""
    schedule: Rates = "constant"
    """learning rate after the warm-up: constant, or linear or cosine to 0 behind the last step of the run"""
    beta1: float = 0.9
    """decay of the mean of gradients (AdamW), at least 0 and below 1"""
    beta2: float = 0.999
    """decay of the mean of squared gradients (AdamW), at least 0 and below 1"""
    epsilon: float = 1e-8
    """added to the root of the mean of squared gradients (AdamW), above 0"""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", get_args(Kind)), ("schedule", get_args(Rates))):
            if getattr(self, name) not in allowed:
                what = "optimizer" if name == "kind" else name
                raise InputError(f"{what} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        check_types(self)
        if not 0.0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be nonnegative and finite, got {self.weight_decay}")
        for name in ("momentum", "beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if not 0.0 < self.epsilon < math.inf:
            raise InputError(f"epsilon must be positive and finite, got {self.epsilon}")
        if self.warmup < 0:
            raise InputError(f"warmup must be at least 0, got {self.warmup}")
        if self.kind != "sgd" and self.momentum > 0.0:
            raise InputError(f"momentum is used by optimizer sgd only; optimizer is {self.kind}")
        if self.kind == "sgd" and (self.beta1, self.beta2, self.epsilon) != (0.9, 0.999, 1e-8):
            raise InputError("beta1, beta2 and epsilon are used by AdamW only; optimizer is sgd")

    @property
    def moments(self) -> float:
        """Bytes that the optimizer holds for every weight."""
        return {"adamw": 8.0, "adamw-bf16-moments": 4.0, "sgd": 4.0 if self.momentum else 0.0}[self.kind]

    def rate(self, lr: float, step: int, steps: int) -> float:
        r"""Learning rate of slow step number ``step`` (from 0) of ``steps``: ``lr`` times the warm-up and the schedule.

        \((k + 1)/(W + 1)\) for step k of the first W; after them with \(u = (k - W)/(K - W)\) 1, \(1 - u\) or
        \((1 + \cos \pi u)/2\). Nothing but these numbers decides it.
        """
        if step < self.warmup:
            return lr * (step + 1) / (self.warmup + 1)
        if self.schedule == "constant":
            return lr
        done = (step - self.warmup) / (steps - self.warmup)
        return lr * (1.0 - done if self.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done)))

    def check(self, steps: int) -> None:
        """InputError unless a run of ``steps`` slow steps gets beyond the warm-up."""
        if self.warmup >= steps:
            raise InputError(f"warmup must be below the {steps} slow steps of the run, got {self.warmup}")

    def build(self, parameters: Iterable[torch.nn.Parameter], lr: float, seed: int = 0) -> Optimizer:
        """The optimizer of ``parameters``; ``seed`` is of what it rounds at random."""
        held = list(parameters)
        if self.kind == "sgd":
            return SGD(held, lr=lr, momentum=self.momentum, weight_decay=self.weight_decay)
        betas = (self.beta1, self.beta2)
        if self.kind == "adamw-bf16-moments":
            return AdamWHalfMoments(held, lr, betas, self.epsilon, self.weight_decay, seed=seed)
        # one pass over the weights in place of seven; not for small models on the CPU, whose recorded runs go on bit for bit
        fused = any(p.device.type != "cpu" for p in held) or sum(p.numel() for p in held) > _LARGE
        return AdamW(held, lr=lr, betas=betas, eps=self.epsilon, weight_decay=self.weight_decay, fused=fused)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Let the next step of ``optimizer`` have the learning rate ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class AdamWHalfMoments(Optimizer):
    r"""AdamW whose two moments are stored in bfloat16, rounded at random to one of their neighbours without bias.

    Rounding to the nearest would not do: with beta2 = 0.999 a squared gradient changes the second moment by a thousandth
    of its difference, and neighbours in bfloat16 are up to 1/128 apart, so that a moment once too large would never
    come down. With \(E[\mathrm{round}(x)] = x\) the stored moments have the means of exact ones. Every rounding of the second
    moment adds a relative error of standard deviation at most \(2^{-8}\), and the recursion averages over
    \(1/(1 - \beta_2^2)\) of them: below 9 % of the moment, 4.4 % of the step, at beta2 = 0.999; typically 2 to 3 % of the step.
    (Errors could be kept instead of averaged, in a third bfloat16 number a weight: half the saving would be lost.)

    Arithmetic is float32. The random bits of a step depend on the seed, the number of the step and that of the parameter alone,
    so that a continued run rounds as an uninterrupted one.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "seed": seed % 2**31}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step with the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for number, weight in enumerate(group["params"]):
                if weight.grad is not None:
                    self._step(group, number, weight)
        return loss

    def _step(self, group: dict[str, Any], number: int, weight: torch.Tensor) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(weight, dtype=torch.bfloat16, memory_format=torch.contiguous_format)
        state["step"] += 1
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        generator = torch.Generator(weight.device).manual_seed(_mixed(group["seed"], step, number))
        size, root = group["lr"] / (1.0 - beta1**step), math.sqrt(1.0 - beta2**step)
        flat, gradient = weight.view(-1), weight.grad.reshape(-1)  # type: ignore[union-attr]  # asked by step
        first, second = state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1)
        for start in range(0, len(flat), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            g, w = gradient[part].float(), flat[part]
            m = first[part].float().lerp_(g, 1.0 - beta1)
            v = second[part].float().mul_(beta2).addcmul_(g, g, value=1.0 - beta2)
            if group["weight_decay"]:
                w.mul_(1.0 - group["lr"] * group["weight_decay"])
            w.addcdiv_(m, v.sqrt().div_(root).add_(group["eps"]), value=-size)
            bits = torch.empty(len(g), dtype=torch.int32, device=g.device).random_(generator=generator)
            first[part] = _rounded(m, bits & 0xFFFF)
            second[part] = _rounded(v, (bits >> 15) & 0xFFFF)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer does; moments stay in bfloat16 (torch would give them the weights' type)."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].to(torch.bfloat16)


def _mixed(seed: int, step: int, number: int) -> int:
    """One seed from three numbers, another one for others."""
    mixed = seed
    for value in (step, number):
        mixed = ((mixed ^ value) * 0x9E3779B97F4A7C15 + 0x7F4A7C15) % 2**63
    return mixed


def _rounded(values: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Float32 ``values`` in bfloat16, up or down in size by chance: ``bits`` are 16 random ones each. Changes ``values``.

    A bfloat16 number is the upper half of a float32 one: what the lower half and the bits carry over decides.
    """
    raw = values.view(torch.int32).add_(bits.to(torch.int32)).bitwise_and_(-65536)
    return raw.view(torch.float32).to(torch.bfloat16)
