"""The pretrained model of these tests, loaded once: nobody changes it."""

from __future__ import annotations

import pytest

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.pretrained import cached_path


@pytest.fixture(scope="session")
def smollm2() -> Policy:
    if not cached_path("smollm2").is_dir():
        pytest.skip("the pretrained model is not in the cache: run fstsim model smollm2")
    return Policy.load("smollm2")
