"""Memory by part: what a real training of a tiny model holds, byte by byte, and Qwen3-8B's published size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig
from tiny_trainers import fast_slow
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.errors import InputError
from fstsim.llm.trl.memory import Plan, count_weights, memory_of_gpu, memory_table
from fstsim.paper.records.many_gpus import QWEN3_8B

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet_trainers")]


@pytest.mark.parametrize("rank", [0, 2])
def test_weights_gradients_and_moments_are_those_of_a_training(
    rank: int, tmp_path: Path, make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model()
    adapter = LoraConfig(r=rank, target_modules="all-linear") if rank else None
    whole = sum(w.numel() for w in model.parameters())
    trainer = fast_slow(model, tokenizer, tmp_path, adapter=adapter, max_steps=1)
    trained = [w for w in trainer.model.parameters() if w.requires_grad]
    gradients: list[int] = []
    for w in trained:
        w.register_post_accumulate_grad_hook(lambda w: gradients.append(w.grad.nbytes))
    trainer.train()
    state = trainer.optimizer.optimizer.state
    moments = sum(held[name].nbytes for held in state.values() for name in ("exp_avg", "exp_avg_sq"))
    parts = memory_of_gpu(model.config, Plan(gpus=1, rank=rank))
    assert count_weights(model.config, rank) == (whole, sum(w.numel() for w in trained))
    assert parts["optimizer"] == moments > 0
    assert parts["gradients"] == sum(gradients)
    if rank:
        assert parts["adapter"] == sum(w.nbytes for w in trained)
        assert parts["weights"] == 2 * whole
    else:
        assert parts["weights"] == sum(w.nbytes for w in trained)
    assert "buckets" not in parts


def test_qwen3_8b() -> None:
    assert count_weights(QWEN3_8B) == (8_190_735_360, 8_190_735_360)
    assert memory_of_gpu(QWEN3_8B, Plan(zero=2))["optimizer"] == 12 * 8_190_735_360 / 8
    # 36 layers, keys and values of 8 heads of 128 numbers, 2 bytes each
    assert memory_of_gpu(QWEN3_8B, Plan(zero=1, rows=1, tokens=1))["cache"] == 36 * 2 * 8 * 128 * 2
    assert memory_table(QWEN3_8B, {"here": Plan(zero=1)}).splitlines()[2] == "| weights | 16.4 |"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"zero": 3}, "needs whole weights; got 3"),
        ({"rank": -1}, "rank must be at least 0, got -1"),
        ({"rank": 8, "zero": 2}, "got 8 and 2"),
        ({"rows": 0}, "rows must be at least 1, got 0"),
    ],
)
def test_plans_that_cannot_be(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Plan(**wrong)
