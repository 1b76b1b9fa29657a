"""What a configuration means to TRL, and what a user may add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.trl.arguments import check_shares, rows_of_a_pass, timeout_of, trainer_arguments, user_arguments

pytestmark = pytest.mark.filterwarnings("ignore")


def config(*told: str, **learner: Any) -> TrainConfig:
    return TrainConfig(learner=PolicyGradient(**{"problems": 6, "rollouts": 4, **learner}), engine="trl", trl=told)


def test_values_are_python_s() -> None:
    told = (
        "use_vllm=true",
        "vllm_mode=colocate",
        "vllm_gpu_memory_utilization=0.4",
        "deepspeed={'zero_optimization': {'stage': 2}}",
    )
    assert user_arguments(config(*told)) == {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.4,
        "deepspeed": {"zero_optimization": {"stage": 2}},
    }
    assert timeout_of(config("ddp_timeout=60")) == 60


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("use_vllm", "KEY=VALUE"),
        ("use_vlm=true", "--trl use_vlm=true: taken are"),
        ("max_steps=3", "how TRL computes, not what"),
        ("weight_decay=0.1", "how TRL computes, not what"),
        ("per_device_train_batch_size=0", "at least 1, got 0"),
        ("ddp_timeout=soon", "ddp_timeout must be seconds"),
    ],
)
def test_mistakes(told: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        user_arguments(config(told))


def test_a_step_is_shared_equally() -> None:
    assert check_shares(config(), 3) == 8
    with pytest.raises(InputError, match="6 problems x 4 rollouts = 24 cannot be shared equally by 5 processes"):
        check_shares(config(), 5)
    with pytest.raises(InputError, match="must divide the 12 rollouts of a step on each process"):
        check_shares(config("per_device_train_batch_size=5"), 2)


def test_passes_are_equal_and_hold_no_more_than_fits() -> None:
    assert rows_of_a_pass(config(), 2, width=100) == 12
    assert rows_of_a_pass(config("per_device_train_batch_size=3"), 2, width=100) == 3
    long = config(max_new_tokens=16_000)  # four rows of 16,384 tokens fit, but 12 rows are parts of 4, 3, 2 or 1
    assert rows_of_a_pass(long, 2, width=384) == 4
    assert rows_of_a_pass(config(max_new_tokens=100_000), 1, width=1) == 1


def test_the_trainer_s_arguments(tmp_path: Path) -> None:
    given = trainer_arguments(
        config("dataloader_num_workers=1", ratio_cap=3.0, updates=2, temperature=0.7), tmp_path, 1, 8
    )
    assert (given.loss_type, given.epsilon_high, given.num_iterations, given.temperature) == ("cispo", 3.0, 2, 0.7)
    assert (given.per_device_train_batch_size, given.gradient_accumulation_steps) == (8, 3)
    assert given.generation_batch_size == 24
    assert given.max_steps == 2 * TrainConfig().steps
    assert given.dataloader_num_workers == 1
    with pytest.raises(InputError, match=r"TRL refuses its arguments: .*vllm_importance_sampling_clip_min"):
        trainer_arguments(config("vllm_importance_sampling_clip_min=9"), tmp_path, 1, 24)
    assert list(tmp_path.iterdir()) == []
