"""How many rollouts one measuring pass takes, so that its logits fit in memory."""

from __future__ import annotations

from fstsim.llm.policy.policy import Policy

_BLOCK = 256  # rollouts of one pass
_LOGITS = 1 << 25  # and logits: with large vocabularies fewer rollouts at a time


def block_size(policy: Policy, length: int) -> int:
    """Rollouts of one pass, for completions of ``length`` tokens."""
    return max(1, min(_BLOCK, _LOGITS // (length * policy.vocabulary)))
