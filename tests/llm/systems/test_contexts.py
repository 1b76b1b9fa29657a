"""Mixtures of contexts in blocks: more rows than one pass takes give what each problem alone gives."""

from __future__ import annotations

import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import token_logprobs
from fstsim.llm.systems.contexts import Mixed, mixture_logits, sample_mixture
from fstsim.llm.systems.system import Asked
from fstsim.llm.tasks.parse import parse_task

CONTEXTS, MASSES = ["rotate", "sort"], [0.75, 0.25]


def test_blocks_of_short_and_of_long_completions() -> None:
    """300 rows of short problems, then 10 of long ones: the blocks of 256 rows are not of one width."""
    base = Policy.load()
    short, long = (list(parse_task(name).problems("test")) for name in ("star_graph:cross", "strings:rotate"))
    problems = [*(short * 150)[:150], *long[:5]]
    asked: list[Asked] = [("", problem) for problem in problems]
    mixed = Mixed([CONTEXTS] * len(asked), [MASSES] * len(asked))
    wrote = sample_mixture(base, asked, mixed, torch.Generator().manual_seed(0), max_new_tokens=8)
    assert len(set(wrote.mask.sum(1).tolist())) > 1
    for k in (0, 127, 128, 149, 150, 154):
        alone = wrote.take(torch.tensor([k]))
        logits = mixture_logits(base, asked[k : k + 1], Mixed([CONTEXTS], [MASSES]), alone)
        expected = token_logprobs(logits, alone)[0]
        torch.testing.assert_close(wrote.logprobs[k, : len(expected)], expected, rtol=1e-4, atol=1e-4)
        assert not wrote.logprobs[k, len(expected) :].any()
