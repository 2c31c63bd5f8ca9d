"""Shapes that vLLM refuses, and those that it takes, by published models."""

from typing import Any

import pytest

from roles.models import catalog_config, parse_config, shape_problems, weights_per_gpu
from roles.models.weights import checkpoint_bytes
from tests.unit.models.published import published


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
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
        # A split encoder's feed-forward block: 3420 / 4 = 855, 3420 / 8 = 427.5.
        ("Qwen2.5-VL-3B-Instruct", (4,), {}, None),
        ("Qwen2.5-VL-3B-Instruct", (8,), {}, "the intermediate size 3420 of the vision encoder"),
        # 12 heads of an encoder that runs whole.
        ("gemma-4-E2B-it", (8,), {}, None),
        ("Kimi-K2.5", (32,), {}, "16 heads of the vision encoder"),
        ("Qwen2.5-72B-Instruct-AWQ", (8,), {}, None),
        ("Mixtral-8x7B-v0.1", (16,), {}, "16 GPUs are more than the 8 experts"),
    ],
)
def test_what_vllm_refuses(
    name: str, shape: tuple[int, ...], options: dict[str, Any], message: str | None
):
    problems = shape_problems(published(name), *shape, **options)
    assert any(message in problem for problem in problems) if message else problems == ()


def test_groups_of_a_quantised_checkpoint_are_not_cut():
    # 18944 / 8 = 2368 is no multiple of 128, 18944 / 4 = 4736 is.
    model = published("Qwen2.5-7B-Instruct", quantization="awq")
    assert shape_problems(model, 4) == ()
    assert any("groups of 128 do not divide" in problem for problem in shape_problems(model, 8))
    # 768 / 4 = 192: the experts of 30B-A3B in FP8 blocks.
    blocks = published("Qwen3-30B-A3B", quantization="fp8-block")
    assert shape_problems(blocks, 2) == ()
    assert shape_problems(blocks, 4) and not shape_problems(blocks, 4, expert_parallel=True)


INTERNVL3_78B = {
    "model_type": "internvl_chat",
    "architectures": ["InternVLChatModel"],
    "llm_config": catalog_config("Qwen/Qwen2.5-72B-Instruct"),
    "vision_config": {
        "model_type": "intern_vit_6b",
        "hidden_size": 3200,
        "intermediate_size": 12800,
        "num_attention_heads": 25,
        "num_hidden_layers": 45,
        "image_size": 448,
        "patch_size": 14,
    },
}


def test_attention_of_internvit_runs_whole_where_its_heads_do_not_divide():
    model = parse_config(INTERNVL3_78B)
    # As published: 78.4 billion parameters.
    assert checkpoint_bytes(model) / 2 == pytest.approx(78.4e9, rel=0.003)
    assert shape_problems(model, 4) == () and shape_problems(model, 8) == ()
    assert any("12800" in problem for problem in shape_problems(model, 3))
    # 45 layers of 4 x 3200 x 3200 numbers are not split.
    split = weights_per_gpu(model, 4)
    assert split - checkpoint_bytes(model) / 4 == pytest.approx(
        0.75 * 45 * 4 * 3200**2 * 2, rel=0.2
    )
