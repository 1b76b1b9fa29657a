"""Next-token distributions along completions, each distinct one once: what is computed from them costs a row of the vocabulary each.

Rollouts of one prompt begin alike, and so do many of their tokens' distributions. Log-probabilities, entropies and KL are
those of the distinct ones, handed out to the tokens afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fstsim.llm.policy.divergence import inside, token_entropy, token_kl
from fstsim.llm.policy.rollouts import Rollouts


class _Chosen(torch.autograd.Function):
    """Log-probability of ``token (B, T)`` in the distribution ``which (B, T)`` of ``logits (n, V)``.

    Its gradient is one tensor of the size of the logits, written once: softmax times what flows back, less that at the tokens.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, which: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        total = torch.logsumexp(logits, -1)
        ctx.save_for_backward(logits, total, which, token)
        return logits[which, token] - total[which]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, total, which, token = ctx.saved_tensors
        (grad,) = grads
        flowing = torch.zeros_like(total).index_add_(0, which.flatten(), grad.flatten())
        slope = (logits - total[:, None]).exp_().mul_(-flowing[:, None])
        slope.index_put_((which, token), grad, accumulate=True)
        return slope, None, None


@dataclass(frozen=True)
class NextTokens:
    """``logits (n, V)`` of distinct distributions, float32, over temperature; ``which (B, T)`` is that of each token of the completions.

    Beyond the mask ``which`` names any of them.
    """

    logits: torch.Tensor
    which: torch.Tensor

    @classmethod
    def apart(cls, logits: torch.Tensor) -> NextTokens:
        """Of ``logits (B, T, V)``, each token with its own."""
        rows, length, _ = logits.shape
        return cls(logits.flatten(0, 1), torch.arange(rows * length, device=logits.device).view(rows, length))

    def whole(self) -> torch.Tensor:
        """Logits ``(B, T, V)``, one distribution a token."""
        if len(self.logits) == self.which.numel() and bool((self.which.flatten().diff() == 1).all()):
            return self.logits.view(*self.which.shape, -1)
        return self.logits[self.which]

    def logprobs(self, rollouts: Rollouts) -> torch.Tensor:
        """Log-probabilities ``(B, T)``, nats, of the completions' tokens; 0 outside the mask."""
        chosen: torch.Tensor = _Chosen.apply(self.logits, self.which, rollouts.completions)  # type: ignore[no-untyped-call]
        return inside(chosen, rollouts.mask)

    def entropy(self) -> torch.Tensor:
        """Entropy ``(B, T)``, nats."""
        return token_entropy(self.logits)[self.which]

    def kl(self, other: NextTokens, mask: torch.Tensor) -> torch.Tensor:
        """KL to ``other``, of the same completions, on their ``mask (B, T)``, nats: exact, over the whole vocabulary."""
        if len(self.logits) < self.which.numel() and torch.equal(self.which, other.which):
            return inside(token_kl(self.logits, other.logits)[self.which], mask)
        kept = mask[..., None]  # whatever a model writes at places that are no answer
        return inside(token_kl(inside(self.whole(), kept), inside(other.whole(), kept)), mask)
