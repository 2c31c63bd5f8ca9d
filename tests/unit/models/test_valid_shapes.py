"""Shapes that vLLM refuses, and those that it takes, by published models."""

from typing import Any

import pytest

from roles.models import shape_problems
from tests.unit.models.published import published


@pytest.mark.parametrize(
    ("name", "shape", "options", "said"),
    [
        ("Qwen2.5-7B-Instruct", (4,), {}, None),
        ("Qwen2.5-7B-Instruct", (8,), {}, "28 attention heads do not divide by 8"),
        ("Qwen2.5-7B-Instruct", (7,), {}, "4 KV heads and 7 GPUs do not divide each other"),
        # vLLM's own refusal in a log: "TP5 invalid: vocabulary not divisible".
        ("Qwen3-14B", (5,), {}, "the padded vocabulary of 151936 does not divide by 5"),
        ("Llama-3.1-70B-Instruct", (16,), {}, None),
        ("gpt-oss-120b", (8,), {}, None),
        ("gpt-oss-120b", (16,), {}, "8 KV heads allow at most 8 GPUs"),
        ("Qwen3-235B-A22B-FP8", (4,), {}, None),
        ("Qwen3-235B-A22B-FP8", (8,), {}, "FP8 blocks of 128 do not divide the 1536"),
        ("Qwen3-235B-A22B-FP8", (8,), {"expert_parallel": True}, None),
        ("Qwen3-235B-A22B-FP8", (2,), {"data_parallel_size": 4}, "over 8 GPUs; expert parallel"),
        ("Llama-3.1-8B-Instruct", (1,), {"expert_parallel": True}, "this one is dense"),
        ("Llama-3.1-8B-Instruct", (1, 33), {}, "32 layers are fewer than 33 stages"),
        ("Llama-3.1-8B-Instruct", (1, 32), {}, None),
        ("DeepSeek-V3", (16,), {}, None),
        ("DeepSeek-V3", (32,), {}, "FP8 blocks"),
        ("Qwen3.5-35B-A3B", (8,), {}, None),
        ("Qwen3.5-35B-A3B", (32,), {}, "16 key heads of the linear attention do not divide by 32"),
        ("Qwen3.5-35B-A3B", (32,), {}, "vision encoder do not divide by 32"),
        ("Qwen2.5-72B-Instruct-AWQ", (8,), {}, None),
        ("Mixtral-8x7B-v0.1", (16,), {}, "16 GPUs are more than the 8 experts"),
    ],
)
def test_what_vllm_refuses(
    name: str, shape: tuple[int, ...], options: dict[str, Any], said: str | None
):
    problems = shape_problems(published(name), *shape, **options)
    assert any(said in problem for problem in problems) if said else problems == ()


def test_groups_of_a_quantised_checkpoint_are_not_cut():
    # 18944 / 8 = 2368 is no multiple of 128, 18944 / 4 = 4736 is.
    model = published("Qwen2.5-7B-Instruct", quantization="awq")
    assert shape_problems(model, 4) == ()
    assert any("groups of 128 do not divide" in problem for problem in shape_problems(model, 8))
    # 768 / 4 = 192: the experts of 30B-A3B in FP8 blocks.
    blocks = published("Qwen3-30B-A3B", quantization="fp8-block")
    assert shape_problems(blocks, 2) == ()
    assert shape_problems(blocks, 4) and not shape_problems(blocks, 4, expert_parallel=True)
