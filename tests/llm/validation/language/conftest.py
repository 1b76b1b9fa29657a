"""The pretrained model of these tests."""

from __future__ import annotations

import pytest

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.pretrained import cached_path


@pytest.fixture(scope="module")
def smollm2() -> Policy:
    if not cached_path("smollm2").is_dir():
        pytest.skip("the pretrained model is not in the cache: run fstsim model smollm2")
    return Policy.load("smollm2")
